"""Frames per second, latency and dropped frames of a live session.

Run: PYTHONPATH=.:tests python tests/benchmarks/live.py --objects 3 --seconds 60 [--tiny] --json

A synthetic source plays in real time; frames that are replaced by newer ones while the model computes are dropped.
Latency is the time from the presentation of a frame to its masks. The warm-up, in which objects are prompted and
buffers grow, is not measured.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.byte_model import save_checkpoint
from helpers.moving_discs import MovingDiscs

from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.processing.visual_prompts import PointPrompt
from unipixel.session.live_session import LiveSession
from unipixel.video.frame import Frame
from unipixel.video.latest_frame import LatestFrame


class Camera:
    """Yields frames in real time."""

    def __init__(self, discs: MovingDiscs, *, fps: float, seconds: float) -> None:
        self._discs, self._fps, self._seconds = discs, fps, seconds
        self._started = 0.0

    def __iter__(self) -> Iterator[Frame]:
        """Yield every frame at its presentation time."""
        self._started = time.perf_counter()
        for index in range(round(self._fps * self._seconds)):
            presented_at = index / self._fps
            time.sleep(max(0.0, self._started + presented_at - time.perf_counter()))
            yield Frame(index, presented_at, self._discs.frame(index))

    def age(self, frame: Frame) -> float:
        """Return the seconds since the presentation of a frame."""
        return time.perf_counter() - self._started - frame.timestamp_seconds


def measure(session: LiveSession, camera: Camera, discs: MovingDiscs, *, warm_up: float) -> dict[str, Any]:
    """Track every disc until the source ends, and return the results after the warm-up."""
    latencies: list[float] = []
    before: tuple[float, float, int] | None = None
    with LatestFrame(camera) as frames:
        for number, frame in enumerate(frames):
            session.step(frame)
            if number == 0:
                for row, (x, y) in enumerate(discs.centres(frame.index)):
                    session.prompt(row + 1, PointPrompt(float(x), float(y), frame_index=frame.index))
            if before is not None:
                latencies.append(camera.age(frame))
            elif frame.timestamp_seconds >= warm_up:
                before = time.perf_counter(), time.process_time(), frames.num_dropped
        if before is None or not latencies:
            raise ValueError(f"the source ended within the warm-up of {warm_up:g} s: give more --seconds")
        elapsed = time.perf_counter() - before[0]
        return {
            "frames_per_second": round(len(latencies) / elapsed, 2),
            "latency_seconds_median": round(float(np.median(latencies)), 4),
            "latency_seconds_95": round(float(np.percentile(latencies, 95)), 4),
            "frames_tracked": len(latencies),
            "frames_dropped": frames.num_dropped - before[2],
            "processor_seconds_per_frame": round((time.process_time() - before[1]) / len(latencies), 4),
            "kept_bytes": session.objects.num_bytes,
        }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="unipixel-nano", help="bundled name, folder or hub id (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="use a tiny model of random weights instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--fps", type=float, default=30.0, help="rate of the source (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the source (%(default)s)")
    parser.add_argument("--warm-up", type=float, default=2.0, help="seconds that are not measured (%(default)s)")
    parser.add_argument("--size", default="1280x720", help="WxH of the source (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    discs = MovingDiscs(arguments.objects, width=width, height=height)
    with tempfile.TemporaryDirectory() as folder:
        source = str(save_checkpoint(Path(folder))) if arguments.tiny else arguments.model
        model = UniPixel.from_pretrained(source, device=arguments.device)
        session = LiveSession(model, Processor.from_pretrained(source))
    camera = Camera(discs, fps=arguments.fps, seconds=arguments.seconds)
    results = measure(session, camera, discs, warm_up=arguments.warm_up)
    report = {
        "model": "tiny" if arguments.tiny else arguments.model, "objects": arguments.objects,
        "source": f"{arguments.size} at {arguments.fps:g}", "threads": torch.get_num_threads(), **results,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
