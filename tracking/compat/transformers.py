"""The verbs of transformers' video sessions over this project's tracker core.

What differs from `Sam2VideoProcessor` and `Sam2VideoModel`, version 5:

- One object offers the verbs of both. Frames are raw, uint8 (H, W, 3), or normalised, float (3, S, S).
  Devices and types are those of the segmenter, so the keywords that choose them are not taken.
- A clip's frames are read when they are needed and not kept. A stream keeps neither its frames nor a
  growing memory: each is passed once, in order, and inputs are for frames that are still to come.
- Inputs for a clip are decoded when they are added, on their own frame, so that tracking may begin before
  some of them. transformers decodes them when the model is called on that frame, and raises otherwise.
- A further prompt on a frame starts from the mask that is known there, as in the sam2 package;
  transformers starts without it.
- A prompted frame of one object leaves the memory of the others alone; transformers stores theirs of that
  frame as it stores prompts, without soft edges.
- The object pointer of a given mask is that of the decoder's single mask, as in the sam2 package;
  transformers takes the best of its candidates.
- Points and boxes outside the frame, inverted boxes, and ids given twice are refused. A stream without
  objects yields empty results.

Holes in masks are left as they are, as in transformers. Shape letters: B objects, H/W size of the video,
S side of the SAM input, h/w side of low-resolution masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unipixel.tracking.clip_features import EncodedClip, Frame, FrameSequence, encode_frame
from unipixel.tracking.compat.sam2 import processing_order
from unipixel.tracking.compat.transformers_inputs import object_prompts
from unipixel.tracking.compat.transformers_session import Sam2VideoInferenceSession, Sam2VideoSegmentationOutput
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.track_state import ObjectState
from unipixel.tracking.tracker_core import TrackerCore, collect_masks
from unipixel.tracking.types import FrameMasks, SegmentPrompt


class Sam2VideoModel:
    """`init_video_session`, `add_inputs_to_inference_session`, `propagate_in_video_iterator`, and calls."""

    def __init__(
        self, segmenter: Segmenter, *, memory_dtype: torch.dtype = torch.bfloat16, is_postprocessed: bool = True
    ) -> None:
        """Choose settings.

        Args:
            segmenter: SAM 2.1.
            memory_dtype: Type in which memories are stored.
            is_postprocessed: Whether prompted frames are remembered as binary masks, and unstable single
                masks give way to candidates, as transformers always does.
        """
        self._segmenter = segmenter
        self._memory_dtype = memory_dtype
        self._is_postprocessed = is_postprocessed

    def init_video_session(
        self,
        video: FrameSequence | Callable[[int], Frame] | None = None,
        *,
        num_frames: int | None = None,
        original_size: tuple[int, int] | None = None,
    ) -> Sam2VideoInferenceSession:
        """Open a clip, or a stream.

        Args:
            video: Something indexed by frame, or a function of the frame index; None for a stream.
            num_frames: Length of the clip; needed for a function.
            original_size: (H, W) of the video, where the frames do not show it.

        Raises:
            ValueError: The clip has no frames or no known length.
        """
        clip = None
        if video is not None:
            clip = EncodedClip(self._segmenter, video, num_frames=num_frames, size=original_size)
        core = TrackerCore(
            self._segmenter,
            memory_dtype=self._memory_dtype,
            num_frames=None if clip is None else len(clip),
            has_history=clip is not None,
            are_corrections_kept=False,
            is_postprocessed=self._is_postprocessed,
            are_holes_filled=False,
        )
        return Sam2VideoInferenceSession(core, clip, original_size)

    @torch.no_grad()
    def add_inputs_to_inference_session(
        self,
        inference_session: Sam2VideoInferenceSession,
        frame_idx: int,
        obj_ids: int | Sequence[int],
        input_points: Any = None,
        input_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
        original_size: tuple[int, int] | None = None,
        clear_old_inputs: bool = True,
    ) -> Sam2VideoInferenceSession:
        """Prompt objects by clicks, boxes or masks.

        Args:
            inference_session: The session; written to.
            frame_idx: Index of the frame.
            obj_ids: New or known ids.
            input_points: Nested [image][object][point][x, y], in pixels of the video; there is one image.
                Lists may differ in length.
            input_labels: [image][object][point], 1 on the object, 0 beside it, -10 for a point to ignore.
            input_boxes: [image][object][x1, y1, x2, y2].
            input_masks: A mask (h, w) per object, in a list where there are several; any size, stretched
                to the frame. Empty means absent.
            original_size: (H, W) of the video; needed for points and boxes before a stream's first frame.
            clear_old_inputs: Whether earlier clicks on the frame are dropped.

        Returns:
            The session.

        Raises:
            IndexError: The frame is not in the clip.
            ValueError: Inputs do not go together or are not on the video, or the stream has passed the frame.
        """
        session, object_ids = inference_session, [obj_ids] if isinstance(obj_ids, int) else [int(i) for i in obj_ids]
        if input_boxes is not None and not clear_old_inputs:
            raise ValueError("a box comes before any point: use clear_old_inputs=True with it")
        session.check_frame(frame_idx)
        if session.clip is None:
            session.size = original_size or session.size
        prompts = object_prompts(
            object_ids,
            points=input_points,
            labels=input_labels,
            boxes=input_boxes,
            masks=input_masks,
            size=session.video_size,
            image_size=self._segmenter.config.image_size,
        )
        # Only now, when all of them are known to be good.
        for object_id, prompt in zip(object_ids, prompts, strict=True):
            self._add(session, frame_idx, object_id, prompt, is_clearing=clear_old_inputs)
        return session

    @torch.no_grad()
    def __call__(
        self,
        inference_session: Sam2VideoInferenceSession,
        frame_idx: int | None = None,
        frame: Frame | None = None,
        reverse: bool = False,
    ) -> Sam2VideoSegmentationOutput:
        """Segment the objects on one frame: the next one of a stream, or any of a clip.

        Args:
            inference_session: The session; written to.
            frame_idx: Index of a clip's frame; a stream counts by itself.
            frame: A stream's next frame.
            reverse: Whether a clip is tracked backwards.

        Raises:
            IndexError: The frame is not in the clip.
            RuntimeError: A clip has no objects; add inputs first.
            ValueError: A clip got a frame or no index, a stream none or an index that is not the next.
        """
        session = inference_session
        if session.clip is None:
            return self._stream(session, frame, frame_idx)
        if frame is not None or frame_idx is None:
            raise ValueError("the session holds a clip: give frame_idx, and no frame")
        session.clip.check_index(frame_idx)
        if not session.objects:
            raise RuntimeError("no object was prompted: call add_inputs_to_inference_session first")
        states = list(session.objects.values())
        if all(frame_idx in state.staged for state in states):
            # A look at what the prompts give: more clicks on the frame may follow.
            masks = collect_masks(self._segmenter, states, frame_idx)
        else:
            session.core.encode_staged_prompts(states, session.clip.__getitem__)
            masks = session.core.process_frame(session.clip.__getitem__, states, frame_idx, is_reverse=reverse)
        return _output(session, masks)

    def propagate_in_video_iterator(
        self,
        inference_session: Sam2VideoInferenceSession,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Sam2VideoSegmentationOutput]:
        """Follow all objects through a clip.

        Args:
            inference_session: The session; written to.
            start_frame_idx: First frame; by default the earliest prompted one.
            max_frame_num_to_track: Frames after the first; by default all there are.
            reverse: Whether to go backwards.

        Raises:
            IndexError: The first frame is not in the clip.
            RuntimeError: The session is a stream, or has no objects; add inputs first.
        """
        session = inference_session
        if session.clip is None:
            raise RuntimeError("the session is a stream: call the predictor with frame=, one frame at a time")
        if not session.objects:
            raise RuntimeError("no object was prompted: call add_inputs_to_inference_session first")
        states = list(session.objects.values())
        with torch.no_grad():
            session.core.encode_staged_prompts(states, session.clip.__getitem__)
        start = start_frame_idx
        if start is None:
            start = min(index for state in states for index in state.prompted)
        session.clip.check_index(start)
        for index in processing_order(start, len(session.clip), limit=max_frame_num_to_track, is_reverse=reverse):
            yield self(session, frame_idx=index, reverse=reverse)

    def post_process_masks(
        self,
        masks: Sequence[Tensor],
        original_sizes: Sequence[Sequence[int]],
        mask_threshold: float = 0.0,
        binarize: bool = True,
    ) -> list[Tensor]:
        """Bring masks to the size of the video.

        Args:
            masks: Logits (B, 1, h, w) of some frames.
            original_sizes: (H, W) of each of them.
            mask_threshold: Logit above which a pixel is on the object.
            binarize: Whether to return bool instead of logits.

        Returns:
            (B, 1, H, W) each.
        """
        resized = [
            F.interpolate(logits.float(), size=(int(height), int(width)), mode="bilinear", align_corners=False)
            for logits, (height, width) in zip(masks, original_sizes, strict=True)
        ]
        return [logits > mask_threshold for logits in resized] if binarize else resized

    def _stream(self, session: Sam2VideoInferenceSession, frame: Frame | None, frame_idx: int | None) -> Sam2VideoSegmentationOutput:
        index = 0 if session.newest is None else session.newest[0] + 1
        if frame is None or frame_idx not in (None, index):
            raise ValueError(f"the session is a stream: give frame {index} as frame=, got frame_idx {frame_idx}")
        features, size = encode_frame(self._segmenter, frame)
        if not (isinstance(frame, Tensor) and frame.is_floating_point()):
            if session.size not in (None, size):
                raise ValueError(f"frame {index} has (H, W) = {size}, the stream has {session.size}")
            session.size = size
        if session.newest is not None:
            newest = session.newest[1]
            session.core.encode_staged_prompts(list(session.objects.values()), lambda _: newest)
        inputs = session.pending.pop(index, {})
        moving = [state for object_id, state in session.objects.items() if object_id not in inputs]
        session.core.track_frame(features, moving, index)
        for object_id, prompt in inputs.items():
            state = session.objects.setdefault(object_id, ObjectState())
            session.core.prompt(features, state, index, prompt)
            state.drop_correction_data(index)
        session.newest = (index, features)
        return _output(session, collect_masks(self._segmenter, list(session.objects.values()), index))

    def _add(
        self, session: Sam2VideoInferenceSession, frame_idx: int, object_id: int, prompt: SegmentPrompt | Tensor, *,
        is_clearing: bool,
    ) -> None:  # fmt: skip
        if session.clip is None:
            inputs = session.pending.setdefault(frame_idx, {})
            known = inputs.get(object_id)
            if isinstance(prompt, SegmentPrompt) and isinstance(known, SegmentPrompt) and not is_clearing:
                prompt = _extended(prompt, known.coords, known.labels)
            inputs[object_id] = prompt
            return
        state = session.objects.get(object_id, ObjectState())
        if isinstance(prompt, SegmentPrompt) and not is_clearing:
            prompt = _extended(prompt, *state.clicks.get(frame_idx, (None, None)))
        session.core.prompt(session.clip[frame_idx], state, frame_idx, prompt)
        session.objects[object_id] = state


def _extended(prompt: SegmentPrompt, coords: Tensor | None, labels: Tensor | None) -> SegmentPrompt:
    return prompt if coords is None or labels is None else prompt.with_earlier_points(coords, labels)


def _output(session: Sam2VideoInferenceSession, masks: FrameMasks) -> Sam2VideoSegmentationOutput:
    return Sam2VideoSegmentationOutput(
        list(session.objects), masks.mask_logits[:, None], masks.object_score[:, None], masks.frame_index
    )
