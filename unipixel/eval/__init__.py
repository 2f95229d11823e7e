"""`python -m unipixel.eval`, for launchers of several processes: the same as `unipixel eval`."""
