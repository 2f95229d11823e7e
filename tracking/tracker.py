"""Tracks objects through a stream, one frame at a time, with bounded memory.

Shape letters: B objects, H/W size of the video, S side of the SAM input, P points, n tokens, C SAM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unipixel.tracking.clip_features import FramePixels, encode_frame
from unipixel.tracking.prompts import click_prompt, mask_prompt
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.state_io import read_tree, write_tree
from unipixel.tracking.track_state import ObjectState
from unipixel.tracking.tracker_core import TrackerCore, collect_masks
from unipixel.tracking.types import FrameFeatures, FrameMasks, SegmentPrompt

_FORMAT = "unipixel-tracker-state-1"


@dataclass(frozen=True)
class TrackedFrame:
    """Tracked objects on one frame.

    Attributes:
        frame_index: Index of the frame, from 0.
        object_ids: B ids, in the order of the masks.
        masks: Low-resolution logits, object scores and predicted IoU.
        size: (H, W) of the frame.
    """

    frame_index: int
    object_ids: tuple[int, ...]
    masks: FrameMasks
    size: tuple[int, int]

    @property
    def is_present(self) -> Tensor:
        """(B,) bool: whether each object is in the frame."""
        return self.masks.is_present

    @property
    def confidence(self) -> Tensor:
        """(B,) in 0..1: probability that the object is in the frame times the predicted IoU."""
        return self.masks.confidence

    def mask_logits(self) -> Tensor:
        """Compute the logits (B, H, W) at the size of the video, positive on the object."""
        return self.masks.resized(*self.size)

    def mask_of(self, object_id: int) -> Tensor:
        """Compute the mask (H, W) bool of one object.

        Raises:
            KeyError: The object is not in this result.
        """
        if object_id not in self.object_ids:
            raise KeyError(f"object {object_id} is not tracked: ids are {list(self.object_ids)}")
        row = self.object_ids.index(object_id)
        one = slice(row, row + 1)
        masks = FrameMasks(
            self.frame_index, self.masks.mask_logits[one], self.masks.object_score[one], self.masks.iou[one]
        )
        return masks.resized(*self.size)[0] > 0


@dataclass
class TrackerState:
    """The complete state of a tracker, which can be copied and saved.

    Attributes:
        frame_index: Index of the newest frame, None before the first.
        size: (H, W) of the newest frame.
        features: Features of the newest frame, N = 1, on which prompts are decoded.
        objects: State of each object, by id.
    """

    frame_index: int | None = None
    size: tuple[int, int] = (0, 0)
    features: FrameFeatures | None = None
    objects: dict[int, ObjectState] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Size of the memories of all objects in bytes, without the features of the newest frame."""
        return sum(state.num_bytes for state in self.objects.values())

    def copy(self) -> TrackerState:
        """Return a copy that shares its tensors with this state and can be updated independently."""
        objects = {object_id: state.copy() for object_id, state in self.objects.items()}
        return TrackerState(self.frame_index, self.size, self.features, objects)

    def save(self, path: str | Path) -> None:
        """Write the state to one safetensors file.

        Raises:
            OSError: The file cannot be written.
        """
        features = None
        if self.features is not None:
            features = [self.features.embedding, *self.features.high_res]
        objects = {object_id: state.to_dict() for object_id, state in self.objects.items()}
        values = {"frame_index": self.frame_index, "size": self.size, "features": features, "objects": objects}
        write_tree(path, values, file_format=_FORMAT)

    @classmethod
    def load(cls, path: str | Path, *, device: torch.device | str = "cpu") -> TrackerState:
        """Load a state that `save` wrote, onto a device.

        Raises:
            OSError: The file is missing, damaged, of another version, or not a saved state.
        """
        values = read_tree(path, file_format=_FORMAT, device=device)
        features = None
        if values["features"] is not None:
            embedding, fine, finer = values["features"]
            features = FrameFeatures(embedding, (fine, finer))
        objects = {object_id: ObjectState.from_dict(state) for object_id, state in values["objects"].items()}
        return cls(values["frame_index"], tuple(values["size"]), features, objects)


