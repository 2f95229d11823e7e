"""Files of results, written on request to the folder of a user session."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from PIL import Image

from unipixel.demos.errors import DemoError, DownloadError, StorageError
from unipixel.demos.export.archive import ArchiveState, write_archive, write_json, write_zip
from unipixel.demos.export.effects import EffectSettings, apply_effects
from unipixel.demos.sessions.session_snapshot import SessionSnapshot
from unipixel.demos.storage.saved_session import SavedTurn
from unipixel.output.overlay import draw_overlay
from unipixel.output.result import Result
from unipixel.output.video_encoder import VideoEncoder
from unipixel.output.writers import FrameWriter, MaskWriter
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import UNTIMED_FPS, Frame
from unipixel.video.open import Video

KINDS = ("masks", "coco", "overlay", "effects", "timeline", "session")
"""Kinds of downloads."""
FILE_NAMES = (
    "masks.zip", "coco.json", "overlay.mp4", "overlay.png", "effects.mp4", "effects.webm", "effects.png",
    "timeline.json", "session.zip",
)  # fmt: skip
"""All names of such files; nothing else is served."""

Check = Callable[[int, int], None]
"""Called at every frame with the number of finished and of all frames; may raise to stop."""


@dataclass(frozen=True)
class DownloadRequest:
    """What to write.

    Attributes:
        kind: One of `KINDS`.
        effects: Effects, for the kind `effects`.
    """

    kind: str
    effects: EffectSettings = field(default_factory=EffectSettings)


@dataclass(frozen=True)
class DownloadContent:
    """The content of a session's downloads.

    Attributes:
        video: The video or image.
        sound: Returns its sound, see `VideoEncoder`.
        name: Display name of the video or image.
        snapshot: Masks and prompts of the objects.
        names: Names that the user gave, by object id.
        turns: The conversation.
        model_name: Name of the model.
        archive: State of the session, for the kind `session`.
    """

    video: Video
    sound: Callable[[], Iterator[bytes]]
    name: str
    snapshot: SessionSnapshot
    names: Mapping[int, str]
    turns: tuple[SavedTurn, ...]
    model_name: str | None
    archive: ArchiveState | None = None


def make_download(request: DownloadRequest, folder: Path, content: DownloadContent, *, check: Check) -> Path:
    """Write a file to a folder, replacing an earlier one, and return its path.

    Args:
        request: What to write.
        folder: Folder for results in an existing folder; created if missing.
        content: Content of the file.
        check: See `Check`.

    Raises:
        DownloadError: The kind does not exist, or no object has a mask.
        OSError: The file cannot be written.
    """
    kind = request.kind
    if kind not in KINDS:
        raise DownloadError(f"there is no download {kind!r:.40}: choose {', '.join(KINDS)}")
    if kind != "session" and not content.snapshot.has_masks:
        raise DownloadError("no object has a mask yet: click an object or ask about one first")
    folder.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".partial-") as scratch:
        file = _write(request, Path(scratch), content, check)
        target = folder / file.name
        os.replace(file, target)
    return target


def write_playback(path: Path, video: Video, sound: Iterator[bytes]) -> None:
    """Encode a video for browsers that do not play the uploaded file.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as scratch:
            part = Path(scratch) / path.name
            with VideoEncoder(part, fps=video.info.fps, crf=22, sound=sound) as encoder:
                for frame in video:
                    encoder.write(frame.image, frame.timestamp_seconds)
            os.replace(part, path)
    except OSError as error:
        raise error if isinstance(error, DemoError) else StorageError() from error


def _write(request: DownloadRequest, scratch: Path, content: DownloadContent, check: Check) -> Path:
    if request.kind == "masks":
        _write_frames(content, [MaskWriter(scratch / "masks")], check)
        return write_zip(scratch / "masks.zip", scratch / "masks", lambda: check(1, 1))
    if request.kind == "coco":
        return write_json(scratch / "coco.json", _write_frames(content, [], check).to_coco())
    if request.kind == "timeline":
        return _write_timeline(scratch / "timeline.json", content)
    if request.kind == "session":
        return _write_session(scratch, content, check)
    writer = _RenderedWriter(scratch, request, content)
    _write_frames(content, [writer], check)
    return writer.path


