"""Sources of training and evaluation samples."""
