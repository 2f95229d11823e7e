"""Follows objects from frame to frame: what prompting, remembering and tracking do to their states.

Shape letters: B objects, S side of the SAM input, h/w side of the embedding, C embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from unipixel.tracking.postprocessing import fill_holes
from unipixel.tracking.segmenter import ABSENT_LOGIT, Segmenter
from unipixel.tracking.track_state import FrameMemory, ObjectState, StagedPrompt, gather_memories
from unipixel.tracking.types import FrameFeatures, FrameMasks, MemoryBatch, Segmentation, SegmentPrompt

# Holes of up to this many pixels of the low-resolution mask are filled (build_sam.py, apply_postprocessing).
_HOLE_AREA = 8


class TrackerCore:
    """SAM 2.1 with the settings of a session; what objects remember is passed in and written to."""

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        memory_dtype: torch.dtype = torch.bfloat16,
        num_frames: int | None = None,
        has_history: bool = False,
        are_corrections_kept: bool = True,
        is_postprocessed: bool = False,
        are_holes_filled: bool = True,
        redetect_after: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Choose settings.

        Args:
            segmenter: SAM 2.1.
            memory_dtype: Type in which memories are stored; bfloat16 as in the package's predictor.
            num_frames: Length of the clip where it is known: below 16 frames it changes the result.
            has_history: Whether states keep every frame, so that any of them can be corrected, instead
                of what attention may still read.
            are_corrections_kept: Whether a corrected frame is attended to from then on, like a first
                prompt; otherwise only as long as a tracked frame is
                (`add_all_frames_to_correct_as_cond` of the package).
            is_postprocessed: Whether SAM 2's own post-processing is on: unstable single masks give way
                to candidates, prompted frames are remembered as binary masks, small holes are filled.
            are_holes_filled: Whether post-processing fills holes; transformers' does not.
            redetect_after: After so many frames without it, an object is also looked for with its
                prompted frames alone; None for never.
            batch_size: Objects that go through the modules together; None for all of a group, but one
                on a CPU. There a batch is not faster, and an object alone is rounded in the same way
                whatever else is tracked, which is the package's.

        Raises:
            ValueError: A count is below 1, or the memory type is not floating-point.
        """
        if not memory_dtype.is_floating_point:
            raise ValueError(f"memory_dtype must be a floating-point type, got {memory_dtype}")
        for name, count in (
            ("num_frames", num_frames),
            ("redetect_after", redetect_after),
            ("batch_size", batch_size),
        ):
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1 or None, got {count}")
        self.segmenter = segmenter
        self.memory_dtype = memory_dtype
        self.num_frames = num_frames
        self.has_history = has_history
        self.are_corrections_kept = are_corrections_kept
        self.is_postprocessed = is_postprocessed
        self.are_holes_filled = is_postprocessed and are_holes_filled
        self.redetect_after = redetect_after
        self.batch_size = batch_size

    def prompt(
        self, features: FrameFeatures, state: ObjectState, frame_index: int, prompt: SegmentPrompt | Tensor
    ) -> Segmentation:
        """Segment an object where it was prompted, and stage the result to be remembered.

        On a frame that the object was already followed through, this is a correction: it sees the
        object's memory. Logits that are known for the frame are fed back in either case
        (sam2_video_predictor.py, add_new_points_or_box). A mask is taken as it is.

        Args:
            features: The frame, N = 1.
            state: The object; written to.
            frame_index: Index of the frame.
            prompt: Prompt of one object, or its mask (1, S, S) in {0, 1}.

        Returns:
            The object on the frame, B = 1.
        """
        is_correction = frame_index in state.tracked_in_reverse
        device = features.embedding.device
        state.clicks.pop(frame_index, None)
        if isinstance(prompt, Tensor):
            segmentation = self.segmenter.use_mask(features, prompt.to(device))
        else:
            if is_correction:
                embedding = self._attend_memory([state], features, frame_index, is_reverse=state.tracked_in_reverse[frame_index])
            else:
                embedding = self.segmenter.embed_without_memory(features, num_objects=1)
            segmentation = self.segmenter.decode(
                features, embedding, self._with_known_mask(prompt, state.mask_logits_at(frame_index), device),
                is_dynamic_multimask=self.is_postprocessed,
            )  # fmt: skip
            if prompt.coords is not None and prompt.labels is not None:
                state.clicks[frame_index] = (prompt.coords, prompt.labels)
        staged = self._fill_holes(segmentation).without_candidates()
        state.staged[frame_index] = StagedPrompt(staged, is_correction)
        return staged

    def encode_staged_prompts(self, states: Sequence[ObjectState], get_features: Callable[[int], FrameFeatures]) -> None:
        """Turn staged prompts into memories; all objects prompted on a frame in one batch.

        Args:
            states: The objects; written to.
            get_features: Gives the features of a frame by its index.
        """
        for frame_index in sorted({index for state in states for index in state.staged}):
            members = [state for state in states if frame_index in state.staged]
            prompts = [state.staged.pop(frame_index) for state in members]
            joined = Segmentation.concatenate([prompt.segmentation for prompt in prompts])
            stored = self._encode_memory(get_features(frame_index), joined, is_binary=self.is_postprocessed)
            for row, (state, prompt) in enumerate(zip(members, prompts, strict=True)):
                # Kept for as long as the object, so not as a view of what others were encoded with.
                features = stored[row].to(self.memory_dtype, copy=True)
                self._write_prompt(state, frame_index, _memory(prompt.segmentation, 0, features), prompt.is_correction)

    def track_frame(
        self, features: FrameFeatures, states: Sequence[ObjectState], frame_index: int, *, is_reverse: bool = False
    ) -> FrameMasks:
        """Track objects on one more frame, which their states then remember.

        Objects of equal memory layout go through memory attention and decoder together, all objects
        through the memory encoder.

        Args:
            features: The frame, N = 1.
            states: One per object; written to.
            frame_index: Index of the frame.
            is_reverse: Whether the clip is tracked backwards.

        Raises:
            RuntimeError: An object was never prompted.
        """
        if not states:
            return empty_masks(self.segmenter, frame_index)
        queries = self.segmenter.prepare_queries(features)
        segmentation = Segmentation.concatenate(
            [
                self._segment(features, states[rows], frame_index, is_reverse=is_reverse, queries=queries)
                for rows in self._batches(features, len(states))
            ]
        )
        if self.redetect_after is not None:
            segmentation = self._redetect(features, states, frame_index, segmentation)
        stored = self._encode_memory(features, segmentation).to(self.memory_dtype)
        shown = self._fill_holes(segmentation)
        for row, state in enumerate(states):
            self._write_tracked(state, frame_index, _memory(shown, row, stored[row]))
            state.tracked_in_reverse[frame_index] = is_reverse
        return FrameMasks(frame_index, shown.mask_logits, shown.object_score, shown.iou)

    def process_frame(
        self, get_features: Callable[[int], FrameFeatures], states: Sequence[ObjectState], frame_index: int, *,
        is_reverse: bool = False,
    ) -> FrameMasks:  # fmt: skip
        """Pass over a frame of a clip on which some of the objects may have been prompted.

        Args:
            get_features: Gives the features of a frame by its index; not called where nothing is tracked.
            states: One per object, with nothing staged and with history; written to.
            frame_index: Index of the frame.
            is_reverse: Whether the clip is tracked backwards.
        """
        tracked = [state for state in states if frame_index not in state.prompted]
        if tracked:
            self.track_frame(get_features(frame_index), tracked, frame_index, is_reverse=is_reverse)
        for state in states:
            state.tracked_in_reverse[frame_index] = is_reverse
        return collect_masks(self.segmenter, states, frame_index)

    def _batches(self, features: FrameFeatures, num_objects: int) -> list[slice]:
        is_cpu = features.embedding.device.type == "cpu"
        size = self.batch_size or (1 if is_cpu else num_objects)
        return [slice(start, start + size) for start in range(0, num_objects, size)]

    def _encode_memory(self, features: FrameFeatures, segmentation: Segmentation, *, is_binary: bool = False) -> Tensor:
        rows = range(len(segmentation.object_score))
        batches = [segmentation.select(rows[part]) for part in self._batches(features, len(rows))]
        return torch.cat([self.segmenter.encode_memory(features, part, is_binary=is_binary) for part in batches])

    def _segment(
        self, features: FrameFeatures, states: Sequence[ObjectState], frame_index: int, *, is_reverse: bool,
        queries: Tensor | None = None,
    ) -> Segmentation:  # fmt: skip
        parts: list[Segmentation] = []
        order: list[int] = []
        for indices, memory in self._gather(states, frame_index, is_reverse=is_reverse):
            embedding = self.segmenter.attend_memory(features, memory, queries=queries)
            parts.append(self.segmenter.decode(features, embedding))
            order += indices
        if len(parts) == 1:
            return parts[0]
        # Groups come in their own order; rows go back to that of the states.
        return Segmentation.concatenate(parts).select([order.index(row) for row in range(len(order))])

    def _gather(
        self, states: Sequence[ObjectState], frame_index: int, *, is_reverse: bool
    ) -> list[tuple[list[int], MemoryBatch]]:
        config = self.segmenter.config
        return gather_memories(
            states,
            frame_index,
            num_maskmem=config.num_maskmem,
            max_pointers=config.max_pointers,
            num_frames=self.num_frames,
            is_reverse=is_reverse,
        )

    def _attend_memory(
        self, states: Sequence[ObjectState], features: FrameFeatures, frame_index: int, *, is_reverse: bool
    ) -> Tensor:
        ((_, memory),) = self._gather(states, frame_index, is_reverse=is_reverse)
        return self.segmenter.attend_memory(features, memory)

    def _redetect(
        self, features: FrameFeatures, states: Sequence[ObjectState], frame_index: int, segmentation: Segmentation
    ) -> Segmentation:
        """Look for lost objects without the recent frames, which all say that they are absent."""
        parts = list(range(len(states)))
        rows = [segmentation]
        for index, is_found in enumerate((segmentation.object_score > 0).tolist()):
            state = states[index]
            state.num_absent = 0 if is_found else state.num_absent + 1
            if self.redetect_after is None or state.num_absent < self.redetect_after:
                continue
            search = self._segment(features, [ObjectState(dict(state.prompted))], frame_index, is_reverse=False)
            if bool(search.object_score > 0):
                state.num_absent = 0
                state.tracked.clear()
                parts[index] = len(states) + len(rows) - 1
                rows.append(search)
        return segmentation if len(rows) == 1 else Segmentation.concatenate(rows).select(parts)

    def _with_known_mask(self, prompt: SegmentPrompt, known: Tensor | None, device: torch.device) -> SegmentPrompt:
        moved = {name: value.to(device) for name, value in vars(prompt).items() if isinstance(value, Tensor)}
        known_mask = {} if known is None else {"mask_logits": known[None]}
        return replace(prompt, **(moved | known_mask))

    def _fill_holes(self, segmentation: Segmentation) -> Segmentation:
        if not self.are_holes_filled:
            return segmentation
        return replace(segmentation, mask_logits=fill_holes(segmentation.mask_logits, max_area=_HOLE_AREA))

    def _write_prompt(self, state: ObjectState, frame_index: int, memory: FrameMemory, is_correction: bool) -> None:
        if is_correction and not self.are_corrections_kept and frame_index not in state.prompted:
            self._write_tracked(state, frame_index, memory)
        elif self.has_history:
            state.tracked.pop(frame_index, None)
            state.prompted[frame_index] = memory
        else:
            state.write_prompted(frame_index, memory)

    def _write_tracked(self, state: ObjectState, frame_index: int, memory: FrameMemory) -> None:
        if self.has_history:
            state.tracked[frame_index] = memory
            return
        config = self.segmenter.config
        state.write_tracked(frame_index, memory, num_maskmem=config.num_maskmem, max_pointers=config.max_pointers)
        state.drop_correction_data(frame_index)


