"""Settings of the dense pre-training, checked once; `unipixel.train.recipe_files` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from unipixel.train.nano.loop.loop_settings import LoopSettings, PoolSettings
from unipixel.train.recipe import RunRecipe, Settings


@dataclass(frozen=True, kw_only=True)
class PretrainingData(PoolSettings):
    """What is drawn, and how it is batched; a bucket's batches are dealt out by length, so that little is padding.

    Attributes:
        clip_tasks: Weight of each synthetic task for conversations about clips.
        image_tasks: The same for single frames.
        clip_sizes: (height, width) in pixels of synthetic clips; one batch holds clips of one token grid.
        image_sizes: (height, width) in pixels of single frames.
        image_fraction: Fraction of the batches that are about single frames.
        num_frames: Frames of a clip.
        tokens_per_batch: Tokens of a batch, about.
        text_tokens: Tokens of a conversation's text, about; decides how many conversations a batch holds.
        min_conversations: Conversations of a batch at least.
        max_tokens: Longest conversation that is accepted.
        max_turns: Questions about one clip at most, where its task allows several.
    """

    clip_tasks: Mapping[str, float]
    image_tasks: Mapping[str, float]
    clip_sizes: tuple[tuple[int, int], ...]
    image_sizes: tuple[tuple[int, int], ...]
    image_fraction: float = 0.3
    num_frames: int = 8
    tokens_per_batch: int = 160_000
    text_tokens: int = 330
    min_conversations: int = 8
    max_tokens: int = 1800
    max_turns: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_weights("clip_tasks", "image_tasks")
        for name in ("clip_sizes", "image_sizes"):
            sizes = getattr(self, name)
            if not sizes or any(len(size) != 2 or min(size) < 1 for size in sizes):
                raise ValueError(f"[data] {name} must be a list of [height, width], got {sizes}")
        if not 0 <= self.image_fraction <= 1:
            raise ValueError(f"[data] image_fraction must be in [0, 1], got {self.image_fraction}")
        self._check_positive(
            "num_frames", "tokens_per_batch", "text_tokens", "min_conversations", "max_tokens", "max_turns"
        )


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings(LoopSettings):
    """How long is trained, and how the steps are taken.

    Attributes:
        has_bfloat16_residual: Whether the states between layers are bfloat16 too.
    """

    has_bfloat16_residual: bool = True


@dataclass(frozen=True)
class PretrainingLossWeights(Settings):
    """Weights of the parts of the loss; see `unipixel.train.nano.auxiliary_heads`.

    Attributes:
        text: Cross-entropy of the tokens of answers.
        mask_tokens: Squared distance of mask tokens from SAM's embedding of the object's box.
        corners: Distance of the box that is read from the middle of the language model.
        pointing: Cross-entropy of the cells that the object of a `<|seg|>` covers.
        vision: What is read from pooled vision features.
        visual_tokens: What is read from visual tokens in the middle of the language model.
        memory: What is read from `<|mem|>` and `<|ref|>` in the middle of the language model.
        final_auxiliary_fraction: Fraction of the weights of corners, pointing, vision, visual_tokens and memory that
            is left at the end of the run.
    """

    text: float = 4.0
    mask_tokens: float = 6.0
    corners: float = 4.0
    pointing: float = 0.5
    vision: float = 0.5
    visual_tokens: float = 0.4
    memory: float = 0.4
    final_auxiliary_fraction: float = 0.3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise ValueError(f"[losses] {name} must not be negative, got {value}")


@dataclass(frozen=True, kw_only=True)
class PretrainingRecipe(RunRecipe):
    """One run of the dense pre-training.

    Attributes:
        stage: `pretrain`.
        data: What is learned from.
        training: How the steps are taken.
        losses: Weights of the parts of the loss.
    """

    stage: Literal["pretrain"] = "pretrain"
    data: PretrainingData
    training: PretrainingSettings
    losses: PretrainingLossWeights = field(default_factory=PretrainingLossWeights)
