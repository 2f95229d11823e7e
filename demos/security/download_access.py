"""Handing out downloads: to whoever has the key, by a name from a short list, from one folder only."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from unipixel.demos.sessions.downloads import FILE_NAMES
from unipixel.demos.sessions.errors import DownloadError
from unipixel.demos.sessions.saved_session import RESULTS_FOLDER
from unipixel.demos.sessions.session_store import SessionStore

MEDIA_TYPES = {".zip": "application/zip", ".json": "application/json", ".mp4": "video/mp4", ".png": "image/png"}
"""What a browser is told that a file is; never guessed from its content."""


def open_download(store: SessionStore, key: str, name: str) -> BinaryIO:
    """Open a file that a visitor made with `UserSession.download`.

    The name is compared, as it is, with the few that there are: a path, in whatever way it is written or
    encoded, is none of them. The file is opened within the visitor's folder without following links.

    Args:
        store: All visitors.
        key: The visitor's secret.
        name: One of `unipixel.demos.sessions.downloads.FILE_NAMES`.

    Raises:
        UnknownSessionError: The key belongs to nobody.
        DownloadError: There is no such file.
    """
    user_session = store.get(key)
    if name not in FILE_NAMES:
        raise DownloadError(f"there is no download of that name: choose {', '.join(FILE_NAMES)}")
    try:
        return _opened_within(user_session.folder / RESULTS_FOLDER, name)
    except OSError as error:
        raise DownloadError(f"{name} was not made yet: ask for the download first") from error


def _opened_within(folder: Path, name: str) -> BinaryIO:
    """Open a plain file of a folder; neither may be a link."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(folder, flags | os.O_DIRECTORY)
    try:
        descriptor = os.open(name, flags | os.O_NONBLOCK, dir_fd=directory)
    finally:
        os.close(directory)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise FileNotFoundError(f"{name} is no plain file")
    return file
