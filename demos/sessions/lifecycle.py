"""The states of a user session: in memory, working, offloaded to disk, closed."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unipixel.demos.errors import BusyError, NoVideoError, UnknownSessionError
from unipixel.demos.sessions.background_work import StopFlag
from unipixel.demos.sessions.loaded_session import LoadedSession
from unipixel.demos.sessions.saved_session import SESSION_FILE
from unipixel.demos.sessions.server_context import ServerContext


class SessionLifecycle:
    """Loads, offloads and closes a user session, and allows one piece of work at a time; thread-safe.

    Attributes:
        folder: Folder of the session; created when it is first needed.
        context: What all sessions share.
        lock: Guards the state of the session.
        last_used: When the session was last used, in seconds of `time.time`.
        is_closed: Whether the session was removed.
    """

    def __init__(self, folder: Path, context: ServerContext) -> None:
        """Create a session without a video, or for what is saved in the folder.

        Args:
            folder: Folder of the session.
            context: What all sessions share.
        """
        self.folder, self.context = folder, context
        self.lock = threading.RLock()
        self.last_used = time.time()
        self.is_closed = False
        self._offloads_at_end = False
        self._stop_flag: StopFlag | None = None
        self._loaded: LoadedSession | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the video and its objects are in memory."""
        return self._loaded is not None

    @property
    def is_busy(self) -> bool:
        """Whether a piece of work is in progress."""
        return self._stop_flag is not None

    @property
    def has_video(self) -> bool:
        """Whether there is a video or image, in memory or on disk."""
        return self.is_loaded or self._is_saved

    @property
    def num_bytes(self) -> int:
        """Approximate memory of the session, without the model."""
        loaded = self._loaded
        return 0 if loaded is None else loaded.num_bytes

    def loaded(self) -> LoadedSession:
        """Return the session in memory; reload it if it was offloaded.

        Raises:
            NoVideoError: There is no video yet.
            UnknownSessionError: The session is closed, or damaged on disk.
            BusyError: There is no memory for it.
        """
        with self.lock:
            self._check_open()
            self.last_used, self._offloads_at_end = time.time(), False
            if self._loaded is None and self._is_saved:
                self.context.free_memory(self)
                self._loaded = LoadedSession.restore(self.folder, self.context)
            if self._loaded is None:
                raise NoVideoError
            return self._loaded

    def replace(self, loaded: LoadedSession) -> None:
        """Replace the session in memory and on disk; the files of the previous video are removed.

        Raises:
            OSError: The folder is not writable.
        """
        with self.lock:
            if self._loaded is not None:
                self._loaded.close()
            for entry in self.folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                elif entry.name != loaded.file_name:
                    entry.unlink(missing_ok=True)
            self._loaded = loaded
            loaded.save(self.folder)

    def offload(self) -> bool:
        """Save the session to disk and free its memory.

        Returns:
            Whether that was done; not for a session that is busy, closed or not in memory.

        Raises:
            OSError: The folder is not writable; the session stays in memory.
        """
        # Does not wait: the caller may own the lock of another session.
        if not self.lock.acquire(blocking=False):
            return False
        try:
            if self._loaded is None or self.is_busy or self.is_closed:
                return False
            self._loaded.save(self.folder)
            self._loaded.close()
            self._loaded = None
            return True
        finally:
            self.lock.release()

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the work in progress, if any; it stops at its next token or frame."""
        stop_flag = self._stop_flag
        if stop_flag is not None:
            stop_flag.stop(reason)

    def cancel_and_offload(self) -> None:
        """Cancel the work and offload the session as soon as the work has stopped.

        Raises:
            OSError: The folder is not writable; the session stays in memory.
        """
        with self.lock:
            self._offloads_at_end = self.is_busy
            self.cancel("the page was closed")
            self.offload()

    def close(self) -> None:
        """Cancel the work, free the memory and remove all files, as soon as the work has stopped."""
        with self.lock:
            self.is_closed = True
            self.cancel("the session was closed")
            if not self.is_busy:
                self._remove()

    @contextmanager
    def idle(self) -> Iterator[LoadedSession]:
        """Lock the session for a short change.

        Yields:
            The session in memory.

        Raises:
            BusyError: Work is in progress.
        """
        with self.lock:
            loaded = self.loaded()
            self._check_idle()
            yield loaded

    def begin_work(self) -> StopFlag:
        """Begin a piece of work; until `end_work`, no other can begin.

        Raises:
            BusyError: Other work is in progress.
        """
        with self.lock:
            self._check_open()
            self._check_idle()
            self._stop_flag = StopFlag(max_seconds=self.context.limits.max_work_seconds)
            return self._stop_flag

    def end_work(self) -> None:
        """End the piece of work; then close or offload the session if that was requested meanwhile.

        Raises:
            OSError: The session cannot be saved.
        """
        with self.lock:
            self._stop_flag = None
            self.last_used = time.time()
            if self.is_closed:
                self._remove()
            elif self._loaded is not None:
                self._loaded.recent_frames = ()
                self._loaded.update_snapshot()
                if self._offloads_at_end:
                    self.offload()

    @contextmanager
    def working(self) -> Iterator[StopFlag]:
        """Begin a piece of work for the block, in the calling thread; see `begin_work`.

        Yields:
            The flag that stops it.
        """
        stop_flag = self.begin_work()
        try:
            yield stop_flag
        finally:
            self.end_work()

    @property
    def _is_saved(self) -> bool:
        return (self.folder / SESSION_FILE).is_file()

    def _remove(self) -> None:
        if self._loaded is not None:
            self._loaded.close()
        self._loaded = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check_open(self) -> None:
        if self.is_closed:
            raise UnknownSessionError

    def _check_idle(self) -> None:
        if self.is_busy:
            raise BusyError("work is in progress: wait until it is done, or stop it")
