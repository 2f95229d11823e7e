"""A thread-safe copy of a session's objects and masks, readable while the model works."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.records import MaskRecord, PromptRecord
from unipixel.output.confidence import LOW_SCORE, describe_ranges, low_confidence_ranges
from unipixel.output.overlay import PromptMark, object_color
from unipixel.processing.clip_layout import recall_prompt, record_prompt
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt
from unipixel.session.video_objects import VideoObjects

PromptMasks = Mapping[int, Mapping[int, MaskRecord]]
"""Masks on the frames of pending prompts, by object id and frame."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a user session.

    Attributes:
        id: Object id, as in `[1]`.
        name: The name that the user gave; else the expression that found it, else `object 1`.
        color: Color of its masks, `#rrggbb`.
        source: Kind of its first prompt: `point`, `box`, `mask` or `language`.
        expression: The text that found it; None for a prompted object.
        anchor_frame: Frame of its first mask.
        has_pending_prompts: Whether it has prompts that were not tracked yet.
        prompts: Its clicks, boxes and masks.
        known_frames: Frames for which a mask or its absence is known, ascending.
        visible_frames: Frames on which it is visible, ascending.
        low_confidence: Where its scores stay low, in words; empty where they do not.
    """

    id: int
    name: str
    color: str
    source: str
    expression: str | None
    anchor_frame: int
    has_pending_prompts: bool
    prompts: tuple[PromptRecord, ...]
    known_frames: tuple[int, ...]
    visible_frames: tuple[int, ...]
    low_confidence: str = ""


@dataclass(frozen=True)
class _ObjectEntry:
    source: str
    expression: str | None
    anchor_frame: int
    has_pending_prompts: bool
    prompts: tuple[PromptRecord, ...]


class SessionSnapshot:
    """A copy of the objects of a session, written by the working thread and read by any other."""

    def __init__(self) -> None:
        """Create an empty snapshot."""
        self._lock = threading.Lock()
        self._frame_size = (0, 0)
        self._objects: dict[int, _ObjectEntry] = {}
        self._masks: dict[int, dict[int, MaskRecord]] = {}

    def update(self, video_objects: VideoObjects, prompt_masks: PromptMasks) -> None:
        """Copy all objects and masks.

        Args:
            video_objects: The objects.
            prompt_masks: Masks on the frames of pending prompts, by object id and frame; they replace older masks.
        """
        objects = _object_entries(video_objects)
        masks = {key: _mask_records(video_objects, key, prompt_masks) for key in objects}
        with self._lock:
            self._frame_size, self._objects, self._masks = video_objects.bank.frame_size, objects, masks

    def update_object(self, video_objects: VideoObjects, prompt_masks: PromptMasks, object_id: int) -> None:
        """Copy one object, whose masks may have changed; see `update`."""
        objects, masks = _object_entries(video_objects), _mask_records(video_objects, object_id, prompt_masks)
        with self._lock:
            self._objects = objects
            self._masks.pop(object_id, None)
            if object_id in objects:
                self._masks[object_id] = masks

    def update_frame(self, video_objects: VideoObjects, frame_index: int) -> None:
        """Copy the masks of one frame, and the objects where there are new ones."""
        masks = {key: video_objects.bank.mask_record(key, frame_index) for key in video_objects.bank.ids}
        objects = _object_entries(video_objects) if set(masks) - set(self._objects) else None
        with self._lock:
            self._objects = self._objects if objects is None else objects
            for key, mask in masks.items():
                if mask is not None:
                    self._masks.setdefault(key, {})[frame_index] = mask

    def copy(self) -> SessionSnapshot:
        """Return a copy that later changes do not affect."""
        copied = SessionSnapshot()
        with self._lock:
            copied._frame_size, copied._objects = self._frame_size, dict(self._objects)
            copied._masks = {key: dict(masks) for key, masks in self._masks.items()}
        return copied

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the video."""
        return self._frame_size

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of all objects, ascending."""
        with self._lock:
            return tuple(sorted(self._objects))

    @property
    def has_masks(self) -> bool:
        """Whether an object has a known mask."""
        with self._lock:
            return any(self._masks.values())

    @property
    def num_bytes(self) -> int:
        """Approximate memory of the masks."""
        with self._lock:
            return sum(len(mask.counts or "") + 100 for masks in self._masks.values() for mask in masks.values())

    def objects(self, names: Mapping[int, str]) -> list[ObjectInfo]:
        """Return the objects, ordered by id.

        Args:
            names: Names that the user gave, by object id.
        """
        with self._lock:
            return [
                ObjectInfo(
                    id=key,
                    name=names.get(key) or record.expression or f"object {key}",
                    color="#{:02x}{:02x}{:02x}".format(*object_color(key)),
                    source=record.source,
                    expression=record.expression,
                    anchor_frame=record.anchor_frame,
                    has_pending_prompts=record.has_pending_prompts,
                    prompts=record.prompts,
                    known_frames=tuple(sorted(self._masks.get(key, ()))),
                    visible_frames=self._visible_frames(key),
                    low_confidence=_describe_low_scores(self._masks.get(key, {})),
                )
                for key, record in sorted(self._objects.items())
            ]

    def records_of(self, object_id: int) -> dict[int, MaskRecord]:
        """Return the known mask records of an object, by frame; empty for an unknown one."""
        with self._lock:
            return dict(self._masks.get(object_id, {}))

    def records_at(self, frame_index: int) -> dict[int, MaskRecord]:
        """Return the known mask records of a frame, by object id."""
        with self._lock:
            return {key: masks[frame_index] for key, masks in sorted(self._masks.items()) if frame_index in masks}

    def masks_at(self, frame_index: int) -> dict[int, NDArray[np.bool_]]:
        """Return the masks (H, W) of the objects that are visible on a frame, by object id."""
        records = self.records_at(frame_index)
        return {key: record.mask(self._frame_size) for key, record in records.items() if record.is_visible}

    def prompts_at(self, frame_index: int | None = None) -> list[PromptMark]:
        """Return the clicks and boxes on a frame, or on all frames, for drawing; mask prompts are left out."""
        marks = []
        with self._lock:
            prompts = [(key, prompt) for key, record in self._objects.items() for prompt in record.prompts]
        for key, record in prompts:
            if record.kind == "mask" or (frame_index is not None and record.frame_index != frame_index):
                continue
            prompt = recall_prompt(record, frame_size=self._frame_size)
            if isinstance(prompt, PointPrompt):
                point = (prompt.x, prompt.y)
                marks.append(PromptMark(key, prompt.frame_index, point_xy=point, is_positive=prompt.is_positive))
            elif isinstance(prompt, BoxPrompt):
                marks.append(PromptMark(key, prompt.frame_index, box_xyxy=prompt.xyxy))
        return marks

    def num_prompts(self, object_id: int) -> int:
        """Return the number of prompts of an object; 0 for an unknown one."""
        with self._lock:
            return len(self._objects[object_id].prompts) if object_id in self._objects else 0

    def thumbnail_mask(self, object_id: int) -> tuple[int, NDArray[np.bool_]] | None:
        """Return a frame index with the object's mask (H, W) on that frame.

        The frame is that of the first prompt, where the object is visible there, else the first on which it is
        visible.

        Returns:
            None if the object is visible on no known frame.
        """
        with self._lock:
            frames = self._visible_frames(object_id)
            if not frames:
                return None
            anchor = self._objects[object_id].anchor_frame
            chosen = anchor if anchor in frames else frames[0]
            return chosen, self._masks[object_id][chosen].mask(self._frame_size)

    def _visible_frames(self, object_id: int) -> tuple[int, ...]:
        masks = self._masks.get(object_id, {})
        return tuple(sorted(index for index, mask in masks.items() if mask.is_visible))


def _mask_records(video_objects: VideoObjects, object_id: int, prompt_masks: PromptMasks) -> dict[int, MaskRecord]:
    known = video_objects.bank.mask_records(object_id) if object_id in video_objects.bank else ()
    return {**dict(known), **prompt_masks.get(object_id, {})}


def _object_entries(video_objects: VideoObjects) -> dict[int, _ObjectEntry]:
    records: dict[int, _ObjectEntry] = {}
    for key in sorted(video_objects.known_ids):
        pending = tuple(record_prompt(prompt) for prompt in video_objects.pending_prompts.get(key, ()))
        if key in video_objects.bank:
            known = video_objects.bank[key]
            prompts = (*known.prompts, *pending)
            records[key] = _ObjectEntry(known.source, known.expression, known.anchor_frame, bool(pending), prompts)
        else:
            records[key] = _ObjectEntry(pending[0].kind, None, pending[0].frame_index, True, pending)
    return records


def _describe_low_scores(masks: Mapping[int, MaskRecord]) -> str:
    """Describe where the scores of an object stay low; masks are not decoded, since this is called for every edit."""
    ordered = ((index, masks[index].is_visible and masks[index].score < LOW_SCORE) for index in sorted(masks))
    return describe_ranges(low_confidence_ranges(ordered), num_frames=max(masks, default=-1) + 1)
