"""Files that a visitor takes home, made on request in his own folder."""

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
from unipixel.memory.storage import BANK_FILE
from unipixel.output.result import Result
from unipixel.output.writers import FrameWriter, MaskWriter, overlay_writer
from unipixel.tracking.types import ObjectMask
from unipixel.video.open import Video

KINDS = ("masks", "coco", "overlay", "timeline", "session")
"""What can be taken home."""
FILE_NAMES = ("masks.zip", "coco.json", "overlay.mp4", "overlay.png", "timeline.json", "session.zip")
"""Every name under which such a file may lie; nothing else is served."""
_STORED = (".mp4", ".png", ".zip", ".jpg", ".jpeg", ".webm", ".mkv", ".webp")


@dataclass(frozen=True)
class Subject:
    """What the files are about.

    Attributes:
        video: The clip.
        bank: Its objects.
        name: What the visitor calls the clip; the files name it so.
        snapshot: Its objects as they are shown.
        names: What the visitor calls them.
        turns: The conversation.
        model_name: Name of the model.
        files: Further files of the whole session, by the names that they get.
    """

    video: Video
    bank: ObjectMemoryBank
    name: str
    snapshot: SessionSnapshot
    names: Mapping[int, str]
    turns: tuple[SavedTurn, ...]
    model_name: str | None
    files: Mapping[str, Path]


def make_download(kind: str, folder: Path, subject: Subject, *, check: Callable[[], None]) -> Path:
    """Make a file in a folder, in the place of an earlier one, and return where it lies.

    Args:
        kind: One of `KINDS`.
        folder: The visitor's folder of results; made where it is missing.
        subject: What the file is about.
        check: Called at every frame; may raise to stop.

    Raises:
        DownloadError: There is no such kind, or there are no objects yet.
        OSError: The file cannot be written.
    """
    if kind not in KINDS:
        raise DownloadError(f"there is no download {kind!r:.40}: choose {', '.join(KINDS)}")
    if kind != "session" and not subject.bank.ids:
        raise DownloadError("nothing was followed yet: click an object or ask for one first")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as scratch:
        made = _MAKERS[kind](Path(scratch), subject, check)
        target = folder / made.name
        os.replace(made, target)
    return target


def timeline_document(subject: Subject) -> dict[str, Any]:
    """Return on which frames each object is seen, as plain values."""
    info = subject.video.info
    return {
        "video": subject.name,
        "num_frames": info.num_frames,
        "fps": info.fps,
        "objects": [
            {"id": item.id, "name": item.name, "color": item.color, "visible_frames": list(item.visible_frames)}
            for item in subject.snapshot.objects(subject.names)
        ],
    }


def _masks(scratch: Path, subject: Subject, check: Callable[[], None]) -> Path:
    _write_frames(subject, [MaskWriter(scratch / "masks")], check)
    return _zipped(scratch / "masks.zip", scratch / "masks", check)


def _coco(scratch: Path, subject: Subject, check: Callable[[], None]) -> Path:
    return _document(scratch / "coco.json", _write_frames(subject, [], check).to_coco())


def _overlay(scratch: Path, subject: Subject, check: Callable[[], None]) -> Path:
    _write_frames(subject, [_overlay_writer(scratch, subject)], check)
    return next(path for path in scratch.iterdir() if path.stem == "overlay")


def _timeline(scratch: Path, subject: Subject, _: Callable[[], None]) -> Path:
    return _document(scratch / "timeline.json", timeline_document(subject))


def _session(scratch: Path, subject: Subject, check: Callable[[], None]) -> Path:
    whole = scratch / "session"
    whole.mkdir()
    if subject.bank.ids:
        result = _write_frames(subject, [MaskWriter(whole / "masks"), _overlay_writer(whole, subject)], check)
        _document(whole / "result.json", result.to_dict())
        _document(whole / "coco.json", result.to_coco())
    _document(whole / "timeline.json", timeline_document(subject))
    turns = [asdict(turn) for turn in subject.turns]
    names = {str(key): name for key, name in subject.names.items()}
    _document(whole / "conversation.json", {"model": subject.model_name, "turns": turns, "names": names})
    for name, path in subject.files.items():
        # A visitor may call his clip anything, even as one of our own files.
        place = whole / "memory" if name == BANK_FILE else whole / "upload"
        place.mkdir(exist_ok=True)
        shutil.copyfile(path, place / name)
    return _zipped(scratch / "session.zip", whole, check)


_MAKERS: dict[str, Callable[[Path, Subject, Callable[[], None]], Path]] = {
    "masks": _masks,
    "coco": _coco,
    "overlay": _overlay,
    "timeline": _timeline,
    "session": _session,
}


def _overlay_writer(folder: Path, subject: Subject) -> FrameWriter:
    return overlay_writer(folder, subject.video.info, prompts=subject.snapshot.prompts_at())


def _write_frames(subject: Subject, writers: list[FrameWriter], check: Callable[[], None]) -> Result:
    """Go through the clip once; return the result document, which names the clip as the visitor does."""
    bank = subject.bank
    result = Result(
        video=replace(subject.video.info, path=subject.name),
        model=subject.model_name,
        question="\n".join(turn.question for turn in subject.turns) or None,
        answer="\n".join(turn.answer for turn in subject.turns) or None,
    )
    for key in sorted(bank.ids):
        record = bank[key]
        words = subject.names.get(key) or record.expression
        result.add_object(key, source=record.source, expression=words, anchor_frame=record.anchor_frame)
    try:
        for frame in subject.video:
            check()
            looks = subject.snapshot.looks_at(frame.index)
            objects = {
                key: ObjectMask(look.mask(bank.frame_size), look.score, look.is_visible)
                for key, look in looks.items()
                if key in bank
            }
            result.add_frame(frame, objects)
            for writer in writers:
                writer.write(frame, objects)
    finally:
        for writer in writers:
            writer.close()
    return result


def _document(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


def _zipped(target: Path, folder: Path, check: Callable[[], None]) -> Path:
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            check()
            if path.is_file():
                kind = zipfile.ZIP_STORED if path.suffix.lower() in _STORED else zipfile.ZIP_DEFLATED
                archive.write(path, path.relative_to(folder).as_posix(), compress_type=kind)
    return target