class StreamingTracker:
    """Tracks objects that can be added and removed at any frame.

    `step` takes the next frame; `add_points`, `add_box`, `add_mask` and `add_tokens` prompt an object on the frame
    of the last `step`. A prompt for a tracked id corrects the object. The complete state is `state`, which may be
    copied, replaced and saved.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        memory_dtype: torch.dtype = torch.bfloat16,
        num_frames: int | None = None,
        max_objects: int = 64,
        has_permanent_corrections: bool = True,
        is_postprocessed: bool = False,
        redetect_after: int | None = None,
    ) -> None:
        """Set up a tracker without objects.

        Args:
            segmenter: SAM 2.1.
            memory_dtype: Data type of stored memories.
            num_frames: Length of the video, or None if unknown; it changes the result below 16 frames.
            max_objects: Maximum number of objects.
            has_permanent_corrections: Whether corrected frames are always attended to (the newest 8 of an object).
            is_postprocessed: Whether SAM 2's post-processing is applied.
            redetect_after: Number of consecutive frames without an object after which it is also searched for with
                the memories of its prompted frames alone; None for never.

        Raises:
            ValueError: A count is below 1, or the memory type is not floating-point.
        """
        if max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {max_objects}")
        self._core = TrackerCore(
            segmenter,
            memory_dtype=memory_dtype,
            num_frames=num_frames,
            has_permanent_corrections=has_permanent_corrections,
            is_postprocessed=is_postprocessed,
            redetect_after=redetect_after,
        )
        self._max_objects = max_objects
        self.state = TrackerState()

    def __repr__(self) -> str:
        frame = "no frame yet" if self.state.frame_index is None else f"frame {self.state.frame_index}"
        return f"<StreamingTracker at {frame}: objects {list(self.object_ids)}>"

    @property
    def object_ids(self) -> tuple[int, ...]:
        """Ids of the tracked objects, in the order in which they were added."""
        return tuple(self.state.objects)

    @torch.no_grad()
    def step(self, frame: FramePixels | FrameFeatures, *, size: tuple[int, int] | None = None) -> TrackedFrame:
        """Track all objects on the next frame.

        Args:
            frame: uint8 (H, W, 3) RGB, or normalised float (3, S, S), or encoded features, N = 1.
            size: (H, W) of the video, if `frame` is not raw; by default that of the previous frame, or (S, S).

        Raises:
            TypeError: The frame is neither uint8 nor floating-point.
            ValueError: The frame has another shape.
        """
        state, side = self.state, self._core.segmenter.config.image_size
        if isinstance(frame, FrameFeatures):
            features, own_size = frame, None
        else:
            features, own_size = encode_frame(self._core.segmenter, frame)
            own_size = own_size if not isinstance(frame, Tensor) or not frame.is_floating_point() else None
        if len(features) != 1:
            raise ValueError(f"expected the features of one frame, got those of {len(features)}")
        states = list(state.objects.values())
        if state.features is not None:
            newest = state.features
            self._core.encode_staged_prompts(states, lambda _: newest)
        frame_index = 0 if state.frame_index is None else state.frame_index + 1
        masks = self._core.track_frame(features, states, frame_index)
        state.size = size or own_size or (state.size if state.features is not None else (side, side))
        state.frame_index, state.features = frame_index, features
        return TrackedFrame(frame_index, self.object_ids, masks, state.size)

    def add_points(
        self, object_id: int, points: ArrayLike, labels: Sequence[int] | None = None, *, is_extending: bool = False
    ) -> TrackedFrame:
        """Add an object by clicks on the newest frame, or correct it there.

        Args:
            object_id: New or tracked id.
            points: (P, 2) x, y in pixels of the video.
            labels: P values, 1 for a positive and 0 for a negative click; by default all 1.
            is_extending: Whether the points are added to earlier ones of the object on this frame.

        Returns:
            All objects on the newest frame.

        Raises:
            RuntimeError: There is no frame yet.
            ValueError: A point is outside the frame, a label is not 0 or 1, or there are too many objects.
        """
        prompt = click_prompt(points, labels, **self._sizes())
        if is_extending and object_id in self.state.objects:
            clicks = self.state.objects[object_id].clicks
            prompt = prompt.with_earlier_points(*clicks.get(self.state.frame_index or 0, (None, None)))
        return self._prompt(object_id, prompt)

    def add_box(
        self, object_id: int, box_xyxy: ArrayLike, *, points: ArrayLike | None = None,
        labels: Sequence[int] | None = None,
    ) -> TrackedFrame:  # fmt: skip
        """Add an object by a box on the newest frame, or correct it there; clicks may refine the box.

        Args:
            object_id: New or tracked id.
            box_xyxy: x1, y1, x2, y2 in pixels of the video.
            points: (P, 2) x, y in pixels of the video.
            labels: P values, 1 for a positive and 0 for a negative click; by default all 1.

        Raises:
            RuntimeError: There is no frame yet.
            ValueError: The box is inverted or outside the frame, or there are too many objects.
        """
        return self._prompt(object_id, click_prompt(points, labels, box=box_xyxy, **self._sizes()))

    def add_mask(self, object_id: int, mask: ArrayLike | Tensor) -> TrackedFrame:
        """Add an object by its mask on the newest frame, or replace its mask there.

        Args:
            object_id: New or tracked id.
            mask: (H, W), non-zero on the object.

        Raises:
            RuntimeError: There is no frame yet.
            ValueError: The mask is empty or not of the video's size, or there are too many objects.
        """
        return self._prompt(object_id, mask_prompt(mask, **self._sizes()))

    def add_tokens(self, object_id: int, tokens: Tensor) -> TrackedFrame:
        """Add an object by a language model's tokens on the newest frame, or correct it there.

        Args:
            object_id: New or tracked id.
            tokens: (n, C).

        Raises:
            RuntimeError: There is no frame yet.
            ValueError: The tokens are not (n, C), or there are too many objects.
        """
        self._sizes()
        width = self._core.segmenter.config.embed_dim
        if tokens.ndim != 2 or tokens.shape[1] != width or not len(tokens):
            raise ValueError(f"tokens of one object must be (n, {width}), got {tuple(tokens.shape)}")
        return self._prompt(object_id, SegmentPrompt(tokens=tokens[None]))

    def remove(self, object_id: int) -> None:
        """Remove an object; the others are not affected.

        Raises:
            KeyError: The object is not tracked.
        """
        if object_id not in self.state.objects:
            raise KeyError(f"object {object_id} is not tracked: ids are {list(self.state.objects)}")
        del self.state.objects[object_id]

    def reset(self) -> None:
        """Remove all objects and frames; the next frame has index 0."""
        self.state = TrackerState()

    def _sizes(self) -> dict:
        if self.state.features is None:
            raise RuntimeError("there is no frame yet: call step(frame) before adding objects")
        return {"size": self.state.size, "image_size": self._core.segmenter.config.image_size}

    @torch.no_grad()
    def _prompt(self, object_id: int, prompt: SegmentPrompt | Tensor) -> TrackedFrame:
        state = self.state
        if object_id not in state.objects and len(state.objects) >= self._max_objects:
            raise ValueError(f"object {object_id} exceeds the limit: at most {self._max_objects} objects are tracked")
        if state.features is None or state.frame_index is None:
            raise RuntimeError("there is no frame yet: call step(frame) before adding objects")
        # Added after the prompt was decoded, so that a failure adds no object.
        target = state.objects.get(object_id, ObjectState())
        self._core.prompt(state.features, target, state.frame_index, prompt)
        state.objects[object_id] = target
        masks = collect_masks(self._core.segmenter, list(state.objects.values()), state.frame_index)
        return TrackedFrame(state.frame_index, self.object_ids, masks, state.size)
