"""Seeded synthetic clips with exact masks, visual prompts and language about them."""

from unipixel.train.datasets.samples import Clip, PromptAnnotation, QuestionAnswer, Sample
from unipixel.train.datasets.synthetic.sample_generation import DEFAULT_MIXTURE, TASKS, generate

__all__ = ["DEFAULT_MIXTURE", "TASKS", "Clip", "PromptAnnotation", "QuestionAnswer", "Sample", "generate"]
