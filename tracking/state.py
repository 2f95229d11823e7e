"""What one tracked object may remember: bounded, whatever the length of the video.

Shape letters: C embedding width, D memory width, h/w side of the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unipixel.tracking.segmentation import MemoryBatch

# The first prompt of an object and this many further prompted frames are kept.
MAX_CORRECTIONS = 8


@dataclass(frozen=True)
class FrameMemory:
    """How an object looked in one frame.

    Attributes:
        features: (h*w, D) in the memory dtype, or None once only the pointer is still of use.
        pointer: (C,).
    """

    features: Tensor | None
    pointer: Tensor


@dataclass
class ObjectState:
    """Memories of one object, by frame index.

    Attributes:
        prompted: Frames on which the object was prompted; always attended to.
        tracked: Recent frames on which it was tracked.
    """

    prompted: dict[int, FrameMemory] = field(default_factory=dict)
    tracked: dict[int, FrameMemory] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Bytes that the object's tensors take."""
        memories = (*self.prompted.values(), *self.tracked.values())
        tensors = [tensor for memory in memories for tensor in (memory.features, memory.pointer)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)

    def copy(self) -> ObjectState:
        """Return a state that can be advanced without changing this one; tensors are shared."""
        return ObjectState(dict(self.prompted), dict(self.tracked))

    def write_prompted(self, frame_index: int, memory: FrameMemory) -> None:
        """Remember a prompted frame; the first is never dropped, of the others the newest are kept."""
        self.tracked.pop(frame_index, None)
        self.prompted[frame_index] = memory
        if len(self.prompted) > 1 + MAX_CORRECTIONS:
            _, oldest_correction, *_ = self.prompted
            del self.prompted[oldest_correction]

    def write_tracked(self, frame_index: int, memory: FrameMemory, *, num_maskmem: int, max_pointers: int) -> None:
        """Remember a tracked frame and let go of what attention will not read any more.

        Attention reads mask memories of the last `num_maskmem - 1` frames and pointers of the last
        `max_pointers - 1` frames, in either direction of tracking (sam2_base.py).
        """
        self.tracked[frame_index] = memory
        for index in list(self.tracked):
            distance = abs(frame_index - index)
            if distance >= max_pointers - 1:
                del self.tracked[index]
            elif distance >= num_maskmem - 1:
                self.tracked[index] = FrameMemory(None, self.tracked[index].pointer)


@dataclass(frozen=True)
class _Reading:
    """What one object reads on one frame: memories with their slots, pointers with their offsets."""

    features: tuple[Tensor, ...]
    slots: tuple[int, ...]
    pointers: tuple[Tensor, ...]
    offsets: tuple[int, ...]
    no_pointers: Tensor  # (0, C): an object prompted only on frames ahead has none to read

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
    """Collect what objects read on a frame, in groups of equal layout.

    The attention of SAM 2 has no mask, so objects with different numbers of memories are computed in
    different batches rather than padded.

    Args:
        states: One per object; each has been prompted.
        frame_index: Frame about to be tracked.
        num_maskmem: Mask memories that are read, the prompted slot included.
        max_pointers: Pointers that are read.
        num_frames: Length of the clip where it is known: below `max_pointers` frames SAM 2 scales the
            pointers' time by it. None for a stream.
        is_reverse: Whether the clip is tracked backwards.

    Returns:
        Pairs of indices into `states` and their memories.

    Raises:
        RuntimeError: An object has no prompted frame; prompt it first.
    """
    pointer_limit = max_pointers if num_frames is None else min(num_frames, max_pointers)
    groups: dict[tuple[int, int], list[tuple[int, _Reading]]] = {}
    for index, state in enumerate(states):
        if not state.prompted:
            raise RuntimeError(f"object at position {index} was never prompted: add a prompt before tracking it")
        reading = _read(state, frame_index, num_maskmem, pointer_limit, -1 if is_reverse else 1)
        groups.setdefault(reading.layout, []).append((index, reading))
    max_offset = max(pointer_limit - 1, 1)
    return [
        ([index for index, _ in members], _batch([reading for _, reading in members], max_offset))
        for members in groups.values()
    ]


def _read(state: ObjectState, frame_index: int, num_maskmem: int, pointer_limit: int, step: int) -> _Reading:
    some_pointer = next(iter(state.prompted.values())).pointer
    memories = [(0, memory.features) for memory in state.prompted.values()]
    for slot in range(1, num_maskmem):
        tracked = state.tracked.get(frame_index - step * (num_maskmem - slot))
        if tracked is not None:
            memories.append((slot, tracked.features))
    # Pointers of prompted frames that lie ahead are left out (only_obj_ptrs_in_the_past_for_eval).
    pointers = [
        ((frame_index - index) * step, memory.pointer)
        for index, memory in state.prompted.items()
        if (frame_index - index) * step >= 0
    ]
    for offset in range(1, pointer_limit):
        tracked = state.tracked.get(frame_index - step * offset)
        if tracked is not None:
            pointers.append((offset, tracked.pointer))
    return _Reading(
        features=tuple(features for _, features in memories if features is not None),
        slots=tuple(slot for slot, features in memories if features is not None),
        pointers=tuple(pointer for _, pointer in pointers),
        offsets=tuple(offset for offset, _ in pointers),
        no_pointers=some_pointer.new_zeros(0, len(some_pointer)),
    )


def _batch(readings: Sequence[_Reading], max_offset: int) -> MemoryBatch:
    device = readings[0].features[0].device
    pointers = [torch.stack(row.pointers) if row.pointers else row.no_pointers for row in readings]
    return MemoryBatch(
        features=torch.stack([torch.stack(row.features) for row in readings]),
        slots=torch.tensor([row.slots for row in readings], device=device),
        pointers=torch.stack(pointers),
        offsets=torch.tensor([row.offsets for row in readings], dtype=torch.float32, device=device),
        max_offset=max_offset,
    )
