"""Tracking speed and memory growth of this project, the sam2 package and transformers.

Run: PYTHONPATH=.:tests python tests/benchmarks/tracker.py --objects 1,8 --frames 16 --image-size 512 --json

All three run the same SAM 2.1 on the same raw frames, alternating at every frame, up to mask logits at the size of
the video. Seconds are medians; growth is the increase in stored bytes of objects and frames after the warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator

import numpy as np
import torch
from helpers.tracker_reference import OfficialPredictor, synthetic_video
from helpers.transformers_reference import transformers_model
from torch import Tensor

from unipixel.tracking.clip_features import normalise_frame
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker import StreamingTracker

HEIGHT, WIDTH = 480, 640
# Number of frames after which attention reads its maximum of memories and pointers; only later frames are measured.
_WARM_UP = 16
# Each step of a run tracks one frame and yields the bytes stored for objects and frames.
Run = Iterator[int]


def ours(segmenter: Segmenter, video: np.ndarray, points: np.ndarray) -> Run:
    """Track with this project."""
    tracker = StreamingTracker(segmenter)
    for index, frame in enumerate(video):
        result = tracker.step(frame)
        if index == 0:
            for object_id, point in enumerate(points):
                result = tracker.add_points(object_id, [point])
        result.mask_logits()
        yield tracker.state.num_bytes


def official(segmenter: Segmenter, video: np.ndarray, points: np.ndarray) -> Run:
    """Track with the package's predictor; frames are normalised one by one, as ours are."""
    session = OfficialPredictor(segmenter, video[:1])
    state, size = session.state, segmenter.config.image_size
    state["images"], state["num_frames"] = _NormalisedFrames(video, size), len(video)
    for object_id, point in enumerate(points):
        session.click(0, object_id, [point], [1])
    for _ in session.predictor.propagate_in_video(state):
        # The frames are not counted; the loader of the package would store all of them as float32.
        yield _bytes(state["output_dict_per_obj"])


def transformers(segmenter: Segmenter, video: np.ndarray, points: np.ndarray) -> Run:
    """Track with transformers' model of the same sizes and weights."""
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    size = segmenter.config.image_size
    model = transformers_model(segmenter)
    session = Sam2VideoInferenceSession(video_height=HEIGHT, video_width=WIDTH, dtype=torch.float32)
    with torch.no_grad():
        for index, frame in enumerate(video):
            pixels = normalise_frame(frame, image_size=size)
            if index == 0:
                session.add_new_frame(pixels, 0)
                for object_id, point in enumerate(points):
                    coords = torch.tensor(point * size / [WIDTH, HEIGHT], dtype=torch.float32).view(1, 1, 1, 2)
                    object_index = session.obj_id_to_idx(object_id)
                    labels = torch.ones(1, 1, 1, dtype=torch.int32)
                    session.add_point_inputs(object_index, 0, {"point_coords": coords, "point_labels": labels})
                session.obj_with_new_inputs = list(range(len(points)))
                output = model(inference_session=session, frame_idx=0)
            else:
                output = model(inference_session=session, frame=pixels)
            masks = output.pred_masks.float()
            torch.nn.functional.interpolate(masks, size=(HEIGHT, WIDTH), mode="bilinear")
            yield _bytes(session.output_dict_per_obj) + _bytes(session.processed_frames)


class _NormalisedFrames:
    """Frames that are normalised on access."""

    def __init__(self, video: np.ndarray, size: int) -> None:
        self._video, self._size = video, size

    def __len__(self) -> int:
        return len(self._video)

    def __getitem__(self, index: int) -> Tensor:
        return normalise_frame(self._video[index], image_size=self._size)


def _bytes(value: object) -> int:
    """Return the bytes of all tensors in nested containers; a shared one counts at each occurrence."""
    if isinstance(value, Tensor):
        return value.untyped_storage().nbytes() if value.is_contiguous() else value.numel() * value.element_size()
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(_bytes(child) for child in children)


def compare(config: SegmenterConfig, *, num_objects: int, num_frames: int) -> dict[str, dict[str, float]]:
    """Measure all three, alternating at every frame so that all are measured under the same load."""
    video = synthetic_video(num_frames + _WARM_UP, height=HEIGHT, width=WIDTH)
    points = np.random.default_rng(0).uniform(0.2, 0.8, (num_objects, 2)) * [WIDTH, HEIGHT]
    segmenter = Segmenter(config).eval()
    runs = {track.__name__: track(segmenter, video, points) for track in (ours, official, transformers)}
    wall: dict[str, list[float]] = {name: [] for name in runs}
    processor: dict[str, list[float]] = {name: [] for name in runs}
    stored: dict[str, list[int]] = {name: [] for name in runs}
    for _ in range(len(video)):
        for name, run in runs.items():
            begin = time.perf_counter(), time.process_time()
            stored[name].append(next(run))
            wall[name].append(time.perf_counter() - begin[0])
            processor[name].append(time.process_time() - begin[1])
    figures: dict[str, dict[str, float]] = {}
    for name in runs:
        figures[name] = {
            "seconds_per_frame": round(float(np.median(wall[name][_WARM_UP:])), 4),
            "processor_seconds_per_frame": round(float(np.median(processor[name][_WARM_UP:])), 4),
            "growth_bytes_per_frame": round((stored[name][-1] - stored[name][_WARM_UP - 1]) / num_frames),
        }
    for name in ("official", "transformers"):
        for kind in ("seconds", "processor_seconds"):
            ratio = figures["ours"][f"{kind}_per_frame"] / figures[name][f"{kind}_per_frame"]
            figures["ours"][f"{kind}_times_{name}"] = round(ratio, 3)
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", default="1,8", help="numbers of objects, separated by commas")
    parser.add_argument("--frames", type=int, default=16, help="frames measured, after the warm-up")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--model", default="tiny", help="tiny, small, base_plus or large")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    os.environ.setdefault("TQDM_DISABLE", "1")
    config = SegmenterConfig.preset(arguments.model, image_size=arguments.image_size)
    results = {
        count: compare(config, num_objects=int(count), num_frames=arguments.frames)
        for count in arguments.objects.split(",")
    }
    report = {
        "model": arguments.model, "image_size": arguments.image_size, "frames": arguments.frames,
        "threads": torch.get_num_threads(), "objects": results,
    }  # fmt: skip
    if arguments.json:
        print(json.dumps(report))
        return
    for count, figures in results.items():
        for name, values in figures.items():
            print(f"{count} objects, {name}: {values}")


if __name__ == "__main__":
    main()
