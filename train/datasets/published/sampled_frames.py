"""Frames of an entry: which are sampled, and their pixels."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unipixel.processing.frame_sampling import keep_frames, random_indices, uniform_indices
from unipixel.train.datasets.published.entries import Entry, MediaReference
from unipixel.train.datasets.published.source_files import resolve
from unipixel.video.images import read_image
from unipixel.video.open import MAX_PIXELS, Video, open_video


@dataclass(frozen=True)
class SampledFrames:
    """The sampled frames of an entry.

    Attributes:
        images: (N, H, W, 3) uint8.
        indices: Index of each frame in the clip.
        mask_positions: Position of each frame among those that have masks; None where it has none.
        num_masks: Frames that have masks; None where the clip does not tell.
        num_source_frames: Frames of the clip.
    """

    images: NDArray[np.uint8]
    indices: tuple[int, ...]
    mask_positions: tuple[int | None, ...]
    num_masks: int | None
    num_source_frames: int


def sample_frames(entry: Entry, root: Path, *, num_frames: int, generator: random.Random) -> SampledFrames:
    """Sample frames of an entry and read them.

    Args:
        entry: An entry with a clip or image.
        root: Folder of all data sets.
        num_frames: Most frames that are sampled.
        generator: Source of randomness.

    Raises:
        OSError: A file is missing or cannot be decoded.
        ValueError: Frames differ in size, or an annotated frame is not in the video.
    """
    media = entry.media
    if media.frames:
        first, end = entry.window or (0, len(media.frames))
        count = end - first
        chosen = range(count) if media.is_complete else random_indices(count, num_frames, generator=generator)
        indices = tuple(first + index for index in chosen)
        images = [read_image(resolve(root, media.frames[index]), max_pixels=MAX_PIXELS) for index in indices]
        _check_sizes(images, [media.frames[index] for index in indices])
        return SampledFrames(np.stack(images), indices, indices, len(media.frames), len(media.frames))
    with open_video(resolve(root, media.video)) as video:
        return _sample_video(media, video, num_frames=num_frames, generator=generator)


def _sample_video(media: MediaReference, video: Video, *, num_frames: int, generator: random.Random) -> SampledFrames:
    count = video.info.num_frames or 0
    annotated = media.frame_indices
    positions: tuple[int | None, ...]
    num_masks: int | None = len(annotated)
    if media.fps is not None:
        wanted = round((video.info.duration_seconds or 0) * media.fps)
        indices = uniform_indices(count, max(1, min(num_frames, wanted)))
        positions = (None,) * len(indices)
    elif annotated and media.is_context:
        sampled = random_indices(count, num_frames, generator=generator)
        indices = keep_frames(sampled, annotated, num_frames=count)
        positions = tuple(annotated.index(index) if index in annotated else None for index in indices)
    elif annotated:
        positions = random_indices(len(annotated), num_frames, generator=generator)
        indices = tuple(annotated[position] for position in positions)
    else:
        positions = random_indices(-(-count // media.stride), num_frames, generator=generator)
        indices = tuple(position * media.stride for position in positions)
        num_masks = None
    images = np.stack([frame.image for frame in video.read(indices)])
    return SampledFrames(images, indices, positions, num_masks, count)


def _check_sizes(images: list[NDArray[np.uint8]], names: list[str]) -> None:
    for image, name in zip(images, names, strict=True):
        if image.shape != images[0].shape:
            height, width = images[0].shape[:2]
            raise ValueError(
                f"{name} has {image.shape[1]} x {image.shape[0]} pixels, {names[0]} has {width} x {height}"
            )