class _RenderedWriter(FrameWriter):
    """Writes the frames with masks or effects, as a video with sound or as an image."""

    def __init__(self, folder: Path, request: DownloadRequest, content: DownloadContent) -> None:
        self._request, self._marks = request, content.snapshot.prompts_at()
        info, has_alpha = content.video.info, request.kind == "effects" and request.effects.has_alpha
        suffix = ".png" if info.is_image else ".webm" if has_alpha else ".mp4"
        self.path = folder / f"{request.kind}{suffix}"
        self._encoder = (
            None
            if info.is_image
            else VideoEncoder(
                self.path,
                fps=info.fps or UNTIMED_FPS,
                crf=32 if has_alpha else 20,
                has_alpha=has_alpha,
                sound=content.sound(),
            )
        )

    def write(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        """Render and write a frame."""
        if self._request.kind == "effects":
            pixels = apply_effects(frame.image, objects, self._request.effects)
        else:
            marks = [mark for mark in self._marks if mark.frame_index == frame.index]
            pixels = draw_overlay(frame.image, objects, prompts=marks)
        if self._encoder is None:
            Image.fromarray(pixels).save(self.path, format="PNG", compress_level=1)
        else:
            self._encoder.write(pixels, frame.timestamp_seconds)

    def close(self) -> None:
        """Complete the file."""
        if self._encoder is not None:
            self._encoder.close()


def _write_timeline(path: Path, content: DownloadContent) -> Path:
    info = content.video.info
    objects = [
        {"id": item.id, "name": item.name, "color": item.color, "visible_frames": list(item.visible_frames)}
        for item in content.snapshot.objects(content.names)
    ]
    return write_json(path, {"video": content.name, "num_frames": info.num_frames, "fps": info.fps, "objects": objects})


def _write_session(scratch: Path, content: DownloadContent, check: Check) -> Path:
    folder = scratch / "session"
    folder.mkdir()
    if content.snapshot.has_masks:
        result = _write_frames(content, [MaskWriter(folder / "masks")], check)
        write_json(folder / "result.json", result.to_dict())
        write_json(folder / "coco.json", result.to_coco())
    _write_timeline(folder / "timeline.json", content)
    turns = [{"question": turn.question, "answer": turn.answer} for turn in content.turns]
    write_json(folder / "conversation.json", {"model": content.model_name, "turns": turns})
    if content.archive is not None:
        write_archive(content.archive, folder, name=content.name)
    return write_zip(scratch / "session.zip", folder, lambda: check(1, 1))


def _write_frames(content: DownloadContent, writers: list[FrameWriter], check: Check) -> Result:
    """Pass every frame to the writers once, and return the result document."""
    snapshot, info = content.snapshot, content.video.info
    result = Result(
        # The path in the session's folder is private to the server.
        video=replace(info, path=content.name),
        model=content.model_name,
        question="\n".join(turn.question for turn in content.turns) or None,
        answer="\n".join(turn.answer for turn in content.turns) or None,
    )
    for item in snapshot.objects(content.names):
        result.add_object(
            item.id,
            source=item.source,
            expression=content.names.get(item.id) or item.expression,
            anchor_frame=item.anchor_frame,
        )
    try:
        for frame in content.video:
            check(frame.index, info.num_frames or 0)
            objects = {
                key: ObjectMask(mask.mask(snapshot.frame_size), mask.score, mask.is_visible)
                for key, mask in snapshot.records_at(frame.index).items()
            }
            result.add_frame(frame, objects)
            for writer in writers:
                writer.write(frame, objects)
    finally:
        for writer in writers:
            writer.close()
    return result
