"""All visitors of a server: bounded in number, memory, disk and age, each known by its secret alone."""

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

from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.sessions.errors import BusyError, UnknownSessionError
from unipixel.demos.sessions.lifecycle import SessionLifecycle
from unipixel.demos.sessions.saved_session import SESSION_FILE
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.sessions.user_session import UserSession
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.session.settings import SessionSettings

_LOG = logging.getLogger(__name__)
KEY_BYTES = 32
"""Random bytes of a key: 256 bits, which nobody guesses."""
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_FOLDER_NAME = re.compile(r"[0-9a-f]{64}")


class SessionStore:
    """Hands out visitors, and finds them again by their keys.

    The least recently used are saved to disk where memory is short, and removed where there are too many
    or they are too old. A key is kept in no file: a folder is named by its hash.
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
            model: The model that all share.
            processor: Prepares its inputs.
            limits: What visitors are granted.
            folder: Where sessions are kept, readable by the server alone; sessions of an earlier run are
                found again. None makes a folder that `close_all` removes.
            settings: How sessions work.
            model_name: Name of the model, for results.

        Raises:
            OSError: The folder cannot be made.
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
            make_room=self._make_room,
        )
        self._lock = threading.Lock()
        self._visitors: dict[str, UserSession] = {}

    @property
    def num_known(self) -> int:
        """Visitors that are known to this process, in memory or on disk."""
        return len(self._visitors)

    @property
    def num_awake(self) -> int:
        """Visitors whose clips are in memory."""
        return sum(user_session.is_awake for user_session in self._all())

    @property
    def num_waiting(self) -> int:
        """Visitors that wait for the model."""
        return self._context.line.num_waiting

    @property
    def folder(self) -> Path:
        """Where sessions are kept."""
        return self._folder

    def open(self) -> UserSession:
        """Make a visitor with a new key.

        Raises:
            BusyError: All that the server can keep are at work.
        """
        self.sweep()
        key = secrets.token_urlsafe(KEY_BYTES)
        user_session = UserSession(key, self._folder / _name(key), self._context)
        with self._lock:
            self._visitors[_name(key)] = user_session
        if not self._thin_out(keep=user_session):
            self.close(key)
            raise BusyError(f"the server is full: {self.limits.max_saved_sessions} visitors are at work, try later")
        return user_session

    def get(self, key: str) -> UserSession:
        """Return the visitor of a key; what was put away comes back when it is used.

        Raises:
            UnknownSessionError: There is none.
        """
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise UnknownSessionError
        name = _name(key)
        with self._lock:
            user_session = self._visitors.get(name)
            if user_session is None and (self._folder / name / SESSION_FILE).is_file():
                user_session = self._visitors[name] = UserSession(key, self._folder / name, self._context)
                user_session.last_used = (self._folder / name / SESSION_FILE).stat().st_mtime
        if user_session is None or user_session.is_closed or self._is_old(user_session.last_used):
            raise UnknownSessionError
        user_session.last_used = time.time()
        return user_session

    def offload(self, key: str) -> None:
        """Save a visitor to disk and free its memory, as when a tab is closed; the key stays good.

        One that is at work is stopped first; one without a clip is removed.

        Raises:
            UnknownSessionError: There is none.
        """
        user_session = self.get(key)
        if user_session.has_clip or user_session.is_busy:
            user_session.leave()
        else:
            self._remove(user_session)

    def close(self, key: str) -> None:
        """Remove a visitor with all its files.

        Raises:
            UnknownSessionError: There is none.
        """
        self._remove(self.get(key))

    def close_all(self) -> None:
        """End: save everybody where the folder stays, remove everything where it does not."""
        for user_session in self._all():
            if self._is_temporary:
                self._remove(user_session)
            else:
                user_session.leave()
        if self._is_temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what is too old, also of earlier runs, and free what is too much."""
        for user_session in self._all():
            if self._is_old(user_session.last_used) and not user_session.is_busy:
                self._remove(user_session)
        with self._lock:
            known = set(self._visitors)
        for entry in self._folder.iterdir():
            is_ours = _FOLDER_NAME.fullmatch(entry.name) and entry.name not in known and not entry.is_symlink()
            if is_ours and self._is_old(entry.stat().st_mtime):
                shutil.rmtree(entry, ignore_errors=True)
        self._thin_out()

    def _all(self) -> list[UserSession]:
        """All visitors, the least recently used first."""
        with self._lock:
            return sorted(self._visitors.values(), key=lambda user_session: user_session.last_used)

    def _remove(self, user_session: UserSession) -> None:
        with self._lock:
            self._visitors.pop(user_session.folder.name, None)
        user_session.close()

    def _is_old(self, last_used: float) -> bool:
        return time.time() - last_used > self.limits.max_age_seconds

    def _make_room(self, newcomer: SessionLifecycle) -> None:
        """Put the least recently used away until one more fits.

        Raises:
            BusyError: Those in memory are all at work.
        """
        ceiling = self.limits.max_memory_megabytes * MEGABYTE
        awake = [user_session for user_session in self._all() if user_session.is_awake and user_session is not newcomer]
        num_awake, num_bytes = len(awake), sum(user_session.num_bytes for user_session in awake)
        for user_session in awake:
            if num_awake < self.limits.max_sessions and num_bytes < ceiling:
                return
            freed = user_session.num_bytes
            if _is_offloaded(user_session):
                num_awake, num_bytes = num_awake - 1, num_bytes - freed
        if num_awake >= self.limits.max_sessions:
            raise BusyError(f"the server is full: {num_awake} visitors are at work, try again in a minute")

    def _thin_out(self, *, keep: UserSession | None = None) -> bool:
        """Remove the least recently used beyond the ceilings of number and disk; whether that was enough."""
        ceiling = self.limits.max_disk_megabytes * MEGABYTE
        max_known = max(self.limits.max_saved_sessions, self.limits.max_sessions)
        everybody = self._all()
        sizes = {user_session.key: _folder_bytes(user_session.folder) for user_session in everybody}
        num_known, num_bytes = len(everybody), sum(sizes.values())
        # Those without a clip go first: a page that was opened and left.
        for user_session in sorted(everybody, key=lambda each: each.has_clip):
            if num_known <= max_known and num_bytes <= ceiling:
                return True
            if user_session is not keep and not user_session.is_busy:
                self._remove(user_session)
                num_known, num_bytes = num_known - 1, num_bytes - sizes[user_session.key]
        return num_known <= max_known and num_bytes <= ceiling


def _is_offloaded(user_session: UserSession) -> bool:
    """Put a visitor away for the sake of another, who is not to be told where that fails."""
    try:
        return user_session.offload()
    except OSError as error:
        _LOG.warning("a session cannot be saved, it stays in memory: %s", error)
        return False


def _name(key: str) -> str:
    """Name of a visitor's folder: who can list the folders learns no key."""
    return hashlib.sha256(key.encode()).hexdigest()


def _folder_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
