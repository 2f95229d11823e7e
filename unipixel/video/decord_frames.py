"""Frames of a video file by index, read with decord (its fork decord2), which the extra `eval` installs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Decoder = Literal["auto", "av", "decord"]
"""What reads frames of a video file by index. Both decoders return the same frames; `auto` is PyAV, which was as fast
or faster for clips of 10 s to 10 min (docs/figures.md)."""


def check_decoder(decoder: str) -> None:
    """Check the name of a decoder.

    Raises:
        ValueError: It is unknown.
    """
    if decoder not in get_args(Decoder):
        raise ValueError(f"decoder must be one of {', '.join(get_args(Decoder))}, got {decoder!r}")


def read_with_decord(
    path: Path, groups: Mapping[int, Sequence[int]], *, num_frames: int, first_image: NDArray[np.uint8]
) -> dict[int, NDArray[np.uint8]] | None:
    """Read frames by index.

    Every frame from the keyframe on is decoded: decord's own skipping (`get_batch`, `skip_frames`) stops waiting for
    the decoder after a number of attempts, and then returns other frames.

    Args:
        path: The file.
        groups: Ascending indices of the frames that are decoded from each keyframe, by its index, ascending.
        num_frames: Number of frames as PyAV counts them.
        first_image: Frame 0 (H, W, 3) as PyAV decodes it.

    Returns:
        Images uint8 (H, W, 3) by index, or None, with a warning, if decord's frames of this file are others: it applies
        no rotation, and converts some colour spaces in another way.

    Raises:
        ImportError: decord is not installed.
    """
    try:
        import decord
    except ImportError as error:
        raise ImportError("decoder='decord' requires the extra `eval`: pip install 'unipixel-agent[eval]'") from error

    try:
        reader = decord.VideoReader(str(path.resolve()), num_threads=2)
        reason = _difference(reader, groups, num_frames=num_frames, first_image=first_image)
        if reason is None:
            return _read(reader, groups)
    except (decord.DECORDError, RuntimeError, StopIteration) as error:
        reason = str(error).partition("\n")[0] or "it ends early"
    warnings.warn(f"{path}: decord cannot replace PyAV for this file ({reason})", RuntimeWarning, stacklevel=3)
    return None


def _difference(
    reader: Any, groups: Mapping[int, Sequence[int]], *, num_frames: int, first_image: NDArray[np.uint8]
) -> str | None:
    """Return how decord reads a file otherwise than PyAV, or None; the reader then stands behind frame 0."""
    if len(reader) != num_frames:
        return f"it counts {len(reader)} frames instead of {num_frames}"
    if other := sorted(set(groups) - {0, *(int(key) for key in reader.get_key_indices())}):
        return f"frame {other[0]} is no keyframe"
    reader.seek(0)
    return None if np.array_equal(reader.next().asnumpy(), first_image) else "its first frame differs"


def _read(reader: Any, groups: Mapping[int, Sequence[int]]) -> dict[int, NDArray[np.uint8]]:
    """Read the frames of each group; the reader stands behind frame 0."""
    position = 1
    found: dict[int, NDArray[np.uint8]] = {}
    for key, indices in groups.items():
        for index in indices:
            if not key <= position <= index:
                reader.seek(key)
                position = key
            while position <= index:
                image = reader.next()
                position += 1
            found[index] = image.asnumpy()
    return found
