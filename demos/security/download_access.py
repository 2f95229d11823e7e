"""Access to downloads: by the session's key, by a name from a fixed list, in one folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from unipixel.demos.errors import DownloadError
from unipixel.demos.export.downloads import FILE_NAMES
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.storage.saved_session import RESULTS_FOLDER

MEDIA_TYPES = {
    ".zip": "application/zip",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".png": "image/png",
}
"""Media type by suffix; never derived from the content."""


def open_download(store: SessionStore, key: str, name: str) -> BinaryIO:
    """Open a file that `UserSession.download` wrote.

    The name is compared with the fixed list without decoding, so that no path matches. The file is opened in the
    folder of the session without following links.

    Args:
        store: All sessions.
        key: Key or view key of the session.
        name: One of `unipixel.demos.export.downloads.FILE_NAMES`.

    Raises:
        UnknownSessionError: The key belongs to no session.
        DownloadError: The file does not exist.
    """
    session, _ = store.read(key)
    if name not in FILE_NAMES:
        raise DownloadError(f"there is no download of that name: choose {', '.join(FILE_NAMES)}")
    try:
        return _open_in_folder(session.lifecycle.folder / RESULTS_FOLDER, name)
    except OSError as error:
        raise DownloadError(f"{name} does not exist yet: request the download first") from error


def _open_in_folder(folder: Path, name: str) -> BinaryIO:
    """Open a regular file of a folder; neither may be a link."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(folder, flags | os.O_DIRECTORY)
    try:
        descriptor = os.open(name, flags | os.O_NONBLOCK, dir_fd=directory)
    finally:
        os.close(directory)
    file = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise FileNotFoundError(f"{name} is not a regular file")
    return file
