"""Settings that the recipes of the bundled model share: the pool of clips and the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unipixel.train.recipe import Precision, Settings


@dataclass(frozen=True, kw_only=True)
class PoolSettings(Settings):
    """How many clips are rendered, and how batches are drawn from them.

    Attributes:
        num_clips: Clips that are rendered at most, over all worker processes; each is sent to the device once.
        initial_clips: Clips that each process draws from before the number grows.
        clips_per_bucket: By how many clips the number grows with each bucket of batches.
        bucket_batches: Batches of one shape that are drawn together.
        num_workers: Processes that draw batches; 0 draws them in the training process, and every run with the same
            settings takes the same steps; None takes all CPU cores but two where there is a GPU, else 0.
        num_replayed: Batches that are kept to be used again while the workers have none ready; 0 waits for them.
    """

    num_clips: int = 12_000
    initial_clips: int = 60
    clips_per_bucket: int = 10
    bucket_batches: int = 2
    num_workers: int | None = None
    num_replayed: int = 500

    def __post_init__(self) -> None:
        self._check_positive("num_clips", "initial_clips", "bucket_batches")
        for name in ("num_workers", "num_replayed", "clips_per_bucket"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"[data] {name} must not be negative, got {getattr(self, name)}")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"[data] {name} must be at least 1, got {getattr(self, name)}")

    def _check_weights(self, *names: str) -> None:
        for name in names:
            weights: Mapping[str, float] = getattr(self, name)
            if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
                raise ValueError(f"[data] {name} needs weights that are not negative, got {dict(weights)}")


@dataclass(frozen=True, kw_only=True)
class LoopSettings(Settings):
    """How long is trained, and how the steps are taken.

    Attributes:
        max_steps: Steps after which the run ends; None is no limit.
        max_seconds: Seconds of training after which the run ends, those before an interruption included; None is no
            limit. At least one of both is given; the learning rate follows the one that is nearer to its end.
        learning_rate: Peak rate of Muon, which moves the matrices of transformer blocks; AdamW, which moves the rest,
            takes half of it.
        warmup_steps: Steps over which the rate rises.
        decay_fraction: Last fraction of the run over which the rate falls to zero.
        weight_decay: Decay of matrices; vectors have none.
        max_gradient_norm: Largest norm of the gradient.
        precision: `bfloat16` multiplies matrices in bfloat16; weights are kept in float32.
        is_compiled: Whether transformer blocks are compiled.
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
