"""The user sessions of a server, identified by secret keys and bounded in number, memory, disk and age."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from pathlib import Path

from unipixel.demos.errors import BusyError, UnknownSessionError
from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.sessions.lifecycle import SessionLifecycle
from unipixel.demos.sessions.saved_session import SESSION_FILE
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.sessions.user_session import UserSession
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.session.settings import SessionSettings

_LOG = logging.getLogger(__name__)
KEY_BYTES = 32
"""Random bytes of a key."""
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_FOLDER_NAME = re.compile(r"[0-9a-f]{64}")


class SessionStore:
    """Opens user sessions and finds them by their keys.

    The least recently used sessions are offloaded to disk when memory is short, and removed when there are too
    many or they are too old. A key is written to no file: the name of a session's folder is a hash of the key.
    """

    def __init__(
        self,
        model: UniPixel,
        processor: Processor,
        *,
        limits: Limits | None = None,
        folder: str | Path | None = None,
        settings: SessionSettings | None = None,
        model_name: str | None = None,
    ) -> None:
        """Open a store.

        Args:
            model: The model that all sessions share.
            processor: Prepares the model's inputs.
            limits: Limits of the sessions.
            folder: Where sessions are saved, readable by the server's user only; sessions of an earlier run are
                found again. None for a temporary folder that `close_all` removes.
            settings: Settings of the sessions.
            model_name: Name of the model, for results.

        Raises:
            OSError: The folder cannot be created.
        """
        self.limits = limits or Limits()
        self._is_temporary = folder is None
        self._folder = Path(tempfile.mkdtemp(prefix="unipixel-demo-")) if folder is None else Path(folder).absolute()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._context = ServerContext(
            model,
            processor,
            self.limits,
            settings=settings or SessionSettings(),
            model_name=model_name,
            free_memory=self._free_memory,
        )
        self._lock = threading.Lock()
        self._sessions: dict[str, UserSession] = {}

    @property
    def num_known(self) -> int:
        """Number of sessions that this process knows, in memory or on disk."""
        return len(self._sessions)

    @property
    def num_loaded(self) -> int:
        """Number of sessions in memory."""
        return sum(session.lifecycle.is_loaded for session in self._by_last_use())

    @property
    def num_waiting(self) -> int:
        """Number of sessions that wait for the model."""
        return self._context.queue.num_waiting

    @property
    def folder(self) -> Path:
        """Where sessions are saved."""
        return self._folder

    def open(self) -> UserSession:
        """Create a session with a new key.

        Raises:
            BusyError: The server has its maximum of sessions, and all of them are busy.
        """
        self.sweep()
        key = secrets.token_urlsafe(KEY_BYTES)
        session = UserSession(key, self._folder / _folder_name(key), self._context)
        with self._lock:
            self._sessions[_folder_name(key)] = session
        if not self._evict(keep=session):
            self.close(key)
            raise BusyError(f"the server is full: all of its {self.limits.max_saved_sessions} sessions are busy")
        return session

    def get(self, key: str) -> UserSession:
        """Return the session of a key; an offloaded one is reloaded when it is used.

        Raises:
            UnknownSessionError: The key belongs to no session.
        """
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise UnknownSessionError
        name = _folder_name(key)
        file = self._folder / name / SESSION_FILE
        with self._lock:
            session = self._sessions.get(name)
            if session is None and file.is_file():
                session = self._sessions[name] = UserSession(key, self._folder / name, self._context)
                session.lifecycle.last_used = file.stat().st_mtime
        if session is None or session.lifecycle.is_closed or self._is_expired(session.lifecycle.last_used):
            raise UnknownSessionError
        session.lifecycle.last_used = time.time()
        return session

    def offload(self, key: str) -> None:
        """Save a session to disk and free its memory, for example when its tab is closed; the key stays valid.

        The work of a busy session is cancelled first; a session without a video is removed.

        Raises:
            UnknownSessionError: The key belongs to no session.
        """
        session = self.get(key)
        if session.lifecycle.has_video or session.lifecycle.is_busy:
            session.lifecycle.cancel_and_offload()
        else:
            self._remove(session)

    def close(self, key: str) -> None:
        """Remove a session with all its files.

        Raises:
            UnknownSessionError: The key belongs to no session.
        """
        self._remove(self.get(key))

    def close_all(self) -> None:
        """Save all sessions, or remove them where the folder is temporary."""
        for session in self._by_last_use():
            if self._is_temporary:
                self._remove(session)
            else:
                session.lifecycle.cancel_and_offload()
        if self._is_temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove expired sessions, also those of earlier runs, and enforce the limits."""
        for session in self._by_last_use():
            if self._is_expired(session.lifecycle.last_used) and not session.lifecycle.is_busy:
                self._remove(session)
        with self._lock:
            known = set(self._sessions)
        for entry in self._folder.iterdir():
            is_unknown_session = (
                _FOLDER_NAME.fullmatch(entry.name) and entry.name not in known and not entry.is_symlink()
            )
            if is_unknown_session and self._is_expired(entry.stat().st_mtime):
                shutil.rmtree(entry, ignore_errors=True)
        self._evict()

    def _by_last_use(self) -> list[UserSession]:
        """Return all sessions, the least recently used first."""
        with self._lock:
            return sorted(self._sessions.values(), key=lambda session: session.lifecycle.last_used)

    def _remove(self, session: UserSession) -> None:
        with self._lock:
            self._sessions.pop(session.lifecycle.folder.name, None)
        session.lifecycle.close()

    def _is_expired(self, last_used: float) -> bool:
        return time.time() - last_used > self.limits.max_age_seconds

    def _free_memory(self, requester: SessionLifecycle) -> None:
        """Offload the least recently used sessions until there is memory for one more.

        Raises:
            BusyError: All sessions in memory are busy.
        """
        ceiling = self.limits.max_memory_megabytes * MEGABYTE
        lifecycles = [session.lifecycle for session in self._by_last_use()]
        loaded = [lifecycle for lifecycle in lifecycles if lifecycle.is_loaded and lifecycle is not requester]
        num_loaded, num_bytes = len(loaded), sum(lifecycle.num_bytes for lifecycle in loaded)
        for lifecycle in loaded:
            if num_loaded < self.limits.max_sessions and num_bytes < ceiling:
                return
            freed = lifecycle.num_bytes
            if _offload_or_log(lifecycle):
                num_loaded, num_bytes = num_loaded - 1, num_bytes - freed
        if num_loaded >= self.limits.max_sessions:
            raise BusyError(f"the server is full: {num_loaded} sessions are busy, try again in a minute")

    def _evict(self, *, keep: UserSession | None = None) -> bool:
        """Remove the least recently used sessions above the limits of number and disk; return whether that sufficed."""
        ceiling = self.limits.max_disk_megabytes * MEGABYTE
        max_known = max(self.limits.max_saved_sessions, self.limits.max_sessions)
        sessions = self._by_last_use()
        sizes = {session.key: _folder_bytes(session.lifecycle.folder) for session in sessions}
        num_known, num_bytes = len(sessions), sum(sizes.values())
        # Sessions without a video first: pages that were opened and not used.
        for session in sorted(sessions, key=lambda each: each.lifecycle.has_video):
            if num_known <= max_known and num_bytes <= ceiling:
                return True
            if session is not keep and not session.lifecycle.is_busy:
                self._remove(session)
                num_known, num_bytes = num_known - 1, num_bytes - sizes[session.key]
        return num_known <= max_known and num_bytes <= ceiling


def _offload_or_log(lifecycle: SessionLifecycle) -> bool:
    """Offload a session for the benefit of another, whose user must not see an error of this one."""
    try:
        return lifecycle.offload()
    except OSError as error:
        _LOG.warning("cannot save a session, it stays in memory: %s", error)
        return False


def _folder_name(key: str) -> str:
    """Return the name of a session's folder, from which the key cannot be derived."""
    return hashlib.sha256(key.encode()).hexdigest()


def _folder_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed by another thread
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
