"""A session as an archive that the demo can open again."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unipixel.demos.errors import UploadError
from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.storage.saved_session import MAX_SESSION_BYTES, SESSION_FILE, SavedSession
from unipixel.memory.storage import BANK_FILE, BankState, write_state

_COMPRESSED_SUFFIXES = (".mp4", ".png", ".zip", ".jpg", ".jpeg", ".webm", ".mkv", ".webp")
_MEMORY_FOLDER, _UPLOAD_FOLDER = "memory", "upload"
_MAX_BANK_BYTES = 2**28
# Masks of 16 objects on 1800 frames, and the other files.
_MAX_ENTRIES = 32_000
_BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class ArchiveState:
    """What an archive contains besides results.

    Attributes:
        saved: The session.
        bank: Its object memory.
        media_file: The uploaded file.
    """

    saved: SavedSession
    bank: BankState
    media_file: Path


def write_archive(state: ArchiveState, folder: Path, *, name: str) -> None:
    """Write the files from which `read_archive` restores a session.

    Args:
        state: The session.
        folder: Folder that becomes the archive.
        name: Name of the uploaded file on the user's machine.

    Raises:
        OSError: The folder is not writable.
    """
    # Neither the client nor the names of files on the server are part of an archive.
    replace(state.saved, media="media", memory=_MEMORY_FOLDER, journal=None, client="", is_trusted=False).write(folder)
    write_state(state.bank, folder / _MEMORY_FOLDER)
    # A separate folder, since the name of an upload may equal that of any other file.
    (folder / _UPLOAD_FOLDER).mkdir()
    shutil.copyfile(state.media_file, folder / _UPLOAD_FOLDER / name)


def is_archive(path: Path) -> bool:
    """Return whether a file is a ZIP with a saved session."""
    try:
        with zipfile.ZipFile(path) as archive:
            return SESSION_FILE in archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return False


def read_archive(path: Path, folder: Path, *, limits: Limits) -> tuple[Path, str]:
    """Extract the files of a session; none of them has been validated yet except for its size.

    Args:
        path: The archive, which is not trusted.
        folder: An empty private folder; receives `session.json`, the folder `memory` and the file `media`.
        limits: Limits of an upload.

    Returns:
        The uploaded file, and its name.

    Raises:
        UploadError: It is not an archive of this version, or too large.
        OSError: The folder is not writable.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > _MAX_ENTRIES:
                raise UploadError(f"the archive has {len(entries)} entries, the maximum is {_MAX_ENTRIES}")
            uploads = [
                entry for entry in entries if entry.filename.startswith(f"{_UPLOAD_FOLDER}/") and not entry.is_dir()
            ]
            if len(uploads) != 1:
                raise UploadError(
                    f"the archive contains {len(uploads)} uploads, a session has one: choose another file"
                )
            (folder / _MEMORY_FOLDER).mkdir(mode=0o700)
            media = folder / "media"
            _extract(archive, SESSION_FILE, folder / SESSION_FILE, MAX_SESSION_BYTES)
            _extract(archive, f"{_MEMORY_FOLDER}/{BANK_FILE}", folder / _MEMORY_FOLDER / BANK_FILE, _MAX_BANK_BYTES)
            _extract(archive, uploads[0].filename, media, int(limits.max_upload_megabytes * MEGABYTE))
    except (
        zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, KeyError, NotImplementedError, RuntimeError, EOFError,
    ) as error:  # fmt: skip
        raise UploadError("the archive is damaged, or not a session of this demo: download it again") from error
    return media, uploads[0].filename.rpartition("/")[2]


def _extract(archive: zipfile.ZipFile, name: str, target: Path, max_bytes: int) -> None:
    """Extract one file, whose declared size is not trusted."""
    size = 0
    with archive.open(name) as source, target.open("xb") as file:
        target.chmod(0o600)
        while block := source.read(_BLOCK_BYTES):
            size += len(block)
            if size > max_bytes:
                raise UploadError(f"{name[:80]} in the archive has more than {max_bytes / MEGABYTE:g} MB, the maximum")
            file.write(block)


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Write a JSON file, and return its path."""
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return path


def write_zip(target: Path, folder: Path, check: Callable[[], None]) -> Path:
    """Write the files of a folder to a ZIP, and return its path.

    Args:
        target: The ZIP.
        folder: The folder.
        check: Called before every file; may raise to stop.
    """
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            check()
            if path.is_file():
                is_compressed = path.suffix.lower() in _COMPRESSED_SUFFIXES
                kind = zipfile.ZIP_STORED if is_compressed else zipfile.ZIP_DEFLATED
                archive.write(path, path.relative_to(folder).as_posix(), compress_type=kind)
    return target
