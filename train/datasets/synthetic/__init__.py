"""The drawn world: seeded clips with exact masks and language about them."""

from unipixel.train.datasets.samples import Clip, Sample, Turn, VisualPrompt
from unipixel.train.datasets.synthetic.sample_generation import DEFAULT_MIXTURE, TASKS, generate
from unipixel.train.datasets.synthetic.stream import Stream

__all__ = ["DEFAULT_MIXTURE", "TASKS", "Clip", "Sample", "Stream", "Turn", "VisualPrompt", "generate"]
