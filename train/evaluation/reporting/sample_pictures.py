"""Pictures of a sample: frames with the predicted masks, and the same frames with the true ones.

Shape letters: H, W frame size.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.memory.rle import decode_rle
from unipixel.output.overlay import PromptMark, draw_overlay
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt
from unipixel.tracking.types import ObjectMask
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
from unipixel.train.evaluation.running.clip_frames import open_media
from unipixel.train.evaluation.running.predictions import Prediction
from unipixel.video.decord_frames import Decoder

MAX_FRAMES = 4
"""Most frames of a sample that are shown."""
_MAX_SIDE, _QUALITY = 360, 80


@dataclass(frozen=True)
class FramePicture:
    """One frame of a sample.

    Attributes:
        name: Name of the frame, or its number.
        predicted: JPEG with the predicted masks, as a data URL.
        truth: JPEG with the true masks, as a data URL; None where there are none.
    """

    name: str
    predicted: str
    truth: str | None


def picture_frames(
    sample: BenchmarkSample, prediction: Prediction | None, *, decoder: Decoder = "auto"
) -> list[FramePicture]:
    """Draw some frames of a sample, evenly spaced.

    Args:
        sample: The sample.
        prediction: Its prediction; None or one without masks draws the prompts alone.
        decoder: Decoder of video files.

    Raises:
        OSError: A frame or the truth cannot be read.
        ValueError: A frame index is outside the video, or the truth has another form.
    """
    video = open_media(sample.media, decoder=decoder)
    count = len(sample.frames) or video.info.num_frames or 1
    positions = sorted({round(value) for value in np.linspace(0, count - 1, min(MAX_FRAMES, count))})
    frames = video.read(positions)
    truth = None if sample.truth is None else sample.truth().masks
    marks = _marks(sample)
    regions = _regions(sample)
    pictures = []
    for position, frame in zip(positions, frames, strict=True):
        name = sample.frames[position] if sample.frames else str(position)
        own = [mark for mark in marks if mark.frame_index == position]
        predicted = _predicted_masks(prediction, name, frame.image.shape[:2])
        # Regions that the question is about; the model answers with masks, or with text alone.
        predicted = predicted or _as_objects(regions.get(position, {}), frame.image.shape[:2])
        shown = _data_url(draw_overlay(frame.image, predicted, prompts=own))
        true_url = None
        if truth is not None and position < truth.shape[1]:
            objects = _as_objects({row + 1: truth[row, position] for row in range(len(truth))}, frame.image.shape[:2])
            true_url = _data_url(draw_overlay(frame.image, objects))
        pictures.append(FramePicture(name, shown, true_url))
    return pictures


def _marks(sample: BenchmarkSample) -> list[PromptMark]:
    marks = []
    for object_id, prompts in sample.prompts().items():
        for prompt in prompts:
            if isinstance(prompt, PointPrompt):
                mark = PromptMark(
                    object_id, prompt.frame_index, point_xy=(prompt.x, prompt.y), is_positive=prompt.is_positive
                )
                marks.append(mark)
            elif isinstance(prompt, BoxPrompt):
                marks.append(PromptMark(object_id, prompt.frame_index, box_xyxy=prompt.xyxy))
    return marks


def _regions(sample: BenchmarkSample) -> dict[int, dict[int, NDArray[np.bool_]]]:
    """Return the masks that a question marks, by frame and object."""
    regions: dict[int, dict[int, NDArray[np.bool_]]] = {}
    for object_id, prompts in sample.prompts().items():
        for prompt in prompts:
            if isinstance(prompt, MaskPrompt):
                regions.setdefault(prompt.frame_index, {})[object_id] = np.asarray(prompt.mask) != 0
    return regions


def _predicted_masks(prediction: Prediction | None, name: str, size: Sequence[int]) -> dict[int, ObjectMask]:
    """Return the masks on a frame by row, from 1; broken and missing ones are left out, as the scores list them."""
    masks: dict[int, NDArray[np.bool_]] = {}
    for row, frames in enumerate((prediction.masks if prediction is not None else None) or (), 1):
        mask = _decoded(frames, name)
        if mask is not None:
            masks[row] = mask
    return _as_objects(masks, size)


def _decoded(frames: Mapping[str, Any], name: str) -> NDArray[np.bool_] | None:
    entry = frames.get(name)
    if not isinstance(entry, Mapping):
        return None
    try:
        return decode_rle(entry)
    except ValueError:
        return None


def _as_objects(masks: Mapping[int, NDArray[np.bool_]], size: Sequence[int]) -> dict[int, ObjectMask]:
    return {
        object_id: ObjectMask(mask, 1.0, True)
        for object_id, mask in masks.items()
        if mask.shape == tuple(size) and mask.any()
    }


def _data_url(image: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(image)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
