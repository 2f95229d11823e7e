"""The verbs of the sam2 package's video predictor over this project's tracker core.

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

from unipixel.tracking.clip_features import EncodedClip, Frame, FrameSequence
from unipixel.tracking.prompts import resize_mask
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.track_state import ObjectState
from unipixel.tracking.tracker_core import TrackerCore, collect_masks
from unipixel.tracking.types import SegmentPrompt

# What the verbs return: frame index, object ids, and logits (B, 1, H, W).
FrameLogits = tuple[int, list[int], Tensor]
_PICTURES = (".jpg", ".jpeg", ".png")


@dataclass
class InferenceState:
    """A clip and what its objects remember.

    Unlike a stream's, it keeps a memory and a mask of every tracked frame, so that any frame can be
    corrected: about 0.8 MB per object and frame at 1024 pixels. The frames are not kept.

    Attributes:
        clip: The frames, encoded when they are needed.
        core: SAM 2.1 with the settings for this clip.
        objects: States by object id.
    """

    clip: EncodedClip
    core: TrackerCore
    objects: dict[int, ObjectState] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Bytes of everything that objects remember."""
        return sum(state.num_bytes for state in self.objects.values())


class SAM2VideoPredictor:
    """`init_state`, `add_new_points_or_box`, `propagate_in_video` and so on, as SAM 2 users know them."""

    def __init__(
        self,
        segmenter: Segmenter,
        *,
        memory_dtype: torch.dtype = torch.bfloat16,
        add_all_frames_to_correct_as_cond: bool = True,
        apply_postprocessing: bool = False,
    ) -> None:
        """Choose settings.

        Args:
            segmenter: SAM 2.1.
            memory_dtype: Type in which memories are stored.
            add_all_frames_to_correct_as_cond: Whether corrected frames are attended to for good; the
                package's builder leaves this off.
            apply_postprocessing: SAM 2's own post-processing; the package's builder turns this on.
        """
        self._segmenter = segmenter
        self._memory_dtype = memory_dtype
        self._are_corrections_kept = add_all_frames_to_correct_as_cond
        self._is_postprocessed = apply_postprocessing

    def init_state(
        self,
        video: str | Path | FrameSequence | Callable[[int], Frame],
        *,
        num_frames: int | None = None,
        size: tuple[int, int] | None = None,
    ) -> InferenceState:
        """Open a clip; frames are read one at a time, when they are needed.

        Args:
            video: Folder of pictures named by frame number, or something indexed by frame, or a function
                of the frame index. Frames are uint8 (H, W, 3) or normalised float (3, S, S).
            num_frames: Length of the clip; needed for a function.
            size: (H, W) of the video, where the frames do not show it.

        Raises:
            OSError: The path is not a folder that holds pictures.
            ValueError: The clip has no frames or no known length.
        """
        frames = _folder(Path(video)) if isinstance(video, str | Path) else video
        clip = EncodedClip(self._segmenter, frames, num_frames=num_frames, size=size)
        core = TrackerCore(
            self._segmenter,
            memory_dtype=self._memory_dtype,
            num_frames=len(clip),
            has_history=True,
            are_corrections_kept=self._are_corrections_kept,
            is_postprocessed=self._is_postprocessed,
        )
        return InferenceState(clip, core)

    @torch.no_grad()
    def add_new_points_or_box(
        self,
        state: InferenceState,
        frame_idx: int,
        obj_id: int,
        *,
        points: ArrayLike | None = None,
        labels: ArrayLike | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: ArrayLike | None = None,
    ) -> FrameLogits:
        """Prompt an object by clicks, a box, or both; on a frame that was tracked, correct it.

        Args:
            state: The clip.
            frame_idx: Index of the frame.
            obj_id: New or known id.
            points: (P, 2) x, y in pixels of the video.
            labels: (P,) 1 on the object, 0 beside it.
            clear_old_points: Whether earlier clicks on this frame are dropped.
            normalize_coords: Whether coordinates are pixels; otherwise they are shares 0..1 of the frame.
            box: x1, y1, x2, y2.

        Returns:
            Frame index, object ids and logits (B, 1, H, W) of all objects on the frame.

        Raises:
            IndexError: The frame is not in the clip.
            ValueError: Points without labels, nothing given, or a box added to old points.
        """
        if (points is None) != (labels is None):
            raise ValueError("points and labels must be given together")
        if points is None and box is None:
            raise ValueError("at least one of points and box is needed")
        if box is not None and not clear_old_points:
            raise ValueError("a box comes before any point: use clear_old_points=True with it")
        state.clip.check_index(frame_idx)
        target = state.objects.get(obj_id, ObjectState())
        prompt = self._clicks(state, points, labels, box, is_pixels=normalize_coords)
        if not clear_old_points and frame_idx in target.clicks:
            prompt = prompt.with_earlier_points(*target.clicks[frame_idx])
        return self._prompt(state, target, frame_idx, obj_id, prompt)

    @torch.no_grad()
    def add_new_mask(self, state: InferenceState, frame_idx: int, obj_id: int, mask: ArrayLike | Tensor) -> FrameLogits:
        """Give an object's mask (h, w) on a frame; any size, stretched to the frame. Empty means absent.

        Raises:
            IndexError: The frame is not in the clip.
            ValueError: The mask is not two-dimensional.
        """
        state.clip.check_index(frame_idx)
        given = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
        if given.ndim != 2:
            raise ValueError(f"a mask must be (h, w), got {tuple(given.shape)}")
        resized = resize_mask(given, image_size=self._segmenter.config.image_size)
        return self._prompt(state, state.objects.get(obj_id, ObjectState()), frame_idx, obj_id, resized)

    @torch.no_grad()
    def propagate_in_video(
        self,
        state: InferenceState,
        *,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[FrameLogits]:
        """Follow all objects through the clip.

        Args:
            state: The clip.
            start_frame_idx: First frame; by default the earliest prompted one.
            max_frame_num_to_track: Frames after the first; by default all there are.
            reverse: Whether to go backwards.

        Yields:
            Frame index, object ids and logits (B, 1, H, W).

        Raises:
            IndexError: The first frame is not in the clip.
            RuntimeError: There are no objects; add prompts first.
        """
        states = list(state.objects.values())
        if not states:
            raise RuntimeError("no object was prompted: call add_new_points_or_box or add_new_mask first")
        state.core.encode_staged_prompts(states, state.clip.__getitem__)
        start = start_frame_idx
        if start is None:
            start = min(index for member in states for index in member.prompted)
        state.clip.check_index(start)
        order = processing_order(start, len(state.clip), limit=max_frame_num_to_track, is_reverse=reverse)
        for frame_idx in order:
            masks = state.core.process_frame(state.clip.__getitem__, states, frame_idx, is_reverse=reverse)
            yield frame_idx, list(state.objects), masks.resized(*state.clip.size)[:, None]

    def remove_object(self, state: InferenceState, obj_id: int, *, strict: bool = False) -> list[int]:
        """Stop tracking an object.

        Returns:
            The remaining ids.

        Raises:
            RuntimeError: The id is unknown and `strict` is set.
        """
        if obj_id not in state.objects and strict:
            raise RuntimeError(f"object {obj_id} does not exist: ids are {list(state.objects)}")
        state.objects.pop(obj_id, None)
        return list(state.objects)

    def reset_state(self, state: InferenceState) -> None:
        """Forget all objects; the clip stays open."""
        state.objects.clear()

    def _clicks(
        self, state: InferenceState, points: ArrayLike | None, labels: ArrayLike | None, box: ArrayLike | None, *,
        is_pixels: bool,
    ) -> SegmentPrompt:  # fmt: skip
        coords = torch.as_tensor(np.zeros((0, 2)) if points is None else points, dtype=torch.float32).reshape(-1, 2)
        kinds = torch.as_tensor(np.zeros(0) if labels is None else labels, dtype=torch.int32).reshape(-1)
        if len(coords) != len(kinds):
            raise ValueError(f"{len(coords)} points but {len(kinds)} labels were given: one label per point")
        if box is not None:
            coords = torch.cat([torch.as_tensor(box, dtype=torch.float32).reshape(2, 2), coords])
            kinds = torch.cat([torch.tensor([2, 3], dtype=torch.int32), kinds])
        if is_pixels:
            height, width = state.clip.size
            coords = coords / torch.tensor([width, height])
        return SegmentPrompt(coords=coords[None] * self._segmenter.config.image_size, labels=kinds[None])

    def _prompt(
        self, state: InferenceState, target: ObjectState, frame_idx: int, obj_id: int, prompt: SegmentPrompt | Tensor
    ) -> FrameLogits:
        state.core.prompt(state.clip[frame_idx], target, frame_idx, prompt)
        state.objects[obj_id] = target
        masks = collect_masks(self._segmenter, list(state.objects.values()), frame_idx)
        return frame_idx, list(state.objects), masks.resized(*state.clip.size)[:, None]


def processing_order(start: int, length: int, *, limit: int | None = None, is_reverse: bool = False) -> range:
    """Return the frames of a clip that tracking passes over, as the package's predictor does.

    Args:
        start: First frame.
        length: Frames of the clip.
        limit: Frames after the first; None for all there are.
        is_reverse: Whether to go backwards; from frame 0 that goes nowhere.
    """
    steps = length if limit is None else limit
    if not is_reverse:
        return range(start, min(start + steps, length - 1) + 1)
    return range(start, max(start - steps, 0) - 1, -1) if start > 0 else range(0)


class _PictureFolder:
    """Pictures of a folder, read one at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, frame_index: int) -> np.ndarray:
        from PIL import Image

        with Image.open(self._paths[frame_index]) as picture:
            return np.array(picture.convert("RGB"))


def _folder(path: Path) -> _PictureFolder:
    if not path.is_dir():
        raise OSError(f"{path} is not a folder of pictures; give other videos as frames that can be indexed")
    pictures = [file for file in path.iterdir() if file.suffix.lower() in _PICTURES]
    if not pictures:
        raise OSError(f"{path} holds no pictures: allowed are {', '.join(_PICTURES)}")
    numbered = all(file.stem.isdigit() for file in pictures)
    return _PictureFolder(sorted(pictures, key=lambda file: (int(file.stem) if numbered else 0, file.name)))
