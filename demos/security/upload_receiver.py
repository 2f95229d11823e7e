"""Receives uploaded files into the folders of their sessions until they are loaded."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from fastapi.concurrency import run_in_threadpool

from unipixel.demos.errors import QuotaError, StorageError, UploadError
from unipixel.demos.limits import MEGABYTE
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import ReceivedFile, UserSession
from unipixel.demos.storage.saved_session import RECEIVED_PREFIX

_MAX_UPLOADS_PER_CLIENT = 2


class UploadReceiver:
    """Stores at most one received file per session, within the limits of size and disk space."""

    def __init__(self, store: SessionStore) -> None:
        """Create a receiver without files.

        Args:
            store: The sessions.
        """
        self._store, self._max_megabytes = store, store.limits.max_upload_megabytes
        self._num_uploads: dict[str, int] = {}
        self._lock = threading.Lock()

    async def receive(
        self, session: UserSession, name: str, blocks: AsyncIterator[bytes], *, num_bytes: int | None = None
    ) -> None:
        """Write a file as it arrives; it replaces an earlier file of the session.

        Args:
            session: The session.
            name: Name on the user's machine; never used as a path.
            blocks: The content.
            num_bytes: Declared size.

        Raises:
            UploadError: It is too large.
            QuotaError: The client sends too many files at once, or uses all of its disk space.
            ServerFullError: The disk space of the server is in use.
            StorageError: The disk is full.
        """
        ceiling = int(self._max_megabytes * MEGABYTE)
        if num_bytes is not None and num_bytes > ceiling:
            raise UploadError(
                f"the file exceeds the maximum of {self._max_megabytes:g} MB: shorten it or scale it down"
            )
        with self._counted(session.lifecycle.client), contextlib.ExitStack() as stack:
            reservation = self._store.reserved(session, ceiling if num_bytes is None else num_bytes)
            await run_in_threadpool(stack.enter_context, reservation)
            path = session.lifecycle.folder / f"{RECEIVED_PREFIX}{secrets.token_hex(16)}"
            await self._write(path, blocks)
        self.discard(session)
        session.received = ReceivedFile(path, name)
        if session.lifecycle.is_closed:
            self.discard(session)

    async def _write(self, path: Path, blocks: AsyncIterator[bytes]) -> None:
        size, is_complete = 0, False
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with path.open("xb") as file:
                async for block in blocks:
                    size += len(block)
                    if size > self._max_megabytes * MEGABYTE:
                        raise UploadError(f"the file exceeds the maximum of {self._max_megabytes:g} MB")
                    await run_in_threadpool(file.write, block)
            is_complete = True
        except OSError as error:
            if isinstance(error, UploadError):
                raise
            raise StorageError from error
        finally:
            if not is_complete:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def taken(self, session: UserSession) -> Iterator[ReceivedFile]:
        """Provide the received file of a session for the block, and remove it afterwards.

        Raises:
            UploadError: No file was received.
        """
        received, session.received = session.received, None
        if received is None:
            raise UploadError("no file was received: upload it again")
        try:
            yield received
        finally:
            received.path.unlink(missing_ok=True)

    def discard(self, session: UserSession) -> None:
        """Remove the received file of a session, if there is one."""
        received, session.received = session.received, None
        if received is not None:
            with contextlib.suppress(OSError):
                received.path.unlink()

    @contextlib.contextmanager
    def _counted(self, client: str) -> Iterator[None]:
        with self._lock:
            count = self._num_uploads.get(client, 0)
            if count >= _MAX_UPLOADS_PER_CLIENT:
                raise QuotaError(f"{count} files of yours are being uploaded, the maximum: wait", field="upload")
            self._num_uploads[client] = count + 1
        try:
            yield
        finally:
            with self._lock:
                self._num_uploads[client] -= 1
                if not self._num_uploads[client]:
                    del self._num_uploads[client]
