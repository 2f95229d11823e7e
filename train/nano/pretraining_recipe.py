"""Settings of the dense pre-training, checked once; `unipixel.train.recipe_files` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from unipixel.train.recipe import Precision, RunRecipe, Settings


@dataclass(frozen=True)
class PretrainingData(Settings):
    """What is drawn, and how it is batched.

    Attributes:
        clip_tasks: Weight of each synthetic task for conversations about clips.
        image_tasks: The same for single frames.
        clip_sizes: (height, width) in pixels of synthetic clips; one batch holds clips of one token grid.
        image_sizes: (height, width) in pixels of single frames.
        image_fraction: Fraction of the batches that are about single frames.
        num_frames: Frames of a clip.
        num_clips: Clips and single frames that are drawn at most, over all worker processes.
        initial_clips: Clips that each process draws from before the number grows.
        clips_per_bucket: By how many clips the number grows with each bucket of batches.
        bucket_batches: Batches of one grid that are drawn together and dealt out by length, so that little is padding.
        tokens_per_batch: Tokens of a batch, about.
        text_tokens: Tokens of a conversation's text, about; decides how many conversations a batch holds.
        min_conversations: Conversations of a batch at least.
        max_tokens: Longest conversation that is accepted.
        max_turns: Questions about one clip at most, where its task allows several.
        num_workers: Processes that draw conversations; 0 draws them in the training process, and every run with the
            same settings takes the same steps; None takes all CPU cores but two where there is a GPU, else 0.
        num_replayed: Batches that are kept to be used again while the workers have none ready; 0 waits for them.
    """

    clip_tasks: Mapping[str, float]
    image_tasks: Mapping[str, float]
    clip_sizes: tuple[tuple[int, int], ...]
    image_sizes: tuple[tuple[int, int], ...]
    image_fraction: float = 0.3
    num_frames: int = 8
    num_clips: int = 12_000
    initial_clips: int = 60
    clips_per_bucket: int = 10
    bucket_batches: int = 2
    tokens_per_batch: int = 160_000
    text_tokens: int = 330
    min_conversations: int = 8
    max_tokens: int = 1800
    max_turns: int = 5
    num_workers: int | None = None
    num_replayed: int = 500

    def __post_init__(self) -> None:
        for name in ("clip_tasks", "image_tasks"):
            weights = getattr(self, name)
            if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
                raise ValueError(f"[data] {name} needs weights that are not negative, got {dict(weights)}")
        for name in ("clip_sizes", "image_sizes"):
            sizes = getattr(self, name)
            if not sizes or any(len(size) != 2 or min(size) < 1 for size in sizes):
                raise ValueError(f"[data] {name} must be a list of [height, width], got {sizes}")
        if not 0 <= self.image_fraction <= 1:
            raise ValueError(f"[data] image_fraction must be in [0, 1], got {self.image_fraction}")
        counts = (
            "num_frames", "num_clips", "initial_clips", "bucket_batches", "tokens_per_batch", "text_tokens",
            "min_conversations", "max_tokens", "max_turns",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"[data] {name} must be at least 1, got {getattr(self, name)}")
        for name in ("num_workers", "num_replayed", "clips_per_bucket"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"[data] {name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class PretrainingSettings(Settings):
    """How long is trained, and how the steps are taken.

    Attributes:
        max_steps: Steps after which the run ends; None is no limit.
        max_seconds: Seconds of training after which the run ends, those before an interruption included; None is no
            limit. At least one of both is given; the learning rate follows the one that is nearer to its end.
        learning_rate: Peak rate of Muon, which moves the matrices of both transformers; AdamW, which moves the rest,
            takes half of it.
        warmup_steps: Steps over which the rate rises.
        decay_fraction: Last fraction of the run over which the rate falls to zero.
        weight_decay: Decay of matrices; vectors have none.
        max_gradient_norm: Largest norm of the gradient.
        precision: `bfloat16` multiplies matrices in bfloat16; weights are kept in float32.
        has_bfloat16_residual: Whether the states between layers are bfloat16 too.
        is_compiled: Whether the blocks of both transformers are compiled.
        save_every_seconds: Seconds between checkpoints.
        log_every: Steps between lines of the log.
    """

    max_steps: int | None = None
    max_seconds: float | None = None
    learning_rate: float = 3e-3
    warmup_steps: int = 150
    decay_fraction: float = 0.6
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    precision: Precision = "bfloat16"
    has_bfloat16_residual: bool = True
    is_compiled: bool = True
    save_every_seconds: float = 120.0
    log_every: int = 25

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError("[training] gives no end: set max_steps, max_seconds or both")
        for name in ("max_steps", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"[training] {name} must be at least 1, got {value}")
        for name in ("max_seconds", "learning_rate", "max_gradient_norm", "save_every_seconds"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"[training] {name} must be positive, got {value}")
        if not 0 < self.decay_fraction <= 1:
            raise ValueError(f"[training] decay_fraction must be in (0, 1], got {self.decay_fraction}")


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
