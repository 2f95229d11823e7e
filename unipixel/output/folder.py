"""Where results are written: a folder that appears complete or not at all, and a writing thread."""

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

RESULT_NAMES = ("result.json", "results.jsonl", "overlay.mp4", "overlay.png", "masks", "davis", "memory")
"""What this package writes at the top of a result folder, and may therefore replace there."""


class OutputFolder:
    """A result folder, written beside its place and moved there at the end.

    Used as `with OutputFolder(path) as folder:`; write below `folder.path`. Writers given to
    `add` are closed before the move, in reverse order. Leaving the block normally or by Ctrl-C
    moves what was written into place; any other error removes it and leaves the target alone.

    With `overwrite`, an existing folder keeps the files that are none of ours; results of an
    earlier run are replaced together, so that old and new never mix.
    """

    def __init__(self, target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.target = Path(os.path.abspath(target))
        self._overwrite = overwrite
        self._stack = contextlib.ExitStack()
        self._path: Path | None = None
        self._new_parents: list[Path] = []

    @property
    def path(self) -> Path:
        """Folder to write into while the block is open.

        Raises:
            RuntimeError: The block is not open.
        """
        if self._path is None:
            raise RuntimeError("the folder is open only within `with OutputFolder(...)`")
        return self._path

    def add(self, writer: FrameWriter) -> FrameWriter:
        """Close a writer before the folder is moved into place."""
        self._stack.callback(writer.close)
        return writer

    def at_end(self, finish: Callable[[], Any]) -> None:
        """Call `finish` before the move, also on Ctrl-C but not after an error."""

        def unless_failed(
            kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
        ) -> bool:
            if _keeps(kind):
                finish()
            return False

        self._stack.push(unless_failed)

    def __enter__(self) -> OutputFolder:
        """Create the folder to write into.

        Raises:
            FileExistsError: The target exists and may not be overwritten.
            NotADirectoryError: The target is a file.
            OSError: Its parent cannot be written.
        """
        self._check_target()
        self._new_parents = [parent for parent in self.target.parents if not parent.exists()]
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            made = tempfile.mkdtemp(prefix=f".{self.target.name}.", suffix=".partial", dir=self.target.parent)
        except OSError as error:
            self._remove_new_parents()
            raise OSError(error.errno, f"cannot write there: {error.strerror}", str(self.target)) from error
        self._path = Path(made)
        # mkdtemp keeps others out; a result is as readable as any folder the user makes.
        mask = os.umask(0)
        os.umask(mask)
        self._path.chmod(0o777 & ~mask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        written = self.path
        try:
            # A writer that fails while closing leaves nothing behind either.
            self._stack.__exit__(kind, error, trace)
            if _keeps(kind):
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
        self._check_target()  # someone else may have been faster
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


def _keeps(kind: type[BaseException] | None) -> bool:
    """Tell whether a block that ended so leaves results: it came to its end, or met Ctrl-C."""
    return kind is None or issubclass(kind, KeyboardInterrupt)


class BackgroundWriter(FrameWriter):
    """Runs other writers in a thread, so that encoding overlaps the tracking of later frames.

    At most `max_pending` frames wait; then `write` blocks. An error of a writer is raised by the
    next `write`, or by `close`. Frames and masks must not be changed after they are handed over.
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
        """Hand over one frame.

        Raises:
            RuntimeError: The writer was closed.
            ValueError: A writer refused an earlier frame.
            OSError: A writer could not write an earlier frame.
        """
        if self._is_closed:
            raise RuntimeError("the writer was closed: make a new one")
        self._raise_error()
        self._slots.get()
        self._queue.put((frame, dict(objects)))

    def close(self) -> None:
        """Wait for the frames handed over, then close the writers; raise what `write` would have."""
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
                continue  # keep giving slots back, or `write` would wait for ever
            try:
                for writer in self._writers:
                    writer.write(*item)
            # Whatever it is, it belongs to the thread that called `write`.
            except BaseException as error:  # noqa: BLE001
                self._error, self._has_failed = error, True
