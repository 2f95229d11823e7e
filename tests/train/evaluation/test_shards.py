"""Division of samples among processes."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia
from unipixel.train.evaluation.running.shards import Shard


def samples_of(clips: list[tuple[int, int]]) -> list[BenchmarkSample]:
    """Return samples about clips, each with a number of samples and a number of frames."""
    samples: list[BenchmarkSample] = []
    for clip, (num_samples, num_frames) in enumerate(clips):
        names = tuple(f"{frame:05d}" for frame in range(num_frames))
        media = SampleMedia(paths=tuple(Path(f"clip{clip}/{name}.jpg") for name in names))
        samples += [
            BenchmarkSample(name=f"{clip}/{number}", question="", frames=names, language_frames=(0,), media=media)
            for number in range(num_samples)
        ]
    return samples


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), max_size=12), st.integers(1, 5))
def test_each_sample_belongs_to_one_process_and_those_of_a_clip_to_the_same(
    clips: list[tuple[int, int]], count: int
) -> None:
    samples = samples_of(clips)
    shards = [Shard(index, count).select(samples) for index in range(count)]
    assert sorted(sample.name for shard in shards for sample in shard) == sorted(sample.name for sample in samples)
    owners = {(sample.media, index) for index, shard in enumerate(shards) for sample in shard}
    assert len(owners) == len(clips)
    for shard in shards:
        assert shard == [sample for sample in samples if sample in shard]


def test_processes_have_about_as_many_frames() -> None:
    samples = samples_of([(1, 100), (1, 10), (5, 2), (1, 80), (1, 9)])
    loads = [sum(len(sample.frames) for sample in Shard(index, 2).select(samples)) for index in range(2)]
    assert loads == [109, 100]


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, Shard(0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}, Shard(5, 16, 1)),
        ({"OTHER": "x"}, Shard(0, 1, 0)),
    ],
)
def test_shard_is_that_of_the_launcher(environment: dict[str, str], shard: Shard) -> None:
    assert Shard.of_environment(environment) == shard
