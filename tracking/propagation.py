"""Follows prompted objects through a finite clip, from an anchor frame in one direction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from unipixel.tracking.segmentation import FrameFeatures, FrameMasks, Segmentation
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.state import FrameMemory, ObjectState, gather_memories


def advance(
    segmenter: Segmenter,
    features: FrameFeatures,
    states: Sequence[ObjectState],
    frame_index: int,
    *,
    memory_dtype: torch.dtype,
    num_frames: int | None = None,
    is_reverse: bool = False,
) -> FrameMasks:
    """Track objects on one more frame, which their states then remember.

    Objects of equal memory layout go through attention, decoder and memory encoder in one batch.

    Args:
        segmenter: SAM 2.1.
        features: The frame, N = 1.
        states: One per object; written to.
        frame_index: Index of the frame.
        memory_dtype: Type in which the memories are stored.
        num_frames: Length of the clip where it is known.
        is_reverse: Whether the clip is tracked backwards.
    """
    config = segmenter.config
    groups = gather_memories(
        states,
        frame_index,
        num_maskmem=config.num_maskmem,
        max_pointers=config.max_pointers,
        num_frames=num_frames,
        is_reverse=is_reverse,
    )
    rows: list[tuple[Tensor, Tensor, Tensor] | None] = [None] * len(states)
    for indices, memory in groups:
        segmentation = segmenter.decode(features, segmenter.condition(features, memory))
        memories = encode_memories(segmenter, features, segmentation, memory_dtype=memory_dtype)
        for row, index in enumerate(indices):
            states[index].write_tracked(
                frame_index, memories[row], num_maskmem=config.num_maskmem, max_pointers=config.max_pointers
            )
            rows[index] = (
                segmentation.mask_logits[row],
                segmentation.object_score[row],
                segmentation.iou[row],
            )
    logits, scores, ious = zip(*(row for row in rows if row is not None), strict=True)
    return FrameMasks(frame_index, torch.stack(logits), torch.stack(scores), torch.stack(ious))


def encode_memories(
    segmenter: Segmenter, features: FrameFeatures, segmentation: Segmentation, *, memory_dtype: torch.dtype
) -> list[FrameMemory]:
    """Encode a segmented frame into one memory per object."""
    stored = segmenter.remember(features, segmentation).to(memory_dtype)
    return [FrameMemory(row, pointer) for row, pointer in zip(stored, segmentation.pointer, strict=True)]


def propagate(
    segmenter: Segmenter,
    frames: Iterable[FrameFeatures],
    anchor: Segmentation,
    *,
    memory_dtype: torch.dtype,
    num_frames: int | None = None,
    start_index: int = 0,
    is_reverse: bool = False,
) -> Iterator[FrameMasks]:
    """Follow objects that were segmented on the first of the given frames.

    Args:
        segmenter: SAM 2.1.
        frames: Encoded frames, N = 1 each, in the order of tracking; the first is the anchor frame.
        anchor: The B objects on the anchor frame.
        memory_dtype: Type in which memories are stored: the model's own for published checkpoints,
            bfloat16 as in the package's predictor otherwise.
        num_frames: Length of the clip where it is known.
        start_index: Index of the anchor frame.
        is_reverse: Whether frames come in descending order.

    Yields:
        The masks of each frame, the anchor first.
    """
    states = [ObjectState() for _ in range(len(anchor.mask_logits))]
    step = -1 if is_reverse else 1
    for count, features in enumerate(frames):
        index = start_index + step * count
        if count == 0:
            memories = encode_memories(segmenter, features, anchor, memory_dtype=memory_dtype)
            for state, memory in zip(states, memories, strict=True):
                state.write_prompted(index, memory)
            yield FrameMasks(index, anchor.mask_logits, anchor.object_score, anchor.iou)
        else:
            yield advance(
                segmenter, features, states, index,
                memory_dtype=memory_dtype, num_frames=num_frames, is_reverse=is_reverse,
            )  # fmt: skip
