"""Uploads on their way: received into a private folder, then taken by the session that they were sent to."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

from unipixel.demos.limits import MEGABYTE
from unipixel.demos.sessions.errors import UploadError


class Received(NamedTuple):
    """A file that arrived.

    Attributes:
        path: Where it lies.
        name: What the visitor calls it.
    """

    path: Path
    name: str


class UploadReceiver:
    """Keeps at most one received file per session, and nothing that is larger than allowed."""

    def __init__(self, folder: Path, *, max_megabytes: float) -> None:
        """Open an empty reception.

        Args:
            folder: A private folder for files on their way.
            max_megabytes: Largest file.
        """
        self._folder = folder
        self._max_megabytes = max_megabytes
        self._waiting: dict[str, Received] = {}
        self._lock = threading.Lock()

    async def receive(self, key: str, name: str, blocks: AsyncIterator[bytes]) -> None:
        """Write a file as it arrives.

        Args:
            key: The session's key, which was checked.
            name: What the visitor calls it; never used as a path.
            blocks: Its bytes.

        Raises:
            UploadError: It is too large, or broke off.
        """
        path = self._folder / secrets.token_hex(16)
        size, is_whole = 0, False
        try:
            with path.open("xb") as file:
                async for block in blocks:
                    size += len(block)
                    if size > self._max_megabytes * MEGABYTE:
                        raise UploadError(f"the file has more than the allowed {self._max_megabytes:g} MB")
                    file.write(block)
            is_whole = True
        finally:
            if not is_whole:
                path.unlink(missing_ok=True)
        with self._lock:
            before = self._waiting.pop(key, None)
            self._waiting[key] = Received(path, name)
        if before is not None:
            before.path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def taken(self, key: str) -> Iterator[Received]:
        """Hand out what a session received, and remove it afterwards.

        Raises:
            UploadError: Nothing arrived.
        """
        with self._lock:
            received = self._waiting.pop(key, None)
        if received is None:
            raise UploadError("the file did not arrive: upload it again")
        try:
            yield received
        finally:
            received.path.unlink(missing_ok=True)

    def drop(self, key: str) -> None:
        """Remove what a session received and never took."""
        with self._lock:
            received = self._waiting.pop(key, None)
        if received is not None:
            with contextlib.suppress(OSError):
                os.unlink(received.path)
