"""A live session: objects are tracked in the frames of a webcam or of a network source.

Frames are not queued: a frame that arrives while the model works is dropped.
"""

from __future__ import annotations

import io
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import TypedDict

from unipixel.demos.errors import DemoError, PromptError, QuestionError, SourceError, UnknownObjectError
from unipixel.demos.frame_images import frame_jpeg
from unipixel.demos.sessions.prompt_editing import check_text
from unipixel.demos.worker_threads import WorkerThreads
from unipixel.output.overlay import object_color
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt, VisualPrompt
from unipixel.session.callbacks import Cancelled
from unipixel.session.live_session import LiveSession
from unipixel.video.frame import Frame
from unipixel.video.latest_frame import LatestFrame

_MAX_SIDE = 640
_NUM_RATE_FRAMES = 10
_MAX_NAME_CHARS = 60


class LiveObject(TypedDict):
    """A tracked object."""

    id: int
    name: str
    color: str


class LiveUserSession:
    """The live session of one user; its methods may be called from any thread.

    Attributes:
        latest_jpeg: The latest frame with masks, as JPEG; None before the first frame.
        num_frames: Number of frames in which objects were tracked.
        num_dropped: Number of frames that were dropped.
        error: Why a network source ended; empty if it did not.
        mode: What the page shows: `camera`, `source`, or empty.
        last_used: When the session was last used, in seconds of its clock.
    """

    def __init__(
        self,
        make_session: Callable[[], LiveSession],
        *,
        threads: WorkerThreads,
        max_objects: int,
        max_question_chars: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create a session without frames.

        Args:
            make_session: Returns a new session with the model.
            threads: Starts the threads that use the model.
            max_objects: Maximum number of objects.
            max_question_chars: Maximum length of a question.
            clock: Returns the current time in seconds, which never decreases; the timestamp of a camera's frame.
        """
        self.latest_jpeg: bytes | None = None
        self.num_frames = self.num_dropped = 0
        self.error = self.mode = ""
        self.last_used = clock()
        self._make_session, self._clock = make_session, clock
        self._session = make_session()
        self._max_objects, self._max_question_chars = max_objects, max_question_chars
        self._lock = threading.Lock()
        self._frame_times: list[float] = []
        self._names: dict[int, str] = {}
        self._reader: LatestFrame | None = None
        self._threads, self._is_stopped = threads, False
        self._ends_answer = threading.Event()

    @property
    def object_ids(self) -> list[int]:
        """Objects that are tracked."""
        return list(self._session.bank.ids) if self.num_frames else []

    @property
    def visible_ids(self) -> list[int]:
        """Objects that are visible on the latest frame."""
        return [object_id for object_id, item in self._session.objects.masks.items() if item.visible]

    @property
    def frames_per_second(self) -> float:
        """Rate of the latest tracked frames."""
        times = self._frame_times
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else 0.0

    def add_frame(self, jpeg: bytes) -> bool:
        """Track the objects in a frame of the user's camera.

        Returns:
            False if the frame was dropped since the model is working.

        Raises:
            SourceError: It is not a JPEG, too large, or of another size than the frames before.
        """
        return self._step(_decode(jpeg), self._clock())

    def watch(self, frames: Iterable[Frame], *, on_end: Callable[[], Any] | None = None) -> None:
        """Track the objects in a network source, in the background, until it ends or `reset` is called.

        Args:
            frames: A live source.
            on_end: Called at the end.
        """
        self.reset()
        self._is_stopped, self.error = False, ""
        reader = self._reader = LatestFrame(frames)

        def track() -> None:
            try:
                for frame in reader:
                    if self._is_stopped or self._reader is not reader:
                        break
                    self._step(frame.image, frame.timestamp_seconds, waits=True)
                else:
                    self.error = "the source has ended"
            except (OSError, SourceError) as error:
                self.error = f"the source can no longer be read: {error}"
            finally:
                if reader.close() and on_end is not None:
                    on_end()

        self._threads.start(track)

    def reset(self) -> None:
        """Stop watching and remove all frames, objects and turns."""
        self._is_stopped = True
        self._ends_answer.set()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close(timeout_seconds=0.1)
        with self._lock:
            self._session = self._make_session()
            self.latest_jpeg, self.num_frames, self._frame_times, self._names = None, 0, [], {}

    def objects(self) -> list[LiveObject]:
        """Return id, name and color of each tracked object."""
        return [
            {
                "id": object_id,
                "name": self._names.get(object_id, f"object {object_id}"),
                "color": "#{:02x}{:02x}{:02x}".format(*object_color(object_id)),
            }
            for object_id in sorted(self.object_ids)
        ]

    def add_prompts(
        self,
        object_id: int,
        *,
        points: Sequence[tuple[float, float, int]] = (),
        box_xyxy: tuple[float, float, float, float] | None = None,
    ) -> int:
        """Add clicks or a box on the latest frame to a known or new object, and return the object's id.

        Args:
            object_id: A known id, or 0 for a new object.
            points: x and y in pixels of the frame, and 1 for a click on the object, 0 for one on what does not belong
                to it.
            box_xyxy: Left, top, right and bottom in pixels of the frame.

        Raises:
            PromptError: There is no frame yet, a prompt is outside it, or there are too many objects.
        """
        self.last_used = self._clock()
        with self._lock:
            if not self.num_frames:
                raise PromptError("there is no frame yet: start the camera first")
            chosen = object_id or self._next_object_id()
            newest = self._session.objects.latest_frame
            boxes: list[VisualPrompt] = [] if box_xyxy is None else [BoxPrompt(box_xyxy, newest.index)]
            clicks = [PointPrompt(float(x), float(y), newest.index, label == 1) for x, y, label in points]
            try:
                self._session.prompt(chosen, *boxes, *clicks)
            except ValueError as error:
                raise PromptError(str(error)) from error
            self._draw(newest.image)
            return chosen

    def add_point(self, object_id: int, x: float, y: float, *, is_positive: bool = True) -> int:
        """Add a click on the latest frame; see `add_prompts`."""
        return self.add_prompts(object_id, points=[(x, y, int(is_positive))])

    def rename(self, object_id: int, name: str) -> None:
        """Name an object; an empty name restores the default.

        Raises:
            UnknownObjectError: The object does not exist.
            DemoError: The name is too long or contains control characters.
        """
        text = " ".join(name.split())
        check_text(text, what="name", limit=_MAX_NAME_CHARS, error=DemoError, field="name")
        with self._lock:
            if object_id not in self.object_ids:
                raise UnknownObjectError(f"there is no object [{object_id}]")
            self._names.pop(object_id, None)
            if text:
                self._names[object_id] = text

    def forget(self, object_id: int) -> None:
        """Remove an object.

        Raises:
            PromptError: The object does not exist.
        """
        with self._lock:
            try:
                self._session.forget(object_id)
            except (KeyError, RuntimeError) as error:
                raise PromptError(f"there is no object {object_id}") from error
            self._names.pop(object_id, None)
            self._draw(self._session.objects.latest_frame.image)

    def ask(self, question: str) -> Iterator[str]:
        """Ask about the latest frames.

        Yields:
            The answer so far; at last the complete answer, with objects as `[id]`.

        Raises:
            QuestionError: The question is empty, too long, or refers to an unknown object; or there is no frame yet.
        """
        check_text(question, what="question", limit=self._max_question_chars, error=QuestionError, field="question")
        if not self.num_frames:
            raise QuestionError("there is no frame yet: start the camera first")
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        outcome: list[str | BaseException] = []
        must_end = self._ends_answer = threading.Event()

        def on_text(piece: str) -> None:
            if must_end.is_set():
                raise Cancelled("the live session was stopped")
            pieces.put(piece)

        def work() -> None:
            try:
                with self._lock:
                    outcome.append(self._session.ask(question, on_text=on_text).text)
            # Every error is raised in the thread that reads the answer.
            except BaseException as error:  # noqa: BLE001
                outcome.append(error)
            finally:
                pieces.put(None)

        self._threads.start(work)
        text = ""
        while (piece := pieces.get()) is not None:
            text += piece
            yield text
        last = outcome[0]
        if isinstance(last, ValueError | RuntimeError):
            raise QuestionError(str(last)) from last
        if isinstance(last, BaseException):
            raise last
        yield last

    def _next_object_id(self) -> int:
        known = set(self._session.bank.ids)
        if len(known) >= self._max_objects:
            raise PromptError(f"the maximum of {self._max_objects} objects is reached: remove one")
        return next(number for number in itertools.count(1) if number not in known)

    def _step(self, image: NDArray[np.uint8], timestamp_seconds: float, *, waits: bool = False) -> bool:
        if not waits:  # nobody may be watching a network source any more
            self.last_used = self._clock()
        if not self._lock.acquire(blocking=waits):
            self.num_dropped += 1
            return False
        try:
            if self._is_stopped and waits:
                return False
            newest = self._session.objects.buffer.latest
            if newest is not None and newest.image.shape != image.shape:
                raise SourceError("the frame has another size than those before: stop and start again")
            self._session.step(image, timestamp_seconds)
            self._draw(image)
            self.num_frames += 1
            self._frame_times = [*self._frame_times[1 - _NUM_RATE_FRAMES :], self._clock()]
        finally:
            self._lock.release()
        return True

    def _draw(self, image: NDArray[np.uint8]) -> None:
        masks = {object_id: item.mask for object_id, item in self._session.objects.masks.items() if item.visible}
        self.latest_jpeg = frame_jpeg(image, masks, quality=80)


def _decode(jpeg: bytes) -> NDArray[np.uint8]:
    """Decode a frame of the user's camera: a JPEG of at most 640 pixels a side.

    Raises:
        SourceError: It is something else.
    """
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
            if max(image.size) > _MAX_SIDE:
                raise SourceError(f"a camera's frame may have at most {_MAX_SIDE} pixels a side, got {image.size}")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError("a camera's frame must be a JPEG") from error
