"""Receives uploaded files into a private folder until their sessions load them."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

from unipixel.demos.errors import UploadError
from unipixel.demos.limits import MEGABYTE


class ReceivedFile(NamedTuple):
    """A received file.

    Attributes:
        path: Where it is stored.
        name: Its name on the user's machine.
    """

    path: Path
    name: str


class UploadReceiver:
    """Stores at most one received file per session, within the size limit."""

    def __init__(self, folder: Path, *, max_megabytes: float) -> None:
        """Create a receiver without files.

        Args:
            folder: A private folder for received files.
            max_megabytes: Maximum size of a file.
        """
        self._folder = folder
        self._max_megabytes = max_megabytes
        self._received: dict[str, ReceivedFile] = {}
        self._lock = threading.Lock()

    async def receive(self, key: str, name: str, blocks: AsyncIterator[bytes]) -> None:
        """Write a file as it arrives; it replaces an earlier file of the session.

        Args:
            key: Key of the session, which the caller has checked.
            name: Name on the user's machine; never used as a path.
            blocks: The content.

        Raises:
            UploadError: It is too large.
        """
        path = self._folder / secrets.token_hex(16)
        size, is_complete = 0, False
        try:
            with path.open("xb") as file:
                async for block in blocks:
                    size += len(block)
                    if size > self._max_megabytes * MEGABYTE:
                        raise UploadError(f"the file exceeds the maximum of {self._max_megabytes:g} MB")
                    file.write(block)
            is_complete = True
        finally:
            if not is_complete:
                path.unlink(missing_ok=True)
        with self._lock:
            before = self._received.pop(key, None)
            self._received[key] = ReceivedFile(path, name)
        if before is not None:
            before.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def taken(self, key: str) -> Iterator[ReceivedFile]:
        """Provide the received file of a session for the block, and remove it afterwards.

        Raises:
            UploadError: No file was received.
        """
        with self._lock:
            received = self._received.pop(key, None)
        if received is None:
            raise UploadError("no file was received: upload it again")
        try:
            yield received
        finally:
            received.path.unlink(missing_ok=True)

    def discard(self, key: str) -> None:
        """Remove the received file of a session, if there is one."""
        with self._lock:
            received = self._received.pop(key, None)
        if received is not None:
            with contextlib.suppress(OSError):
                received.path.unlink()
