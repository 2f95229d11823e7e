"""Pointing at objects: clicks, boxes and masks, taking them back, names, forgetting."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from unipixel.demos.sessions.errors import DemoError, PromptError, UnknownObjectError
from unipixel.demos.sessions.lifecycle import SessionLifecycle
from unipixel.memory.injection import MAX_OBJECT_ID
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt


class PromptEditing(SessionLifecycle):
    """What a visitor does to his objects while nothing is under way."""

    def next_id(self) -> int:
        """Return the id that a new object gets."""
        self._awake()
        taken = self._snapshot.ids
        return next(number for number in range(1, MAX_OBJECT_ID + 1) if number not in taken)

    def point(self, object_id: int, x: float, y: float, frame_index: int = 0, *, is_positive: bool = True) -> None:
        """Click on an object, or beside it; positions in pixels of the frame.

        Raises:
            PromptError: The click is not on the video, says too little, or there are too many.
            BusyError: Work is under way.
        """
        self._prompt(object_id, PointPrompt(float(x), float(y), int(frame_index), bool(is_positive)))

    def box(self, object_id: int, xyxy: tuple[float, float, float, float], frame_index: int = 0) -> None:
        """Put a box around an object: left, top, right, bottom in pixels of the frame.

        Raises:
            PromptError: See `point`.
            BusyError: See `point`.
        """
        left, top, right, bottom = (float(value) for value in xyxy)
        self._prompt(object_id, BoxPrompt((left, top, right, bottom), int(frame_index)))

    def mask(self, object_id: int, mask: NDArray[np.bool_], frame_index: int = 0) -> None:
        """Give an object's mask, bool (H, W).

        Raises:
            PromptError: See `point`.
            BusyError: See `point`.
        """
        self._prompt(object_id, MaskPrompt(np.asarray(mask) != 0, int(frame_index)))

    def undo(self) -> int | None:
        """Take the last prompt back, with what it did to its object's masks, and return the object's id.

        Returns:
            None where there is nothing to take back.

        Raises:
            BusyError: Work is under way.
        """
        with self._idle() as session:
            if not self._undo:
                return None
            kept = self._undo.pop()
            session.scene.restore_object(kept)
            self._snapshot.show(session.scene)
            return kept.object_id

    def rename(self, object_id: int, name: str) -> None:
        """Call an object something; an empty name gives it back its own.

        Raises:
            UnknownObjectError: There is no such object.
            DemoError: The name is too long.
        """
        limit = self._context.limits.max_name_chars
        text = " ".join(name.split())
        if len(text) > limit or not text.isprintable():
            raise DemoError(f"the name has {len(text)} characters, at most {limit} plain ones fit", field="name")
        with self._lock:
            self._awake()
            self._check_known(object_id)
            self._names.pop(object_id, None)
            if text:
                self._names[object_id] = text

    def forget(self, object_id: int) -> None:
        """Forget an object; what the conversation already says of it stays said.

        Raises:
            UnknownObjectError: There is no such object.
            BusyError: Work is under way.
        """
        with self._idle() as session:
            self._check_known(object_id)
            session.forget(object_id)
            self._names.pop(object_id, None)
            self._undo = deque((kept for kept in self._undo if kept.object_id != object_id), self._undo.maxlen)
            self._snapshot.show(session.scene)

    def _prompt(self, object_id: int, prompt: VisualPrompt) -> None:
        limit = self._context.limits.max_prompts
        with self._idle() as session:
            if not 1 <= object_id <= MAX_OBJECT_ID:
                raise PromptError(f"objects are numbered 1 to {MAX_OBJECT_ID}, not {object_id}")
            if self._snapshot.num_prompts(object_id) >= limit:
                raise PromptError(f"object {object_id} has {limit} clicks already, which is the most: take some back")
            kept = session.scene.keep(object_id)
            try:
                session.prompt(object_id, prompt)
            except ValueError as error:
                raise PromptError(str(error)) from error
            self._undo.append(kept)
            self._snapshot.show(session.scene)

    def _check_known(self, object_id: int) -> None:
        if object_id not in self._snapshot.ids:
            known = ", ".join(f"[{key}]" for key in self._snapshot.ids) or "none"
            raise UnknownObjectError(f"there is no object [{object_id}]: known are {known}")
