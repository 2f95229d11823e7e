"""Live sessions: pictures of a visitor's camera or of a network source, with objects followed through them.

Nothing is queued: a picture that arrives while the model works is dropped.
"""

from __future__ import annotations

import io
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.demos.sessions.errors import PromptError, QuestionError, SourceError
from unipixel.demos.web.render import frame_jpeg
from unipixel.processing.visual_prompts import PointPrompt
from unipixel.session.live_session import LiveSession
from unipixel.video.frame import Frame
from unipixel.video.latest_frame import LatestFrame

_MAX_SIDE = 640


class LiveUserSession:
    """One visitor's stream; its methods may be called from any thread.

    Attributes:
        picture: The newest picture with masks, as JPEG; None before the first.
        num_shown: Pictures that were followed.
        num_dropped: Pictures that came while the model worked.
        error: Why a network source ended; empty where it did not.
        running: What the page shows: `camera`, `source`, or nothing.
        last_used: When it was last used, in seconds of `time.monotonic`.
    """

    def __init__(self, make_session: Callable[[], LiveSession], *, max_objects: int, max_question_chars: int) -> None:
        """Begin before the first picture.

        Args:
            make_session: Makes an empty session.
            max_objects: Ceiling on the objects.
            max_question_chars: Longest question.
        """
        self.picture: bytes | None = None
        self.num_shown = self.num_dropped = 0
        self.error = self.running = ""
        self.last_used = time.monotonic()
        self._make_session = make_session
        self._session = make_session()
        self._max_objects, self._max_question_chars = max_objects, max_question_chars
        self._lock = threading.Lock()
        self._rate: list[float] = []
        self._reader: LatestFrame | None = None
        self._is_stopped = False

    @property
    def object_ids(self) -> list[int]:
        """Objects that are followed."""
        return list(self._session.bank.ids) if self.num_shown else []

    @property
    def visible_ids(self) -> list[int]:
        """Objects that the newest picture shows."""
        return [object_id for object_id, item in self._session.scene.masks.items() if item.visible]

    @property
    def frames_per_second(self) -> float:
        """Rate of the last pictures that were followed."""
        times = self._rate
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0

    def show(self, jpeg: bytes) -> bool:
        """Follow the objects into a picture of the visitor's camera, and return whether there was time for it.

        Raises:
            SourceError: It is no JPEG, or of another size than those before.
        """
        return self._step(_decode(jpeg), time.monotonic())

    def watch(self, frames: Iterable[Frame], *, close: Callable[[], Any] | None = None) -> None:
        """Follow the objects through a network source, in the background, until it ends or `stop` is called.

        Args:
            frames: A live source.
            close: Called when it is over.
        """
        self.stop()
        self._is_stopped, self.error = False, ""
        reader = self._reader = LatestFrame(frames)

        def follow() -> None:
            try:
                for frame in reader:
                    if self._is_stopped or self._reader is not reader:
                        break
                    self._step(frame.image, frame.timestamp_seconds, is_patient=True)
                else:
                    self.error = "the source has ended"
            except (OSError, SourceError) as error:
                self.error = f"the source cannot be read any more: {error}"
            finally:
                if reader.close() and close is not None:
                    close()

        threading.Thread(target=follow, name="unipixel-live", daemon=True).start()

    def stop(self) -> None:
        """Stop watching, and forget everything."""
        self._is_stopped = True
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close(timeout_seconds=0.1)
        with self._lock:
            self._session = self._make_session()
            self.picture, self.num_shown, self._rate = None, 0, []

    def point(self, object_id: int, x: float, y: float, *, is_positive: bool = True) -> int:
        """Click on an object of the newest picture; return its id.

        Args:
            object_id: A known id, or 0 for a new object.
            x: Pixels from the left of the newest picture.
            y: Pixels from the top.
            is_positive: False for what does not belong to it.

        Raises:
            PromptError: There is no picture yet, the click is not on it, or there are too many objects.
        """
        self.last_used = time.monotonic()
        with self._lock:
            if not self.num_shown:
                raise PromptError("there is no picture yet: start the camera first")
            chosen = object_id or self._next_id()
            newest = self._session.scene.newest
            try:
                self._session.prompt(chosen, PointPrompt(float(x), float(y), newest.index, bool(is_positive)))
            except ValueError as error:
                raise PromptError(str(error)) from error
            self._draw(newest.image)
            return chosen

    def forget(self, object_id: int) -> None:
        """Stop following an object.

        Raises:
            PromptError: There is no such object.
        """
        with self._lock:
            try:
                self._session.forget(object_id)
            except (KeyError, RuntimeError) as error:
                raise PromptError(f"there is no object {object_id}") from error
            self._draw(self._session.scene.newest.image)

    def ask(self, question: str) -> Iterator[str]:
        """Ask about what was seen; yields the answer so far, the last time complete, with objects as `[id]`.

        Raises:
            QuestionError: The question is empty, too long, or names an unknown object; or nothing was seen yet.
        """
        if len(question) > self._max_question_chars:
            raise QuestionError(f"the question has {len(question)} characters, at most {self._max_question_chars} fit")
        if not self.num_shown:
            raise QuestionError("nothing was seen yet: start the camera first")
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        outcome: list[str | BaseException] = []

        def work() -> None:
            try:
                with self._lock:
                    outcome.append(self._session.ask(question, on_text=pieces.put).text)
            # Whatever it is, it belongs to the thread that listens.
            except BaseException as error:  # noqa: BLE001
                outcome.append(error)
            finally:
                pieces.put(None)

        threading.Thread(target=work, name="unipixel-live-answer", daemon=True).start()
        written = ""
        while (piece := pieces.get()) is not None:
            written += piece
            yield written
        end = outcome[0]
        if isinstance(end, ValueError | RuntimeError):
            raise QuestionError(str(end)) from end
        if isinstance(end, BaseException):
            raise end
        yield end

    def _next_id(self) -> int:
        taken = set(self._session.bank.ids)
        if len(taken) >= self._max_objects:
            raise PromptError(f"at most {self._max_objects} objects are followed: forget one")
        return next(number for number in itertools.count(1) if number not in taken)

    def _step(self, image: NDArray[np.uint8], seconds: float, *, is_patient: bool = False) -> bool:
        self.last_used = time.monotonic()
        if not self._lock.acquire(blocking=is_patient):
            self.num_dropped += 1
            return False
        try:
            if self._is_stopped and is_patient:
                return False
            newest = self._session.scene.window.newest
            if newest is not None and newest.image.shape != image.shape:
                raise SourceError("the picture has another size than those before: stop, and start again")
            self._session.step(image, seconds)
            self._draw(image)
            self.num_shown += 1
            self._rate = [*self._rate[-9:], time.monotonic()]
        finally:
            self._lock.release()
        return True

    def _draw(self, image: NDArray[np.uint8]) -> None:
        masks = {object_id: item.mask for object_id, item in self._session.scene.masks.items() if item.visible}
        self.picture = frame_jpeg(image, masks, quality=80)


def _decode(jpeg: bytes) -> NDArray[np.uint8]:
    """Read a picture of the page's own making: a JPEG of at most 640 pixels a side.

    Raises:
        SourceError: It is something else.
    """
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
            if max(picture.size) > _MAX_SIDE:
                raise SourceError(f"a camera's picture has at most {_MAX_SIDE} pixels a side, got {picture.size}")
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError("a camera's picture must be a JPEG") from error
