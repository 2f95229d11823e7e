"""Frames of a live source without a queue: what arrives while the model works is dropped."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType

from unipixel.video.frame import Frame


class LatestFrame:
    """Reads a source in a thread and keeps its newest frame only.

    Iterating yields the newest frame that was not yielded yet, and waits where there is none. A source
    that fails raises its error there. Use it in a `with` block, which stops the thread.
    """

    def __init__(self, frames: Iterable[Frame]) -> None:
        """Start to read.

        Args:
            frames: A live source, such as a `Video`; only the thread reads it from now on.
        """
        self.num_dropped = 0
        self._frames = frames
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._error: BaseException | None = None
        self._has_ended = self._is_stopped = False
        # A daemon, because a camera that hangs must not keep the program from ending.
        self._thread = threading.Thread(target=self._read, name="unipixel-reader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the newest frame, again and again, until the source ends.

        Raises:
            OSError: The source cannot be read any more.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._newest is not None or self._has_ended)
                frame, self._newest = self._newest, None
            if frame is not None:
                yield frame
            elif self._error is not None:
                raise self._error
            else:
                return

    def close(self, *, timeout_seconds: float = 1.0) -> bool:
        """Stop reading after the frame that is being read, and return whether the thread has ended."""
        self._is_stopped = True
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def __enter__(self) -> LatestFrame:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        try:
            for frame in self._frames:
                with self._changed:
                    self.num_dropped += self._newest is not None
                    self._newest = frame
                    self._changed.notify_all()
                if self._is_stopped:
                    break
        # Whatever it is, it belongs to the thread that iterates.
        except BaseException as error:  # noqa: BLE001
            self._error = error
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()
