"""The memories of one tracked object, of bounded size for videos of any length.

Shape letters: C embedding width, D memory width, h/w side of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from unipixel.tracking.precision import upload
from unipixel.tracking.types import MemoryBatch, Segmentation

# Number of prompted frames that are stored besides the first.
MAX_CORRECTIONS = 8


@dataclass(frozen=True)
class FrameMemory:
    """Memory of one object on one frame.

    Attributes:
        features: (h*w, D) in the memory dtype, or None if only the pointer is needed.
        pointer: (C,) object pointer.
        mask_logits: (4h, 4w) that a correction of the frame starts from, or None if it cannot be corrected any more.
        scores: (2,) object score logit and predicted IoU, stored together with the logits.
    """

    features: Tensor | None
    pointer: Tensor
    mask_logits: Tensor | None = None
    scores: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All stored tensors."""
        return tuple(t for t in (self.features, self.pointer, self.mask_logits, self.scores) if t is not None)

    def without_mask(self) -> FrameMemory:
        """Return the part that memory attention reads."""
        return FrameMemory(self.features, self.pointer)


@dataclass(frozen=True)
class StagedPrompt:
    """A decoded prompt without an encoded memory, because more clicks on the frame may follow.

    Attributes:
        segmentation: The object on the frame, B = 1.
        is_correction: Whether the object was already tracked on the frame.
        memory: Memory (h*w, D) that was encoded from a given mask itself, or None.
    """

    segmentation: Segmentation
    is_correction: bool
    memory: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All stored tensors."""
        # The only candidate is the mask itself: see `Segmentation.without_candidates`.
        segmentation = self.segmentation
        return segmentation.mask_logits, segmentation.pointer, segmentation.object_score, segmentation.candidate_ious


@dataclass
class ObjectState:
    """Memories of one object, by frame index.

    Attributes:
        prompted: Memories of prompted frames, which are always attended to.
        tracked: Memories of recent tracked frames.
        staged: Prompts whose memories are encoded before the next frame is tracked.
        tracked_in_reverse: For frames on which the object was tracked, whether backwards. A prompt on one of these
            frames is a correction.
        clicks: Points (1, P, 2) and labels (1, P) given so far, for frames that can still be prompted.
        num_absent: Number of consecutive frames, up to the newest, without the object.
    """

    prompted: dict[int, FrameMemory] = field(default_factory=dict)
    tracked: dict[int, FrameMemory] = field(default_factory=dict)
    staged: dict[int, StagedPrompt] = field(default_factory=dict)
    tracked_in_reverse: dict[int, bool] = field(default_factory=dict)
    clicks: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    num_absent: int = 0

    @property
    def num_bytes(self) -> int:
        """Size of all stored tensors in bytes."""
        tensors = [t for memory in (*self.prompted.values(), *self.tracked.values()) for t in memory.tensors]
        tensors += [t for prompt in self.staged.values() for t in prompt.tensors]
        tensors += [tensor for pair in self.clicks.values() for tensor in pair]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def copy(self) -> ObjectState:
        """Return a copy that shares its tensors with this state and can be updated independently."""
        return ObjectState(
            dict(self.prompted),
            dict(self.tracked),
            dict(self.staged),
            dict(self.tracked_in_reverse),
            dict(self.clicks),
            self.num_absent,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the state as plain values and tensors, for `unipixel.tracking.state_io`."""

        def memories(source: Mapping[int, FrameMemory]) -> dict[int, list[Tensor | None]]:
            return {index: [m.features, m.pointer, m.mask_logits, m.scores] for index, m in source.items()}

        staged = {index: (prompt.segmentation.tensors, prompt.is_correction) for index, prompt in self.staged.items()}
        return {
            "prompted": memories(self.prompted),
            "tracked": memories(self.tracked),
            "staged": staged,
            "tracked_in_reverse": dict(self.tracked_in_reverse),
            "clicks": dict(self.clicks),
            "num_absent": self.num_absent,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ObjectState:
        """Restore a state from the values of `to_dict`."""
        return cls(
            prompted={index: FrameMemory(*memory) for index, memory in values["prompted"].items()},
            tracked={index: FrameMemory(*memory) for index, memory in values["tracked"].items()},
            staged={
                index: StagedPrompt(Segmentation(*tensors), is_correction)
                for index, (tensors, is_correction) in values["staged"].items()
            },
            tracked_in_reverse=dict(values["tracked_in_reverse"]),
            clicks={index: (coords, labels) for index, (coords, labels) in values["clicks"].items()},
            num_absent=values["num_absent"],
        )

    def mask_logits_at(self, frame_index: int) -> Tensor | None:
        """Return the newest logits (4h, 4w) of a frame, from which a correction starts, or None."""
        if frame_index in self.staged:
            return self.staged[frame_index].segmentation.mask_logits[0]
        memory = self.prompted.get(frame_index) or self.tracked.get(frame_index)
        return None if memory is None else memory.mask_logits

    def write_prompted(self, frame_index: int, memory: FrameMemory) -> None:
        """Store the memory of a prompted frame; the first and the newest prompted frames are stored."""
        self.tracked.pop(frame_index, None)
        self.prompted[frame_index] = memory
        if len(self.prompted) > 1 + MAX_CORRECTIONS:
            _, oldest_correction, *_ = self.prompted
            del self.prompted[oldest_correction]

    def write_tracked(self, frame_index: int, memory: FrameMemory, *, num_maskmem: int, max_pointers: int) -> None:
        """Store the memory of a tracked frame and drop memories that attention does not read any more.

        Memory attention reads mask memories of the last `num_maskmem - 1` frames and pointers of the last
        `max_pointers - 1` frames, in either direction of tracking (sam2_base.py).
        """
        self.tracked[frame_index] = memory
        for index in list(self.tracked):
            distance = abs(frame_index - index)
            if distance >= max_pointers - 1:
                del self.tracked[index]
            elif distance >= num_maskmem - 1:
                self.tracked[index] = FrameMemory(None, self.tracked[index].pointer)

    def drop_correction_data(self, frame_index: int) -> None:
        """Drop the logits and clicks of all frames but this one, which only a correction of those frames needs."""
        for memories in (self.prompted, self.tracked):
            for index, memory in memories.items():
                if index != frame_index and memory.mask_logits is not None:
                    memories[index] = memory.without_mask()
        for values in (self.tracked_in_reverse, self.clicks):
            for index in [index for index in values if index != frame_index]:
                del values[index]


@dataclass(frozen=True)
class _SelectedMemories:
    """The memories of one object for one frame: mask memories with their slots, pointers with their offsets."""

    features: tuple[Tensor, ...]
    slots: tuple[int, ...]
    pointers: tuple[Tensor, ...]
    offsets: tuple[int, ...]
    no_pointers: Tensor  # (0, C), for an object that is prompted on later frames only

    @property
    def layout(self) -> tuple[int, int]:
        return len(self.slots), len(self.offsets)


def gather_memories(
    states: Sequence[ObjectState],
    frame_index: int,
    *,
    num_maskmem: int,
    max_pointers: int,
    num_frames: int | None = None,
    is_reverse: bool = False,
) -> list[tuple[list[int], MemoryBatch]]:
    """Collect the memories that objects attend to on a frame, in groups of equal layout.

    The memory attention of SAM 2 has no attention mask, so objects with different numbers of memories are computed
    in different batches instead of padded.

    Args:
        states: One per object, each prompted.
        frame_index: The frame to track.
        num_maskmem: As in `SegmenterConfig`.
        max_pointers: As in `SegmenterConfig`.
        num_frames: Length of the clip, or None for a stream. SAM 2 scales the temporal encoding of pointers by it
            in clips of fewer than `max_pointers` frames.
        is_reverse: Whether the clip is tracked backwards.

    Returns:
        For each group, the indices into `states` and the memories.

    Raises:
        RuntimeError: An object has no prompted frame.
    """
    pointer_limit = max_pointers if num_frames is None else min(num_frames, max_pointers)
    groups: dict[tuple[int, int], list[tuple[int, _SelectedMemories]]] = {}
    for index, state in enumerate(states):
        if not state.prompted:
            raise RuntimeError(f"object at position {index} was never prompted: add a prompt before tracking it")
        memories = _select_memories(state, frame_index, num_maskmem, pointer_limit, -1 if is_reverse else 1)
        groups.setdefault(memories.layout, []).append((index, memories))
    max_offset = max(pointer_limit - 1, 1)
    return [
        ([index for index, _ in members], _batch([memories for _, memories in members], max_offset))
        for members in groups.values()
    ]


def _select_memories(
    state: ObjectState, frame_index: int, num_maskmem: int, pointer_limit: int, step: int
) -> _SelectedMemories:
    some_pointer = next(iter(state.prompted.values())).pointer
    memories = [(0, memory.features) for memory in state.prompted.values()]
    for slot in range(1, num_maskmem):
        tracked = state.tracked.get(frame_index - step * (num_maskmem - slot))
        if tracked is not None:
            memories.append((slot, tracked.features))
    # Pointers of later prompted frames are not read (only_obj_ptrs_in_the_past_for_eval).
    pointers = [
        ((frame_index - index) * step, memory.pointer)
        for index, memory in state.prompted.items()
        if (frame_index - index) * step >= 0
    ]
    for offset in range(1, pointer_limit):
        tracked = state.tracked.get(frame_index - step * offset)
        if tracked is not None:
            pointers.append((offset, tracked.pointer))
    return _SelectedMemories(
        features=tuple(features for _, features in memories if features is not None),
        slots=tuple(slot for slot, features in memories if features is not None),
        pointers=tuple(pointer for _, pointer in pointers),
        offsets=tuple(offset for offset, _ in pointers),
        no_pointers=some_pointer.new_zeros(0, len(some_pointer)),
    )


def _batch(memories: Sequence[_SelectedMemories], max_offset: int) -> MemoryBatch:
    device = memories[0].features[0].device
    pointers = [torch.stack(row.pointers) if row.pointers else row.no_pointers for row in memories]
    return MemoryBatch(
        features=torch.stack([torch.stack(row.features) for row in memories]),
        slots=upload([row.slots for row in memories], device=device),
        pointers=torch.stack(pointers),
        offsets=upload([row.offsets for row in memories], device=device, dtype=torch.float32),
        max_offset=max_offset,
    )
