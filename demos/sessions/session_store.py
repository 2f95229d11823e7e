"""The user sessions of a server, identified by secret keys and bounded in number, memory, disk and age."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from unipixel.demos.errors import QuotaError, ReadOnlyError, ServerFullError, UnknownSessionError
from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.sessions.lifecycle import SessionLifecycle
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.storage.saved_session import RECEIVED_PREFIX, RESULTS_FOLDER, SESSION_FILE, SavedSession
from unipixel.demos.storage.server_folder import LockedFolder, make_temporary_folder
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.session.settings import SessionSettings

_LOG = logging.getLogger(__name__)
KEY_BYTES = 32
"""Random bytes of a key."""
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")
_FOLDER_NAME = re.compile(r"[0-9a-f]{64}")
# A page that is loaded again leaves the session for a moment.
_LEFT_SECONDS = 60.0
# A session without a video has nothing to lose.
_MIN_EMPTY_IDLE_SECONDS = 30.0


class SessionStore:
    """Opens user sessions and finds them by their keys.

    The least recently used sessions are offloaded to disk when memory is short. A session is removed when it is too
    old, and for another one only when it was unused for a while and no page shows it. A key is written to no file: the
    name of a session's folder is a hash of the view key, which is a hash of the key.
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
        segmenter_name: str | None = None,
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
            segmenter_name: Name of the model that segments clicks and tracks; None for that model.

        Raises:
            OSError: The folder cannot be created, or another server uses it.
        """
        self.limits = limits or Limits()
        self._is_temporary = folder is None
        self._folder = make_temporary_folder() if folder is None else LockedFolder(Path(folder).absolute())
        self._context = ServerContext(
            model,
            processor,
            self.limits,
            settings=settings or SessionSettings(),
            model_name=model_name,
            segmenter_name=segmenter_name,
            free_memory=self._free_memory,
            check_disk=lambda client: self._make_space(client, 0),
        )
        self._lock = threading.Lock()
        self._sessions: dict[str, UserSession] = {}
        self._reserved: dict[str, int] = {}
        self._left_at: dict[str, float] = {}
        self._find_saved()

    @property
    def num_known(self) -> int:
        """Number of sessions, in memory or on disk."""
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
        return self._folder.path

    def open(self, client: str = "") -> UserSession:
        """Create a session with a new key.

        Args:
            client: Who opens it: an address or a user name.

        Raises:
            QuotaError: The client has its maximum of sessions, and all of them are in use.
            ServerFullError: The server has its maximum of sessions, and all of them are in use.
        """
        self.sweep()
        owner = _hash(client)
        self._evict_for_one_more(owner)
        key = secrets.token_urlsafe(KEY_BYTES)
        name = _folder_name(view_key(key))
        session = UserSession(key, self.folder / name, self._context, client=owner)
        with self._lock:
            self._sessions[name] = session
        return session

    def get(self, key: str) -> UserSession:
        """Return the session of a key; an offloaded one is reloaded when it is used.

        Raises:
            ReadOnlyError: The key is a view key.
            UnknownSessionError: The key belongs to no session.
        """
        session, is_read_only = self.read(key)
        if is_read_only:
            raise ReadOnlyError
        return session

    def read(self, key: str) -> tuple[UserSession, bool]:
        """Return the session of a key or view key, and whether it may only be shown.

        Raises:
            UnknownSessionError: The key belongs to no session.
        """
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise UnknownSessionError
        with self._lock:
            session, is_read_only = self._sessions.get(_folder_name(view_key(key))), False
            if session is None:
                session, is_read_only = self._sessions.get(_folder_name(key)), True
            elif not session.key:
                session.key = key  # found on disk, where the key is not stored
        if session is None or session.lifecycle.is_closed or self._is_expired(session.lifecycle.last_used):
            raise UnknownSessionError
        session.lifecycle.last_used = time.time()
        return session, is_read_only

    def attach(self, session: UserSession) -> None:
        """Count a page that shows a session."""
        session.lifecycle.num_pages += 1
        self._left_at.pop(session.lifecycle.folder.name, None)

    def detach(self, session: UserSession) -> None:
        """Count a page that was closed; the session is offloaded some time after the last one."""
        session.lifecycle.num_pages -= 1
        if session.lifecycle.num_pages <= 0:
            self._left_at[session.lifecycle.folder.name] = time.monotonic()

    def offload(self, key: str) -> None:
        """Save a session to disk and free its memory; the key stays valid.

        The work of a busy session is cancelled first; a session without a video is removed.

        Raises:
            UnknownSessionError: The key belongs to no session.
        """
        self._offload(self.get(key))

    def close(self, key: str) -> None:
        """Remove a session with all its files.

        Raises:
            UnknownSessionError: The key belongs to no session.
        """
        self._remove(self.get(key))

    def close_all(self) -> None:
        """Stop all work, then save all sessions, or remove them where the folder is temporary."""
        for session in self._by_last_use():
            if self._is_temporary or not session.lifecycle.has_video:
                self._remove(session)
            else:
                with contextlib.suppress(OSError):
                    session.lifecycle.cancel_and_offload()
        self._context.threads.join()
        # A click that is being answered.
        self._context.interactive.give_way()
        self._folder.close(removes_files=self._is_temporary)

    def sweep(self) -> None:
        """Remove expired sessions, and offload those whose pages were closed."""
        for session in self._by_last_use():
            lifecycle = session.lifecycle
            if self._is_expired(lifecycle.last_used) and not lifecycle.is_in_use:
                self._remove(session)
        now = time.monotonic()
        for name, left_at in list(self._left_at.items()):
            if now - left_at > _LEFT_SECONDS:
                self._left_at.pop(name, None)
                left = self._sessions.get(name)
                if left is not None and left.lifecycle.num_pages <= 0:
                    self._offload(left)

    @contextlib.contextmanager
    def reserved(self, session: UserSession, num_bytes: int) -> Iterator[None]:
        """Reserve disk space for an upload for the block.

        Args:
            session: The session that receives it.
            num_bytes: Its size, or the largest allowed size if it is unknown.

        Raises:
            QuotaError: The client has its maximum of disk space in use.
            ServerFullError: The server has.
        """
        self._make_space(session.lifecycle.client, num_bytes)
        token = secrets.token_hex(8)
        with self._lock:
            self._reserved[f"{session.lifecycle.client} {token}"] = num_bytes
        try:
            yield
        finally:
            with self._lock:
                del self._reserved[f"{session.lifecycle.client} {token}"]

    def _find_saved(self) -> None:
        """Find the sessions of an earlier run, and remove what it left half-written."""
        for entry in self.folder.iterdir():
            if not _FOLDER_NAME.fullmatch(entry.name) or entry.is_symlink():
                continue
            file = entry / SESSION_FILE
            if not file.is_file():
                shutil.rmtree(entry, ignore_errors=True)
                continue
            for part in (*entry.glob(f"{RECEIVED_PREFIX}*"), *(entry / RESULTS_FOLDER).glob(".partial-*")):
                shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
            try:
                client = SavedSession.read(entry).client
            except (OSError, ValueError) as error:
                _LOG.warning("a saved session cannot be read: %s", error)
                client = ""
            session = UserSession("", entry, self._context, client=client)
            session.lifecycle.last_used = file.stat().st_mtime
            self._sessions[entry.name] = session

    def _by_last_use(self) -> list[UserSession]:
        """Return all sessions, the least recently used first."""
        with self._lock:
            return sorted(self._sessions.values(), key=lambda session: session.lifecycle.last_used)

    def _offload(self, session: UserSession) -> None:
        if session.lifecycle.has_video or session.lifecycle.is_busy:
            session.lifecycle.cancel_and_offload()
        else:
            self._remove(session)

    def _remove(self, session: UserSession) -> None:
        with self._lock:
            self._sessions.pop(session.lifecycle.folder.name, None)
        session.lifecycle.close()

    def _is_expired(self, last_used: float) -> bool:
        return time.time() - last_used > self.limits.max_age_seconds

    def _free_memory(self, requester: SessionLifecycle) -> None:
        """Offload the least recently used sessions until there is memory for one more.

        Raises:
            ServerFullError: All sessions in memory are busy.
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
            raise ServerFullError(f"the server is full: {num_loaded} sessions are busy, try again in a minute")

    def _evict_for_one_more(self, client: str) -> None:
        """Remove unused sessions until one more can be opened.

        Raises:
            QuotaError: See `open`.
            ServerFullError: See `open`.
        """
        maximum = self.limits.max_sessions_per_client
        own = [session for session in self._by_last_use() if session.lifecycle.client == client]
        if len(own) >= maximum and not self._evict(own, number=len(own) - maximum + 1):
            raise QuotaError(f"{len(own)} sessions of yours are open, the maximum: close one, or try again later")
        maximum, everyone = max(self.limits.max_saved_sessions, self.limits.max_sessions), self._by_last_use()
        if len(everyone) >= maximum and not self._evict(everyone, number=len(everyone) - maximum + 1):
            raise ServerFullError(f"the server is full: its {len(everyone)} sessions are in use, try again later")
        self._make_space(client, 0)

    def _make_space(self, client: str, num_bytes: int) -> None:
        """Remove unused sessions until there is space on the disk; see `reserved`."""
        sessions = self._by_last_use()
        own = [session for session in sessions if session.lifecycle.client == client]
        ceilings = (
            (own, self.limits.max_disk_megabytes_per_client, QuotaError("your sessions use all of your disk space")),
            (sessions, self.limits.max_disk_megabytes, ServerFullError("the disk space of the server is in use")),
        )
        for group, megabytes, error in ceilings:
            with self._lock:
                reserved = sum(
                    size for name, size in self._reserved.items() if group is sessions or name.startswith(f"{client} ")
                )
            sizes = {session: folder_bytes(session.lifecycle.folder) for session in group}
            excess = sum(sizes.values()) + reserved + num_bytes - megabytes * MEGABYTE
            for session in self._evictable(group):
                if excess < 0:
                    break
                self._remove(session)
                excess -= sizes[session]
            if excess > 0:
                raise type(error)(f"{error}: remove a session, or try again later", field="upload")

    def _evict(self, sessions: list[UserSession], *, number: int) -> bool:
        """Remove a number of unused sessions; return whether there were so many."""
        evictable = self._evictable(sessions)[:number]
        for session in evictable:
            self._remove(session)
        return len(evictable) == number

    def _evictable(self, sessions: list[UserSession]) -> list[UserSession]:
        """Return the sessions that may be removed for others, those without a video first, then the longest unused."""
        now, found = time.time(), []
        for session in sessions:
            lifecycle = session.lifecycle
            minimum = self.limits.min_idle_seconds
            if not lifecycle.has_video:
                minimum = min(minimum, _MIN_EMPTY_IDLE_SECONDS)
            if not lifecycle.is_in_use and now - lifecycle.last_used >= minimum:
                found.append(session)
        return sorted(found, key=lambda each: (each.lifecycle.has_video, each.lifecycle.last_used))


def view_key(key: str) -> str:
    """Return the key that only shows the session of a key, which cannot be derived from it."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"view {key}".encode()).digest()).rstrip(b"=").decode()


def _offload_or_log(lifecycle: SessionLifecycle) -> bool:
    """Offload a session for the benefit of another, whose user must not see an error of this one."""
    try:
        return lifecycle.offload()
    except OSError as error:
        _LOG.warning("cannot save a session, it stays in memory: %s", error)
        return False


def _hash(client: str) -> str:
    return hashlib.sha256(client.encode()).hexdigest()[:32]


def _folder_name(key: str) -> str:
    """Return the name of the folder of a view key, from which neither key can be derived."""
    return hashlib.sha256(key.encode()).hexdigest()


def folder_bytes(folder: Path) -> int:
    """Return the size of all files of a folder."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed by another thread
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
