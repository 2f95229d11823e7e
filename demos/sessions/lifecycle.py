"""The life of a visitor's session: idle, working, put away on disk, awake again, closed."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unipixel.demos.security.uploads import open_taken
from unipixel.demos.sessions.background_work import StopFlag
from unipixel.demos.sessions.errors import BusyError, DemoError, NoVideoError, UnknownSessionError
from unipixel.demos.sessions.saved_session import MEMORY_FOLDER, SESSION_FILE, SavedSession, SavedTurn
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
    """What a visitor works on.

    Attributes:
        name: As the visitor calls it.
        width: Pixels across.
        height: Pixels down.
        num_frames: Frames; 1 for an image.
        fps: Frames per second; None for an image.
        duration_seconds: Length; 0 for an image.
        is_image: Whether it is a still image.
    """

    name: str
    width: int
    height: int
    num_frames: int
    fps: float | None
    duration_seconds: float
    is_image: bool


class SessionLifecycle:
    """What `UserSession` is built on: who may do what when, and where a session is meanwhile.

    Attributes:
        key: The secret that names this visitor.
        last_used: When it was last used, in seconds of `time.time`.
    """

    def __init__(self, key: str, folder: Path, context: ServerContext) -> None:
        """Begin without a clip, or with what lies in the folder; made by `SessionStore`.

        Args:
            key: The secret.
            folder: The visitor's own folder; made when it is first needed.
            context: What all visitors share.
        """
        self.key = key
        self.last_used = time.time()
        self._folder, self._context = folder, context
        self._lock = threading.RLock()
        self._flag: StopFlag | None = None
        self._is_closed = self._is_leaving = False
        self._session: Session | None = None
        self._clear()

    @property
    def folder(self) -> Path:
        """Where everything of this visitor lies."""
        return self._folder

    @property
    def is_awake(self) -> bool:
        """Whether a clip and its objects are in memory."""
        return self._session is not None

    @property
    def is_busy(self) -> bool:
        """Whether a piece of work is under way."""
        return self._flag is not None

    @property
    def is_closed(self) -> bool:
        """Whether the session was removed."""
        return self._is_closed

    @property
    def has_clip(self) -> bool:
        """Whether there is a clip, in memory or on disk."""
        return self.is_awake or (self._folder / SESSION_FILE).is_file()

    @property
    def num_bytes(self) -> int:
        """About how much memory is held, the model left out."""
        session = self._session
        return 0 if session is None else session.num_bytes + self._snapshot.num_bytes

    def cancel(self, reason: str | None = None) -> None:
        """Stop the work that is under way, at its next token or frame; nothing where there is none."""
        flag = self._flag
        if flag is not None:
            flag.stop(reason)

    def offload(self) -> bool:
        """Save the session to disk and free its memory; return whether that was done.

        A session that is busy, empty, or away already stays what it is.

        Raises:
            OSError: It cannot be written; it stays in memory.
        """
        # Never waits: who makes room holds another visitor's lock.
        if not self._lock.acquire(blocking=False):
            return False
        try:
            session = self._session
            if session is None or self._flag is not None or self._is_closed:
                return False
            self._save(session)
            self._session = None
            session.scene.video.close()
            self._clear()
            return True
        finally:
            self._lock.release()

    def leave(self) -> None:
        """Stop the work and put the session away, as soon as it has stopped: its page was closed.

        Raises:
            OSError: It cannot be written; it stays in memory.
        """
        with self._lock:
            self._is_leaving = self._flag is not None
            self.cancel("the page was closed")
            self.offload()

    def close(self) -> None:
        """Stop the work, free the memory, and remove all files; the key is worth nothing any more."""
        with self._lock:
            self._is_closed = True
            if self._flag is not None:
                self._flag.stop("the session was closed")  # the work's end removes the files
            else:
                self._remove()

    def _clear(self) -> None:
        """Have no clip."""
        self._info: MediaInfo | None = None
        self._media: tuple[str, bool] | None = None
        self._snapshot = SessionSnapshot()
        # Frames that were just followed: a page that shows them as they come need not have them decoded again.
        self._fresh: tuple[Frame, ...] = ()
        self._names: dict[int, str] = {}
        self._turns: deque[SavedTurn] = deque(maxlen=self._context.limits.max_turns)
        self._undo: deque[ObjectSnapshot] = deque(maxlen=_MAX_UNDO)
        self._num_said = 0

    def _install(self, session: Session, name: str, media: str, *, is_trusted: bool) -> None:
        """Work on a clip from now on."""
        info = session.scene.video.info
        self._clear()
        self._session, self._media = session, (media, is_trusted)
        self._info = MediaInfo(
            name=name,
            width=info.width,
            height=info.height,
            num_frames=info.num_frames or 0,
            fps=info.fps,
            duration_seconds=info.duration_seconds or 0.0,
            is_image=info.is_image,
        )
        self._snapshot.show(session.scene)

    def _open(self, media: Path, name: str, *, is_trusted: bool, bank: ObjectMemoryBank | None = None) -> Session:
        """Open a clip that lies in the folder."""
        shop = self._context
        video = open_video(media) if is_trusted else open_taken(media, name=name, limits=shop.limits)
        try:
            return Session(shop.model, shop.processor, video, settings=shop.settings, bank=bank)
        except BaseException:
            video.close()
            raise

    def _awake(self) -> tuple[Session, MediaInfo]:
        """The session, back from disk where it was away."""
        with self._lock:
            self._check_open()
            self.last_used, self._is_leaving = time.time(), False
            if self._session is None and (self._folder / SESSION_FILE).is_file():
                self._context.make_room(self)
                self._restore()
            if self._session is None or self._info is None:
                raise NoVideoError
            return self._session, self._info

    def _save(self, session: Session) -> None:
        if self._media is None or self._info is None:
            raise RuntimeError("a session without a clip cannot be saved: load one first")
        session.bank.save(self._folder / MEMORY_FOLDER)
        waiting = session.scene.waiting.items()
        SavedSession(
            name=self._info.name,
            media=self._media[0],
            is_trusted=self._media[1],
            frame_size=session.bank.frame_size,
            names=dict(self._names),
            turns=tuple(self._turns),
            waiting={key: tuple(record_prompt(prompt) for prompt in own) for key, own in waiting},
        ).write(self._folder)

    def _restore(self) -> None:
        try:
            saved = SavedSession.read(self._folder)
            bank = ObjectMemoryBank.load(self._folder / MEMORY_FOLDER)
            media = self._folder / saved.media
            session = self._open(media, saved.name, is_trusted=saved.is_trusted, bank=bank)
            for object_id, records in saved.waiting.items():
                own = [recall_prompt(record, frame_size=saved.frame_size) for record in records]
                session.prompt(object_id, *own)
        except (OSError, ValueError, DemoError) as error:
            _LOG.warning("a saved session cannot be restored: %s", error)
            raise UnknownSessionError from error
        self._install(session, saved.name, saved.media, is_trusted=saved.is_trusted)
        self._names |= saved.names
        self._turns.extend(saved.turns)

    @contextmanager
    def _idle(self) -> Iterator[Session]:
        """Hold the session for a moment in which no work is under way."""
        with self._lock:
            session, _ = self._awake()
            self._check_idle()
            yield session

    def _begin(self) -> StopFlag:
        """Begin work; until `_end` no other begins."""
        with self._lock:
            self._check_open()
            self._check_idle()
            self._flag = StopFlag(max_seconds=self._context.limits.max_work_seconds)
            return self._flag

    def _end(self) -> None:
        with self._lock:
            self._flag, self._fresh = None, ()
            self.last_used = time.time()
            if self._is_closed:
                self._remove()
            elif self._session is not None:
                self._snapshot.show(self._session.scene)
                if self._is_leaving:
                    self.offload()

    @contextmanager
    def _alone(self) -> Iterator[StopFlag]:
        """Do work in this thread."""
        flag = self._begin()
        try:
            yield flag
        finally:
            self._end()

    def _remove(self) -> None:
        if self._session is not None:
            self._session.scene.video.close()
        self._session = None
        self._clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _check_open(self) -> None:
        if self._is_closed:
            raise UnknownSessionError

    def _check_idle(self) -> None:
        if self._flag is not None:
            raise BusyError("work is under way: wait until it is done, or stop it")
