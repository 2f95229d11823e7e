"""The part of a user session that is in memory."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unipixel.demos.errors import UnknownObjectError
from unipixel.demos.export.archive import ArchiveState
from unipixel.demos.security.media_streams import describe_streams, sound_blocks
from unipixel.demos.security.sandboxed_video import SandboxedVideo
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.sessions.session_snapshot import SessionSnapshot
from unipixel.demos.storage.mask_journal import MaskJournal
from unipixel.demos.storage.saved_session import SavedSession, SavedTurn
from unipixel.demos.storage.session_files import SessionFiles
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import MaskRecord
from unipixel.processing.clip_layout import record_prompt
from unipixel.session.session import Session, open_session
from unipixel.session.video_objects import ObjectSnapshot
from unipixel.video.frame import Frame
from unipixel.video.open import Video, open_video

_LOG = logging.getLogger(__name__)
_MAX_UNDO = 16
_MAX_TURN_CHARS = 20_000


@dataclass(frozen=True)
class MediaInfo:
    """The video or image of a user session.

    Attributes:
        name: Display name.
        width: Width in pixels.
        height: Height in pixels.
        num_frames: Number of frames; 1 for an image.
        fps: Frames per second; None for an image.
        duration_seconds: Duration; 0 for an image.
        is_image: Whether it is a still image.
        media_type: Media type for browsers, which play the file as it is; None if they do not.
        has_sound: Whether it has sound.
        start_seconds: Time of the first frame in a browser's player.
    """

    name: str
    width: int
    height: int
    num_frames: int
    fps: float | None
    duration_seconds: float
    is_image: bool
    media_type: str | None = None
    has_sound: bool = False
    start_seconds: float = 0.0


@dataclass(frozen=True)
class ObjectVersion:
    """One object before or after a change, for undo and redo.

    Attributes:
        snapshot: Its prompts and masks.
        name: The name that the user gave.
        prompt_masks: Masks on the frames of its pending prompts, by frame.
    """

    snapshot: ObjectSnapshot
    name: str | None
    prompt_masks: dict[int, MaskRecord]


@dataclass
class LoadedSession:
    """Video, objects and conversation of a user session; replaced as a whole by another video.

    Attributes:
        session: The session with the model.
        info: The video or image.
        files: The files of the user session in its folder.
        file_name: Name of the video's file in that folder.
        is_trusted: Whether it is one of the demo's own examples, which are decoded without a sandbox.
        turns: The conversation, bounded.
        names: Names that the user gave, by object id.
        prompt_masks: Masks on the frames of pending prompts, by object id and frame.
        snapshot: Copy of the objects for other threads.
        undo: States of objects before the latest changes, oldest first.
        redo: States of objects before the changes were undone, oldest first.
        recent_frames: Frames that were just tracked, so that the page need not decode them again.
        num_turns: Turns since the model's conversation started.
        revision: Increases with every change that a page shows; unique over restarts of the server.
        media_id: Identifies the loaded video or image.
        client: Hash of the client that opened the session.
        source: The video in its sandbox; None for a trusted one.
    """

    session: Session
    info: MediaInfo
    files: SessionFiles
    file_name: str
    is_trusted: bool
    turns: deque[SavedTurn]
    names: dict[int, str] = field(default_factory=dict)
    prompt_masks: dict[int, dict[int, MaskRecord]] = field(default_factory=dict)
    snapshot: SessionSnapshot = field(default_factory=SessionSnapshot)
    undo: deque[ObjectVersion] = field(default_factory=lambda: deque(maxlen=_MAX_UNDO))
    redo: deque[ObjectVersion] = field(default_factory=lambda: deque(maxlen=_MAX_UNDO))
    recent_frames: tuple[Frame, ...] = ()
    num_turns: int = 0
    revision: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    media_id: str = field(default_factory=lambda: secrets.token_hex(8))
    client: str = ""
    source: SandboxedVideo | None = None

    @classmethod
    def open(
        cls, file: Path, *, name: str, is_trusted: bool, context: ServerContext, bank: ObjectMemoryBank | None = None
    ) -> LoadedSession:
        """Open a video or image of the user session's folder.

        Args:
            file: The file.
            name: Display name.
            is_trusted: See `LoadedSession.is_trusted`.
            context: What all sessions share.
            bank: Objects of a saved session.

        Raises:
            UploadError: It is neither a video nor an image, or above a limit.
            OSError: A trusted file cannot be read.
            ValueError: The bank does not fit the video.
        """
        source = None if is_trusted else SandboxedVideo(file, name=name, limits=context.limits)
        video = open_video(file) if source is None else Video(source)
        streams = describe_streams(file) if source is None else source.streams
        try:
            session = open_session(context.model, context.processor, video, settings=context.settings, bank=bank)
        except BaseException:
            video.close()
            raise
        info = MediaInfo(
            name=name,
            width=video.info.width,
            height=video.info.height,
            num_frames=video.info.num_frames or 0,
            fps=video.info.fps,
            duration_seconds=video.info.duration_seconds or 0.0,
            is_image=video.info.is_image,
            media_type=None if video.info.is_image else streams.media_type,
            has_sound=streams.has_sound and not video.info.is_image,
            start_seconds=streams.start_seconds,
        )
        turns: deque[SavedTurn] = deque(maxlen=context.limits.max_turns)
        loaded = cls(session, info, SessionFiles(file.parent), file.name, is_trusted, turns, source=source)
        loaded.update_snapshot()
        return loaded

    @property
    def file(self) -> Path:
        """The file of the video or image."""
        return self.files.folder / self.file_name

    def save(self) -> None:
        """Save the session to its folder; see `SessionFiles.write`.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        self.files.write(self.saved_state(), self.session.bank)

    def save_names(self) -> None:
        """Save the names only, while the objects are being tracked.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        if not self.files.write_names(dict(self.names)):
            self.save()

    def open_journal(self) -> MaskJournal:
        """Save the session, and open a journal of the masks that follow; see `SessionFiles.open_journal`.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        return self.files.open_journal(self.saved_state(), self.session.bank)

    def saved_state(self) -> SavedSession:
        """Return what is saved of the session besides its object memory, whose file names are empty."""
        pending = self.session.objects.pending_prompts.items()
        return SavedSession(
            name=self.info.name,
            media=self.file_name,
            is_trusted=self.is_trusted,
            frame_size=self.session.bank.frame_size,
            names=dict(self.names),
            turns=tuple(self.turns),
            pending_prompts={key: tuple(record_prompt(prompt) for prompt in prompts) for key, prompts in pending},
            prompt_masks={key: dict(masks) for key, masks in self.prompt_masks.items()},
            memory="",
            journal=None,
            client=self.client,
        )

    def archive_state(self) -> ArchiveState:
        """Return the content of an archive of the session."""
        return ArchiveState(self.saved_state(), self.session.bank.state(), self.file)

    def sound(self) -> Iterator[bytes]:
        """Yield the sound of the video, see `sound_blocks`."""
        if self.source is not None:
            return self.source.sound()
        return sound_blocks(self.file, seconds=self.info.duration_seconds)

    @property
    def num_bytes(self) -> int:
        """Approximate memory, without the model."""
        return self.session.num_bytes + self.snapshot.num_bytes

    def update_snapshot(self) -> None:
        """Copy all objects to the snapshot, without masks of prompts that are no longer pending."""
        pending = self.session.objects.pending_prompts
        for object_id in list(self.prompt_masks):
            frames = {prompt.frame_index for prompt in pending.get(object_id, ())}
            kept = {index: mask for index, mask in self.prompt_masks[object_id].items() if index in frames}
            self.prompt_masks[object_id] = kept
            if not kept:
                del self.prompt_masks[object_id]
        self.snapshot.update(self.session.objects, self.prompt_masks)
        self.revision += 1

    def keep_prompt_masks(self) -> None:
        """Store the masks of prompts that are no longer pending in the object memory, before tracking replaces them."""
        bank, pending = self.session.bank, self.session.objects.pending_prompts
        for object_id, masks in self.prompt_masks.items():
            open_frames = {prompt.frame_index for prompt in pending.get(object_id, ())}
            for frame_index, mask in masks.items():
                if object_id in bank and frame_index not in open_frames:
                    pixels = mask.mask(bank.frame_size) if mask.is_visible else None
                    bank.update(object_id, frame_index, pixels, score=mask.score)
        self.update_snapshot()

    def update_object(self, object_id: int) -> None:
        """Copy one changed object to the snapshot."""
        self.snapshot.update_object(self.session.objects, self.prompt_masks, object_id)
        self.revision += 1

    def object_state(self, object_id: int) -> ObjectVersion:
        """Return the state of an object, known or not, for `restore_object`."""
        return ObjectVersion(
            self.session.objects.snapshot_object(object_id),
            self.names.get(object_id),
            dict(self.prompt_masks.get(object_id, {})),
        )

    def restore_object(self, state: ObjectVersion) -> None:
        """Go back to an earlier state of one object."""
        object_id = state.snapshot.object_id
        self.session.objects.restore_object(state.snapshot)
        self.names.pop(object_id, None)
        if state.name is not None:
            self.names[object_id] = state.name
        self.prompt_masks.pop(object_id, None)
        if state.prompt_masks:
            self.prompt_masks[object_id] = dict(state.prompt_masks)

    def check_object(self, object_id: int) -> None:
        """Check that an object exists.

        Raises:
            UnknownObjectError: It does not.
        """
        if object_id not in self.snapshot.object_ids:
            known = ", ".join(f"[{key}]" for key in self.snapshot.object_ids) or "none"
            raise UnknownObjectError(f"there is no object [{object_id}]; known objects: {known}")

    def close(self) -> None:
        """Close the video."""
        self.session.objects.video.close()
