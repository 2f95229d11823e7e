"""Untrusted files: copied to the folder of a session under a random name."""

from __future__ import annotations

import os
import secrets
import stat
import unicodedata
from pathlib import Path

from unipixel.demos.errors import UploadError
from unipixel.demos.limits import MEGABYTE, Limits

_MAX_NAME_CHARS = 80
_BLOCK_BYTES = 2**20


def copy_upload(source: Path, folder: Path, *, limits: Limits) -> Path:
    """Copy an upload to a folder under a random name, and return its path.

    Args:
        source: The uploaded file.
        folder: Folder of the session.
        limits: Limits of an upload.

    Raises:
        UploadError: It is missing, empty, too large, or not a regular file.
    """
    target = folder / f"upload-{secrets.token_hex(16)}"
    ceiling = int(limits.max_upload_megabytes * MEGABYTE)
    try:
        # Neither a link, which may lead to any file, nor a pipe, which may never end, is followed.
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UploadError("no file was received: upload it again") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UploadError("this is not a regular file: upload a video or an image")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size == 0:
            raise UploadError("the file is empty (0 bytes): upload a video or an image")
        if status.st_size > ceiling:
            raise UploadError(
                f"the file has {status.st_size / MEGABYTE:.1f} MB, the maximum is "
                f"{limits.max_upload_megabytes:g} MB: shorten it or scale it down"
            )
        try:
            with target.open("xb") as copy:
                target.chmod(0o600)
                left = ceiling
                while left > 0 and (block := file.read(min(_BLOCK_BYTES, left))):
                    left -= copy.write(block)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise UploadError("the server cannot store the file: try again later") from error
    return target


def display_name(name: str) -> str:
    """Return a short name of a file without folders and control characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in last if unicodedata.category(letter)[0] not in "CZ" or letter == " ")
    return kept.strip(" .")[:_MAX_NAME_CHARS] or "upload"
