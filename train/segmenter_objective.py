"""What the segmenter learns on its own: to read points, boxes and masks, and to follow.

Shape letters: F frames, B objects, L frames of an object's track, S image size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.types import FrameFeatures, Segmentation, SegmentPrompt
from unipixel.train.losses import LossWeights, MaskLoss, mask_iou, mask_loss
from unipixel.train.memory_rollout import FirstFramePrompts, memory_rollout, select_frames
from unipixel.train.nano.dense_targets import ATTRIBUTE_SIZES

_CODE_SEED, _CODE_SCALE = 20, 0.5


@dataclass(frozen=True)
class TrackBatch:
    """Objects of several clips with their prompts.

    Attributes:
        frames: (F, 3, S, S) normalised frames of all clips.
        tracks: (B, L) indices into `frames`, in the order of tracking.
        labels: (B, L, S, S) bool.
        anchors: Prompts by point, box or mask; rows of `labels`.
        place_rows: (b,) rows of objects that are prompted as the language model would do it, by tokens.
        places: (b, K, 2, 2) boxes each of them may have, corners x, y in pixels.
        looks: (b, A) numbers of the words for their looks, 0 where nothing is said.
        num_frames: What the pointers' time is scaled by; None as for a stream.
        first_step: Place in the tracks from which on masks are learned from; before it objects are only followed.
    """

    frames: Tensor
    tracks: Tensor
    labels: Tensor
    anchors: tuple[FirstFramePrompts, ...]
    place_rows: Tensor
    places: Tensor
    looks: Tensor
    num_frames: int | None = None
    first_step: int = 0

    def to(self, device: torch.device) -> TrackBatch:
        """Return the same batch on a device."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        anchors = []
        for anchor in self.anchors:
            prompt = anchor.prompt
            if prompt is not None:
                prompt = SegmentPrompt(coords=moved(prompt.coords), labels=moved(prompt.labels))
            anchors.append(FirstFramePrompts(anchor.rows.to(device), prompt, moved(anchor.masks)))
        return replace(
            self,
            frames=self.frames.to(device),
            tracks=self.tracks.to(device),
            labels=self.labels.to(device),
            anchors=tuple(anchors),
            place_rows=self.place_rows.to(device),
            places=self.places.to(device),
            looks=self.looks.to(device),
        )


def object_tokens(segmenter: Segmenter, boxes: Tensor, looks: Tensor) -> Tensor:
    """Tokens (b, 2, C) that say where an object is, as SAM's own prompt encoder would say it, and how it looks.

    A language model that starts from nothing learns to write these before it learns to write better ones. One that
    is not sure writes the mean of what it holds possible, which is what it is for several boxes here.

    Args:
        segmenter: SAM 2.1.
        boxes: (b, K, 2, 2) boxes the object may have: left top and right bottom, x, y in pixels of SAM's input.
        looks: (b, A) numbers of the words for its looks, 0 or less where nothing is said.
    """
    places = segmenter.embed_boxes(boxes.reshape(-1, 4)).unflatten(0, boxes.shape[:2]).mean(dim=1)
    codes = _look_codes(places.shape[-1]).to(places)
    attributes = torch.arange(len(codes), device=looks.device)
    return places + codes[attributes, looks.clamp(min=0)].sum(dim=1)


@lru_cache(maxsize=4)
def _look_codes(width: int) -> Tensor:
    """Codes (A, W, 2, C) of the words of each attribute; fixed, so that nothing has to be kept beside a model."""
    generator = torch.Generator().manual_seed(_CODE_SEED)
    codes = torch.zeros(len(ATTRIBUTE_SIZES), max(ATTRIBUTE_SIZES), 2, width)
    for attribute, size in enumerate(ATTRIBUTE_SIZES):
        drawn = torch.randn(size - 1, 2, width, generator=generator)
        # Around zero: the mean over all words says nothing, like number 0.
        codes[attribute, 1:size] = _CODE_SCALE * (drawn - drawn.mean(dim=0))
    return codes


class SegmenterObjective(nn.Module):
    """A segmenter with the loss of its masks over tracks."""

    def __init__(self, segmenter: Segmenter, *, weights: LossWeights | None = None) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.weights = weights or LossWeights()

    def forward(self, batch: TrackBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts and the mean IoU of present objects."""
        batch = batch.to(self.segmenter.no_mem_embed.device)
        anchors = batch.anchors
        if len(batch.place_rows):
            prompt = SegmentPrompt(tokens=object_tokens(self.segmenter, batch.places, batch.looks))
            anchors = (*anchors, FirstFramePrompts(batch.place_rows, prompt))
        features = self._encode(batch)
        tally = MaskLossMeter(self.weights)
        followed = memory_rollout(
            self.segmenter, features, batch.tracks, anchors, num_frames=batch.num_frames, first_step=batch.first_step
        )
        for step in followed:
            if not step.is_given and step.step >= batch.first_step:
                tally.add(step.segmentation, batch.labels[step.rows, step.step])
        figures = tally.means()
        return {name: value if name == "loss" else value.detach() for name, value in figures.items()}

    def _encode(self, batch: TrackBatch) -> FrameFeatures:
        """Encode the frames, with gradients where masks are learned from."""
        if not batch.first_step:
            return self.segmenter.encode(batch.frames)
        is_learned = torch.zeros(len(batch.frames), dtype=torch.bool, device=batch.frames.device)
        is_learned[batch.tracks[:, batch.first_step :]] = True
        with torch.no_grad():
            before = self.segmenter.encode(batch.frames[~is_learned])
        learned = self.segmenter.encode(batch.frames[is_learned])
        places = torch.cat([(~is_learned).nonzero(), is_learned.nonzero()]).flatten().argsort()
        fine, finer = (torch.cat(level) for level in zip(before.high_res, learned.high_res, strict=True))
        return select_frames(FrameFeatures(torch.cat([before.embedding, learned.embedding]), (fine, finer)), places)


class MaskLossMeter:
    """Adds up mask losses over frames and objects; every frame of every object weighs the same."""

    def __init__(self, weights: LossWeights) -> None:
        self._weights = weights
        self._losses: list[MaskLoss] = []
        self._ious: list[Tensor] = []

    def add(self, segmentation: Segmentation, targets: Tensor) -> None:
        """Score b objects on one frame each.

        Args:
            segmentation: What was predicted.
            targets: (b, S, S) bool.
        """
        loss = mask_loss(
            segmentation.candidate_logits,
            segmentation.candidate_ious,
            segmentation.object_score,
            targets,
            weights=self._weights,
        )
        self._losses.append(loss)
        with torch.no_grad():
            small = nn.functional.interpolate(targets[:, None].float(), size=segmentation.mask_logits.shape[-2:])
            is_present = targets.flatten(1).any(dim=1)
            self._ious.append(mask_iou(segmentation.mask_logits, small[:, 0] > 0)[is_present])

    def means(self) -> dict[str, Tensor]:
        """Return the mean `loss` with the parts `focal`, `dice`, `iou_error`, `score` and the `iou` reached.

        Raises:
            RuntimeError: Nothing was added.
        """
        if not self._losses:
            raise RuntimeError("no mask was scored: call add first")
        ious = torch.cat(self._ious)

        def mean(name: str) -> Tensor:
            return torch.cat([getattr(loss, name) for loss in self._losses]).mean()

        parts = {name: mean(name).detach() for name in ("focal", "dice", "score")}
        parts["iou"] = ious.mean() if len(ious) else ious.sum()
        return {"loss": mean("total"), **parts}
