"""Masks of many objects over short clips, with gradients through the memory.

Shape letters: F frames, B objects, L frames of an object's track, C SAM width, S SAM image size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.track_state import FrameMemory, ObjectState, gather_memories
from unipixel.tracking.types import FrameFeatures, MemoryBatch, Segmentation, SegmentPrompt


@dataclass(frozen=True)
class FirstFramePrompts:
    """Prompts of one kind for b of the B objects, on the first frames of their tracks.

    Attributes:
        rows: (b,) indices of the objects.
        prompt: Their prompts, or None where masks are given.
        masks: (b, S, S) bool, masks that are used as they are.
    """

    rows: Tensor
    prompt: SegmentPrompt | None = None
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.masks is None):
            raise ValueError("objects need a prompt or masks: give one of the two")


@dataclass(frozen=True)
class TrackStep:
    """Segmentation of b of the B objects on one frame of their tracks.

    Attributes:
        rows: (b,) indices of the objects.
        step: Position in the track, from 0.
        segmentation: Masks of the b objects.
        is_given: Whether the masks were given as prompts, so that they have no loss.
    """

    rows: Tensor
    step: int
    segmentation: Segmentation
    is_given: bool = False


def memory_rollout(
    segmenter: Segmenter,
    features: FrameFeatures,
    tracks: Tensor,
    prompts: Sequence[FirstFramePrompts],
    *,
    num_frames: int | None = None,
    first_step: int = 0,
) -> Iterator[TrackStep]:
    """Segment objects on their first frames and track them, each along a separate list of frames.

    Objects of different clips form one batch, in which each object has its own frame.

    Args:
        segmenter: SAM 2.1.
        features: F encoded frames, of any number of clips.
        tracks: (B, L) indices of frames, in the order of tracking.
        prompts: Prompts of the first frames, each object in exactly one of them.
        num_frames: Length of the clip, which scales the time of object pointers; None for a stream.
        first_step: Position in the tracks from which gradients are computed.

    Yields:
        The prompted objects on their first frames in the given order, then all objects step by step.
    """
    num_objects, length = tracks.shape
    config = segmenter.config
    # All tracks start with one prompted frame, so that all have the same memories: one state contains all objects.
    state = ObjectState()
    given: list[FrameMemory] = []
    for prompted in prompts:
        current = select_frames(features, tracks[prompted.rows, 0])
        with _gradients(from_step=first_step, step=0):
            segmentation = segment_first_frame(segmenter, current, prompted)
        yield TrackStep(prompted.rows, 0, segmentation, is_given=prompted.masks is not None)
        if length > 1:
            with _gradients(from_step=first_step, step=0):
                given.append(_encode_memories(segmenter, current, segmentation))
    if given:
        order = torch.cat([prompted.rows for prompted in prompts]).argsort()
        state.write_prompted(0, _join_memories(given, order))
    all_rows = torch.arange(num_objects, device=tracks.device)
    num_maskmem, max_pointers = config.num_maskmem, config.max_pointers
    for step in range(1, length):
        current = select_frames(features, tracks[:, step])
        ((_, gathered),) = gather_memories(
            [state], step, num_maskmem=num_maskmem, max_pointers=max_pointers, num_frames=num_frames
        )
        with _gradients(from_step=first_step, step=step):
            segmentation = segmenter.decode(current, segmenter.attend_memory(current, _objects_first(gathered)))
        yield TrackStep(all_rows, step, segmentation)
        if step + 1 < length:
            with _gradients(from_step=first_step, step=step):
                memory = _encode_memories(segmenter, current, segmentation)
            state.write_tracked(step, memory, num_maskmem=num_maskmem, max_pointers=max_pointers)


def _gradients(*, from_step: int, step: int) -> torch.set_grad_enabled:
    """Enable gradients from a step on, where the caller has them enabled."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and step >= from_step)


def _encode_memories(segmenter: Segmenter, features: FrameFeatures, segmentation: Segmentation) -> FrameMemory:
    """Encode the memories of B objects on one frame, in float32: features (B, h*w, D) and pointers (B, C)."""
    return FrameMemory(segmenter.encode_memory(features, segmentation).float(), segmentation.pointer)


def _join_memories(memories: Sequence[FrameMemory], order: Tensor) -> FrameMemory:
    features = torch.cat([memory.features for memory in memories if memory.features is not None])
    return FrameMemory(features[order], torch.cat([memory.pointer for memory in memories])[order])


def _objects_first(memory: MemoryBatch) -> MemoryBatch:
    """Lay out the memories of one state (1, M, B, ...) as those of B objects (B, M, ...)."""
    features, pointers = memory.features[0].transpose(0, 1), memory.pointers[0].transpose(0, 1)
    slots, offsets = (values.expand(len(features), -1) for values in (memory.slots, memory.offsets))
    return MemoryBatch(features, slots, pointers, offsets, memory.max_offset)


def select_frames(features: FrameFeatures, indices: Tensor) -> FrameFeatures:
    """Return the features of frames `indices` (b,), one per object."""
    fine, finer = features.high_res
    return FrameFeatures(features.embedding[indices], (fine[indices], finer[indices]))


def segment_first_frame(segmenter: Segmenter, features: FrameFeatures, prompted: FirstFramePrompts) -> Segmentation:
    """Segment prompted objects on one frame each.

    Args:
        segmenter: SAM 2.1.
        features: The frames of the b objects.
        prompted: Their prompts.
    """
    if prompted.masks is not None:
        return segmenter.use_mask(features, prompted.masks)
    return segmenter.decode(
        features, segmenter.embed_without_memory(features, num_objects=len(prompted.rows)), prompted.prompt
    )
