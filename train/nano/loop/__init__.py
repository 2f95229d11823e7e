"""The training loop of the bundled model's two recipes: batches from pooled clips, steps, checkpoints, log."""
