"""Training objective of the segmenter: prompted segmentation and tracking.

Shape letters: F frames, B objects, L frames of an object's track, S image size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.types import FrameFeatures, Segmentation, SegmentPrompt
from unipixel.train.losses import MaskLoss, mask_iou, mask_loss, mean_per_sample
from unipixel.train.memory_rollout import FirstFramePrompts, memory_rollout, select_frames
from unipixel.train.nano.dense_targets import ATTRIBUTE_SIZES
from unipixel.train.nano.loop.training_loop import LoopObjective
from unipixel.train.recipe import LossWeights

_CODE_SEED, _CODE_SCALE = 20, 0.5


@dataclass(frozen=True)
class TrackBatch:
    """Objects of several clips with their prompts.

    Attributes:
        frames: (F, 3, S, S) normalised frames of all clips.
        tracks: (B, L) indices into `frames`, in the order of tracking.
        labels: (B, L, S, S) bool.
        prompts: Prompts by point, box or mask.
        token_rows: (b,) rows of the objects that are prompted by tokens, as the language model does.
        boxes_xyxy: (b, K, 2, 2) candidate boxes of these objects, corners x, y in pixels.
        attributes: (b, A) attribute numbers of these objects, 0 where unknown.
        num_frames: Length of the clip, which scales the time of object pointers; None for a stream.
        first_step: Position in the tracks from which masks are trained; before it objects are only tracked.
        samples: (B,) index of each object's clip.
        num_samples: Number of clips.
    """

    frames: Tensor
    tracks: Tensor
    labels: Tensor
    prompts: tuple[FirstFramePrompts, ...]
    token_rows: Tensor
    boxes_xyxy: Tensor
    attributes: Tensor
    samples: Tensor
    num_samples: int
    num_frames: int | None = None
    first_step: int = 0


def object_tokens(segmenter: Segmenter, boxes: Tensor, attributes: Tensor) -> Tensor:
    """Compute mask tokens (b, 2, C): SAM's embedding of an object's box plus codes of its attributes.

    A randomly initialised language model is first trained to predict these. A regression that is uncertain predicts the
    mean of the possible values, which several boxes per object simulate.

    Args:
        segmenter: SAM 2.1.
        boxes: (b, K, 2, 2) candidate boxes: left top and right bottom corners, x, y in pixels of SAM's input.
        attributes: (b, A) attribute numbers, 0 or less where unknown.
    """
    box_tokens = segmenter.embed_boxes(boxes.reshape(-1, 4)).unflatten(0, boxes.shape[:2]).mean(dim=1)
    codes = _attribute_codes(box_tokens.shape[-1]).to(box_tokens)
    columns = torch.arange(len(codes), device=attributes.device)
    return box_tokens + codes[columns, attributes.clamp(min=0)].sum(dim=1)


@lru_cache(maxsize=4)
def _attribute_codes(width: int) -> Tensor:
    """Return the codes (A, W, 2, C) of the values of each attribute; they are fixed, so that no model stores them."""
    generator = torch.Generator().manual_seed(_CODE_SEED)
    codes = torch.zeros(len(ATTRIBUTE_SIZES), max(ATTRIBUTE_SIZES), 2, width)
    for attribute, size in enumerate(ATTRIBUTE_SIZES):
        samples = torch.randn(size - 1, 2, width, generator=generator)
        # Zero mean: the mean over all values equals the code of an unknown one.
        codes[attribute, 1:size] = _CODE_SCALE * (samples - samples.mean(dim=0))
    return codes


class SegmenterObjective(LoopObjective):
    """A segmenter with the loss of its masks over tracks."""

    def __init__(self, segmenter: Segmenter, *, weights: LossWeights | None = None) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.weights = weights or LossWeights()

    def compile_blocks(self) -> None:
        """Compile the image encoder's trunk and the mask decoder's transformer."""
        # As a whole: blocks of different sizes would each be compiled for training and for context frames, more often
        # than torch allows for one function.
        self.segmenter.image_encoder.trunk.compile()
        self.segmenter.sam_mask_decoder.transformer.compile()

    def forward(self, batch: TrackBatch, *, progress: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and, for the log, the loss, its parts and the mean IoU of present objects."""
        prompts = batch.prompts
        if len(batch.token_rows):
            prompt = SegmentPrompt(tokens=object_tokens(self.segmenter, batch.boxes_xyxy, batch.attributes))
            prompts = (*prompts, FirstFramePrompts(batch.token_rows, prompt))
        features = self._encode(batch)
        meter = MaskLossMeter(self.weights)
        steps = memory_rollout(
            self.segmenter, features, batch.tracks, prompts, num_frames=batch.num_frames, first_step=batch.first_step
        )
        for step in steps:
            if not step.is_given and step.step >= batch.first_step:
                meter.add(step.segmentation, batch.labels[step.rows, step.step], samples=batch.samples[step.rows])
        means = meter.means(num_samples=batch.num_samples)
        return means["loss"], {name: value.detach() for name, value in means.items()}

    def _encode(self, batch: TrackBatch) -> FrameFeatures:
        """Encode the frames, with gradients where masks are trained."""
        if not batch.first_step:
            return self.segmenter.encode(batch.frames)
        is_trained = torch.zeros(len(batch.frames), dtype=torch.bool, device=batch.frames.device)
        is_trained[batch.tracks[:, batch.first_step :]] = True
        with torch.no_grad():
            context = self.segmenter.encode(batch.frames[~is_trained])
        trained = self.segmenter.encode(batch.frames[is_trained])
        order = torch.cat([(~is_trained).nonzero(), is_trained.nonzero()]).flatten().argsort()
        fine, finer = (torch.cat(level) for level in zip(context.high_res, trained.high_res, strict=True))
        return select_frames(FrameFeatures(torch.cat([context.embedding, trained.embedding]), (fine, finer)), order)


