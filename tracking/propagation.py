"""Propagates prompted objects through a finite clip, forwards and backwards from their anchor frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from unipixel.tracking.clip_features import EncodedClip, FrameSelection
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.track_state import FrameMemory, ObjectState
from unipixel.tracking.tracker import TrackedFrame
from unipixel.tracking.tracker_core import TrackerCore
from unipixel.tracking.types import FrameMasks, Segmentation, SegmentPrompt

Direction = Literal["both", "forward", "backward"]


@dataclass(frozen=True)
class ClipPrompt:
    """A prompt of one object on one frame of a clip.

    Attributes:
        object_id: Id of the object.
        frame_index: Index of the frame.
        prompt: Points, box or tokens (B = 1), or a mask (1, S, S) in {0, 1}. See `unipixel.tracking.prompts`.
    """

    object_id: int
    frame_index: int
    prompt: SegmentPrompt | Tensor


@torch.no_grad()
def select_anchor_frames(
    segmenter: Segmenter, clip: EncodedClip, prompt: SegmentPrompt, *, candidates: Sequence[int]
) -> list[int]:
    """Select, for each of B objects, the frame with the highest score.

    The score of a frame is the probability that the object is in it times the predicted IoU of its mask.

    Args:
        segmenter: SAM 2.1.
        clip: The frames.
        prompt: Prompts that apply to any frame: language tokens (B, n, C).
        candidates: Indices of the frames to compare; the first of equal scores is selected.

    Raises:
        IndexError: A candidate is not in the clip.
        ValueError: There are no candidates, or the prompt has no tokens.
    """
    if not candidates or prompt.tokens is None:
        raise ValueError("selecting an anchor frame needs at least one candidate frame and a prompt of tokens")
    scores = []
    for frame_index in candidates:
        embedding = segmenter.embed_without_memory(clip[frame_index], num_objects=len(prompt.tokens))
        decoded = segmenter.decode(clip[frame_index], embedding, prompt)
        scores.append(decoded.object_score.sigmoid() * decoded.iou)
    return [candidates[position] for position in torch.stack(scores).argmax(dim=0).tolist()]


def sample_candidate_frames(num_frames: int, *, count: int = 8) -> list[int]:
    """Return up to `count` frame indices, evenly spaced, with the first and the last frame of the clip."""
    if num_frames <= count:
        return list(range(num_frames))
    return [round(step * (num_frames - 1) / (count - 1)) for step in range(count)] if count > 1 else [0]


@dataclass
class _Tracklet:
    """One object of a clip.

    Attributes:
        anchor: Its first prompted frame.
        state: Its memories.
        prompted: Its masks on prompted frames.
        after_anchor: Memories of the first frames after the anchor, which the backward pass reads.
    """

    anchor: int
    state: ObjectState = field(default_factory=ObjectState)
    prompted: dict[int, Segmentation] = field(default_factory=dict)
    after_anchor: dict[int, FrameMemory] = field(default_factory=dict)


@torch.no_grad()
def propagate_in_video(
    core: TrackerCore,
    clip: EncodedClip | FrameSelection,
    prompts: Sequence[ClipPrompt],
    *,
    direction: Direction = "both",
) -> Iterator[TrackedFrame]:
    """Track objects through a clip, starting on the first frame on which each was prompted.

    All prompts are encoded before tracking, as in the predictor of the sam2 package, so later prompts of an
    object influence its earlier frames. The backward pass also reads the memories of the frames just after
    the anchor. Memory use does not depend on the length of the clip, and a frame is encoded once for each
    direction in which it is tracked.

    Args:
        core: SAM 2.1 with settings; `has_history` is not needed.
        clip: The frames.
        prompts: At least one.
        direction: Frames from the anchors on, frames before them, or both.

    Yields:
        Each frame with the objects tracked on it: first forwards from the earliest anchor, then backwards
        from the frame before the latest anchor.

    Raises:
        IndexError: A prompted frame is not in the clip.
        ValueError: There are no prompts.
    """
    if not prompts:
        raise ValueError("no object to track: give at least one prompt")
    for prompt in prompts:
        clip.check_index(prompt.frame_index)
    tracklets = _encode_prompts(core, clip, prompts)
    if direction != "backward":
        for index in range(min(tracklet.anchor for tracklet in tracklets.values()), len(clip)):
            active = {key: tracklet for key, tracklet in tracklets.items() if tracklet.anchor <= index}
            yield _track_frame(core, clip, active, index, is_reverse=False)
            for tracklet in active.values():
                _store_after_anchor(core, tracklet, index)
    if direction != "forward":
        for tracklet in tracklets.values():
            tracklet.state = ObjectState(dict(tracklet.state.prompted), tracklet.after_anchor)
        for index in range(max(tracklet.anchor for tracklet in tracklets.values()) - 1, -1, -1):
            active = {key: tracklet for key, tracklet in tracklets.items() if tracklet.anchor > index}
            yield _track_frame(core, clip, active, index, is_reverse=True)


def _encode_prompts(
    core: TrackerCore, clip: EncodedClip | FrameSelection, prompts: Sequence[ClipPrompt]
) -> dict[int, _Tracklet]:
    anchors: dict[int, int] = {}
    for prompt in prompts:
        anchors[prompt.object_id] = min(prompt.frame_index, anchors.get(prompt.object_id, prompt.frame_index))
    tracklets = {object_id: _Tracklet(anchor) for object_id, anchor in anchors.items()}
    for index in sorted({prompt.frame_index for prompt in prompts}):
        for prompt in prompts:
            if prompt.frame_index == index:
                tracklet = tracklets[prompt.object_id]
                tracklet.prompted[index] = core.prompt(clip[index], tracklet.state, index, prompt.prompt)
        core.encode_staged_prompts([tracklet.state for tracklet in tracklets.values()], clip.__getitem__)
    return tracklets


def _track_frame(
    core: TrackerCore,
    clip: EncodedClip | FrameSelection,
    tracklets: Mapping[int, _Tracklet],
    index: int,
    *,
    is_reverse: bool,
) -> TrackedFrame:
    tracked = [key for key, tracklet in tracklets.items() if index not in tracklet.prompted]
    # Where all objects were prompted, the frame is not encoded.
    if tracked:
        states = [tracklets[key].state for key in tracked]
        results = core.track_frame(clip[index], states, index, is_reverse=is_reverse)
    rows = []
    for key, tracklet in tracklets.items():
        if index in tracklet.prompted:
            prompted = tracklet.prompted[index]
            rows.append((prompted.mask_logits[0], prompted.object_score[0], prompted.iou[0]))
        else:
            row = tracked.index(key)
            rows.append((results.mask_logits[row], results.object_score[row], results.iou[row]))
    masks = FrameMasks(index, *(torch.stack(values) for values in zip(*rows, strict=True)))
    return TrackedFrame(index, tuple(tracklets), masks, clip.size)


def _store_after_anchor(core: TrackerCore, tracklet: _Tracklet, index: int) -> None:
    """Store the memory of a frame if the backward pass reads its features or its pointer."""
    config, distance = core.segmenter.config, index - tracklet.anchor
    memory = tracklet.state.tracked.get(index)
    if memory is None or distance >= config.max_pointers - 1:
        return
    features = memory.features if distance < config.num_maskmem - 1 else None
    tracklet.after_anchor[index] = FrameMemory(features, memory.pointer)
