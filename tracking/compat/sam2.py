"""The API of the sam2 package's `SAM2VideoPredictor`, implemented by this project's tracker core.

Shape letters: B objects, H/W size of the video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unipixel.tracking.clip_features import EncodedClip, FramePixels, FrameSequence
from unipixel.tracking.prompts import resize_mask
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.track_state import ObjectState
from unipixel.tracking.tracker_core import TrackerCore, collect_masks
from unipixel.tracking.types import SegmentPrompt

FrameLogits = tuple[int, list[int], Tensor]
"""Frame index, object ids, and logits (B, 1, H, W), as the methods return them."""
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass
class InferenceState:
    """A clip and the states of its objects.

    Memory and mask of every tracked frame are stored, so that any frame can be corrected: about 0.8 MB per object
    and frame at 1024 pixels. The frames are not stored.

    Attributes:
        clip: The frames, encoded on access.
        core: SAM 2.1 with the settings of this clip.
        objects: States by object id.
    """

    clip: EncodedClip
    core: TrackerCore
    objects: dict[int, ObjectState] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Size of the memories of all objects in bytes."""
        return sum(state.num_bytes for state in self.objects.values())


class SAM2VideoPredictor:
    """Video predictor with the methods of the sam2 package's class of the same name."""

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        memory_dtype: torch.dtype = torch.bfloat16,
        add_all_frames_to_correct_as_cond: bool = True,
        apply_postprocessing: bool = False,
    ) -> None:
        """Set up a predictor.

        Args:
            segmenter: SAM 2.1.
            memory_dtype: Data type of stored memories.
            add_all_frames_to_correct_as_cond: Whether corrected frames are always attended to; off by default in
                the package.
            apply_postprocessing: Whether SAM 2's post-processing is applied; on by default in the package's
                `build_sam2_video_predictor`.
        """
        self._segmenter = segmenter
        self._memory_dtype = memory_dtype
        self._has_permanent_corrections = add_all_frames_to_correct_as_cond
        self._is_postprocessed = apply_postprocessing

    def init_state(
        self,
        video: str | Path | FrameSequence | Callable[[int], FramePixels],
        *,
        num_frames: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> InferenceState:
        """Open a clip; frames are read one at a time, on access.

        Args:
            video: Folder of images named by frame number, a sequence of frames, or a function of the frame index.
                Frames are uint8 (H, W, 3) or normalised float (3, S, S).
            num_frames: Length of the clip; required for a function.
            size: (H, W) of the video; by default that of its frames.

        Raises:
            OSError: The path is not a folder of images.
            ValueError: The clip is empty, or its length is unknown.
        """
        frames = _open_folder(Path(video)) if isinstance(video, str | Path) else video
        clip = EncodedClip(self._segmenter, frames, num_frames=num_frames, size=size)
        core = TrackerCore(
            self._segmenter,
            memory_dtype=self._memory_dtype,
            num_frames=len(clip),
            has_history=True,
            has_permanent_corrections=self._has_permanent_corrections,
            is_postprocessed=self._is_postprocessed,
        )
        return InferenceState(clip, core)

    @torch.no_grad()
    def add_new_points_or_box(
        self,
        inference_state: InferenceState,
        frame_idx: int,
        obj_id: int,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: ArrayLike | None = None,
    ) -> FrameLogits:
        """Prompt an object by clicks, a box, or both; on a tracked frame, correct it.

        Args:
            inference_state: The clip; updated.
            frame_idx: Index of the frame.
            obj_id: New or existing id.
            points: (P, 2) x, y in pixels of the video.
            labels: (P,) 1 for a positive and 0 for a negative click.
            clear_old_points: Whether the points replace earlier ones of the object on this frame.
            normalize_coords: Whether coordinates are in pixels; otherwise they are relative, 0..1.
            box: x1, y1, x2, y2.

        Returns:
            Frame index, object ids and logits (B, 1, H, W) of all objects on the frame.

        Raises:
            IndexError: The frame is not in the clip.
            ValueError: Points or labels are missing, or a box is added to earlier points.
        """
        if (points is None) != (labels is None):
            raise ValueError("points and labels must be given together")
        if points is None and box is None:
            raise ValueError("at least one of points and box is needed")
        if box is not None and not clear_old_points:
            raise ValueError("a box must be added before any point: set clear_old_points=True")
        inference_state.clip.check_index(frame_idx)
        target = inference_state.objects.get(obj_id, ObjectState())
        prompt = self._clicks(points, labels, box, size=inference_state.clip.size if normalize_coords else None)
        if not clear_old_points:
            prompt = prompt.with_earlier_points(*target.clicks.get(frame_idx, (None, None)))
        return self._prompt(inference_state, target, frame_idx, obj_id, prompt)

    @torch.no_grad()
    def add_new_mask(
        self, inference_state: InferenceState, frame_idx: int, obj_id: int, mask: ArrayLike | Tensor
    ) -> FrameLogits:
        """Prompt an object by its mask (h, w), of any size; an empty mask marks the object as absent.

        Raises:
            IndexError: The frame is not in the clip.
            ValueError: The mask is not two-dimensional.
        """
        inference_state.clip.check_index(frame_idx)
        given = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
        if given.ndim != 2:
            raise ValueError(f"a mask must be (h, w), got {tuple(given.shape)}")
        resized = resize_mask(given, image_size=self._segmenter.config.image_size)
        return self._prompt(
            inference_state, inference_state.objects.get(obj_id, ObjectState()), frame_idx, obj_id, resized
        )

    @torch.no_grad()
    def propagate_in_video(
        self,
        inference_state: InferenceState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[FrameLogits]:
        """Track all objects through the clip.

        Args:
            inference_state: The clip; updated.
            start_frame_idx: First frame; by default the earliest prompted one.
            max_frame_num_to_track: Number of frames after the first; by default all.
            reverse: Whether to track backwards.

        Yields:
            Frame index, object ids and logits (B, 1, H, W).

        Raises:
            IndexError: The first frame is not in the clip.
            RuntimeError: There are no objects.
        """
        states = list(inference_state.objects.values())
        if not states:
            raise RuntimeError("no object was prompted: call add_new_points_or_box or add_new_mask first")
        inference_state.core.encode_staged_prompts(states, inference_state.clip.__getitem__)
        order = processing_order(
            inference_state.clip, states, start=start_frame_idx, limit=max_frame_num_to_track, is_reverse=reverse
        )
        for frame_idx in order:
            masks = inference_state.core.process_frame(
                inference_state.clip.__getitem__, states, frame_idx, is_reverse=reverse
            )
            yield frame_idx, list(inference_state.objects), masks.resized(*inference_state.clip.size)[:, None]

    def remove_object(self, inference_state: InferenceState, obj_id: int, strict: bool = False) -> list[int]:
        """Remove an object.

        Returns:
            The remaining ids.

        Raises:
            RuntimeError: The id is unknown and `strict` is set.
        """
        if obj_id not in inference_state.objects and strict:
            raise RuntimeError(f"object {obj_id} does not exist: ids are {list(inference_state.objects)}")
        inference_state.objects.pop(obj_id, None)
        return list(inference_state.objects)

    def reset_state(self, inference_state: InferenceState) -> None:
        """Remove all objects; the clip stays open."""
        inference_state.objects.clear()

    def _clicks(
        self, points: ArrayLike | None, labels: ArrayLike | None, box: ArrayLike | None, *, size: tuple[int, int] | None
    ) -> SegmentPrompt:
        """Create a prompt from coordinates in pixels of a video of a size (H, W), or relative ones if it is None."""
        coords = torch.as_tensor(np.zeros((0, 2)) if points is None else points, dtype=torch.float32).reshape(-1, 2)
        kinds = torch.as_tensor(np.zeros(0) if labels is None else labels, dtype=torch.int32).reshape(-1)
        if len(coords) != len(kinds):
            raise ValueError(f"{len(coords)} points but {len(kinds)} labels were given: one label per point")
        if box is not None:
            coords = torch.cat([torch.as_tensor(box, dtype=torch.float32).reshape(2, 2), coords])
            kinds = torch.cat([torch.tensor([2, 3], dtype=torch.int32), kinds])
        if size is not None:
            coords = coords / torch.tensor(size[::-1])
        return SegmentPrompt(coords=coords[None] * self._segmenter.config.image_size, labels=kinds[None])

    def _prompt(
        self,
        inference_state: InferenceState,
        target: ObjectState,
        frame_idx: int,
        obj_id: int,
        prompt: SegmentPrompt | Tensor,
    ) -> FrameLogits:
        inference_state.core.prompt(inference_state.clip[frame_idx], target, frame_idx, prompt)
        inference_state.objects[obj_id] = target
        masks = collect_masks(self._segmenter, list(inference_state.objects.values()), frame_idx)
        return frame_idx, list(inference_state.objects), masks.resized(*inference_state.clip.size)[:, None]


def processing_order(
    clip: EncodedClip, states: Sequence[ObjectState], *, start: int | None, limit: int | None, is_reverse: bool
) -> range:
    """Return the indices of the frames to track in their order, as in the package's predictor.

    Args:
        clip: The clip.
        states: The objects, with memories of their prompts.
        start: First frame; None for the earliest prompted one.
        limit: Number of frames after the first; None for all.
        is_reverse: Whether to track backwards; the order is then empty when starting at frame 0.

    Raises:
        IndexError: The first frame is not in the clip.
    """
    if start is None:
        start = min(index for state in states for index in state.prompted)
    clip.check_index(start)
    steps = len(clip) if limit is None else limit
    if not is_reverse:
        return range(start, min(start + steps, len(clip) - 1) + 1)
    return range(start, max(start - steps, 0) - 1, -1) if start > 0 else range(0)


class _ImageFolder:
    """Images of a folder, read on access."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, frame_index: int) -> np.ndarray:
        from PIL import Image

        with Image.open(self._paths[frame_index]) as image:
            return np.array(image.convert("RGB"))


def _open_folder(path: Path) -> _ImageFolder:
    if not path.is_dir():
        raise OSError(f"{path} is not a folder of images; give other videos as a sequence of frames")
    files = [file for file in path.iterdir() if file.suffix.lower() in _IMAGE_SUFFIXES]
    if not files:
        raise OSError(f"{path} contains no images: allowed are {', '.join(_IMAGE_SUFFIXES)}")
    numbered = all(file.stem.isdigit() for file in files)
    return _ImageFolder(sorted(files, key=lambda file: (int(file.stem) if numbered else 0, file.name)))
