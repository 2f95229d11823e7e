"""The states of a user session: in memory, working, offloaded to disk, closed."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unipixel.demos.errors import BusyError, NoVideoError, StorageError, UnknownSessionError
from unipixel.demos.sessions.background_work import StopFlag
from unipixel.demos.sessions.loaded_session import LoadedSession
from unipixel.demos.sessions.restoring import restore_session
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.storage.saved_session import RESULTS_FOLDER, SESSION_FILE


class SessionLifecycle:
    """Loads, offloads and closes a user session, and allows one piece of work at a time; thread-safe.

    Attributes:
        folder: Folder of the session; created when it is first needed.
        context: What all sessions share.
        lock: Guards the state of the session.
        last_used: When the session was last used, in seconds of `time.time`.
        is_closed: Whether the session was removed.
        num_pages: Number of pages that show the session.
        client: Hash of the client that opened the session.
    """

    def __init__(self, folder: Path, context: ServerContext, *, client: str = "") -> None:
        """Create a session without a video, or for what is saved in the folder.

        Args:
            folder: Folder of the session.
            context: What all sessions share.
            client: See `SessionLifecycle.client`.
        """
        self.folder, self.context, self.client = folder, context, client
        self.num_pages = 0
        self._export_flag: StopFlag | None = None
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
    def is_in_use(self) -> bool:
        """Whether a page shows the session, or work or an export is in progress."""
        return self.num_pages > 0 or self.is_busy or self._export_flag is not None

    @property
    def has_video(self) -> bool:
        """Whether there is a video or image, in memory or on disk."""
        return self.is_loaded or self._is_saved

    @property
    def num_bytes(self) -> int:
        """Approximate memory of the session, without the model."""
        loaded = self._loaded
        return 0 if loaded is None else loaded.num_bytes

    @property
    def revision(self) -> int:
        """Changes with everything that a page shows; 0 while nothing is in memory."""
        loaded = self._loaded
        return 0 if loaded is None else loaded.revision

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
                self._loaded = restore_session(self.folder, self.context)
                self.client = self.client or self._loaded.client
            if self._loaded is None:
                raise NoVideoError
            return self._loaded

    def replace(self, loaded: LoadedSession) -> None:
        """Replace the session in memory and on disk; the files of the previous video are removed.

        Raises:
            OSError: The folder is not writable.
        """
        with self.lock:
            loaded.client = self.client
            loaded.save()
            if self._loaded is not None:
                self._loaded.close()
            self._loaded = loaded
            shutil.rmtree(self.folder / RESULTS_FOLDER, ignore_errors=True)
            loaded.files.remove_others()

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
            if self._loaded is None or self.is_busy or self.is_closed or self._export_flag is not None:
                return False
            self._loaded.save()
            self._loaded.close()
            self._loaded = None
            return True
        finally:
            self.lock.release()

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the work and the export in progress, if any; they stop at the next token or frame."""
        for stop_flag in (self._stop_flag, self._export_flag):
            if stop_flag is not None:
                stop_flag.stop(reason)

    def cancel_export(self, reason: str) -> None:
        """Cancel the export in progress, if any."""
        if self._export_flag is not None:
            self._export_flag.stop(reason)

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

    @contextmanager
    def changing(self) -> Iterator[LoadedSession]:
        """Lock the session for a short change, which is saved at the end of the block.

        Yields:
            The session in memory.

        Raises:
            BusyError: Work is in progress.
            StorageError: The change cannot be saved.
        """
        with self.idle() as loaded:
            yield loaded
            self.save(loaded)

    def save(self, loaded: LoadedSession) -> None:
        """Save the session; if that fails, go back to what is on disk, which is what was acknowledged.

        Raises:
            StorageError: It cannot be saved.
        """
        try:
            loaded.save()
        except OSError as error:
            loaded.close()
            self._loaded = None
            raise StorageError from error

    @contextmanager
    def exporting(self) -> Iterator[StopFlag]:
        """Begin an export for the block; the session can be changed meanwhile, but not offloaded.

        Yields:
            The flag that stops it.

        Raises:
            BusyError: Another export is in progress.
        """
        with self.lock:
            self._check_open()
            if self._export_flag is not None:
                raise BusyError("an export is in progress: wait until it is done, or stop it", field="download")
            self._export_flag = StopFlag(max_seconds=self.context.limits.max_work_seconds)
        try:
            yield self._export_flag
        finally:
            with self.lock:
                self._export_flag = None
                if self.is_closed:
                    self._remove()

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

    def end_work(self, *, is_saved: bool = False) -> None:
        """End the piece of work; then close or offload the session if that was requested meanwhile.

        Args:
            is_saved: Whether the session is saved already, or was not changed.

        Raises:
            StorageError: The session cannot be saved.
        """
        with self.lock:
            self._stop_flag = None
            self.last_used = time.time()
            if self.is_closed:
                self._remove()
            elif self._loaded is not None:
                self._loaded.recent_frames = ()
                self._loaded.update_snapshot()
                if not is_saved:
                    self.save(self._loaded)
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
            self.end_work(is_saved=True)

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
