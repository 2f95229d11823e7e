"""Which samples make up which micro batch: one task each, the same after a restart and on every rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import numpy as np

_Item = TypeVar("_Item")


class GroupSchedule:
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


class LengthWindows(Generic[_Item]):
    """Deals samples out so that those of a batch are of about the same length, and little of it is padding.

    Batches of one group are drawn together, sorted by length, and taken in a random order. Every process draws the
    whole window, the same after a restart.
    """

    def __init__(
        self, draw: Callable[[str, int], _Item], length: Callable[[_Item], int], *, batch_size: int, num_batches: int
    ) -> None:
        """Prepare to deal.

        Args:
            draw: Returns sample `number` of a group.
            length: Length of a sample.
            batch_size: Samples of a round over all processes.
            num_batches: Rounds of a group that are drawn together; 1 deals samples out as they come.

        Raises:
            ValueError: A number is below 1.
        """
        if batch_size < 1 or num_batches < 1:
            raise ValueError(f"batch_size and num_batches must be at least 1, got {batch_size} and {num_batches}")
        self._draw, self._length = draw, length
        self._batch_size, self._num_batches = batch_size, num_batches
        self._windows: dict[str, tuple[int, list[_Item]]] = {}

    def item(self, group: str, number: int) -> _Item:
        """Return the sample that is dealt out as number `number` of a group."""
        size = self._batch_size * self._num_batches
        if self._num_batches == 1:
            return self._draw(group, number)
        turn, place = divmod(number, size)
        if group not in self._windows or self._windows[group][0] != turn:
            items = sorted((self._draw(group, turn * size + offset) for offset in range(size)), key=self._length)
            self._windows[group] = (turn, items)
        batch, offset = divmod(place, self._batch_size)
        taken = np.random.default_rng([turn, self._num_batches]).permutation(self._num_batches)[batch]
        return self._windows[group][1][int(taken) * self._batch_size + offset]
