"""Untrusted files: taken into a visitor's folder under a name of our own, and opened within limits."""

from __future__ import annotations

import os
import secrets
import stat
import unicodedata
from pathlib import Path

from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.security.sandboxed_video import SandboxedVideo
from unipixel.demos.sessions.errors import UploadError
from unipixel.video.open import Video

_MAX_NAME_CHARS = 80
_BLOCK_BYTES = 2**20


def take_upload(source: Path, folder: Path, *, limits: Limits) -> Path:
    """Copy an upload into a folder, under a random name, and return where it lies.

    Args:
        source: The uploaded file.
        folder: The visitor's own folder.
        limits: What may be uploaded.

    Raises:
        UploadError: It is missing, empty, too large, or no plain file.
    """
    target = folder / f"upload-{secrets.token_hex(16)}"
    ceiling = int(limits.max_upload_megabytes * MEGABYTE)
    try:
        # A link may lead anywhere, and a pipe never end.
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise UploadError("the file did not arrive: upload it again") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise UploadError("that is no file: upload a video or an image")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size == 0:
            raise UploadError("the file is empty (0 bytes): upload a video or an image")
        if status.st_size > ceiling:
            raise UploadError(
                f"the file has {status.st_size / MEGABYTE:.1f} megabytes, "
                f"at most {limits.max_upload_megabytes:g} are allowed: cut it or scale it down"
            )
        try:
            with target.open("xb") as copy:
                target.chmod(0o600)
                left = ceiling
                while left > 0 and (block := file.read(min(_BLOCK_BYTES, left))):
                    left -= copy.write(block)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise UploadError("the server has no room for the file: try again later") from error
    return target


def open_taken(path: Path, *, name: str, limits: Limits) -> Video:
    """Open a taken upload in a process of its own.

    Args:
        path: From `take_upload`.
        name: What the visitor calls it.
        limits: What it may be and take.

    Raises:
        UploadError: It is no video or image, or above a ceiling.
    """
    return Video(SandboxedVideo(path, name=name, limits=limits))


def shown_name(name: str) -> str:
    """Return a file's name as it may be shown and written: no folders, no control characters, not long."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in last if unicodedata.category(letter)[0] not in "CZ" or letter == " ")
    return kept.strip(" .")[:_MAX_NAME_CHARS] or "upload"
