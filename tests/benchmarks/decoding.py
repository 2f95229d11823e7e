"""Decoding speed: PyAV's thread modes in a full pass, and 16 frames by index with PyAV and decord.

Run: python tests/benchmarks/decoding.py [CLIP...] [--draw 10 60 600] [--samples 16] [--repeats 5]

`--draw` adds drawn clips of so many seconds: 640x360, 30 frames per second, a keyframe every 250 frames. Prints, per
clip, the smallest wall and processor seconds of each method, their ratio to those of `unipixel.video.open`, and how
many of 128 frames, read 16 at a time, differ from ours.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import decord
import numpy as np

from unipixel.video.open import open_video

_FPS = 30


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


def decord_batch(path: Path, indices: list[int]) -> np.ndarray:
    """Read frames by index with decord's own function, which skips the frames between."""
    return decord.VideoReader(str(path), num_threads=2).get_batch(indices).asnumpy()


def draw_clip(path: Path, seconds: int) -> Path:
    """Write a clip of coloured noise that drifts, with a cut every 13 seconds."""
    rng = np.random.default_rng(0)
    scenes = [rng.integers(0, 255, (45, 80, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1) for _ in range(5)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        stream.options = {"preset": "ultrafast", "g": "250"}
        for index in range(seconds * _FPS):
            image = np.roll(scenes[index // (13 * _FPS) % len(scenes)], (index, 2 * index), axis=(0, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="*")
    parser.add_argument("--draw", type=int, nargs="*", default=[], metavar="SECONDS")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        drawn = [draw_clip(Path(folder) / f"drawn_{seconds}s.mp4", seconds) for seconds in arguments.draw]
        for path in [*arguments.clips, *drawn]:
            compare(path, samples=arguments.samples, repeats=arguments.repeats)


def compare(path: Path, *, samples: int, repeats: int) -> None:
    """Measure the methods on one clip."""
    count = open_video(path).info.num_frames or 0
    indices = [round(step * (count - 1) / max(samples - 1, 1)) for step in range(samples)]
    print(f"{path.name}: {count} frames")
    print(f"  frames that differ from ours: {count_differences(path, count)}")
    report(
        "all frames",
        {
            "unipixel": lambda: [None for _ in open_video(path)],
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
            "decoder av": lambda: open_video(path, decoder="av").read(indices),
            "decoder decord": lambda: open_video(path, decoder="decord").read(indices),
            "decord get_batch": lambda: decord_batch(path, indices),
        },
        repeats=repeats,
    )


def count_differences(path: Path, count: int) -> dict[str, int]:
    """Read frames at random with each method and count those that differ from a full pass."""
    rng = np.random.default_rng(0)
    differences = {"decoder decord": 0, "decord get_batch": 0}
    for _ in range(8):
        indices = sorted(rng.choice(count, min(16, count), replace=False).tolist())
        ours = [frame.image for frame in open_video(path, decoder="av").read(indices)]
        others = {
            "decoder decord": [frame.image for frame in open_video(path, decoder="decord").read(indices)],
            "decord get_batch": list(decord_batch(path, indices)),
        }
        for name, images in others.items():
            differences[name] += sum(not np.array_equal(*pair) for pair in zip(ours, images, strict=True))
    return differences


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
