"""Annotated masks over time: run lengths by object and frame, in JSON files, pickles and palette images.

Shape letters: T frames, H, W frame size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.memory.rle import MAX_MASK_PIXELS, decode_rle
from unipixel.train.datasets.plain_pickle import read_plain_pickle
from unipixel.train.datasets.published.json_members import JsonMembers


class MaskDictionary:
    """Tracks by annotation id: a list with run lengths or None for each frame.

    A track of a JSON file, which may have a gigabyte, is read when it is needed; a pickle is read as a whole.
    """

    def __init__(self, path: Path) -> None:
        """Find the tracks of a file.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is not a dictionary.
        """
        self.path = path
        self._spans: Mapping[str, tuple[int, int]] = {}
        self._tracks: Mapping[Any, Any] = {}
        if path.suffix == ".json":
            self._spans = JsonMembers.read(path).value_spans()
            return
        self._tracks = read_plain_pickle(path)
        if not isinstance(self._tracks, dict):
            raise ValueError(f"{path}: expected a dictionary of tracks, got {type(self._tracks).__name__}")

    def track(self, key: str) -> Any:
        """Return the value of an id.

        Raises:
            ValueError: There is no such id.
        """
        if key in self._spans:
            return JsonMembers.read_value(self.path, self._spans[key])
        if key not in self._tracks:
            raise ValueError(f"{self.path}: there is no annotation {key!r}")
        return self._tracks[key]


def track_size(track: Any) -> tuple[int, int] | None:
    """Return (H, W) of the first run lengths of a track, or None if it has none.

    Raises:
        ValueError: They have no valid size.
    """
    for entry in track if isinstance(track, Sequence) else ():
        if isinstance(entry, Mapping) and entry.get("size"):
            sides = entry["size"]
            is_size = isinstance(sides, Sequence) and len(sides) == 2 and all(type(side) is int for side in sides)
            if not is_size or min(sides) < 1 or sides[0] * sides[1] > MAX_MASK_PIXELS:
                raise ValueError(f"a mask has `size` [H, W] with 1 to {MAX_MASK_PIXELS} pixels, got {sides!r:.80}")
            return sides[0], sides[1]
    return None


def decode_track(track: Any, *, size: tuple[int, int], num_frames: int, location: str) -> NDArray[np.bool_]:
    """Decode the masks (T, H, W) of a track; an entry of None is empty.

    Args:
        track: Run lengths or None for each frame.
        size: Size (H, W) of the frames.
        num_frames: Number of frames T.
        location: File and annotation, for error messages.

    Raises:
        ValueError: The track has another length, or run lengths are broken or of another size.
    """
    if not isinstance(track, Sequence) or len(track) != num_frames:
        length = len(track) if isinstance(track, Sequence) else type(track).__name__
        raise ValueError(f"{location}: the track must have one entry for each of {num_frames} frames, got {length}")
    masks = np.zeros((num_frames, *size), dtype=bool)
    for row, entry in enumerate(track):
        if entry is not None:
            masks[row] = decode_mask(entry, size=size, location=f"{location}, frame {row}")
    return masks


def decode_mask(entry: Any, *, size: tuple[int, int], location: str) -> NDArray[np.bool_]:
    """Decode run lengths whose counts are text, bytes (as in pickles) or a list of integers.

    Raises:
        ValueError: They are broken, or of another size.
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"{location}: expected run lengths with size and counts, got {entry!r:.80}")
    counts = entry.get("counts")
    try:
        text = counts.decode("ascii") if isinstance(counts, bytes) else counts
        mask = decode_rle({**entry, "counts": text})
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error
    if mask.shape != size:
        raise ValueError(f"{location}: the mask has (H, W) = {mask.shape}, the clip {size}")
    return mask


def image_size(path: Path) -> tuple[int, int]:
    """Return (H, W) of an image file without decoding it.

    Raises:
        OSError: It cannot be read.
    """
    with Image.open(path) as image:
        return image.height, image.width
