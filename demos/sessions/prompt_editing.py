"""Clicks, boxes, masks, undo, names and removal of objects in a user session."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
from numpy.typing import NDArray

from unipixel.demos.errors import DemoError, PromptError
from unipixel.demos.sessions.lifecycle import SessionLifecycle
from unipixel.memory.injection import MAX_OBJECT_ID
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt


class PromptEditing:
    """Edits the objects of a session while no work is in progress."""

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
        return self._add(object_id, PointPrompt(float(x), float(y), int(frame_index), bool(is_positive)))

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
        return self._add(object_id, BoxPrompt((left, top, right, bottom), int(frame_index)))

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
        return self._add(object_id, MaskPrompt(np.asarray(mask) != 0, int(frame_index)))

    def undo(self) -> int | None:
        """Undo the last prompt with its effect on the masks.

        Returns:
            The id of its object; None if there is nothing to undo.

        Raises:
            BusyError: Work is in progress.
        """
        with self._lifecycle.idle() as loaded:
            if not loaded.undo:
                return None
            before = loaded.undo.pop()
            loaded.session.objects.restore_object(before)
            loaded.update_snapshot()
            return before.object_id

    def rename(self, object_id: int, name: str) -> None:
        """Name an object; an empty name restores the default.

        Raises:
            UnknownObjectError: The object does not exist.
            DemoError: The name is too long or not printable.
        """
        limit = self._lifecycle.context.limits.max_name_chars
        text = " ".join(name.split())
        if len(text) > limit:
            raise DemoError(f"the name has {len(text)} characters, the maximum is {limit}", field="name")
        if not text.isprintable():
            raise DemoError("the name contains control characters: leave them out", field="name")
        with self._lifecycle.lock:
            loaded = self._lifecycle.loaded()
            loaded.check_object(object_id)
            loaded.names.pop(object_id, None)
            if text:
                loaded.names[object_id] = text

    def forget(self, object_id: int) -> None:
        """Remove an object with its masks; the text of the conversation stays.

        Raises:
            UnknownObjectError: The object does not exist.
            BusyError: Work is in progress.
        """
        with self._lifecycle.idle() as loaded:
            loaded.check_object(object_id)
            loaded.session.forget(object_id)
            loaded.names.pop(object_id, None)
            loaded.undo = deque((state for state in loaded.undo if state.object_id != object_id), loaded.undo.maxlen)
            loaded.update_snapshot()

    def _add(self, object_id: int, prompt: VisualPrompt) -> int:
        limit = self._lifecycle.context.limits.max_prompts
        with self._lifecycle.idle() as loaded:
            known = loaded.snapshot.object_ids
            object_id = object_id or next(number for number in itertools.count(1) if number not in known)
            if not 1 <= object_id <= MAX_OBJECT_ID:
                raise PromptError(f"object ids range from 1 to {MAX_OBJECT_ID}, got {object_id}")
            if loaded.snapshot.num_prompts(object_id) >= limit:
                raise PromptError(f"object {object_id} has {limit} prompts, the maximum: undo some")
            before = loaded.session.objects.snapshot_object(object_id)
            try:
                loaded.session.prompt(object_id, prompt)
            except ValueError as error:
                raise PromptError(str(error)) from error
            loaded.undo.append(before)
            loaded.update_snapshot()
            return object_id
