"""Clicks, boxes, masks, undo, names and removal of objects in a user session."""

from __future__ import annotations

import itertools
import unicodedata
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.demos.errors import DemoError, PromptError, StorageError
from unipixel.demos.sessions.lifecycle import SessionLifecycle
from unipixel.demos.sessions.loaded_session import LoadedSession, ObjectVersion
from unipixel.memory.injection import MAX_OBJECT_ID
from unipixel.memory.records import MaskRecord
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.tracking.types import ObjectMask

# The characters with the Unicode property Bidi_Control, which reorder the text around them.
_BIDI_CONTROLS = frozenset([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])


@dataclass(frozen=True)
class ObjectEdit:
    """A change of one object.

    Attributes:
        object_id: The object.
        frames: Frames whose mask may have changed; None for all.
        score: Confidence of the new mask; None without one.
    """

    object_id: int
    frames: tuple[int, ...] | None
    score: float | None = None


class PromptEditing:
    """Edits the objects of a session while no work is in progress; every change is saved before it returns."""

    def __init__(self, lifecycle: SessionLifecycle) -> None:
        """Edit the objects of one session.

        Args:
            lifecycle: The session.
        """
        self._lifecycle = lifecycle

    def add_point(self, object_id: int, x: float, y: float, frame_index: int = 0, *, is_positive: bool = True) -> int:
        """Add a click to an object, and return the object's id.

        Args:
            object_id: The object; 0 for a new one.
            x: Pixels from the left of the frame.
            y: Pixels from the top of the frame.
            frame_index: The frame.
            is_positive: Whether the click is on the object; False for a click on what does not belong to it.

        Raises:
            PromptError: The click is outside the video, or there are too many prompts or objects.
            BusyError: Work is in progress.
        """
        return self.add(object_id, [PointPrompt(float(x), float(y), int(frame_index), bool(is_positive))]).object_id

    def add_box(self, object_id: int, xyxy: tuple[float, float, float, float], frame_index: int = 0) -> int:
        """Add a box to an object, and return the object's id.

        Args:
            object_id: The object; 0 for a new one.
            xyxy: Left, top, right and bottom in pixels of the frame.
            frame_index: The frame.

        Raises:
            PromptError: See `add_point`.
            BusyError: See `add_point`.
        """
        left, top, right, bottom = (float(value) for value in xyxy)
        return self.add(object_id, [BoxPrompt((left, top, right, bottom), int(frame_index))]).object_id

    def add_mask(self, object_id: int, mask: NDArray[np.bool_], frame_index: int = 0) -> int:
        """Add a mask to an object, and return the object's id.

        Args:
            object_id: The object; 0 for a new one.
            mask: bool (H, W).
            frame_index: The frame.

        Raises:
            PromptError: See `add_point`.
            BusyError: See `add_point`.
        """
        return self.add(object_id, [MaskPrompt(np.asarray(mask) != 0, int(frame_index))]).object_id

    def undo(self) -> ObjectEdit | None:
        """Undo the last click, box, mask, name or removal, with its effect on the masks.

        Returns:
            The changed object; None if there is nothing to undo.

        Raises:
            BusyError: Work is in progress.
            StorageError: The change cannot be saved.
        """
        with self._lifecycle.changing() as loaded:
            return _restore(loaded, loaded.undo, loaded.redo)

    def redo(self) -> ObjectEdit | None:
        """Redo what `undo` undid last; see `undo`."""
        with self._lifecycle.changing() as loaded:
            return _restore(loaded, loaded.redo, loaded.undo)

    def rename(self, object_id: int, name: str) -> ObjectEdit:
        """Name an object; an empty name restores the default.

        Raises:
            UnknownObjectError: The object does not exist.
            DemoError: The name is too long or not printable.
        """
        text = " ".join(name.split())
        limit = self._lifecycle.context.limits.max_name_chars
        check_text(text, what="name", limit=limit, error=DemoError, field="name")
        with self._lifecycle.lock:
            loaded = self._lifecycle.loaded()
            loaded.check_object(object_id)
            before = loaded.object_state(object_id)
            loaded.names.pop(object_id, None)
            if text:
                loaded.names[object_id] = text
            try:
                loaded.save_names()
            except OSError as error:
                loaded.names.pop(object_id, None)
                if before.name is not None:
                    loaded.names[object_id] = before.name
                raise StorageError from error
            # While objects are tracked, there is no history.
            if not self._lifecycle.is_busy:
                loaded.undo.append(before)
                loaded.redo.clear()
            loaded.revision += 1
            return ObjectEdit(object_id, ())

    def forget(self, object_id: int) -> ObjectEdit:
        """Remove an object with its masks; the text of the conversation stays. It can be undone.

        Raises:
            UnknownObjectError: The object does not exist.
            BusyError: Work is in progress.
            StorageError: The change cannot be saved.
        """
        with self._lifecycle.changing() as loaded:
            loaded.check_object(object_id)
            _record(loaded, object_id)
            loaded.session.forget(object_id)
            loaded.names.pop(object_id, None)
            loaded.prompt_masks.pop(object_id, None)
            loaded.update_snapshot()
            return ObjectEdit(object_id, None)

    def add(self, object_id: int, prompts: Sequence[VisualPrompt]) -> ObjectEdit:
        """Add prompts on one frame to an object, and segment it on that frame.

        A mask replaces all prompts on the frame that were not tracked yet, a box another box or a mask.

        Args:
            object_id: The object; 0 for a new one.
            prompts: At least one; all on the same frame.

        Raises:
            PromptError: A prompt is outside the video, or there are too many prompts or objects.
            BusyError: Work is in progress, or the server has too many requests.
            StorageError: The change cannot be saved.
        """
        limit = self._lifecycle.context.limits.max_prompts
        with self._lifecycle.changing() as loaded:
            known = loaded.snapshot.object_ids
            object_id = object_id or next(number for number in itertools.count(1) if number not in known)
            if not 1 <= object_id <= MAX_OBJECT_ID:
                raise PromptError(f"object ids range from 1 to {MAX_OBJECT_ID}, got {object_id}")
            if loaded.snapshot.num_prompts(object_id) + len(prompts) > limit:
                raise PromptError(f"object {object_id} would have more than {limit} prompts: undo some")
            before = loaded.object_state(object_id)
            frame_index = prompts[0].frame_index
            try:
                _replace_pending(loaded, object_id, prompts)
                loaded.session.prompt(object_id, *prompts)
                mask = self._segment(loaded, object_id, frame_index)
            except BaseException as error:
                loaded.restore_object(before)
                if isinstance(error, ValueError) and not isinstance(error, DemoError):
                    raise PromptError(str(error)) from error
                raise
            loaded.undo.append(before)
            loaded.redo.clear()
            record = MaskRecord.of(mask.mask if mask.visible else None, score=mask.score)
            loaded.prompt_masks.setdefault(object_id, {})[frame_index] = record
            loaded.update_object(object_id)
            return ObjectEdit(object_id, (frame_index,), mask.score)

    def preview(self, object_id: int, point: PointPrompt) -> ObjectMask | None:
        """Segment what an object would be after a click, without changing anything.

        Args:
            object_id: The object that the click would refine; 0 for a new one.
            point: The click.

        Returns:
            The mask; None where it would delay other work: the frame is not encoded yet, or the model is in use.

        Raises:
            PromptError: The click is outside the video, or excludes something from a new object.
        """
        context = self._lifecycle.context
        if self._lifecycle.is_busy or not (context.queue.is_idle and context.interactive.is_idle):
            return None
        with self._lifecycle.lock:
            loaded = self._lifecycle.loaded()
            objects = loaded.session.objects
            if self._lifecycle.is_busy or not objects.tracker.is_encoded(point.frame_index):
                return None
            if object_id:
                loaded.check_object(object_id)
            try:
                with context.interactive(self._lifecycle.client):
                    return objects.segment_pending(object_id, point.frame_index, further=[point])
            except ValueError as error:
                raise PromptError(str(error)) from error

    def _segment(self, loaded: LoadedSession, object_id: int, frame_index: int) -> ObjectMask:
        context = self._lifecycle.context
        with context.interactive(self._lifecycle.client):
            return loaded.session.objects.segment_pending(object_id, frame_index)


