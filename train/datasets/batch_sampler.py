"""Tasks of the micro batches of a run: one task each, the same after a restart and on every rank."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


class TaskBatchSampler:
    """Assigns tasks to micro batches.

    All processes of a run take the same task at the same time, because their passes must use the same modules for
    gradients to be averaged. The order of the whole run follows from its seed, so that a restart needs only the number
    of the step.
    """

    def __init__(self, weights: Mapping[str, float], *, num_batches: int, batch_size: int, seed: int) -> None:
        """Choose the task of every batch.

        Args:
            weights: Weight of each task.
            num_batches: Micro batches of the run; those that processes take at the same time count as one.
            batch_size: Samples of a micro batch over all processes.
            seed: Seed of the order.

        Raises:
            ValueError: A weight is negative, or their sum is 0.
        """
        total = sum(weights.values())
        if total <= 0 or min(weights.values()) < 0:
            raise ValueError(f"weights must not be negative and need a positive sum, got {dict(weights)}")
        self._names = tuple(weights)
        self._batch_size = batch_size
        probabilities = np.array([weight / total for weight in weights.values()])
        self._tasks = np.random.default_rng([seed, 7]).choice(len(weights), size=num_batches, p=probabilities)
        # Number of earlier batches with the task of each batch.
        self._num_earlier = np.zeros(num_batches, np.int64)
        for task in range(len(weights)):
            batches = np.flatnonzero(self._tasks == task)
            self._num_earlier[batches] = np.arange(len(batches))

    def __len__(self) -> int:
        """Samples of the run."""
        return len(self._tasks) * self._batch_size

    def locate(self, index: int) -> tuple[str, int]:
        """Return the task of sample `index` of the run, and its number among the samples of the task.

        Raises:
            IndexError: The run has no such sample.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a run of {len(self)}")
        number, offset = self.batch_number(index), index % self._batch_size
        return self._names[self._tasks[number]], int(self._num_earlier[number]) * self._batch_size + offset

    def batch_number(self, index: int) -> int:
        """Return the number of the micro batch, over all processes, that sample `index` of the run belongs to."""
        return index // self._batch_size
