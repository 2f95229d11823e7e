"""The output folder, which is created atomically, and writing in a background thread."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from unipixel.output.writers import FrameWriter
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame

RESULT_NAMES = (
    "result.json", "results.jsonl", "overlay.mp4", "overlay.png", "masks", "davis", "memory", "coco.json", "cvat.xml",
    "label_studio.json", "label_studio_video.json", "label_studio.xml", "yolo",
)  # fmt: skip
"""Names at the top of a result folder that this package writes and may replace."""


class OutputFolder:
    """A result folder that is written to a temporary folder and moved to its target at the end.

    Use it as `with OutputFolder(path) as folder:` and write to `folder.path`. Writers passed to `add` are
    closed before the move, in reverse order. When the block ends normally or by Ctrl-C, the results are moved
    to the target; after any other error they are removed and the target is not changed.

    With `overwrite`, all results of an earlier run are replaced, so that old and new ones never mix; other
    files of an existing folder are kept.
    """

    def __init__(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.target = Path(os.path.abspath(target))
        self._overwrite = overwrite
        self._stack = contextlib.ExitStack()
        self._path: Path | None = None
        self._new_parents: list[Path] = []

    @property
    def path(self) -> Path:
        """Folder to write to while the block is open.

        Raises:
            RuntimeError: The block is not open.
        """
        if self._path is None:
            raise RuntimeError("the folder is only open within `with OutputFolder(...)`")
        return self._path

    def add(self, writer: FrameWriter) -> FrameWriter:
        """Close a writer before the folder is moved to its target."""
        self._stack.callback(writer.close)
        return writer

    def at_end(self, finish: Callable[[], Any]) -> None:
        """Call `finish` before the move, also after Ctrl-C but not after an error."""

        def unless_failed(
            kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> bool:
            if _keeps_results(kind):
                finish()
            return False

        self._stack.push(unless_failed)

    def __enter__(self) -> OutputFolder:
        """Create the temporary folder.

        Raises:
            FileExistsError: The target exists and `overwrite` is False.
            NotADirectoryError: The target is a file.
            OSError: Its parent folder cannot be written.
        """
        self._check_target()
        self._new_parents = [parent for parent in self.target.parents if not parent.exists()]
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            temporary = tempfile.mkdtemp(prefix=f".{self.target.name}.", suffix=".partial", dir=self.target.parent)
        except OSError as error:
            self._remove_new_parents()
            raise OSError(error.errno, f"cannot write there: {error.strerror}", str(self.target)) from error
        self._path = Path(temporary)
        # mkdtemp allows the user only; a result folder has the permissions of the umask.
        mask = os.umask(0)
        os.umask(mask)
        self._path.chmod(0o777 & ~mask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        written = self.path
        try:
            # If a writer fails while closing, the results are removed too.
            self._stack.__exit__(kind, error, trace)
            if _keeps_results(kind):
                self._move(written)
        finally:
            self._path = None
            shutil.rmtree(written, ignore_errors=True)
            self._remove_new_parents()

    def _remove_new_parents(self) -> None:
        """Remove the parent folders that were created for the target, if they are empty."""
        for parent in self._new_parents:
            with contextlib.suppress(OSError):
                parent.rmdir()

    def _check_target(self) -> None:
        if self.target.is_dir():
            if not self._overwrite:
                raise FileExistsError(f"{self.target}: the folder exists; give --overwrite to replace its results")
        elif self.target.exists() or self.target.is_symlink():
            raise NotADirectoryError(f"{self.target}: exists and is not a folder")

    def _move(self, written: Path) -> None:
        self._check_target()  # another process may have created it
        if not self.target.exists():
            written.rename(self.target)
            return
        names = {entry.name for entry in written.iterdir()} | set(RESULT_NAMES)
        aside = Path(tempfile.mkdtemp(prefix=f".{self.target.name}.", suffix=".old", dir=self.target.parent))
        try:
            for name in names:
                if os.path.lexists(self.target / name):
                    (self.target / name).rename(aside / name)
            for entry in list(written.iterdir()):
                entry.rename(self.target / entry.name)
        except OSError:
            for entry in aside.iterdir():
                if not os.path.lexists(self.target / entry.name):
                    entry.rename(self.target / entry.name)
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _keeps_results(kind: type[BaseException] | None) -> bool:
    """Return whether a block that ended this way keeps its results: normally, or by Ctrl-C."""
    return kind is None or issubclass(kind, KeyboardInterrupt)


class BackgroundWriter(FrameWriter):
    """Runs other writers in a thread, so that encoding overlaps the tracking of later frames.

    At most `max_pending` frames are queued; then `write` blocks. An error of a writer is raised by the next
    `write`, or by `close`. Frames and masks must not be changed after they were passed to `write`.
    """

    def __init__(self, *writers: FrameWriter, max_pending: int = 4) -> None:
        self._writers = writers
        # Ctrl-C inside a bounded `queue.Queue` can leave the other thread waiting forever on its condition
        # variable. A SimpleQueue has none; the slots bound it.
        self._queue: queue.SimpleQueue[tuple[Frame, Mapping[int, ObjectMask]] | None] = queue.SimpleQueue()
        self._slots: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(max_pending):
            self._slots.put(None)
        self._error: BaseException | None = None
        self._has_failed = False
        self._thread = threading.Thread(target=self._work, name="unipixel-writer", daemon=True)
        self._is_closed = False
        self._thread.start()

    def write(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        """Queue one frame.

        Raises:
            RuntimeError: The writer is closed.
            ValueError: An earlier frame was invalid.
            OSError: An earlier frame could not be written.
        """
        if self._is_closed:
            raise RuntimeError("the writer is closed: create a new one")
        self._raise_error()
        self._slots.get()
        self._queue.put((frame, dict(objects)))

    def close(self) -> None:
        """Write the queued frames, then close the writers; raises the same errors as `write`."""
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.put(None)
        self._thread.join()
        with contextlib.ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            self._slots.put(None)
            if self._has_failed:
                continue  # slots must still be returned, or `write` would block for ever
            try:
                for writer in self._writers:
                    writer.write(*item)
            # Every error is raised again in the thread that calls `write`.
            except BaseException as error:  # noqa: BLE001
                self._error, self._has_failed = error, True
