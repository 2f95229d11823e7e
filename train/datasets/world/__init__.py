"""The drawn world: seeded clips with exact masks and language about them."""

from unipixel.train.datasets.world.samples import DEFAULT_MIXTURE, TASKS, Stream, generate
from unipixel.train.datasets.world.schema import Clip, Sample, Turn, VisualPrompt

__all__ = ["DEFAULT_MIXTURE", "TASKS", "Clip", "Sample", "Stream", "Turn", "VisualPrompt", "generate"]
