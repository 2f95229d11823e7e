"""Settings of a Pixel-SAIL training run, read from TOML by `unipixel.train.recipe_files`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from unipixel.sail.model_type import PromptEncoding, RotaryLayout
from unipixel.train.recipe import Precision, RunRecipe, Settings, TrainingRecipe

TeacherName = Literal["mask2former", "sam2"]


@dataclass(frozen=True)
class SailLossWeights(Settings):
    """Weights of the parts of the loss.

    Attributes:
        mask: Weight of the cross-entropy of masks.
        dice: Weight of their Dice loss.
        distillation: Weight of each distillation loss.
        object_words: Weight of the cross-entropy between the vocabulary scores of patches, and of the prompts of
            questions, and the words of their object; for drawn images only, whose words are known.
        text_beside_masks: Factor of the text loss of a sample whose mask loss is not zero; the published training has
            0.1, the paper does not mention it.
    """

    mask: float = 2.0
    dice: float = 0.5
    distillation: float = 0.5
    object_words: float = 0.0
    text_beside_masks: float = 0.1

    def __post_init__(self) -> None:
        for name in ("mask", "dice", "distillation", "object_words", "text_beside_masks"):
            if getattr(self, name) < 0:
                raise ValueError(f"[losses] {name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class SailModelRecipe(Settings):
    """Initial weights; exactly one of `sizes`, `checkpoint` and `base` is given.

    Attributes:
        sizes: TOML file with the sizes of a model to initialise at random, relative to the recipe.
        tokenizer: Checkpoint whose tokenizer a model from `sizes` takes; None learns one from texts about drawn images.
        checkpoint: Folder or hub id of a Pixel-SAIL checkpoint.
        base: Folder or hub id of a Qwen2.5 language model; everything else starts at random.
        mask_channels: Width of mask features, 512 as published; its ablations have 256.
        num_upsample_blocks: Doublings of the upsampler: 3 at patch 16 is a stride of 2 pixels, as published; 2 is that
            of 4, 0 has no upsampler.
        prompt_encoding: `injection` or `pooling`, see `PixelSailConfig`.
        rotary_layout: `split` or `interleaved`, see `PixelSailConfig`.
        max_side: Longer side of a resized image in pixels.
        attention: `sdpa` or `eager`, which on a CPU is faster for short sequences.

    The five before `attention` are of a new model, from `sizes` or `base`; None takes those of the sizes, or the
    published ones. Of a checkpoint only `max_side` can be changed, which no weight depends on.
    """

    sizes: str | None = None
    tokenizer: str | None = None
    checkpoint: str | None = None
    base: str | None = None
    mask_channels: int | None = None
    num_upsample_blocks: int | None = None
    prompt_encoding: PromptEncoding | None = None
    rotary_layout: RotaryLayout | None = None
    max_side: int | None = None
    attention: Literal["sdpa", "eager"] = "sdpa"

    def __post_init__(self) -> None:
        given = [name for name in ("sizes", "checkpoint", "base") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"[model] gives {given or 'nothing'}: give one of sizes, checkpoint and base")
        fixed = sorted(set(self.image_settings()) - {"max_side"})
        if self.checkpoint is not None and fixed:
            raise ValueError(f"[model] gives {fixed}, which a checkpoint has already: give them with sizes or base")

    def image_settings(self) -> dict[str, Any]:
        """Return the settings of a new model that are given, by their names in `PixelSailConfig`."""
        names = ("mask_channels", "num_upsample_blocks", "prompt_encoding", "rotary_layout", "max_side")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class SailDataRecipe(Settings):
    """Training samples: drawn images, or published sets.

    Attributes:
        tasks: Weight of each kind of turn about drawn images, see `SAIL_TASKS`.
        sizes: (height, width) of the drawn images in pixels.
        root: Folder of all published data sets.
        sets: Weight of each published set, by its name in `unipixel data list`.
        cache: Folder of the indices of their annotations; None is `unipixel/annotations` in the user's cache folder.
        missing_prompt_rate: Probability, before each turn about a region of a published set, of a turn about a prompt
            that marks nothing.
        max_turns: Turns about one image.
        max_tokens: Longest sequence; the end of a longer one is cut.
        num_points: Points at which masks are compared, 12,544 as published; None compares all pixels of the logits.
        max_invalid_fraction: Fraction of invalid samples above which training stops.
    """

    tasks: Mapping[str, float] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ()
    root: str | None = None
    sets: Mapping[str, float] = field(default_factory=dict)
    cache: str | None = None
    missing_prompt_rate: float = 0.05
    max_turns: int = 5
    max_tokens: int = 8192
    num_points: int | None = None
    max_invalid_fraction: float = 0.01

    def __post_init__(self) -> None:
        for name in ("max_turns", "max_tokens", "num_points"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"[data] {name} must be at least 1, got {value}")
        if bool(self.tasks) == bool(self.sets):
            raise ValueError("[data] gives tasks of drawn images or published sets: give one of tasks and sets")
        if self.tasks and not self.sizes:
            raise ValueError("[data] sizes is empty: give at least one (height, width)")
        weights = (self.tasks or self.sets).values()
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError("[data] weights must not be negative, and need a positive sum")
        for name in ("missing_prompt_rate", "max_invalid_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"[data] {name} must be in [0, 1], got {getattr(self, name)}")


@dataclass(frozen=True)
class DistillationRecipe(Settings):
    """Teachers of dense features; none by default.

    Attributes:
        teachers: Which are used: `mask2former` teaches the mask features, `sam2` the states of the patches.
        mask2former: Folder, hub id or `id@revision` of a Mask2Former with a Swin backbone, in the layout of
            transformers; by default the published teacher at the revision that has it as safetensors.
        sam2: Folder, bundled name or hub id of SAM 2.1, in the layout of transformers or in a UniPixel checkpoint.
        precision: Type in which teachers compute.
        cache: Folder of computed features; None computes each image again. In float16 an image has 2.1 MB of SAM 2.1,
            and up to 35 MB of Mask2Former.
        max_cache_gigabytes: Size of the folder above which no further features are stored.
    """

    teachers: tuple[TeacherName, ...] = ()
    mask2former: str = "facebook/mask2former-swin-large-coco-panoptic@a4edee47b1b2662241ceed627430aa22d0647bd0"
    sam2: str = "facebook/sam2.1-hiera-large"
    precision: Precision = "float32"
    cache: str | None = None
    max_cache_gigabytes: float = 100.0

    def __post_init__(self) -> None:
        if len(set(self.teachers)) != len(self.teachers):
            raise ValueError(f"[distillation] teachers has one twice: {list(self.teachers)}")
        if self.max_cache_gigabytes <= 0:
            raise ValueError(
                f"[distillation] max_cache_gigabytes must be positive, got {self.max_cache_gigabytes}: leave cache out "
                "to store no features"
            )


@dataclass(frozen=True, kw_only=True)
class SailRecipe(RunRecipe):
    """Settings of training Pixel-SAIL.

    Attributes:
        stage: `sail`.
        model: Initial weights.
        data: Training samples.
        training: Optimisation, checkpoints and logging.
        losses: Weights of the losses.
        distillation: Teachers.
    """

    stage: Literal["sail"]
    model: SailModelRecipe  # type: ignore[assignment]
    data: SailDataRecipe
    training: TrainingRecipe
    losses: SailLossWeights = field(default_factory=SailLossWeights)
    distillation: DistillationRecipe = field(default_factory=DistillationRecipe)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.losses.object_words and not self.data.tasks:
            raise ValueError(
                f"[losses] object_words is {self.losses.object_words}, but published sets have no words of objects: "
                "give [data] tasks, or 0"
            )
