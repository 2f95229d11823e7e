"""Memory use of `unipixel track` on a long file, and the cost of decoding and writing relative to tracking.

Run: PYTHONPATH=.:tests python tests/benchmarks/track_file.py --seconds 600 [--tiny] --json

Writes a synthetic 720p file, tracks it in a subprocess, and samples the memory of that process. Then decoding, the
model and the writers run separately, over at most `--stage-frames` frames, scaled to the whole file. The time of the
same command on a file of one frame, mostly imports, is subtracted before they are compared. The ratio requires an
otherwise idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from helpers.byte_model import save_checkpoint
from helpers.moving_discs import MovingDiscs

from unipixel.checkpoints.segmenters import load_segmenter
from unipixel.output.writers import MaskWriter, OverlayVideoWriter
from unipixel.processing.visual_prompts import PointPrompt
from unipixel.session.video_objects import VideoObjects
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame
from unipixel.video.open import open_video

# Memory use is constant if its last quarter is at most this fraction above its second.
_TOLERANCE = 0.02
_SAMPLE_SECONDS = 0.25


@dataclass
class ProcessRun:
    """A finished process.

    Attributes:
        wall_seconds: From start to end.
        processor_seconds: Of all its threads.
        memory: Seconds since the start and resident bytes, sampled.
    """

    wall_seconds: float
    processor_seconds: float
    memory: list[tuple[float, int]] = field(default_factory=list)


def run_track(path: Path, arguments: argparse.Namespace, model: str, discs: MovingDiscs, out: Path) -> ProcessRun:
    """Run the command on a file and sample its memory.

    Raises:
        RuntimeError: The command failed.
    """
    command = [sys.executable, "-m", "unipixel.cli", "track", str(path), "--model", model, "--out", str(out)]
    command += ["--device", arguments.device]
    for row, (x, y) in enumerate(discs.centres(0)):
        command += ["--point", f"{row + 1}:{x:.1f},{y:.1f}@0"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    memory: list[tuple[float, int]] = []
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process:
            monitored = psutil.Process(process.pid)
            while process.poll() is None:
                try:
                    memory.append((time.perf_counter() - started, int(monitored.memory_info().rss)))
                except psutil.Error:
                    break  # the process ended between the two calls
                time.sleep(_SAMPLE_SECONDS)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"unipixel track failed: {errors.read().decode(errors='replace')[-2000:]}")
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return ProcessRun(wall, spent, memory)


def memory_figures(memory: list[tuple[float, int]], *, since: float) -> dict[str, Any]:
    """Compare the memory of the last quarter of a run with that of the second, without the first `since` seconds.

    Raises:
        ValueError: There are too few samples.
    """
    sizes = np.array([size for seconds, size in memory if seconds >= since]) / 1e6
    if len(sizes) < 8:
        raise ValueError(
            f"memory was sampled {len(sizes)} times after {since:.1f} s, at least 8 are needed: run longer"
        )
    quarters = [float(np.median(part)) for part in np.array_split(sizes, 4)]
    return {
        "memory_megabytes_by_quarter": [round(value, 1) for value in quarters],
        "memory_megabytes_max": round(float(sizes.max()), 1),
        "memory_is_constant": quarters[3] <= quarters[1] * (1 + _TOLERANCE),
    }


def timed(items: Iterable[Any], work: Callable[[Any], Any] = lambda item: None, *, count: int) -> float:
    """Return the seconds per item of reading and processing `count` items."""
    seconds = 0.0
    iterator = iter(items)
    for _ in range(count):
        started = time.perf_counter()
        work(next(iterator))
        seconds += time.perf_counter() - started
    return seconds / count


def stage_seconds(
    path: Path, discs: MovingDiscs, model: str, folder: Path, *, count: int, num_frames: int, device: str
) -> dict[str, float]:
    """Run each stage separately and return its seconds, scaled to the whole file."""
    with open_video(path) as video:
        decoding = timed(video, count=count)
    # One repeated frame, so that nothing is decoded or copied.
    still = np.broadcast_to(discs.frame(0), (count, *discs.frame(0).shape))
    scene = VideoObjects(load_segmenter(model, device=device), open_video(still), memory_dtype=torch.bfloat16)
    for row, (x, y) in enumerate(discs.centres(0)):
        scene.prompt(row + 1, PointPrompt(float(x), float(y), frame_index=0))
    tracking = timed(scene.track_frames(), count=count)
    with MaskWriter(folder / "masks") as masks, OverlayVideoWriter(folder / "overlay.mp4", fps=30) as overlay:

        def write(item: tuple[Frame, dict[int, ObjectMask]]) -> None:
            masks.write(*item)
            overlay.write(*item)

        writing = timed(ideal_results(discs, count), write, count=count)
    stages = {"decode": decoding, "model": tracking, "write": writing}
    return {name: round(seconds * num_frames, 2) for name, seconds in stages.items()}


def ideal_results(discs: MovingDiscs, count: int) -> Iterator[tuple[Frame, dict[int, ObjectMask]]]:
    """Yield the ground truth as the results of a tracker."""
    for index in range(count):
        masks = discs.masks[index % len(discs.masks)]
        objects = {row + 1: ObjectMask(mask, 1.0, True) for row, mask in enumerate(masks)}
        yield Frame(index, index / 30, discs.frame(index)), objects


def measure(arguments: argparse.Namespace, model: str, folder: Path) -> dict[str, Any]:
    """Write the files, run the command and the stages, and return the results."""
    width, height = (int(side) for side in arguments.size.split("x"))
    discs = MovingDiscs(arguments.objects, width=width, height=height)
    num_frames = max(2, round(arguments.seconds * arguments.fps))
    discs.write(folder / "clip.mp4", num_frames=num_frames, fps=arguments.fps)
    discs.write(folder / "one.mp4", num_frames=1, fps=arguments.fps)
    start = run_track(folder / "one.mp4", arguments, model, discs, folder / "one")
    whole = run_track(folder / "clip.mp4", arguments, model, discs, folder / "whole")
    stages = stage_seconds(
        folder / "clip.mp4", discs, model, folder,
        count=min(num_frames, arguments.stage_frames), num_frames=num_frames, device=arguments.device,
    )  # fmt: skip
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    total = whole.wall_seconds - start.wall_seconds
    shared = (whole.processor_seconds - start.processor_seconds) / cores
    return {
        "frames": num_frames,
        "cores": cores,
        "start_seconds": round(start.wall_seconds, 2),
        "total_seconds": round(total, 2),
        "processor_seconds_by_core": round(shared, 2),
        "stage_seconds": stages,
        "total_over_bound": round(total / max(*stages.values(), shared), 3),
        **memory_figures(whole.memory, since=start.wall_seconds),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="unipixel-nano", help="bundled name, folder or hub id (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="use a tiny model of random weights instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=600.0, help="length of the file (%(default)s)")
    parser.add_argument("--fps", type=int, default=30)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--stage-frames", type=int, default=300, help="frames of each separate stage (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = str(save_checkpoint(folder / "tiny")) if arguments.tiny else arguments.model
        report = {"model": "tiny" if arguments.tiny else model, **measure(arguments, model, folder)}
    if arguments.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
