"""Masks of the objects of an entry, decoded when a sample is drawn.

A mask reference is an object of JSON with one of these sets of fields:

- `track`: one segment per frame. A segment is null, COCO run lengths, a list of polygons, or a list of such segments,
  which are united.
- `spans` with `file`: byte spans of tracks in a JSON file, which are united.
- `members` with `file` and `key`: byte spans of objects in a JSON file, whose `key` is a segment of the only frame; the
  segments are united.
- `file`: JSON file of one segment per frame; with `object`, of one such list per object; with `key` and `column`, an
  object whose `key` has a list of one segment per object for each frame.
- `labels` with `ids`: one label image per frame, in which the object has one of the ids.
- `panoptic` with `ids`: label image of the only frame in COCO's panoptic colours, id = R + 256 G + 65536 B.
- `shapes`: LabelMe shapes of the only frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.memory.rle import decode_rle
from unipixel.train.datasets.coco_polygons import fill_polygons
from unipixel.train.datasets.label_polygons import TARGET, draw_label_polygons
from unipixel.train.datasets.published.entries import MaskReference
from unipixel.train.datasets.published.json_members import JsonMembers
from unipixel.train.datasets.published.source_files import parse_json, resolve
from unipixel.train.evaluation.scoring.label_folders import read_label_image
from unipixel.video.frame import MAX_PIXELS
from unipixel.video.images import read_image


def decode_masks(
    reference: MaskReference,
    root: Path,
    *,
    positions: Sequence[int],
    num_frames: int | None,
    frame_size: tuple[int, int],
    size: tuple[int, int] | None = None,
) -> NDArray[np.bool_]:
    """Decode the masks of one object on some frames.

    Args:
        reference: Where the masks are.
        root: Folder of all data sets.
        positions: Frames, counted among those that have masks.
        num_frames: Number of frames that have masks; None does not check it.
        frame_size: (H, W) of the frames.
        size: (H, W) of polygons; None is that of the frames.

    Returns:
        (len(positions), H, W); masks of another size are resized.

    Raises:
        OSError: A file cannot be read.
        ValueError: The masks are damaged, or their number is not that of the frames.
    """
    if size is not None and not (len(size) == 2 and all(type(side) is int and side > 0 for side in size)):
        raise ValueError(f"{_source(reference)}: the size of an image is two integers above 0, got {size!r:.80}")
    if "labels" in reference:
        ids = list(reference["ids"])
        images = [read_label_image(resolve(root, reference["labels"][index])) for index in positions]
        return np.stack([fit_mask(np.isin(image, ids), frame_size) for image in images])
    if "panoptic" in reference:
        colours = read_image(resolve(root, reference["panoptic"]), max_pixels=MAX_PIXELS).astype(np.int64)
        return fit_mask(np.isin(colours @ [1, 256, 65536], list(reference["ids"])), frame_size)[None]
    if "shapes" in reference:
        drawn = draw_label_polygons(reference["shapes"], size=size or frame_size, location=_source(reference))
        return fit_mask(drawn == TARGET, frame_size)[None]
    tracks = list(_tracks(reference, root))
    for track in tracks:
        if not isinstance(track, list) or (num_frames is not None and len(track) != num_frames):
            count = len(track) if isinstance(track, list) else "no list of"
            raise ValueError(f"{_source(reference)} has {count} masks for {num_frames} frames")
        if max(positions, default=0) >= len(track):
            raise ValueError(f"{_source(reference)} has {len(track)} masks, frame {max(positions)} was asked for")
    masks = np.zeros((len(positions), *frame_size), bool)
    for row, index in enumerate(positions):
        for track in tracks:
            for mask in _segments(track[index], size or frame_size, _source(reference)):
                masks[row] |= fit_mask(mask, frame_size)
    return masks


def fit_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize a mask to a frame of another size: a pixel is foreground where at least half of it is covered."""
    if mask.shape == tuple(size):
        return mask
    resized = Image.fromarray(mask.astype(np.uint8) * 255).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized) >= 128


def _tracks(reference: MaskReference, root: Path) -> list[Any]:
    """Return the tracks of a reference: each a list of one segment per frame."""
    if "track" in reference:
        return [reference["track"]]
    path = resolve(root, reference["file"])
    if "spans" in reference:
        return [JsonMembers.read_value(path, span) for span in reference["spans"]]
    if "members" in reference:
        members = [JsonMembers.read_value(path, span) for span in reference["members"]]
        return [[[_entry(member, reference["key"], path) for member in members]]]
    content = parse_json(path)
    if "object" in reference:
        return [_entry(content, reference["object"], path)]
    if "key" in reference:
        frames = _entry(content, reference["key"], path)
        if not isinstance(frames, list):
            raise ValueError(f"{path} has {frames!r:.80} under {reference['key']!r}, expected a list of frames")
        return [[_entry(frame, reference["column"], path) for frame in frames]]
    return [content]


def _entry(content: Any, key: int | str, path: Path) -> Any:
    try:
        return content[key]
    except (LookupError, TypeError) as error:
        kind = f"object {key}" if isinstance(key, int) else repr(key)
        raise ValueError(f"{path} has no masks of {kind}") from error


def _segments(segment: Any, size: tuple[int, int], location: str) -> list[NDArray[np.bool_]]:
    """Decode the parts of a segment, polygons at a given (H, W)."""
    if segment is None:
        return []
    if isinstance(segment, Mapping):
        return [decode_rle(segment)]
    if not isinstance(segment, list):
        raise ValueError(f"{location}: a mask must be run lengths, polygons or null, got {type(segment).__name__}")
    if segment and isinstance(segment[0], list) and segment[0] and not isinstance(segment[0][0], (list, Mapping)):
        return [fill_polygons(segment, size=size, location=location)]
    return [mask for part in segment for mask in _segments(part, size, location)]


def _source(reference: MaskReference) -> str:
    return str(reference.get("file", "the annotation"))
