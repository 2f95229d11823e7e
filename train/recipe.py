"""Settings of a training run, read from TOML by `unipixel.train.recipe_files`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from unipixel.model.config import PoolWeighting

Stage = Literal["stage1", "stage2", "stage3", "finetune"]
Precision = Literal["float32", "bfloat16"]
LearningRateSchedule = Literal["cosine", "linear", "constant"]
OptimizerName = Literal["adamw", "muon"]
AnchorFrame = Literal["first", "visible"]


class Settings:
    """Base of the dataclasses that pydantic reads, without unknown keys or values of another type."""

    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid", "strict": True}


@dataclass(frozen=True)
class ModelRecipe(Settings):
    """Initial weights.

    Exactly one of `sizes`, `checkpoint` and `qwen` with `sam2` is given.

    Attributes:
        sizes: TOML file with the sizes of a model to initialise at random, relative to the recipe.
        tokenizer: Checkpoint whose tokenizer a model from `sizes` takes; None trains one on synthetic texts.
        checkpoint: Folder, bundled name or hub id of a UniPixel checkpoint.
        qwen: Qwen2.5-VL checkpoint.
        sam2: SAM 2.1 checkpoint.
        extra_checkpoints: Partial checkpoints of earlier stages, whose weights replace those above.
        segmenter: Folder of a trained segmenter, or of a whole model, whose segmenter replaces the one above.
        image_size: Side of the segmenter's input in pixels; None keeps that of the checkpoint.
        memory_pool_weighting: `uniform` or `coverage`, see `UniPixelConfig`; None keeps that of sizes or checkpoint.
        memory_position_embedding: Whether memory tokens have an embedding of their box and time, see `UniPixelConfig`;
            None keeps that of the sizes or checkpoint.
        max_tokens_per_frame: Most visual tokens of a frame of a clip; None keeps that of the sizes or checkpoint.
        freeze_prompt_encoder: Whether a segmenter's prompt encoder stays as it is: a language model that was trained
            with it writes its embeddings.
    """

    sizes: str | None = None
    tokenizer: str | None = None
    checkpoint: str | None = None
    qwen: str | None = None
    sam2: str | None = None
    extra_checkpoints: tuple[str, ...] = ()
    segmenter: str | None = None
    image_size: int | None = None
    memory_pool_weighting: PoolWeighting | None = None
    memory_position_embedding: bool | None = None
    max_tokens_per_frame: int | None = None
    freeze_prompt_encoder: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("sizes", "checkpoint", "qwen") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"[model] gives {given}: give one of sizes, checkpoint, and qwen with sam2")
        if (self.qwen is None) != (self.sam2 is None):
            raise ValueError("[model] qwen and sam2 belong together: give both or neither")


@dataclass(frozen=True)
class DataRecipe(Settings):
    """Training samples: published sets, a data set of your own, both, or synthetic clips.

    Attributes:
        tasks: Weight of each task among the micro batches, of `path` or of synthetic clips; a batch contains samples of
            one task.
        path: JSONL file of a data set.
        root: Folder of published data sets, of which `sets` are used; None uses none.
        sets: Weight of each published set, by its name in `unipixel data list`.
        cache: Folder of the indices of their annotations; None is `unipixel/annotations` in the user's cache folder.
        num_frames: Frames of a clip that the language model sees.
        num_mask_frames: Frames of a clip on which masks are trained; 0 trains none.
        render_size: Shorter side of synthetic frames in pixels.
        max_objects: Masks per sample that are trained, chosen at random.
        max_tokens: Longest sample; None is no limit.
        max_turns: Most questions about one synthetic clip, or expressions of one image, where several are possible.
        anchor_frame: Frame where a mask is first predicted. `first`: the clip's first frame, as in the paper;
            `visible`: the prompted frame or the first that shows the object, as in a session, then in either direction.
        single_frame_fraction: Fraction of the batches in which masks are trained on their anchor frame alone.
        max_invalid_fraction: Fraction of invalid samples above which training stops.
    """

    tasks: Mapping[str, float] = field(default_factory=dict)
    path: str | None = None
    root: str | None = None
    sets: Mapping[str, float] = field(default_factory=dict)
    cache: str | None = None
    num_frames: int = 8
    num_mask_frames: int = 4
    render_size: int = 160
    max_objects: int = 5
    max_tokens: int | None = None
    max_turns: int = 1
    anchor_frame: AnchorFrame = "first"
    single_frame_fraction: float = 0.0
    max_invalid_fraction: float = 0.01

    def __post_init__(self) -> None:
        if self.root is not None and not self.sets:
            raise ValueError("[data] root is given, but sets is empty: give a weight per published set")
        if self.root is None or self.path is not None:
            _check_weights("tasks", self.tasks)
        if self.sets:
            _check_weights("sets", self.sets)
        if self.num_mask_frames < 0:
            raise ValueError(f"[data] num_mask_frames must not be negative, got {self.num_mask_frames}")
        for name in ("num_frames", "render_size", "max_objects", "max_turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"[data] {name} must be at least 1, got {getattr(self, name)}")
        for name in ("single_frame_fraction", "max_invalid_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"[data] {name} must be in [0, 1], got {getattr(self, name)}")


def _check_weights(name: str, weights: Mapping[str, float]) -> None:
    if not weights:
        raise ValueError(f"[data] {name} is empty: give a weight per {name.removesuffix('s')}")
    if negative := {one: weight for one, weight in weights.items() if weight < 0}:
        raise ValueError(f"[data] the weights of {name} must not be negative, got {negative}")
    if sum(weights.values()) <= 0:
        raise ValueError(f"[data] the weights of {name} must have a positive sum")


@dataclass(frozen=True)
class TrainingRecipe(Settings):
    """Optimisation, checkpoints and logging.

    Attributes:
        max_steps: Optimiser steps.
        batch_size: Samples per device and micro batch.
        gradient_accumulation: Micro batches per optimiser step.
        learning_rate: Peak learning rate.
        sam2_learning_rate: Peak learning rate of SAM 2.1; None is `learning_rate`.
        learning_rate_schedule: Schedule of the learning rate after the warm-up.
        optimizer: `adamw`, or `muon` for the matrices of transformer blocks, with AdamW for the others.
        warmup_fraction: Fraction of the steps over which the learning rate rises.
        weight_decay: Weight decay of matrices; vectors have none.
        max_gradient_norm: Norm to which gradients are clipped.
        precision: Type of the computation; weights are stored in float32.
        gradient_checkpointing: Whether activations are recomputed to save memory.
        save_every: Steps between checkpoints.
        max_checkpoints: Number of checkpoints that are kept.
        log_every: Steps between lines of the log.
        validate_every: Steps between validations, each with metrics in the log and an image of predictions in
            `predictions/` of the output; None is never.
        num_validation_samples: Samples of a validation.
        num_workers: Processes that prepare samples; 0 prepares them in the training process.
        sharding: How several processes share the weights: `ddp` (each has all), `fsdp2`, `zero2`, `zero2_offload`
            or a JSON file, see `unipixel.train.sharding`.
    """

    max_steps: int
    batch_size: int = 1
    gradient_accumulation: int = 1
    learning_rate: float = 2e-5
    sam2_learning_rate: float | None = None
    learning_rate_schedule: LearningRateSchedule = "cosine"
    optimizer: OptimizerName = "adamw"
    warmup_fraction: float = 0.03
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    precision: Precision = "float32"
    gradient_checkpointing: bool = False
    save_every: int = 500
    max_checkpoints: int = 1
    log_every: int = 10
    validate_every: int | None = None
    num_validation_samples: int = 64
    num_workers: int = 0
    sharding: str = "ddp"

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "gradient_accumulation", "save_every", "max_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"[training] {name} must be at least 1, got {getattr(self, name)}")
        for name in ("validate_every", "num_validation_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"[training] {name} must be at least 1, got {value}")
        for name in ("weight_decay", "max_gradient_norm", "num_workers"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"[training] {name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"[training] learning_rate must be positive, got {self.learning_rate}")
        if self.sharding != "ddp":
            for name, is_set in (("optimizer muon", self.optimizer == "muon"), ("validate_every", self.validate_every)):
                if is_set:
                    raise ValueError(f"[training] {name} needs whole weights: set sharding ddp, got {self.sharding}")
        if not 0 <= self.warmup_fraction < 1:
            raise ValueError(f"[training] warmup_fraction must be in [0, 1), got {self.warmup_fraction}")


@dataclass(frozen=True)
class LossWeights(Settings):
    """Weights of the parts of the loss.

    Attributes:
        focal: Focal loss of the best candidate.
        dice: Dice loss of the best candidate.
        iou: Error of the predicted IoU, over all candidates.
        score: Cross-entropy of the object score.
        multimask_weight: Weight in [0, 1] of the mean over all candidates in the focal and dice loss; the best one has
            the rest. Without it, a randomly initialised model assigns each candidate to one object of the frame and
            does not learn to use the prompt.
        text: Mean cross-entropy of the tokens of answers.
        mask_loss_stride: Factor by which targets are reduced before they are compared; the comparison is a third of
            the time of a small segmenter.
    """

    focal: float = 100.0
    dice: float = 5.0
    iou: float = 5.0
    score: float = 5.0
    multimask_weight: float = 0.0
    text: float = 1.0
    mask_loss_stride: int = 1

    def __post_init__(self) -> None:
        for name in ("focal", "dice", "iou", "score", "text"):
            if getattr(self, name) < 0:
                raise ValueError(f"[losses] {name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.multimask_weight <= 1:
            raise ValueError(f"[losses] multimask_weight must be in [0, 1], got {self.multimask_weight}")
        if self.mask_loss_stride < 1:
            raise ValueError(f"[losses] mask_loss_stride must be at least 1, got {self.mask_loss_stride}")


@dataclass(frozen=True)
class LoraRecipe(Settings):
    """Low-rank updates of both transformers.

    Attributes:
        rank: Rank of an update.
        alpha: The update is scaled by alpha / rank.
        dropout: Dropout of an update's input.
    """

    rank: int = 128
    alpha: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 1:
            raise ValueError(f"[lora] rank and alpha must be at least 1, got {self.rank} and {self.alpha}")


@dataclass(frozen=True, kw_only=True)
class RunRecipe(Settings):
    """Settings that all training runs share.

    Attributes:
        output: Folder of checkpoints, logs and the result.
        model: Initial weights.
        seed: Seed of all random choices.
        folder: Folder of the recipe, to which `model.sizes` is relative.
    """

    output: str
    model: ModelRecipe
    seed: int = 42
    folder: str = "."

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")

    def sizes(self) -> dict[str, Any]:
        """Read the file of sizes.

        Raises:
            ValueError: The recipe gives none.
            OSError: The file cannot be read.
        """
        if self.model.sizes is None:
            raise ValueError("the recipe gives no [model] sizes")
        from unipixel.train.recipe_files import read_toml

        return read_toml(Path(self.folder) / self.model.sizes)


@dataclass(frozen=True, kw_only=True)
class Recipe(RunRecipe):
    """Settings of one of the paper's stages or of fine-tuning.

    Attributes:
        stage: What is trained; see `unipixel.train.parameter_groups`.
        data: Training samples.
        training: Optimisation, checkpoints and logging.
        losses: Weights of the loss.
        lora: Low-rank updates; None trains none.
    """

    stage: Stage
    data: DataRecipe
    training: TrainingRecipe
    losses: LossWeights = field(default_factory=LossWeights)
    lora: LoraRecipe | None = None
