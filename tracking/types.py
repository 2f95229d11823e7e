"""Inputs and outputs of the segmenter: frame features, prompts, masks and memories.

Shape letters: N frames, B objects, C embedding width, D memory width, h/w side of the embedding
(image_size / 16), S image_size, M memories, P pointers, K candidate masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Imported where it is used: results are also read and written by commands that do not need torch.
if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class FrameFeatures:
    """Output of the image encoder for N frames.

    Attributes:
        embedding: (N, C, h, w), stride 16.
        high_res: Maps for the mask decoder: (N, C/8, 4h, 4w) and (N, C/4, 2h, 2w).
    """

    embedding: Tensor
    high_res: tuple[Tensor, Tensor]

    def __len__(self) -> int:
        return self.embedding.shape[0]

    @property
    def num_bytes(self) -> int:
        """Size of the maps in bytes."""
        return sum(maps.numel() * maps.element_size() for maps in (self.embedding, *self.high_res))

    def __getitem__(self, index: int) -> FrameFeatures:
        """Return the features of one frame, N = 1.

        Raises:
            IndexError: There is no such frame.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} is out of range for {len(self)} encoded frames")
        start = index % len(self)
        frame = slice(start, start + 1)
        return FrameFeatures(self.embedding[frame], (self.high_res[0][frame], self.high_res[1][frame]))


@dataclass(frozen=True)
class SegmentPrompt:
    """Prompts of B objects on one frame; all objects of a batch have equally many points and tokens.

    Attributes:
        coords: (B, P, 2) float32 x, y in pixels of the square SAM input.
        labels: (B, P) int: 1 positive click, 0 negative click, 2 and 3 corners of a box, -1 padding.
        tokens: (B, n, C) language tokens that follow the points.
        mask_logits: (B, 4h, 4w) logits of an earlier prediction that the prompt corrects.
    """

    coords: Tensor | None = None
    labels: Tensor | None = None
    tokens: Tensor | None = None
    mask_logits: Tensor | None = None

    @property
    def num_points(self) -> int:
        """Number of points and box corners per object."""
        return 0 if self.labels is None else int(self.labels.shape[1])

    def with_earlier_points(self, coords: Tensor | None, labels: Tensor | None) -> SegmentPrompt:
        """Return the prompt with earlier points (B, P, 2) and their labels (B, P), if any, before the present ones."""
        if coords is None or labels is None:
            return self
        if self.coords is None or self.labels is None:
            return replace(self, coords=coords, labels=labels)
        import torch

        coords = torch.cat([coords, self.coords.to(coords)], dim=1)
        return replace(self, coords=coords, labels=torch.cat([labels, self.labels.to(labels)], dim=1))


@dataclass(frozen=True)
class Segmentation:
    """Masks of B objects on one frame.

    Attributes:
        mask_logits: (B, 4h, 4w) of the selected candidate; -1024 everywhere if the object is absent.
        pointer: (B, C) object pointer; the learned "no object" pointer if the object is absent.
        object_score: (B,) logit that the object is in the frame.
        candidate_logits: (B, K, 4h, 4w), independent of the object score.
        candidate_ious: (B, K) predicted IoU of each candidate.
    """

    mask_logits: Tensor
    pointer: Tensor
    object_score: Tensor
    candidate_logits: Tensor
    candidate_ious: Tensor

    @property
    def iou(self) -> Tensor:
        """(B,) predicted IoU of the selected candidate."""
        return self.candidate_ious.max(dim=-1).values

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All values, in the order of the attributes."""
        return self.mask_logits, self.pointer, self.object_score, self.candidate_logits, self.candidate_ious

    def without_candidates(self) -> Segmentation:
        """Return the same masks with the selected candidate as the only one."""
        return replace(self, candidate_logits=self.mask_logits[:, None], candidate_ious=self.iou[:, None])

    def select(self, rows: Sequence[int]) -> Segmentation:
        """Return the objects of the given rows, in that order."""
        from unipixel.tracking.precision import upload

        index = upload(list(rows), device=self.mask_logits.device)
        return Segmentation(*(value.index_select(0, index) for value in self.tensors))

    @staticmethod
    def concatenate(parts: Sequence[Segmentation]) -> Segmentation:
        """Concatenate segmentations of equally many candidates along the objects."""
        import torch

        if len(parts) == 1:
            return parts[0]
        return Segmentation(*(torch.cat(values) for values in zip(*(part.tensors for part in parts), strict=True)))


@dataclass(frozen=True)
class FrameMasks:
    """Masks of B objects on one frame.

    Attributes:
        frame_index: Index of the frame in the clip.
        mask_logits: (B, S/4, S/4) in the square SAM frame.
        object_score: (B,) logit that the object is in the frame.
        iou: (B,) predicted IoU of the mask.
    """

    frame_index: int
    mask_logits: Tensor
    object_score: Tensor
    iou: Tensor

    @property
    def is_present(self) -> Tensor:
        """(B,) bool: whether the object is in the frame."""
        return self.object_score > 0

    @property
    def confidence(self) -> Tensor:
        """(B,) in 0..1: probability that the object is in the frame times the predicted IoU."""
        return self.object_score.sigmoid() * self.iou

    def resized(self, height: int, width: int) -> Tensor:
        """Return the logits (B, height, width), resized bilinearly to the size of the video."""
        from torch.nn import functional

        logits = self.mask_logits[:, None].float()
        return functional.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)[:, 0]


@dataclass(frozen=True)
class MemoryBatch:
    """Memories of B objects with equally many mask memories and pointers each.

    Attributes:
        features: (B, M, h*w, D).
        slots: (B, M) int, temporal index of each memory: 0 a prompted frame, 1 the oldest recent frame,
            num_maskmem - 1 the previous frame.
        pointers: (B, P, C).
        offsets: (B, P) float, distance of each pointer's frame to the current one in frames, in the direction of
            tracking.
        max_offset: Offset that the temporal encoding maps to 1, min(num_frames, max_pointers) - 1.
    """

    features: Tensor
    slots: Tensor
    pointers: Tensor
    offsets: Tensor
    max_offset: int


class ObjectMask(NamedTuple):
    """Mask of one object on one frame, at the size of the video.

    Attributes:
        mask: bool array (H, W).
        score: Confidence in 0..1.
        visible: Whether the object is in the frame.
    """

    mask: NDArray[np.bool_]
    score: float
    visible: bool
