"""Settings of a Pixel-SAIL training run, read from TOML by `unipixel.train.recipe_files`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from unipixel.train.recipe import RunRecipe, Settings, TrainingRecipe


@dataclass(frozen=True)
class SailLossWeights(Settings):
    """Weights of the parts of the loss.

    Attributes:
        mask: Weight of the cross-entropy of masks.
        dice: Weight of their Dice loss.
        distillation: Weight of each distillation loss.
        text_beside_masks: Factor of the text loss of a sample whose mask loss is not zero; the published training has
            0.1, the paper does not mention it.
    """

    mask: float = 2.0
    dice: float = 0.5
    distillation: float = 0.5
    text_beside_masks: float = 0.1


@dataclass(frozen=True)
class SailModelRecipe(Settings):
    """Initial weights; exactly one of `sizes`, `checkpoint` and `base` is given.

    Attributes:
        sizes: TOML file with the sizes of a model to initialise at random, relative to the recipe.
        tokenizer: Checkpoint whose tokenizer a model from `sizes` takes; None learns one from texts about drawn images.
        checkpoint: Folder or hub id of a Pixel-SAIL checkpoint.
        base: Folder or hub id of a Qwen2.5 language model; everything else starts at random.
        mask_channels: Width of mask features of a model from `base`, 512 as published; its ablations have 256.
        num_upsample_blocks: Doublings of a model from `base`: 3 is a stride of 2 pixels, as published, 2 that of 4.
        max_side: Longer side of a resized image of a model from `base` in pixels.
    """

    sizes: str | None = None
    tokenizer: str | None = None
    checkpoint: str | None = None
    base: str | None = None
    mask_channels: int = 512
    num_upsample_blocks: int = 3
    max_side: int = 1024

    def __post_init__(self) -> None:
        given = [name for name in ("sizes", "checkpoint", "base") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"[model] gives {given or 'nothing'}: give one of sizes, checkpoint and base")


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
        if not 0 <= self.missing_prompt_rate <= 1:
            raise ValueError(f"[data] missing_prompt_rate must be in [0, 1], got {self.missing_prompt_rate}")


@dataclass(frozen=True, kw_only=True)
class SailRecipe(RunRecipe):
    """Settings of training Pixel-SAIL.

    Attributes:
        stage: `sail`.
        model: Initial weights.
        data: Training samples.
        training: Optimisation, checkpoints and logging.
        losses: Weights of the losses.
    """

    stage: Literal["sail"]
    model: SailModelRecipe  # type: ignore[assignment]
    data: SailDataRecipe
    training: TrainingRecipe
    losses: SailLossWeights = field(default_factory=SailLossWeights)
