"""Loading, saving and converting checkpoints."""
