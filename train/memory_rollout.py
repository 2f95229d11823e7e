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
from unipixel.tracking.types import FrameFeatures, Segmentation, SegmentPrompt


@dataclass(frozen=True)
class FirstFramePrompts:
    """How some of the objects are prompted on the first frame of their tracks, all in one way.

    Attributes:
        rows: (b,) places among the B objects.
        prompt: Their prompts, or None where masks are given.
        masks: (b, S, S) bool, given masks that are taken as they are.
    """

    rows: Tensor
    prompt: SegmentPrompt | None = None
    masks: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.prompt is None) == (self.masks is None):
            raise ValueError("objects are prompted by a prompt or by masks: give one of the two")


@dataclass(frozen=True)
class TrackStep:
    """What was segmented on one frame of some objects' tracks.

    Attributes:
        rows: (b,) places among the B objects.
        step: Place in the track, from 0.
        segmentation: Masks of the b objects.
        is_given: Whether the masks were given, so that there is nothing to learn from them.
    """

    rows: Tensor
    step: int
    segmentation: Segmentation
    is_given: bool = False


def memory_rollout(
    segmenter: Segmenter,
    features: FrameFeatures,
    tracks: Tensor,
    anchors: Sequence[FirstFramePrompts],
    *,
    num_frames: int | None = None,
    first_step: int = 0,
) -> Iterator[TrackStep]:
    """Segment objects on their first frame and follow them, each along its own list of frames.

    Objects of different clips go through the modules together: what differs between them is the
    frame, and each object brings its own.

    Args:
        segmenter: SAM 2.1.
        features: F encoded frames, of any number of clips.
        tracks: (B, L) indices of frames, in the order of tracking.
        anchors: Prompts of the first frames; every object is in one of them.
        num_frames: Length of the clip that the pointers' time is scaled by; None as for a stream.
        first_step: Place in the tracks before which nothing is kept for gradients.

    Yields:
        First the anchors in the given order, then one step of all objects after the other.
    """
    num_objects, length = tracks.shape
    config = segmenter.config
    states = [ObjectState() for _ in range(num_objects)]
    for anchor in anchors:
        current = select_frames(features, tracks[anchor.rows, 0])
        with _gradients(from_step=first_step, step=0):
            segmentation = segment_anchors(segmenter, current, anchor)
        yield TrackStep(anchor.rows, 0, segmentation, is_given=anchor.masks is not None)
        if length > 1:
            with _gradients(from_step=first_step, step=0):
                memories = _encode_memories(segmenter, current, segmentation)
            for row, memory in zip(anchor.rows.tolist(), memories, strict=True):
                states[row].write_prompted(0, memory)
    everyone = torch.arange(num_objects, device=tracks.device)
    num_maskmem, max_pointers = config.num_maskmem, config.max_pointers
    for step in range(1, length):
        current = select_frames(features, tracks[:, step])
        # All tracks start with one prompted frame, so that all read equally many memories.
        ((_, gathered),) = gather_memories(
            states, step, num_maskmem=num_maskmem, max_pointers=max_pointers, num_frames=num_frames
        )
        with _gradients(from_step=first_step, step=step):
            segmentation = segmenter.decode(current, segmenter.attend_memory(current, gathered))
        yield TrackStep(everyone, step, segmentation)
        if step + 1 < length:
            with _gradients(from_step=first_step, step=step):
                memories = _encode_memories(segmenter, current, segmentation)
            for state, written in zip(states, memories, strict=True):
                state.write_tracked(step, written, num_maskmem=num_maskmem, max_pointers=max_pointers)


def _gradients(*, from_step: int, step: int) -> torch.set_grad_enabled:
    """Keep what gradients need from a step on; never more than the caller keeps."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and step >= from_step)


def _encode_memories(segmenter: Segmenter, features: FrameFeatures, segmentation: Segmentation) -> list[FrameMemory]:
    """Encode the memory of each object on one frame, in float32."""
    memories = segmenter.encode_memory(features, segmentation).float()
    return [FrameMemory(row, pointer) for row, pointer in zip(memories, segmentation.pointer, strict=True)]


def select_frames(features: FrameFeatures, indices: Tensor) -> FrameFeatures:
    """Return the features of frames `indices` (b,), one per object."""
    fine, finer = features.high_res
    return FrameFeatures(features.embedding[indices], (fine[indices], finer[indices]))


def segment_anchors(segmenter: Segmenter, features: FrameFeatures, anchor: FirstFramePrompts) -> Segmentation:
    """Segment prompted objects on one frame each.

    Args:
        segmenter: SAM 2.1.
        features: The frames of the b objects.
        anchor: Their prompts.
    """
    if anchor.masks is not None:
        return segmenter.use_mask(features, anchor.masks)
    return segmenter.decode(features, segmenter.embed_without_memory(features, num_objects=len(anchor.rows)), anchor.prompt)
