"""The API of transformers' SAM 2 video model and processor, implemented by this project's tracker core.

Differences from `Sam2VideoProcessor` and `Sam2VideoModel` of transformers 5:

- One class has the methods of both. Frames are raw, uint8 (H, W, 3), or normalised, float (3, S, S). Device and
  data type are those of the segmenter and cannot be chosen.
- The frames of a clip are read on access and not stored. A stream stores neither its frames nor a growing memory:
  each frame is passed once, in order, and inputs must be for later frames.
- Inputs for a clip are decoded when they are added, on their own frame, so tracking may start on an earlier frame.
  transformers decodes them when the model is called on that frame, and raises otherwise.
- A further prompt on a frame starts from the known mask of the frame, as in the sam2 package; in transformers it
  does not.
- A prompted frame of one object does not change the memories of the other objects; transformers stores their
  memories of that frame like those of prompts, from binary masks.
- Points and boxes outside the frame, inverted boxes and duplicate ids are refused. A stream without objects returns
  empty results.

Holes in masks are not filled, as in transformers. Shape letters: B objects, H/W size of the video,
S side of the SAM input, h/w side of low-resolution masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unipixel.tracking.clip_features import EncodedClip, FramePixels, FrameSequence, encode_frame
from unipixel.tracking.compat.sam2 import processing_order
from unipixel.tracking.compat.transformers_inputs import object_prompts
from unipixel.tracking.compat.transformers_session import Sam2VideoInferenceSession, Sam2VideoSegmentationOutput
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.track_state import ObjectState
from unipixel.tracking.tracker_core import TrackerCore, collect_masks
from unipixel.tracking.types import FrameMasks, SegmentPrompt


class Sam2VideoModel:
    """Video model with the methods of transformers' `Sam2VideoModel` and `Sam2VideoProcessor`."""

    def __init__(
        self, segmenter: Segmenter, *, memory_dtype: torch.dtype = torch.bfloat16, is_postprocessed: bool = True
    ) -> None:
        """Set up a model.

        Args:
            segmenter: SAM 2.1.
            memory_dtype: Data type of stored memories.
            is_postprocessed: Whether masks of prompted frames are binarised for the memory and unstable single masks
                are replaced by candidates, as transformers always does.
        """
        self._segmenter = segmenter
        self._memory_dtype = memory_dtype
        self._is_postprocessed = is_postprocessed

    def init_video_session(
        self,
        video: FrameSequence | Callable[[int], FramePixels] | None = None,
        *,
        num_frames: int | None = None,
        original_size: tuple[int, int] | None = None,
    ) -> Sam2VideoInferenceSession:
        """Open a clip, or a stream.

        Args:
            video: A sequence of frames, or a function of the frame index; None for a stream.
            num_frames: Length of the clip; required for a function.
            original_size: (H, W) of the video; by default that of its frames.

        Raises:
            ValueError: The clip is empty, or its length is unknown.
        """
        clip = None
        if video is not None:
            clip = EncodedClip(self._segmenter, video, num_frames=num_frames, size=original_size)
        core = TrackerCore(
            self._segmenter,
            memory_dtype=self._memory_dtype,
            num_frames=None if clip is None else len(clip),
            has_history=clip is not None,
            has_permanent_corrections=False,
            is_postprocessed=self._is_postprocessed,
            has_hole_filling=False,
            mask_prompts="transformers",
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
            inference_session: The session; updated.
            frame_idx: Index of the frame.
            obj_ids: New or existing ids.
            input_points: Nested [image][object][point][x, y], in pixels of the video; there is one image.
                Lists may differ in length.
            input_labels: [image][object][point], 1 for a positive and 0 for a negative click, -10 to ignore a point.
            input_boxes: [image][object][x1, y1, x2, y2].
            input_masks: A mask (h, w), or a list with one per object, of any size; an empty mask marks the object as
                absent.
            original_size: (H, W) of the video; required for points and boxes before the first frame of a stream.
            clear_old_inputs: Whether the inputs replace earlier clicks on the frame.

        Returns:
            The session.

        Raises:
            IndexError: The frame is not in the clip.
            ValueError: The inputs cannot be combined or are outside the frame, or the frame is an earlier one of the
                stream.
        """
        session, object_ids = inference_session, [obj_ids] if isinstance(obj_ids, int) else [int(i) for i in obj_ids]
        if input_boxes is not None and not clear_old_inputs:
            raise ValueError("a box must be added before any point: set clear_old_inputs=True")
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
        # Added after all of them were validated, so that an error adds none.
        for object_id, prompt in zip(object_ids, prompts, strict=True):
            self._add(session, frame_idx, object_id, prompt, is_clearing=clear_old_inputs)
        return session

    @torch.no_grad()
    def __call__(
        self,
        inference_session: Sam2VideoInferenceSession,
        frame_idx: int | None = None,
        frame: FramePixels | None = None,
        reverse: bool = False,
    ) -> Sam2VideoSegmentationOutput:
        """Segment the objects on one frame: the next one of a stream, or any of a clip.

        Args:
            inference_session: The session; updated.
            frame_idx: Index of the frame; may be omitted for a stream.
            frame: The next frame of a stream.
            reverse: Whether a clip is tracked backwards.

        Raises:
            IndexError: The frame is not in the clip.
            RuntimeError: A clip has no objects.
            ValueError: A frame or no index is given for a clip, or no frame or an index other than the next one for
                a stream.
        """
        session = inference_session
        if session.clip is None:
            return self._stream(session, frame, frame_idx)
        if frame is not None or frame_idx is None:
            raise ValueError("the session is a clip: give frame_idx, and no frame")
        session.clip.check_index(frame_idx)
        if not session.objects:
            raise RuntimeError("no object was prompted: call add_inputs_to_inference_session first")
        states = list(session.objects.values())
        if all(frame_idx in state.staged for state in states):
            # More clicks on the frame may follow, so the prompts stay staged.
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
        """Track all objects through a clip.

        Args:
            inference_session: The session; updated.
            start_frame_idx: First frame; by default the earliest prompted one.
            max_frame_num_to_track: Number of frames after the first; by default all.
            reverse: Whether to track backwards.

        Raises:
            IndexError: The first frame is not in the clip.
            RuntimeError: The session is a stream, or has no objects.
        """
        session = inference_session
        if session.clip is None:
            raise RuntimeError("the session is a stream: call the predictor with frame=, one frame at a time")
        if not session.objects:
            raise RuntimeError("no object was prompted: call add_inputs_to_inference_session first")
        states = list(session.objects.values())
        with torch.no_grad():
            session.core.encode_staged_prompts(states, session.clip.__getitem__)
        order = processing_order(
            session.clip, states, start=start_frame_idx, limit=max_frame_num_to_track, is_reverse=reverse
        )
        for index in order:
            yield self(session, frame_idx=index, reverse=reverse)

    def post_process_masks(
        self,
        masks: Sequence[Tensor],
        original_sizes: Sequence[Sequence[int]],
        mask_threshold: float = 0.0,
        binarize: bool = True,
    ) -> list[Tensor]:
        """Resize masks to the size of the video.

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

    def _stream(
        self, session: Sam2VideoInferenceSession, frame: FramePixels | None, frame_idx: int | None
    ) -> Sam2VideoSegmentationOutput:
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
        tracked = [state for object_id, state in session.objects.items() if object_id not in inputs]
        session.core.track_frame(features, tracked, index)
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
                prompt = prompt.with_earlier_points(known.coords, known.labels)
            inputs[object_id] = prompt
            return
        state = session.objects.get(object_id, ObjectState())
        if isinstance(prompt, SegmentPrompt) and not is_clearing:
            prompt = prompt.with_earlier_points(*state.clicks.get(frame_idx, (None, None)))
        session.core.prompt(session.clip[frame_idx], state, frame_idx, prompt)
        session.objects[object_id] = state


def _output(session: Sam2VideoInferenceSession, masks: FrameMasks) -> Sam2VideoSegmentationOutput:
    return Sam2VideoSegmentationOutput(
        list(session.objects), masks.mask_logits[:, None], masks.object_score[:, None], masks.frame_index
    )
