"""Files of results, written on request to the folder of a user session."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from unipixel.demos.errors import DownloadError
from unipixel.demos.sessions.saved_session import SavedTurn
from unipixel.demos.sessions.session_snapshot import SessionSnapshot
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.output.result import Result
from unipixel.output.writers import FrameWriter, MaskWriter, overlay_writer
from unipixel.tracking.types import ObjectMask
from unipixel.video.open import Video

KINDS = ("masks", "coco", "overlay", "timeline", "session")
"""Kinds of downloads."""
FILE_NAMES = ("masks.zip", "coco.json", "overlay.mp4", "overlay.png", "timeline.json", "session.zip")
"""All names of such files; nothing else is served."""
_COMPRESSED_SUFFIXES = (".mp4", ".png", ".zip", ".jpg", ".jpeg", ".webm", ".mkv", ".webp")


@dataclass(frozen=True)
class DownloadContent:
    """The content of a session's downloads.

    Attributes:
        video: The video or image.
        bank: Its objects.
        name: Display name of the video or image.
        snapshot: Masks and prompts of the objects.
        names: Names that the user gave, by object id.
        turns: The conversation.
        model_name: Name of the model.
        upload_file: The uploaded file.
        bank_file: The saved object memory bank.
    """

    video: Video
    bank: ObjectMemoryBank
    name: str
    snapshot: SessionSnapshot
    names: Mapping[int, str]
    turns: tuple[SavedTurn, ...]
    model_name: str | None
    upload_file: Path
    bank_file: Path


def make_download(kind: str, folder: Path, content: DownloadContent, *, check: Callable[[], None]) -> Path:
    """Write a file to a folder, replacing an earlier one, and return its path.

    Args:
        kind: One of `KINDS`.
        folder: Folder for results; created if missing.
        content: Content of the file.
        check: Called at every frame; may raise to stop.

    Raises:
        DownloadError: The kind does not exist, or there are no tracked objects.
        OSError: The file cannot be written.
    """
    if kind not in KINDS:
        raise DownloadError(f"there is no download {kind!r:.40}: choose {', '.join(KINDS)}")
    if kind != "session" and not content.bank.ids:
        raise DownloadError("no object was tracked yet: click an object or ask about one first")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch:
        file = _WRITERS[kind](Path(scratch), content, check)
        target = folder / file.name
        os.replace(file, target)
    return target


def _masks(scratch: Path, content: DownloadContent, check: Callable[[], None]) -> Path:
    _write_frames(content, [MaskWriter(scratch / "masks")], check)
    return _write_zip(scratch / "masks.zip", scratch / "masks", check)


def _coco(scratch: Path, content: DownloadContent, check: Callable[[], None]) -> Path:
    return _write_json(scratch / "coco.json", _write_frames(content, [], check).to_coco())


def _overlay(scratch: Path, content: DownloadContent, check: Callable[[], None]) -> Path:
    _write_frames(content, [_overlay_writer(scratch, content)], check)
    return next(path for path in scratch.iterdir() if path.stem == "overlay")


def _timeline(scratch: Path, content: DownloadContent, _: Callable[[], None]) -> Path:
    info = content.video.info
    objects = [
        {"id": item.id, "name": item.name, "color": item.color, "visible_frames": list(item.visible_frames)}
        for item in content.snapshot.objects(content.names)
    ]
    document = {"video": content.name, "num_frames": info.num_frames, "fps": info.fps, "objects": objects}
    return _write_json(scratch / "timeline.json", document)


def _session(scratch: Path, content: DownloadContent, check: Callable[[], None]) -> Path:
    folder = scratch / "session"
    folder.mkdir()
    if content.bank.ids:
        result = _write_frames(content, [MaskWriter(folder / "masks"), _overlay_writer(folder, content)], check)
        _write_json(folder / "result.json", result.to_dict())
        _write_json(folder / "coco.json", result.to_coco())
    _timeline(folder, content, check)
    turns = [asdict(turn) for turn in content.turns]
    names = {str(key): name for key, name in content.names.items()}
    _write_json(folder / "conversation.json", {"model": content.model_name, "turns": turns, "names": names})
    # Separate folders, since the name of an upload may equal that of any other file.
    for subfolder, file, name in (
        ("upload", content.upload_file, content.name),
        ("memory", content.bank_file, content.bank_file.name),
    ):
        (folder / subfolder).mkdir()
        shutil.copyfile(file, folder / subfolder / name)
    return _write_zip(scratch / "session.zip", folder, check)


_WRITERS: dict[str, Callable[[Path, DownloadContent, Callable[[], None]], Path]] = {
    "masks": _masks,
    "coco": _coco,
    "overlay": _overlay,
    "timeline": _timeline,
    "session": _session,
}


def _overlay_writer(folder: Path, content: DownloadContent) -> FrameWriter:
    return overlay_writer(folder, content.video.info, prompts=content.snapshot.prompts_at())


def _write_frames(content: DownloadContent, writers: list[FrameWriter], check: Callable[[], None]) -> Result:
    """Pass every frame to the writers once, and return the result document."""
    bank = content.bank
    result = Result(
        # The path in the session's folder is private to the server.
        video=replace(content.video.info, path=content.name),
        model=content.model_name,
        question="\n".join(turn.question for turn in content.turns) or None,
        answer="\n".join(turn.answer for turn in content.turns) or None,
    )
    for key in sorted(bank.ids):
        record = bank[key]
        expression = content.names.get(key) or record.expression
        result.add_object(key, source=record.source, expression=expression, anchor_frame=record.anchor_frame)
    try:
        for frame in content.video:
            check()
            objects = {
                key: ObjectMask(mask.mask(bank.frame_size), mask.score, mask.is_visible)
                for key, mask in content.snapshot.records_at(frame.index).items()
                if key in bank
            }
            result.add_frame(frame, objects)
            for writer in writers:
                writer.write(frame, objects)
    finally:
        for writer in writers:
            writer.close()
    return result


def _write_json(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _write_zip(target: Path, folder: Path, check: Callable[[], None]) -> Path:
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            check()
            if path.is_file():
                is_compressed = path.suffix.lower() in _COMPRESSED_SUFFIXES
                kind = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
                archive.write(path, path.relative_to(folder).as_posix(), compress_type=kind)
    return target
