"""Tracks objects from frame to frame: prompts and tracked frames update the states of objects.

Shape letters: B objects, S side of the SAM input, h/w side of the embedding, C embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from unipixel.tracking.postprocessing import fill_holes
from unipixel.tracking.segmenter import ABSENT_LOGIT, Segmenter
from unipixel.tracking.track_state import FrameMemory, ObjectState, StagedPrompt, gather_memories
from unipixel.tracking.types import FrameFeatures, FrameMasks, MemoryBatch, Segmentation, SegmentPrompt

# Holes of up to this many pixels of the low-resolution mask are filled (build_sam.py, apply_postprocessing).
_HOLE_AREA = 8


class TrackerCore:
    """SAM 2.1 with tracking settings; the states of objects are passed in and updated."""

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        memory_dtype: torch.dtype = torch.bfloat16,
        num_frames: int | None = None,
        has_history: bool = False,
        has_permanent_corrections: bool = True,
        is_postprocessed: bool = False,
        has_hole_filling: bool = True,
        mask_prompts: Literal["sam2", "transformers"] = "sam2",
        redetect_after: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Set up tracking.

        Args:
            segmenter: SAM 2.1.
            memory_dtype: Data type of stored memories; bfloat16 as in the package's predictor.
            num_frames: Length of the clip, or None if unknown; it changes the result below 16 frames.
            has_history: Whether states store every frame, so that any frame can be corrected, instead of the
                memories that attention can still read.
            has_permanent_corrections: Whether a corrected frame becomes a prompted frame, which is always attended to;
                otherwise it is treated as a tracked frame (`add_all_frames_to_correct_as_cond` of the package).
            is_postprocessed: Whether SAM 2's post-processing is applied: unstable single masks are replaced by
                candidates, masks of prompted frames are binarised for the memory, small holes are filled.
            has_hole_filling: Whether post-processing fills holes; that of transformers does not.
            mask_prompts: How given masks are stored. `sam2`: the memory is encoded from their low-resolution logits,
                the pointer is that of the single mask. `transformers`: the memory is encoded from the mask itself,
                the pointer is that of the best candidate.
            redetect_after: Number of consecutive frames without an object after which it is also searched for with
                the memories of its prompted frames alone; None for never.
            batch_size: Objects per forward pass; None for all objects of equal memory layout, and for one on a CPU,
                where larger batches are not faster and make the rounding depend on the other objects.

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
        self.has_permanent_corrections = has_permanent_corrections
        self.is_postprocessed = is_postprocessed
        self.has_hole_filling = is_postprocessed and has_hole_filling
        self.mask_prompts = mask_prompts
        self.redetect_after = redetect_after
        self.batch_size = batch_size

    def prompt(
        self, features: FrameFeatures, state: ObjectState, frame_index: int, prompt: SegmentPrompt | Tensor
    ) -> Segmentation:
        """Segment an object on a prompted frame and stage the result for memory encoding.

        On a frame on which the object was already tracked, the prompt is a correction and is decoded with the
        object's memory. Earlier logits of the frame always prompt the decoder (sam2_video_predictor.py,
        add_new_points_or_box). A mask is used without decoding.

        Args:
            features: The frame, N = 1.
            state: The object; updated.
            frame_index: Index of the frame.
            prompt: Prompt of one object, or its mask (1, S, S) in {0, 1}.

        Returns:
            The object on the frame, B = 1.
        """
        is_correction = frame_index in state.tracked_in_reverse
        device = features.embedding.device
        memory = None
        state.clicks.pop(frame_index, None)
        if isinstance(prompt, Tensor):
            segmentation, memory = self._use_mask(features, prompt.to(device))
        else:
            if is_correction:
                embedding = self._attend_memory(
                    [state], features, frame_index, is_reverse=state.tracked_in_reverse[frame_index]
                )
            else:
                embedding = self.segmenter.embed_without_memory(features, num_objects=1)
            segmentation = self.segmenter.decode(
                features, embedding, self._with_known_mask(prompt, state.mask_logits_at(frame_index), device),
                is_dynamic_multimask=self.is_postprocessed,
            )  # fmt: skip
            if prompt.coords is not None and prompt.labels is not None:
                state.clicks[frame_index] = (prompt.coords, prompt.labels)
        staged = self._fill_holes(segmentation).without_candidates()
        state.staged[frame_index] = StagedPrompt(staged, is_correction, memory)
        return staged

    def encode_staged_prompts(
        self, states: Sequence[ObjectState], get_features: Callable[[int], FrameFeatures]
    ) -> None:
        """Encode the memories of staged prompts, all objects prompted on a frame in one batch.

        Args:
            states: The objects; updated.
            get_features: Returns the features of a frame by its index.
        """
        for frame_index in sorted({index for state in states for index in state.staged}):
            members = [state for state in states if frame_index in state.staged]
            prompts = [state.staged.pop(frame_index) for state in members]
            joined = Segmentation.concatenate([prompt.segmentation for prompt in prompts])
            stored = self._encode_memory(get_features(frame_index), joined, is_binary=self.is_postprocessed)
            for row, (state, prompt) in enumerate(zip(members, prompts, strict=True)):
                # Copied, because a view would keep the memories of the whole batch allocated.
                encoded = stored[row] if prompt.memory is None else prompt.memory
                features = encoded.to(self.memory_dtype, copy=True)
                self._write_prompt(state, frame_index, _memory(prompt.segmentation, 0, features), prompt.is_correction)

    def track_frame(
        self, features: FrameFeatures, states: Sequence[ObjectState], frame_index: int, *, is_reverse: bool = False
    ) -> FrameMasks:
        """Track objects on one frame and store its memories in their states.

        Objects of equal memory layout share the batches of memory attention and mask decoder, all objects those of
        the memory encoder.

        Args:
            features: The frame, N = 1.
            states: One per object; updated.
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
        filled = self._fill_holes(segmentation)
        for row, state in enumerate(states):
            self._write_tracked(state, frame_index, _memory(filled, row, stored[row]))
            state.tracked_in_reverse[frame_index] = is_reverse
        return FrameMasks(frame_index, filled.mask_logits, filled.object_score, filled.iou)

    def process_frame(
        self, get_features: Callable[[int], FrameFeatures], states: Sequence[ObjectState], frame_index: int, *,
        is_reverse: bool = False,
    ) -> FrameMasks:  # fmt: skip
        """Track the objects that are not prompted on a frame, and return the masks of all.

        Args:
            get_features: Returns the features of a frame by its index; called only if an object is tracked.
            states: One per object, with history and without staged prompts; updated.
            frame_index: Index of the frame.
            is_reverse: Whether the clip is tracked backwards.
        """
        tracked = [state for state in states if frame_index not in state.prompted]
        if tracked:
            self.track_frame(get_features(frame_index), tracked, frame_index, is_reverse=is_reverse)
        for state in states:
            state.tracked_in_reverse[frame_index] = is_reverse
        return collect_masks(self.segmenter, states, frame_index)

    def _use_mask(self, features: FrameFeatures, masks: Tensor) -> tuple[Segmentation, Tensor | None]:
        """Use a given mask (1, S, S), and encode its memory where that depends on the mask itself."""
        if self.mask_prompts == "sam2":
            return self.segmenter.use_mask(features, masks), None
        segmentation = self.segmenter.use_mask(features, masks, has_multimask_pointer=True)
        return segmentation, self.segmenter.encode_memory(features, segmentation, masks=masks)[0]

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
        # Restore the order of the states.
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
        """Search for lost objects without the memories of recent frames, in which they are absent."""
        rows = list(range(len(states)))
        parts = [segmentation]
        for index, is_found in enumerate((segmentation.object_score > 0).tolist()):
            state = states[index]
            state.num_absent = 0 if is_found else state.num_absent + 1
            if self.redetect_after is None or state.num_absent < self.redetect_after:
                continue
            search = self._segment(features, [ObjectState(dict(state.prompted))], frame_index, is_reverse=False)
            if bool(search.object_score > 0):
                state.num_absent = 0
                state.tracked.clear()
                rows[index] = len(states) + len(parts) - 1
                parts.append(search)
        return segmentation if len(parts) == 1 else Segmentation.concatenate(parts).select(rows)

    def _with_known_mask(self, prompt: SegmentPrompt, known: Tensor | None, device: torch.device) -> SegmentPrompt:
        values = {name: value.to(device) for name, value in vars(prompt).items() if isinstance(value, Tensor)}
        if known is not None:
            values["mask_logits"] = known[None]
        return replace(prompt, **values)

    def _fill_holes(self, segmentation: Segmentation) -> Segmentation:
        if not self.has_hole_filling:
            return segmentation
        return replace(segmentation, mask_logits=fill_holes(segmentation.mask_logits, max_area=_HOLE_AREA))

    def _write_prompt(self, state: ObjectState, frame_index: int, memory: FrameMemory, is_correction: bool) -> None:
        if is_correction and not self.has_permanent_corrections and frame_index not in state.prompted:
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
    """Return the masks of objects on a frame from their states: staged prompts first, then stored memories.

    An object without either is absent.
    """
    if not states:
        return empty_masks(segmenter, frame_index)
    absent = empty_masks(segmenter, frame_index, num_objects=1)
    logits, scores = [], []
    for state in states:
        memory = state.prompted.get(frame_index) or state.tracked.get(frame_index)
        if frame_index not in state.staged and memory and memory.mask_logits is not None and memory.scores is not None:
            logits.append(memory.mask_logits)
            scores.append(memory.scores)
        else:
            masks = state.staged[frame_index].segmentation if frame_index in state.staged else absent
            logits.append(masks.mask_logits[0])
            scores.append(torch.stack([masks.object_score[0], masks.iou[0]]))
    object_scores, ious = torch.stack(scores).unbind(dim=1)
    return FrameMasks(frame_index, torch.stack(logits), object_scores, ious)


def empty_masks(segmenter: Segmenter, frame_index: int, *, num_objects: int = 0) -> FrameMasks:
    """Return the masks of absent objects."""
    side = segmenter.config.mask_size
    logits = segmenter.no_mem_embed.new_full((num_objects, side, side), ABSENT_LOGIT)
    return FrameMasks(frame_index, logits, logits[:, 0, 0], torch.zeros_like(logits[:, 0, 0]))


def _memory(segmentation: Segmentation, row: int, features: Tensor) -> FrameMemory:
    scores = torch.stack([segmentation.object_score[row], segmentation.iou[row]])
    return FrameMemory(features, segmentation.pointer[row], segmentation.mask_logits[row], scores)
