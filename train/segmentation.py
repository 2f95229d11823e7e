"""What the segmenter learns on its own: to read points, boxes, masks and words, and to follow.

Shape letters: F frames, B objects, L frames of an object's track, n tokens, C SAM width, S image size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unipixel.tracking.segmentation import FrameFeatures, Segmentation, SegmentPrompt
from unipixel.tracking.segmenter import Segmenter
from unipixel.train.losses import MaskLoss, MaskLossWeights, mask_iou, mask_loss
from unipixel.train.rollout import AnchorPrompts, roll_out

_OBJECT_WEIGHT, _LOOK_WEIGHT = 5.0, 2.0


@dataclass(frozen=True)
class TrackBatch:
    """Objects of several clips with their prompts.

    Attributes:
        frames: (F, 3, S, S) normalised frames of all clips.
        tracks: (B, L) indices into `frames`, in the order of tracking.
        labels: (B, L, S, S) bool.
        anchors: Prompts by point, box or mask; rows of `labels`.
        word_rows: (b,) rows of the objects that are described by words.
        words: (b, A) a word's number by attribute, 0 where the attribute is not mentioned.
        num_frames: What the pointers' time is scaled by; None as for a stream.
        looks: (F, A, S/4, S/4) at every pixel the word's number by attribute, 0 on the background and -1
            where it is unknown.
        centres: (F, 2, S/4, S/4) middle of the object at every pixel as x, y in [-1, 1], NaN on the background.
    """

    frames: Tensor
    tracks: Tensor
    labels: Tensor
    anchors: tuple[AnchorPrompts, ...] = ()
    word_rows: Tensor | None = None
    words: Tensor | None = None
    num_frames: int | None = None
    looks: Tensor | None = None
    centres: Tensor | None = None

    def to(self, device: torch.device) -> TrackBatch:
        """Return the same batch on a device."""

        def moved(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device)

        anchors = []
        for anchor in self.anchors:
            prompt = anchor.prompt
            if prompt is not None:
                prompt = SegmentPrompt(coords=moved(prompt.coords), labels=moved(prompt.labels))
            anchors.append(AnchorPrompts(anchor.rows.to(device), prompt, moved(anchor.masks)))
        return replace(
            self,
            frames=self.frames.to(device),
            tracks=self.tracks.to(device),
            labels=self.labels.to(device),
            anchors=tuple(anchors),
            word_rows=moved(self.word_rows),
            words=moved(self.words),
            looks=moved(self.looks),
            centres=moved(self.centres),
        )


class WordPrompts(nn.Module):
    """Stands in for the language model while the segmenter learns alone: words of a look to mask tokens."""

    def __init__(self, vocabulary_sizes: tuple[int, ...], *, width: int, num_tokens: int) -> None:
        """Build the embeddings.

        Args:
            vocabulary_sizes: Words of each attribute, number 0 ("not mentioned") included.
            width: Channels of a token.
            num_tokens: Tokens per object.
        """
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(size, width) for size in vocabulary_sizes])
        self.mixer = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width * num_tokens)
        )
        self.num_tokens = num_tokens

    def forward(self, words: Tensor) -> Tensor:
        """Return the tokens (b, n, C) of descriptions (b, A)."""
        mixed = torch.stack([table(column) for table, column in zip(self.tables, words.T, strict=True)]).sum(dim=0)
        return self.mixer(mixed).unflatten(-1, (self.num_tokens, -1))


class LookHead(nn.Module):
    """Asks the image encoder, at every pixel, for the look and the middle of what is seen there.

    Masks alone teach an encoder that starts from nothing slowly: few pixels of few objects send gradients.
    """

    def __init__(self, vocabulary_sizes: tuple[int, ...], *, width: int, hidden: int = 96) -> None:
        """Build the head.

        Args:
            vocabulary_sizes: Words of each attribute, number 0 included.
            width: Channels C of the frame embedding; the finer maps have C/4 and C/8.
            hidden: Channels between the two convolutions.
        """
        super().__init__()
        self.sizes = vocabulary_sizes
        self.layers = nn.Sequential(
            nn.Conv2d(width + width // 4 + width // 8, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, sum(vocabulary_sizes) + 2, 1),
        )

    def forward(self, features: FrameFeatures, looks: Tensor, centres: Tensor) -> Tensor:
        """Return the loss, a scalar.

        Args:
            features: F frames.
            looks: See `TrackBatch`.
            centres: See `TrackBatch`.
        """
        fine = features.high_res[0]
        coarser = (features.high_res[1], features.embedding)
        maps = [nn.functional.interpolate(level, fine.shape[-2:], mode="bilinear") for level in coarser]
        *logits, places = self.layers(torch.cat([fine, *maps], dim=1)).split([*self.sizes, 2], dim=1)
        # The background covers most of a frame.
        weights = torch.where(looks[:, 0] > 0, _OBJECT_WEIGHT, 1.0)
        loss = fine.new_zeros(())
        for column, scores in enumerate(logits):
            wrong = nn.functional.cross_entropy(scores, looks[:, column], reduction="none", ignore_index=-1)
            loss = loss + (wrong * weights).sum() / weights.sum()
        is_object = ~centres.isnan()
        if is_object.any():
            loss = loss + _OBJECT_WEIGHT * (places - centres)[is_object].abs().mean()
        return loss


class SegmenterObjective(nn.Module):
    """A segmenter with the loss of its masks over tracks, and that of its maps."""

    def __init__(
        self, segmenter: Segmenter, words: WordPrompts, looks: LookHead, *, weights: MaskLossWeights | None = None
    ) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.words = words
        self.looks = looks
        self.weights = weights or MaskLossWeights()

    def forward(self, batch: TrackBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts and the mean IoU of present objects."""
        batch = batch.to(self.segmenter.no_mem_embed.device)
        anchors = batch.anchors
        if batch.words is not None and batch.word_rows is not None and len(batch.word_rows):
            prompt = SegmentPrompt(tokens=self.words(batch.words))
            anchors = (*anchors, AnchorPrompts(batch.word_rows, prompt))
        features = self.segmenter.encode(batch.frames)
        figures = self._masks(features, batch, anchors) if len(batch.tracks) else {}
        if batch.looks is not None and batch.centres is not None:
            look = self.looks(features, batch.looks, batch.centres)
            total = _LOOK_WEIGHT * look
            figures |= {"loss": figures["loss"] + total if figures else total, "look": look.detach()}
        return figures

    def _masks(
        self, features: FrameFeatures, batch: TrackBatch, anchors: tuple[AnchorPrompts, ...]
    ) -> dict[str, Tensor]:
        tally = MaskTally(self.weights)
        for step in roll_out(self.segmenter, features, batch.tracks, anchors, num_frames=batch.num_frames):
            if not step.is_given:
                tally.add(step.segmentation, batch.labels[step.rows, step.step])
        return tally.means()


class MaskTally:
    """Adds up mask losses over frames and objects; every frame of every object weighs the same."""

    def __init__(self, weights: MaskLossWeights) -> None:
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