def check_text(text: str, *, what: str, limit: int, error: type[DemoError], field: str) -> None:
    """Check the length of a text, and that it contains no control characters.

    Args:
        text: The text of a user.
        what: What it is, for messages.
        limit: Maximum number of characters.
        error: Class of the error.
        field: See `DemoError.field`.

    Raises:
        DemoError: It is too long, or contains a control character, such as NUL or one that changes the direction.
    """
    if len(text) > limit:
        raise error(f"the {what} has {len(text)} characters, the maximum is {limit}: shorten it", field=field)
    for letter in text:
        is_control = unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\n\r\t"
        if is_control or ord(letter) in _BIDI_CONTROLS:
            raise error(f"the {what} contains the control character U+{ord(letter):04X}: leave it out", field=field)


def _replace_pending(loaded: LoadedSession, object_id: int, prompts: Sequence[VisualPrompt]) -> None:
    """Remove the pending prompts on a frame that new prompts replace."""
    pending, frame_index = loaded.session.objects.pending_prompts, prompts[0].frame_index
    kinds: tuple[type, ...] = ()
    if any(isinstance(prompt, MaskPrompt) for prompt in prompts):
        kinds = (MaskPrompt, BoxPrompt, PointPrompt)
    elif any(isinstance(prompt, BoxPrompt) for prompt in prompts):
        kinds = (MaskPrompt, BoxPrompt)
    before = pending.pop(object_id, [])
    kept = [prompt for prompt in before if prompt.frame_index != frame_index or not isinstance(prompt, kinds)]
    if kept:
        pending[object_id] = kept


def _record(loaded: LoadedSession, object_id: int) -> None:
    """Store the state of an object before a change, for `undo`."""
    loaded.undo.append(loaded.object_state(object_id))
    loaded.redo.clear()


def _restore(loaded: LoadedSession, source: deque[ObjectVersion], target: deque[ObjectVersion]) -> ObjectEdit | None:
    if not source:
        return None
    state = source.pop()
    object_id = state.snapshot.object_id
    target.append(loaded.object_state(object_id))
    loaded.restore_object(state)
    loaded.update_snapshot()
    return ObjectEdit(object_id, None)
