"""What a visitor sees of his objects: readable at any moment, also while the model works."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.records import MaskRecord, PromptRecord
from unipixel.output.overlay import PromptMark, object_color
from unipixel.processing.clip_layout import recall_prompt, record_prompt
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt
from unipixel.session.video_objects import VideoObjects


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a visitor.

    Attributes:
        id: Its number, as in `[1]`.
        name: What the visitor calls it; else the words that named it, else `object 1`.
        color: As in every picture, `#rrggbb`.
        source: What named it first: `point`, `box`, `mask` or `language`.
        is_waiting: Whether a prompt of it was not followed yet.
        num_prompts: Clicks, boxes and masks that were given for it.
        num_known_frames: Frames on which it is known whether it is seen.
        visible_frames: Frames on which it is seen, rising.
    """

    id: int
    name: str
    color: str
    source: str
    is_waiting: bool
    num_prompts: int
    num_known_frames: int
    visible_frames: tuple[int, ...]


@dataclass(frozen=True)
class _Facts:
    source: str
    expression: str | None
    anchor_frame: int
    is_waiting: bool
    prompts: tuple[PromptRecord, ...]


class SessionSnapshot:
    """A copy of what a scene knows, written by the thread that works and read by any other."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._size = (0, 0)
        self._facts: dict[int, _Facts] = {}
        self._looks: dict[int, dict[int, MaskRecord]] = {}

    def show(self, scene: VideoObjects) -> None:
        """Show all that a scene knows."""
        facts, looks = _facts(scene), {key: dict(scene.bank.frames(key)) for key in scene.bank.ids}
        with self._lock:
            self._size, self._facts, self._looks = scene.bank.frame_size, facts, looks

    def show_frame(self, scene: VideoObjects, frame_index: int) -> None:
        """Show one frame that was just followed."""
        found = {key: scene.bank.frame(key, frame_index) for key in scene.bank.ids}
        facts = _facts(scene) if set(found) - set(self._facts) else None
        with self._lock:
            self._facts = self._facts if facts is None else facts
            for key, look in found.items():
                if look is not None:
                    self._looks.setdefault(key, {})[frame_index] = look

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of all objects, rising."""
        with self._lock:
            return tuple(sorted(self._facts))

    @property
    def num_bytes(self) -> int:
        """About how much memory the masks take."""
        with self._lock:
            return sum(len(look.counts or "") + 100 for own in self._looks.values() for look in own.values())

    def objects(self, names: Mapping[int, str]) -> list[ObjectInfo]:
        """Return the objects, in the order of their ids."""
        with self._lock:
            return [
                ObjectInfo(
                    id=key,
                    name=names.get(key) or facts.expression or f"object {key}",
                    color="#{:02x}{:02x}{:02x}".format(*object_color(key)),
                    source=facts.source,
                    is_waiting=facts.is_waiting,
                    num_prompts=len(facts.prompts),
                    num_known_frames=len(self._looks.get(key, ())),
                    visible_frames=self._visible(key),
                )
                for key, facts in sorted(self._facts.items())
            ]

    def looks_at(self, frame_index: int) -> dict[int, MaskRecord]:
        """Return how each object looks on a frame, where that is known."""
        with self._lock:
            return {key: own[frame_index] for key, own in sorted(self._looks.items()) if frame_index in own}

    def masks_at(self, frame_index: int) -> dict[int, NDArray[np.bool_]]:
        """Return the masks (H, W) of the objects that are seen on a frame."""
        looks = self.looks_at(frame_index)
        return {key: look.mask(self._size) for key, look in looks.items() if look.is_visible}

    def prompts_at(self, frame_index: int | None = None) -> list[PromptMark]:
        """Return the clicks and boxes on a frame, or on all of them, to be drawn; masks are not."""
        marks = []
        with self._lock:
            given = [(key, prompt) for key, facts in self._facts.items() for prompt in facts.prompts]
        for key, record in given:
            if record.kind == "mask" or (frame_index is not None and record.frame_index != frame_index):
                continue
            prompt = recall_prompt(record, frame_size=self._size)
            if isinstance(prompt, PointPrompt):
                point = (prompt.x, prompt.y)
                marks.append(PromptMark(key, prompt.frame_index, point_xy=point, is_positive=prompt.is_positive))
            elif isinstance(prompt, BoxPrompt):
                marks.append(PromptMark(key, prompt.frame_index, box_xyxy=prompt.xyxy))
        return marks

    def num_prompts(self, object_id: int) -> int:
        """Return how many prompts an object has; 0 where it is unknown."""
        with self._lock:
            return len(self._facts[object_id].prompts) if object_id in self._facts else 0

    def timeline(self) -> dict[int, list[int]]:
        """Return the frames on which each object is seen."""
        with self._lock:
            return {key: list(self._visible(key)) for key in sorted(self._facts)}

    def best_look(self, object_id: int) -> tuple[int, NDArray[np.bool_]] | None:
        """Return the frame that shows an object as it was given, else the first that shows it, with its mask."""
        with self._lock:
            frames = self._visible(object_id)
            if not frames:
                return None
            anchor = self._facts[object_id].anchor_frame
            chosen = anchor if anchor in frames else frames[0]
            look = self._looks[object_id][chosen]
        return chosen, look.mask(self._size)

    def _visible(self, object_id: int) -> tuple[int, ...]:
        own = self._looks.get(object_id, {})
        return tuple(sorted(index for index, look in own.items() if look.is_visible))


def _facts(scene: VideoObjects) -> dict[int, _Facts]:
    facts: dict[int, _Facts] = {}
    for key in sorted(scene.known_ids):
        waiting = tuple(record_prompt(prompt) for prompt in scene.waiting.get(key, ()))
        if key in scene.bank:
            record = scene.bank[key]
            prompts = (*record.prompts, *waiting)
            facts[key] = _Facts(record.source, record.expression, record.anchor_frame, bool(waiting), prompts)
        else:
            facts[key] = _Facts(waiting[0].kind, None, waiting[0].frame_index, True, waiting)
    return facts
