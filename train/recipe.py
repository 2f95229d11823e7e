"""What to train: the settings of a run, checked once. `unipixel.train.recipe_files` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from unipixel.train.losses import LossWeights

Stage = Literal["segmenter", "stage1", "stage2", "stage3", "tune"]
Precision = Literal["float32", "bfloat16"]
Schedule = Literal["cosine", "linear", "constant"]
Anchor = Literal["first", "visible"]


@dataclass(frozen=True)
class ModelRecipe:
    """Where the weights come from.

    Exactly one of `sizes`, `start` and `qwen` with `sam2` is given.

    Attributes:
        sizes: TOML file of sizes to build from nothing, relative to the recipe.
        tokenizer: Checkpoint whose tokenizer a model from nothing takes; None makes one from synthetic texts.
        start: Folder, bundled name or hub id of a UniPixel checkpoint.
        qwen: Qwen2.5-VL to start from.
        sam2: SAM 2.1 checkpoint to start from.
        partial: Checkpoints of earlier stages that are laid over the start.
        segmenter: Folder of a trained segmenter that replaces the start's, or a whole model whose segmenter is taken.
        image_size: Side of the segmenter's input in pixels; None is that of the start.
        freeze_prompt_encoder: Whether a segmenter's prompt encoder stays as it is: a language model that was trained
            with it writes its embeddings.
    """

    sizes: str | None = None
    tokenizer: str | None = None
    start: str | None = None
    qwen: str | None = None
    sam2: str | None = None
    partial: tuple[str, ...] = ()
    segmenter: str | None = None
    image_size: int | None = None
    freeze_prompt_encoder: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("sizes", "start", "qwen") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"[model] gives {given}: give one of sizes, start, and qwen with sam2")
        if (self.qwen is None) != (self.sam2 is None):
            raise ValueError("[model] qwen and sam2 belong together: give both or neither")


@dataclass(frozen=True)
class DataRecipe:
    """What is learned from.

    Attributes:
        tasks: Share of the micro batches by task; a batch holds samples of one task.
        path: JSONL file of the user's own data; None is the drawn world.
        num_frames: Frames of a clip that the language model sees.
        num_mask_frames: Frames of a clip on which masks are trained; 0 trains none.
        render_size: Shorter side of drawn frames in pixels.
        max_objects: Masks per sample that are trained, a random choice of them.
        max_tokens: Longest sample; None is no limit.
        max_turns: Questions about one drawn clip, where its task allows several.
        anchor: `first`: masks start on the clip's first frame, as in the paper; `visible`: where a session
            would start, on the prompted frame or the first that shows the object, in either direction.
        single_frame_fraction: Share of the batches in which only the first frame of each mask is trained.
        max_broken_share: Share of broken samples at which training stops.
    """

    tasks: Mapping[str, float] = field(default_factory=dict)
    path: str | None = None
    num_frames: int = 8
    num_mask_frames: int = 4
    render_size: int = 160
    max_objects: int = 5
    max_tokens: int | None = None
    max_turns: int = 1
    anchor: Anchor = "first"
    single_frame_fraction: float = 0.0
    max_broken_share: float = 0.01

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("[data] tasks is empty: give a share per task")
        if bad := {task: share for task, share in self.tasks.items() if share < 0}:
            raise ValueError(f"[data] shares must not be negative, got {bad}")
        if sum(self.tasks.values()) <= 0:
            raise ValueError("[data] shares add up to nothing")
        if self.num_mask_frames < 0:
            raise ValueError(f"[data] num_mask_frames must not be negative, got {self.num_mask_frames}")
        for name in ("num_frames", "render_size", "max_objects", "max_turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"[data] {name} must be at least 1, got {getattr(self, name)}")
        for name in ("single_frame_fraction", "max_broken_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"[data] {name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class LoopRecipe:
    """How the steps are taken.

    Attributes:
        max_steps: Optimiser steps.
        batch_size: Samples per device and micro batch.
        accumulation: Micro batches per optimiser step.
        learning_rate: Peak rate of everything that has no rate of its own.
        sam2_learning_rate: Peak rate of SAM 2.1; None is `learning_rate`.
        schedule: Course of the rate after the warm-up.
        warmup_share: Share of the steps over which the rate rises.
        weight_decay: Decay of matrices; vectors have none.
        clip_norm: Largest norm of the gradient.
        precision: Type of the computation; weights are kept in float32.
        gradient_checkpointing: Recompute activations to save memory.
        save_every: Steps between checkpoints.
        keep: Checkpoints that are kept.
        log_every: Steps between lines of the log.
        validate_every: Steps between validations, each with figures in the log and a page of predictions in
            `pictures/` of the output; None is never.
        num_validation: Samples of a validation.
        num_workers: Processes that prepare samples; 0 is the training process itself.
        deepspeed: DeepSpeed configuration file.
        fsdp: Options of FSDP, as transformers reads them.
    """

    max_steps: int
    batch_size: int = 1
    accumulation: int = 1
    learning_rate: float = 2e-5
    sam2_learning_rate: float | None = None
    schedule: Schedule = "cosine"
    warmup_share: float = 0.03
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    precision: Precision = "float32"
    gradient_checkpointing: bool = False
    save_every: int = 500
    keep: int = 1
    log_every: int = 10
    validate_every: int | None = None
    num_validation: int = 64
    num_workers: int = 0
    deepspeed: str | None = None
    fsdp: str | None = None

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "accumulation", "save_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"[loop] {name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"[loop] learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"[loop] warmup_share must be in [0, 1), got {self.warmup_share}")


@dataclass(frozen=True)
class LoraRecipe:
    """Low-rank updates of the two transformers (spec 2.6).

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
class RunRecipe:
    """What every training run is given.

    Attributes:
        output: Folder of checkpoints, logs and the result.
        model: Where the weights come from.
        seed: Seed of everything random.
        folder: Folder of the recipe; relative paths of sizes start there.
    """

    output: str
    model: ModelRecipe
    seed: int = 42
    folder: str = "."

    def sizes(self) -> dict[str, Any]:
        """Read the file of sizes.

        Raises:
            ValueError: The recipe names none.
            OSError: The file cannot be read.
        """
        if self.model.sizes is None:
            raise ValueError("the recipe gives no [model] sizes to build from nothing")
        from unipixel.train.recipe_files import read_toml

        return read_toml(Path(self.folder) / self.model.sizes)


@dataclass(frozen=True, kw_only=True)
class Recipe(RunRecipe):
    """One run of the paper's training, of low-rank tuning or of the segmenter's.

    Attributes:
        stage: What is trained and how; see `unipixel.train.build`.
        data: What is learned from.
        loop: How the steps are taken.
        losses: Weights of the mask loss.
        lora: Low-rank updates; None trains none.
    """

    stage: Stage
    data: DataRecipe
    loop: LoopRecipe
    losses: LossWeights = field(default_factory=LossWeights)
    lora: LoraRecipe | None = None

    def __post_init__(self) -> None:
        if self.stage not in get_args(Stage):
            raise ValueError(f"stage must be one of {get_args(Stage)}, got {self.stage!r}")
