"""User sessions of the demo: state, storage and background work."""
