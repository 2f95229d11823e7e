"""Division of the samples of a split among processes, by the environment variables of torchrun and accelerate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia


@dataclass(frozen=True)
class Shard:
    """One of several processes that share the samples.

    Attributes:
        index: Number of the process, from 0.
        count: Number of processes.
        local_index: Number of the process on its machine, which chooses its device.
    """

    index: int = 0
    count: int = 1
    local_index: int = 0

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> Shard:
        """Read `RANK`, `WORLD_SIZE` and `LOCAL_RANK`; without them there is one process.

        Raises:
            ValueError: A variable is not a number, or the rank is out of range.
        """
        values = {}
        for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)):
            text = environment.get(name, str(default))
            if not text.isdecimal():
                raise ValueError(f"the environment variable {name} must be a number from 0, got {text!r}")
            values[name] = int(text)
        if values["RANK"] >= values["WORLD_SIZE"]:
            raise ValueError(
                f"the environment variable RANK is {values['RANK']}: allowed are 0 to {values['WORLD_SIZE'] - 1}"
            )
        return cls(values["RANK"], values["WORLD_SIZE"], values["LOCAL_RANK"])

    def select(self, samples: Sequence[BenchmarkSample]) -> list[BenchmarkSample]:
        """Return the samples of this process, in order.

        Samples about the same frames stay together, because a process encodes them once. Each group goes to the
        process with the fewest frames so far.
        """
        loads = [0] * self.count
        selected: list[BenchmarkSample] = []
        for media, members in groupby(samples, key=lambda sample: sample.media):
            group = list(members)
            target = loads.index(min(loads))
            loads[target] += len(group) * max(num_media_frames(media), 1)
            selected += group if target == self.index else []
        return selected


def num_media_frames(media: SampleMedia) -> int:
    """Return the number of frames of a sample; 1 for a video file that is read as a whole."""
    return len(media.paths if media.indices is None else media.indices)