class MaskLossMeter:
    """Averages mask losses over the frames and objects of each sample, then over samples.

    The loss of a batch then does not depend on how its samples are divided among processes and micro batches.
    """

    def __init__(self, weights: LossWeights) -> None:
        self._weights = weights
        self._losses: list[MaskLoss] = []
        self._samples: list[Tensor] = []
        self._ious: list[Tensor] = []

    def add(self, segmentation: Segmentation, targets: Tensor, *, samples: Tensor) -> None:
        """Add the losses of b objects on one frame each.

        Args:
            segmentation: The prediction.
            targets: (b, S, S) bool.
            samples: (b,) index of each object's sample.
        """
        loss = mask_loss(
            segmentation.candidate_logits,
            segmentation.candidate_ious,
            segmentation.object_score,
            targets,
            weights=self._weights,
        )
        self._losses.append(loss)
        self._samples.append(samples)
        with torch.no_grad():
            small = nn.functional.interpolate(targets[:, None].float(), size=segmentation.mask_logits.shape[-2:])
            is_present = targets.flatten(1).any(dim=1)
            self._ious.append(mask_iou(segmentation.mask_logits, small[:, 0] > 0)[is_present])

    def means(self, *, num_samples: int) -> dict[str, Tensor]:
        """Return the mean `loss` of the samples and, over all objects, the parts `focal`, `dice`, `score` and `iou`.

        Args:
            num_samples: Number of samples; those without masks have a loss of 0.

        Raises:
            RuntimeError: Nothing was added.
        """
        if not self._losses:
            raise RuntimeError("the meter is empty: call add first")
        ious = torch.cat(self._ious)

        def values(name: str) -> Tensor:
            return torch.cat([getattr(loss, name) for loss in self._losses])

        total = mean_per_sample(values("total"), torch.cat(self._samples), num_samples=num_samples).mean()
        parts = {name: values(name).mean().detach() for name in ("focal", "dice", "score")}
        parts["iou"] = ious.mean() if len(ious) else ious.sum()
        return {"loss": total, **parts}
