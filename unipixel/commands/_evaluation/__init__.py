"""The parts of `unipixel eval`."""
