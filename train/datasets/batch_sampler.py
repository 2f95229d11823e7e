"""Which samples make up which micro batch: one task each, the same after a restart and on every rank."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class TaskBatchSampler:
    """Deals micro batches out to groups of samples.

    All processes of a run take the same group at the same time, because their passes must reach the same
    modules (spec 7.2). The whole run is laid out in advance, so that a restart needs to know nothing but
    the number of the step.
    """

    def __init__(self, shares: Mapping[str, float], *, num_rounds: int, batch_size: int, seed: int) -> None:
        """Lay out a run.

        Args:
            shares: Share of the rounds by group.
            num_rounds: Micro batches of the run, those that processes take at the same time counted once.
            batch_size: Samples of a round over all processes.
            seed: Seed of the order.

        Raises:
            ValueError: The shares add up to nothing.
        """
        total = sum(shares.values())
        if total <= 0 or min(shares.values()) < 0:
            raise ValueError(f"shares must not be negative and must add up to something, got {dict(shares)}")
        self._names = tuple(shares)
        self._batch_size = batch_size
        weights = np.array([share / total for share in shares.values()])
        self._groups = np.random.default_rng([seed, 7]).choice(len(weights), size=num_rounds, p=weights)
        # How often the group of a round came up before it.
        self._earlier = np.zeros(num_rounds, np.int64)
        for group in range(len(weights)):
            rounds = np.flatnonzero(self._groups == group)
            self._earlier[rounds] = np.arange(len(rounds))

    def __len__(self) -> int:
        """Samples of the run."""
        return len(self._groups) * self._batch_size

    def place(self, index: int) -> tuple[str, int]:
        """Return the group of sample `index` of the run and its number within the group.

        Raises:
            IndexError: The run has no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a run of {len(self)}")
        number, offset = divmod(index, self._batch_size)
        return self._names[self._groups[number]], int(self._earlier[number]) * self._batch_size + offset
