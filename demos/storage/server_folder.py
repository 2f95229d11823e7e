"""The folder of a server, locked while it runs; folders that a killed server left are removed by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path
from types import TracebackType

PREFIX = "unipixel-demo-"
_LOCK_FILE = ".lock"
# A folder without a lock file may belong to a server that is just creating it.
_MAX_UNLOCKED_SECONDS = 600.0


class LockedFolder:
    """A folder that belongs to one process; the operating system releases the lock when the process ends."""

    def __init__(self, path: Path) -> None:
        """Create and lock a folder that only this user can read.

        Raises:
            OSError: It cannot be created, or another process uses it.
        """
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(path / _LOCK_FILE, flags, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise OSError(f"{path} is used by another server: stop it, or choose another folder") from error

    def close(self, *, removes_files: bool = False) -> None:
        """Release the folder, and remove it with all its files if that is requested."""
        if removes_files:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> LockedFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_temporary_folder() -> LockedFolder:
    """Create a temporary folder for a server, after removing those of servers that were killed.

    Raises:
        OSError: It cannot be created.
    """
    remove_abandoned_folders(Path(tempfile.gettempdir()))
    return LockedFolder(Path(tempfile.mkdtemp(prefix=PREFIX)))


def remove_abandoned_folders(parent: Path) -> list[Path]:
    """Remove the temporary folders of this user's servers that no longer run, and return their paths.

    Args:
        parent: Folder for temporary files.
    """
    removed = []
    for path in parent.glob(f"{PREFIX}*"):
        try:
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
                continue
            if not (path / _LOCK_FILE).exists() and time.time() - status.st_mtime < _MAX_UNLOCKED_SECONDS:
                continue
            folder = LockedFolder(path)
        except OSError:  # in use, or removed meanwhile
            continue
        folder.close(removes_files=True)
        removed.append(path)
    return removed
