"""Follows prompted objects through a finite clip: forwards and backwards from where they were prompted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from unipixel.tracking.clip_features import EncodedClip
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.track_state import FrameMemory, ObjectState
from unipixel.tracking.tracker import TrackedFrame
from unipixel.tracking.tracker_core import TrackerCore
from unipixel.tracking.types import FrameFeatures, FrameMasks, Segmentation, SegmentPrompt

Direction = Literal["both", "forward", "backward"]


@dataclass(frozen=True)
class ClipPrompt:
    """A prompt of one object on one frame of a clip.

    Attributes:
        object_id: Id of the object.
        frame_index: Index of the frame.
        prompt: Clicks, box or tokens (B = 1), or a mask (1, S, S) in {0, 1}. See `unipixel.tracking.prompts`.
    """

    object_id: int
    frame_index: int
    prompt: SegmentPrompt | Tensor


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
    core = TrackerCore(segmenter, memory_dtype=memory_dtype, num_frames=num_frames)
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
            yield core.advance(features, states, index, is_reverse=is_reverse)


@torch.no_grad()
def best_anchors(
    segmenter: Segmenter, clip: EncodedClip, prompt: SegmentPrompt, *, candidates: Sequence[int]
) -> list[int]:
    """Choose, for each of B objects, the frame on which the decoder is surest to see it.

    A frame's score is the probability that the object is in it times the IoU predicted for its mask.

    Args:
        segmenter: SAM 2.1.
        clip: The frames.
        prompt: Prompts that hold for any frame: language tokens (B, n, C).
        candidates: Indices of the frames to compare; on a tie the first wins.

    Raises:
        IndexError: A candidate is not in the clip.
        ValueError: There are no candidates, or the prompt has no tokens.
    """
    if not candidates or prompt.tokens is None:
        raise ValueError("choosing an anchor needs at least one candidate frame and a prompt of tokens")
    scores = []
    for frame_index in candidates:
        start = segmenter.start(clip[frame_index], num_objects=len(prompt.tokens))
        decoded = segmenter.decode(clip[frame_index], start, prompt)
        scores.append(decoded.object_score.sigmoid() * decoded.iou)
    return [candidates[place] for place in torch.stack(scores).argmax(dim=0).tolist()]


def spread_candidates(num_frames: int, *, count: int = 8) -> list[int]:
    """Return up to `count` frame indices, evenly over a clip and with its first and last frame."""
    if num_frames <= count:
        return list(range(num_frames))
    return [round(step * (num_frames - 1) / (count - 1)) for step in range(count)] if count > 1 else [0]


@dataclass
class _Follow:
    """One object of a clip.

    Attributes:
        anchor: Its first prompted frame.
        state: What it remembers.
        given: Its masks where it was prompted.
        early: Memories of the first frames after the anchor, which the way back reads.
    """

    anchor: int
    state: ObjectState = field(default_factory=ObjectState)
    given: dict[int, Segmentation] = field(default_factory=dict)
    early: dict[int, FrameMemory] = field(default_factory=dict)


@torch.no_grad()
def propagate_clip(
    core: TrackerCore, clip: EncodedClip, prompts: Sequence[ClipPrompt], *, direction: Direction = "both"
) -> Iterator[TrackedFrame]:
    """Follow objects through a clip from the first frame on which each was prompted.

    All prompts are read first, as the package's predictor does, so an object's later prompts inform its
    earlier frames. On the way back the frames just after the anchor are remembered too. What is kept
    does not grow with the clip, and a frame is encoded once per direction in which it is tracked.

    Args:
        core: SAM 2.1 with settings; `has_history` is not needed.
        clip: The frames.
        prompts: At least one.
        direction: Which frames: from the anchors on, before them, or both.

    Yields:
        Each frame with the objects that were followed into it: first forwards from the earliest anchor,
        then backwards from the frame before the latest.

    Raises:
        IndexError: A prompted frame is not in the clip.
        ValueError: There are no prompts.
    """
    if not prompts:
        raise ValueError("nothing to follow: give at least one prompt")
    for prompt in prompts:
        clip.check_index(prompt.frame_index)
    follows = _start(core, clip, prompts)
    if direction != "backward":
        for index in range(min(follow.anchor for follow in follows.values()), len(clip)):
            members = {key: follow for key, follow in follows.items() if follow.anchor <= index}
            yield _visit(core, clip, members, index, is_reverse=False)
            for follow in members.values():
                _keep_early(core, follow, index)
    if direction != "forward":
        for follow in follows.values():
            follow.state = ObjectState(dict(follow.state.prompted), follow.early)
        for index in range(max(follow.anchor for follow in follows.values()) - 1, -1, -1):
            members = {key: follow for key, follow in follows.items() if follow.anchor > index}
            yield _visit(core, clip, members, index, is_reverse=True)


def _start(core: TrackerCore, clip: EncodedClip, prompts: Sequence[ClipPrompt]) -> dict[int, _Follow]:
    anchors: dict[int, int] = {}
    for prompt in prompts:
        anchors[prompt.object_id] = min(prompt.frame_index, anchors.get(prompt.object_id, prompt.frame_index))
    follows = {object_id: _Follow(anchor) for object_id, anchor in anchors.items()}
    for index in sorted({prompt.frame_index for prompt in prompts}):
        for prompt in prompts:
            if prompt.frame_index == index:
                follow = follows[prompt.object_id]
                follow.given[index] = core.prompt(clip[index], follow.state, index, prompt.prompt)
        core.commit([follow.state for follow in follows.values()], clip.__getitem__)
    return follows


def _visit(
    core: TrackerCore, clip: EncodedClip, follows: Mapping[int, _Follow], index: int, *, is_reverse: bool
) -> TrackedFrame:
    moving = [key for key, follow in follows.items() if index not in follow.given]
    # Without anything to track the frame need not be encoded.
    if moving:
        tracked = core.advance(
            clip[index], [follows[key].state for key in moving], index, is_reverse=is_reverse
        )  # fmt: skip
    rows = []
    for key, follow in follows.items():
        if index in follow.given:
            given = follow.given[index]
            rows.append((given.mask_logits[0], given.object_score[0], given.iou[0]))
        else:
            row = moving.index(key)
            rows.append((tracked.mask_logits[row], tracked.object_score[row], tracked.iou[row]))
    masks = FrameMasks(index, *(torch.stack(values) for values in zip(*rows, strict=True)))
    return TrackedFrame(index, tuple(follows), masks, clip.size)


def _keep_early(core: TrackerCore, follow: _Follow, index: int) -> None:
    """Keep what the way back will read: masks of the nearest frames and pointers of some more."""
    config, distance = core.segmenter.config, index - follow.anchor
    memory = follow.state.tracked.get(index)
    if memory is None or distance >= config.max_pointers - 1:
        return
    features = memory.features if distance < config.num_maskmem - 1 else None
    follow.early[index] = FrameMemory(features, memory.pointer)
