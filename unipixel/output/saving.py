"""Saving of a result into a folder, and reading it again; `result.json` is untrusted and validated."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unipixel.memory.records import check_integer, is_finite_number
from unipixel.memory.rle import MAX_MASK_PIXELS, check_rle, rle_box
from unipixel.output.exports import EXPORTS
from unipixel.output.folder import OutputFolder
from unipixel.output.result import SOURCES, VERSION, Result
from unipixel.output.result_object import ResultFrame, ResultObject
from unipixel.output.writers import FrameWriter, MaskWriter, PaletteWriter, overlay_writer
from unipixel.video.frame import Frame, VideoInfo
from unipixel.video.open import open_video

RESULT_FILE = "result.json"
MAX_RESULT_BYTES = 2**30
"""Size in bytes of the largest `result.json` that is read."""
_MAX_FRAMES = 2**24
_MAX_OBJECT_ID = 2**31


def save_result(
    result: Result,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    overlay: bool = True,
    davis_name: str | None = None,
    exports: Collection[str] = (),
) -> Path:
    """Write `result.json`, `masks/ID/00000.png` and an overlay, all or nothing.

    Args:
        result: The result.
        folder: Created if it does not exist.
        overwrite: Whether the results in an existing folder are replaced.
        overlay: Whether `overlay.mp4` (or `overlay.png` for an image) is written, if the frames can still be read.
        davis_name: Name of the sequence in the DAVIS layout; None writes no palette images.
        exports: Further formats: `coco`, `cvat`, `label-studio`, `yolo`.

    Returns:
        The folder.

    Raises:
        FileExistsError: The folder exists and `overwrite` is False.
        ValueError: A format is unknown.
        OSError: The folder cannot be written.
    """
    check_exports(exports)
    with OutputFolder(folder, overwrite=overwrite) as opened:
        writers: list[FrameWriter] = [MaskWriter(opened.path / "masks")]
        if davis_name is not None:
            writers.append(PaletteWriter(opened.path / "davis" / davis_name))
        if overlay and has_frames(result):
            writers.append(overlay_writer(opened.path, result.video, prompts=result.prompts))
        for writer in writers:
            opened.add(writer)
        for frame in iterate_frames(result):
            masks = result.masks_on(frame.index)
            for writer in writers:
                writer.write(frame, masks)
        write_documents(result, opened.path, exports=exports)
    return Path(folder)


def write_documents(result: Result, folder: Path, *, exports: Collection[str] = ()) -> None:
    """Write `result.json` and the files of further formats into a folder.

    Raises:
        OSError: A file cannot be written.
    """
    (folder / RESULT_FILE).write_text(result.to_json() + "\n", encoding="utf-8")
    for name in exports:
        for file, content in EXPORTS[name](result).items():
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")


def check_exports(names: Collection[str]) -> None:
    """Check the names of formats.

    Raises:
        ValueError: One is unknown.
    """
    if unknown := sorted(set(names) - set(EXPORTS)):
        raise ValueError(f"unknown export format {unknown[0]!r}: allowed are {', '.join(EXPORTS)}")


def has_frames(result: Result) -> bool:
    """Return whether the frames of the video can still be read; opens a video file that is not open."""
    # A path of a loaded result is untrusted: no address, device or pipe is opened.
    path = result.video.path
    if result.source is None and (os.path.isfile(path) or os.path.isdir(path)):
        try:
            video = open_video(Path(path))
        except (OSError, ValueError):
            return False
        if (video.info.width, video.info.height) == (result.video.width, result.video.height):
            result.source = video
    return result.source is not None and not result.source.is_stream


def iterate_frames(result: Result) -> Iterator[Frame]:
    """Yield the frames of the video; black ones, where there are masks, if they can no longer be read."""
    if has_frames(result) and result.source is not None:
        yield from result.source
        return
    image = np.zeros((result.video.height, result.video.width, 3), dtype=np.uint8)
    times = {frame.frame_index: frame.timestamp_seconds for item in result.objects.values() for frame in item.frames}
    for index in sorted(times):
        yield Frame(index, times[index], image)


def load_result(folder: str | os.PathLike[str]) -> Result:
    """Read the `result.json` of a folder; masks are decoded when they are read.

    Args:
        folder: The folder, or the file itself. The video is opened again for overlays if it is still in its place.

    Raises:
        OSError: The file is missing, or not JSON in UTF-8.
        ValueError: It is too large, of another version, or a value is invalid.
    """
    path = Path(folder)
    file = path / RESULT_FILE if path.is_dir() else path
    if (size := file.stat().st_size) > MAX_RESULT_BYTES:
        raise ValueError(f"{file} has {size} bytes: at most {MAX_RESULT_BYTES} are allowed")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OSError(f"{file} is not valid JSON in UTF-8: {error}") from error
    try:
        return _read_result(content)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{file} is not a result of this version: {reason}") from error


def _read_result(content: Any) -> Result:
    fields = _mapping(content, "the document")
    if fields.get("version") != VERSION:
        raise ValueError(f"version is {fields.get('version')!r}, this version reads {VERSION}")
    info = _read_info(_mapping(fields["video"], "video"))
    timings = _mapping(fields["timings_seconds"], "timings_seconds")
    if not all(is_finite_number(seconds) for seconds in timings.values()):
        raise ValueError("timings_seconds must be finite numbers")
    result = Result(
        info,
        model=_text(fields["model"], "model"),
        question=_text(fields["question"], "question"),
        answer=_text(fields["answer"], "answer"),
        timings_seconds=dict(timings),
        is_partial=fields.get("is_partial") is True,
    )
    for entry in _list(fields["objects"], "objects"):
        item = _read_object(_mapping(entry, "an object"), (info.height, info.width))
        if item.id in result.objects:
            raise ValueError(f"object {item.id} occurs twice")
        result.objects[item.id] = item
    return result


def _read_info(fields: Mapping[str, Any]) -> VideoInfo:
    width = check_integer(fields["width"], "width", low=1, high=MAX_MASK_PIXELS)
    height = check_integer(fields["height"], "height", low=1, high=MAX_MASK_PIXELS // width)
    count = fields["num_frames"]
    fps, duration = fields["fps"], fields["duration_seconds"]
    for name, value in (("fps", fps), ("duration_seconds", duration)):
        if value is not None and not (is_finite_number(value) and value >= 0):
            raise ValueError(f"{name} must be a number of at least 0 or null, got {value!r}")
    return VideoInfo(
        path=_text(fields["path"], "path") or "",
        width=width,
        height=height,
        num_frames=None if count is None else check_integer(count, "num_frames", high=_MAX_FRAMES),
        fps=fps or None,
        duration_seconds=duration,
        is_image=count == 1 and fps is None,
    )


def _read_object(fields: Mapping[str, Any], frame_size: tuple[int, int]) -> ResultObject:
    object_id = check_integer(fields["id"], "id", high=_MAX_OBJECT_ID)
    if fields["source"] not in SOURCES:
        raise ValueError(f"source must be one of {', '.join(SOURCES)}, got {fields['source']!r}")
    item = ResultObject(
        object_id,
        source=fields["source"],
        frame_size=frame_size,
        expression=_text(fields["expression"], "expression"),
        anchor_frame=check_integer(fields["anchor_frame"], "anchor_frame", high=_MAX_FRAMES),
    )
    last = -1
    for entry in _list(fields["frames"], "frames"):
        frame = _read_frame(_mapping(entry, "a frame"), frame_size)
        if frame.frame_index <= last:
            raise ValueError(f"object {object_id}: frames must be ordered, {frame.frame_index} follows {last}")
        last = frame.frame_index
        item.frames.append(frame)
    return item


def _read_frame(fields: Mapping[str, Any], frame_size: tuple[int, int]) -> ResultFrame:
    index = check_integer(fields["frame_index"], "frame_index", high=_MAX_FRAMES)
    seconds, score, rle = fields["timestamp_seconds"], fields["score"], fields["rle"]
    if not (is_finite_number(seconds) and is_finite_number(score) and math.isfinite(float(seconds))):
        raise ValueError(f"frame {index}: timestamp_seconds and score must be finite numbers")
    box = None
    if rle is not None:
        check_rle(_mapping(rle, "rle"))
        if list(rle["size"]) != list(frame_size):
            raise ValueError(f"frame {index}: the mask has {rle['size']}, the video {list(frame_size)}")
        if isinstance(rle["counts"], list):
            raise ValueError(f"frame {index}: run lengths must be compressed")
        box = rle_box(rle)
    # The box and the visibility follow from the mask, so that they cannot contradict it.
    return ResultFrame(index, float(seconds), box is not None, float(score), list(box) if box else None,
                       dict(rle) if box else None)  # fmt: skip


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object, got {value!r:.80}")
    return value


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list, got {value!r:.80}")
    return value


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a text or null, got {value!r:.80}")
    return value
