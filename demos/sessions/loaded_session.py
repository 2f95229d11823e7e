"""The part of a user session that is in memory, and how it is saved and restored."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from unipixel.demos.errors import DemoError, UnknownObjectError, UnknownSessionError
from unipixel.demos.security.uploads import open_upload
from unipixel.demos.sessions.saved_session import MEMORY_FOLDER, SavedSession, SavedTurn
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.sessions.session_snapshot import SessionSnapshot
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.processing.clip_layout import recall_prompt, record_prompt
from unipixel.session.session import Session
from unipixel.session.video_objects import ObjectSnapshot
from unipixel.video.frame import Frame
from unipixel.video.open import open_video

_LOG = logging.getLogger(__name__)
_MAX_UNDO = 16


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
    """

    name: str
    width: int
    height: int
    num_frames: int
    fps: float | None
    duration_seconds: float
    is_image: bool


@dataclass
class LoadedSession:
    """Video, objects and conversation of a user session; replaced as a whole by another video.

    Attributes:
        session: The session with the model.
        info: The video or image.
        file_name: Name of its file in the folder of the user session.
        is_trusted: Whether it is one of the demo's own examples, which are decoded without a sandbox.
        turns: The conversation, bounded.
        names: Names that the user gave, by object id.
        snapshot: Copy of the objects for other threads.
        undo: States of objects before the latest prompts, oldest first.
        recent_frames: Frames that were just tracked, so that the page need not decode them again.
        num_turns: Turns since the model's conversation started.
    """

    session: Session
    info: MediaInfo
    file_name: str
    is_trusted: bool
    turns: deque[SavedTurn]
    names: dict[int, str] = field(default_factory=dict)
    snapshot: SessionSnapshot = field(default_factory=SessionSnapshot)
    undo: deque[ObjectSnapshot] = field(default_factory=lambda: deque(maxlen=_MAX_UNDO))
    recent_frames: tuple[Frame, ...] = ()
    num_turns: int = 0

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
        video = open_video(file) if is_trusted else open_upload(file, name=name, limits=context.limits)
        try:
            session = Session(context.model, context.processor, video, settings=context.settings, bank=bank)
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
        )
        turns: deque[SavedTurn] = deque(maxlen=context.limits.max_turns)
        loaded = cls(session, info, file.name, is_trusted, turns)
        loaded.update_snapshot()
        return loaded

    @classmethod
    def restore(cls, folder: Path, context: ServerContext) -> LoadedSession:
        """Restore what `save` wrote.

        Raises:
            UnknownSessionError: It is damaged.
        """
        try:
            saved = SavedSession.read(folder)
            bank = ObjectMemoryBank.load(folder / MEMORY_FOLDER)
            file = folder / saved.media
            loaded = cls.open(file, name=saved.name, is_trusted=saved.is_trusted, context=context, bank=bank)
            try:
                for object_id, records in saved.pending_prompts.items():
                    prompts = [recall_prompt(record, frame_size=saved.frame_size) for record in records]
                    loaded.session.prompt(object_id, *prompts)
            except BaseException:
                loaded.close()
                raise
        except (OSError, ValueError, DemoError) as error:
            _LOG.warning("cannot restore a saved session: %s", error)
            raise UnknownSessionError from error
        loaded.names |= saved.names
        loaded.turns.extend(saved.turns)
        loaded.update_snapshot()
        return loaded

    def save(self, folder: Path) -> None:
        """Save the session to its folder.

        Raises:
            OSError: The folder is not writable.
        """
        self.session.bank.save(folder / MEMORY_FOLDER)
        pending = self.session.objects.pending_prompts.items()
        SavedSession(
            name=self.info.name,
            media=self.file_name,
            is_trusted=self.is_trusted,
            frame_size=self.session.bank.frame_size,
            names=dict(self.names),
            turns=tuple(self.turns),
            pending_prompts={key: tuple(record_prompt(prompt) for prompt in prompts) for key, prompts in pending},
        ).write(folder)

    @property
    def num_bytes(self) -> int:
        """Approximate memory, without the model."""
        return self.session.num_bytes + self.snapshot.num_bytes

    def update_snapshot(self) -> None:
        """Copy all objects to the snapshot."""
        self.snapshot.update(self.session.objects)

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
