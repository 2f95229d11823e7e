"""Decoding speed: PyAV's thread modes in a full pass, and sampling compared with decord.

Run: python tests/benchmarks/decoding.py CLIP... [--samples 16] [--repeats 5]

Prints, per clip, the smallest wall and processor seconds of each method, their ratio to those of
`unipixel.video.open`, and whether decord's pixels equal ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np

from unipixel.video.open import open_video


def best_seconds(work: Callable[[], Any], *, repeats: int) -> tuple[float, float]:
    """Return the smallest wall time and the smallest processor time of some runs."""
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return min(wall for wall, _ in times), min(processor for _, processor in times)


def pyav_pass(path: Path, thread_type: str, thread_count: int) -> None:
    """Decode and convert every frame with plain PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = thread_type, thread_count
        for frame in container.decode(stream):
            frame.to_ndarray(format="rgb24")


def decord_sample(path: Path, indices: list[int]) -> np.ndarray:
    """Read frames by index with decord."""
    return decord.VideoReader(str(path), num_threads=2).get_batch(indices).asnumpy()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    for path in arguments.clips:
        compare(path, samples=arguments.samples, repeats=arguments.repeats)


def compare(path: Path, *, samples: int, repeats: int) -> None:
    """Measure the methods on one clip."""
    count = open_video(path).info.num_frames or 0
    indices = np.linspace(0, count - 1, samples).round().astype(int).tolist()
    ours = np.stack([frame.image for frame in open_video(path).read(indices)])
    is_equal = np.array_equal(ours, decord_sample(path, indices))
    print(f"{path.name}: {count} frames; decord's {len(indices)} samples equal ours: {is_equal}")
    report(
        "all frames",
        {
            "unipixel": lambda: sum(1 for _ in open_video(path)),
            "PyAV AUTO": lambda: pyav_pass(path, "AUTO", 0),
            "PyAV AUTO, 2 threads": lambda: pyav_pass(path, "AUTO", 2),
            "PyAV SLICE": lambda: pyav_pass(path, "SLICE", 0),
            "PyAV, 1 thread": lambda: pyav_pass(path, "NONE", 1),
            "decord, one by one": lambda: [frame.asnumpy() for frame in decord.VideoReader(str(path), num_threads=2)],
        },
        repeats=repeats,
    )
    report(
        f"{len(indices)} samples",
        {
            "unipixel": lambda: open_video(path).read(indices),
            "decord": lambda: decord_sample(path, indices),
        },
        repeats=repeats,
    )


def report(title: str, methods: dict[str, Callable[[], Any]], *, repeats: int) -> None:
    """Print a line per method; ratios are of wall and processor time to the first."""
    base: tuple[float, float] | None = None
    for name, work in methods.items():
        wall, processor = best_seconds(work, repeats=repeats)
        base = base or (wall, processor)
        print(
            f"  {title:12} {name:22} {wall:6.3f} s  {processor:6.3f} s cpu  "
            f"x{wall / base[0]:.2f}  x{processor / base[1]:.2f} cpu"
        )


if __name__ == "__main__":
    main()
