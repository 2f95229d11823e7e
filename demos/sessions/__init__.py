"""User sessions of the demo server: state, storage, background work."""