def collect_masks(segmenter: Segmenter, states: Sequence[ObjectState], frame_index: int) -> FrameMasks:
    """Return what is known of a frame: newest prompt first, else what was tracked.

    An object that nothing is known of shows as absent.
    """
    if not states:
        return empty_masks(segmenter, frame_index)
    absent = empty_masks(segmenter, frame_index, num_objects=1)
    logits, scores = [], []
    for state in states:
        known, score = absent.mask_logits[0], torch.stack([absent.object_score[0], absent.iou[0]])
        if frame_index in state.staged:
            staged = state.staged[frame_index].segmentation
            known, score = staged.mask_logits[0], torch.stack([staged.object_score[0], staged.iou[0]])
        else:
            memory = state.prompted.get(frame_index) or state.tracked.get(frame_index)
            if memory is not None and memory.mask_logits is not None and memory.scores is not None:
                known, score = memory.mask_logits, memory.scores
        logits.append(known)
        scores.append(score)
    both = torch.stack(scores)
    return FrameMasks(frame_index, torch.stack(logits), both[:, 0], both[:, 1])


def empty_masks(segmenter: Segmenter, frame_index: int, *, num_objects: int = 0) -> FrameMasks:
    """Return masks of objects that are not in the frame."""
    side = segmenter.config.mask_size
    logits = segmenter.no_mem_embed.new_full((num_objects, side, side), ABSENT_LOGIT)
    return FrameMasks(frame_index, logits, logits[:, 0, 0], torch.zeros_like(logits[:, 0, 0]))


def _memory(segmentation: Segmentation, row: int, features: Tensor) -> FrameMemory:
    scores = torch.stack([segmentation.object_score[row], segmentation.iou[row]])
    return FrameMemory(features, segmentation.pointer[row], segmentation.mask_logits[row], scores)
