"""An endless stream of samples for training, the same for any number of readers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from unipixel.train.datasets.samples import Sample
from unipixel.train.datasets.synthetic.attributes import SPLITS, Split
from unipixel.train.datasets.synthetic.sample_generation import DEFAULT_MIXTURE, TASKS, generate


@dataclass(frozen=True)
class Stream:
    """An endless, seeded stream of samples, small enough to be sent to a loader's workers.

    Attributes:
        split: Split of all samples.
        start: First seed.
        mixture: Weight per task; `DEFAULT_MIXTURE` by default.
        transfer_share: Share of the samples of task "track" that are drawn in the transfer style.
        render_sizes: Sizes to draw from, as for `generate`.
        frame_counts: Numbers of frames to draw from, as for `generate`.
    """

    split: Split = "train"
    start: int = 0
    mixture: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MIXTURE))
    transfer_share: float = 0.0
    render_sizes: tuple[tuple[int, int] | int | None, ...] = (128,)
    frame_counts: tuple[int | None, ...] = (8,)

    def __post_init__(self) -> None:
        """Check the mixture."""
        unknown = sorted(set(self.mixture) - set(TASKS))
        if unknown:
            raise ValueError(f"Unknown tasks {unknown}; allowed are {', '.join(TASKS)}.")
        if not self.mixture or min(self.mixture.values()) < 0 or sum(self.mixture.values()) <= 0:
            raise ValueError(f"A mixture needs weights of at least 0 and a positive sum, not {dict(self.mixture)}.")

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index` of the stream; the same for every reader."""
        seed = self.start + index
        rng = np.random.default_rng([SPLITS.index(self.split), seed, 1])
        weights = np.array(list(self.mixture.values()), np.float64)
        task = list(self.mixture)[int(rng.choice(len(weights), p=weights / weights.sum()))]
        size = self.render_sizes[int(rng.integers(len(self.render_sizes)))]
        count = self.frame_counts[int(rng.integers(len(self.frame_counts)))]
        style = "transfer" if task == "track" and rng.random() < self.transfer_share else "world"
        return generate(seed, split=self.split, task=task, render_size=size, num_frames=count, style=style)

    def read(self, *, worker: int = 0, num_workers: int = 1, skip: int = 0) -> Iterator[Sample]:
        """Samples of one worker, forever: `skip + worker`, then every `num_workers`-th.

        Args:
            worker: This reader's number, from 0.
            num_workers: Readers that share the stream.
            skip: Samples of the stream to pass over, for resuming.

        Returns:
            An iterator.
        """
        index = skip + worker
        while True:
            yield self[index]
            index += num_workers
