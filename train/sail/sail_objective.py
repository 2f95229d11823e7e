"""Training objective of Pixel-SAIL (arXiv:2504.10465, section 3.4): text, masks and distilled features.

Shape letters: B samples, n samples of one size, L tokens, K masks, h, w logits, H, W image in pixels.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from unipixel.processing.processor import IGNORED_LABEL
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_inputs import PatchStates, SailOutput
from unipixel.train.sail.distillation import FeatureDistillation
from unipixel.train.sail.sail_losses import (
    SailMaskLoss,
    dense_mask_losses,
    means_of,
    point_mask_losses,
    sample_points,
    total_loss,
)
from unipixel.train.sail.sail_recipe import SailLossWeights, TeacherName
from unipixel.train.sail.sail_samples import SailBatch


class SailObjective(nn.Module):
    """A Pixel-SAIL model with its losses."""

    def __init__(
        self,
        model: PixelSail,
        *,
        weights: SailLossWeights | None = None,
        num_points: int | None = None,
        distillation: FeatureDistillation | None = None,
    ) -> None:
        """Build the objective.

        Args:
            model: The model.
            weights: Weights of the losses; None takes the published ones.
            num_points: Points at which masks are compared; None compares all pixels of the mask logits, which is
                faster for small images.
            distillation: Teachers of dense features; its maps are trained with the model.
        """
        super().__init__()
        self.model = model
        self.distillation = distillation
        self.weights = weights or SailLossWeights()
        self.num_points = num_points

    def forward(self, batch: SailBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts, with the name of each teacher, and the mean `iou` of masks."""
        if batch.inputs is None:
            # All samples are invalid: a loss without a gradient keeps the step.
            return {"loss": 0.0 * self.model.single_transformer.model.norm.weight.sum()}
        output = self.model(batch.inputs)
        text = _text_losses(output.logits, batch.labels)
        # By name, one value per sample that has it.
        parts: dict[str, list[Tensor]] = defaultdict(list)
        parts["text"].append(text.detach())
        totals = []
        for group in self._groups(batch, output, batch.inputs.input_ids):
            masks, distilled = self._image_losses(group, parts)
            own = text[torch.tensor(group.rows, device=text.device)]
            totals.append(total_loss(own, masks, distilled, weights=self.weights))
        means = {name: torch.cat(values).mean() for name, values in parts.items()}
        # An invalid sample counts as 0: the loss does not depend on how samples are divided among processes.
        num_samples = len(text) + len(batch.invalid)
        loss = torch.cat(totals).sum() / num_samples
        if batch.object_words is not None:
            is_patch = (batch.inputs.input_ids == self.model.config.image_token_id)[..., None]
            for name, is_other in (("patch_words", ~is_patch), ("prompt_words", is_patch)):
                losses = _word_losses(output.logits, batch.object_words.masked_fill(is_other, IGNORED_LABEL))
                loss = loss + self.weights.object_words * losses.sum() / num_samples
                means[name] = losses.detach().mean()
        return {"loss": loss, **means}

    def _groups(self, batch: SailBatch, output: SailOutput, input_ids: Tensor) -> list[_Group]:
        """Divide a batch into samples whose images, and masks, have the same sizes."""
        is_image = (input_ids == self.model.config.image_token_id).any(dim=1).tolist()
        images, targets = iter(output.patch_states), iter(self._targets(batch, num_images=len(output.patch_states)))
        groups: dict[object, _Group] = {}
        for row, (segs, truths, has_image) in enumerate(zip(output.seg_states, batch.masks, is_image, strict=True)):
            patches = next(images) if has_image else None
            # Without a mask loss where a mask was cut off.
            has_masks = has_image and 0 < len(segs) == len(truths)
            key = (patches and patches.grid, truths.shape[1:] if has_masks else None)
            group = groups.setdefault(key, _Group())
            group.rows.append(row)
            if patches is not None:
                group.patches.append(patches)
                group.targets.append(next(targets))
            if has_masks:
                group.seg_states.append(segs)
                group.truths.append(truths)
        return list(groups.values())

    def _targets(self, batch: SailBatch, *, num_images: int) -> list[dict[TeacherName, Tensor]]:
        """Return the features of teachers for each image of a batch; nothing without teachers."""
        if self.distillation is None:
            return [{}] * num_images
        if len(batch.images) != num_images:
            raise ValueError(
                f"the batch has {len(batch.images)} of {num_images} images for teachers: encode its samples with "
                "has_image=True"
            )
        return self.distillation.targets(batch.images, device=self.model.device)

    def _image_losses(
        self, group: _Group, parts: dict[str, list[Tensor]]
    ) -> tuple[SailMaskLoss | None, tuple[Tensor, ...]]:
        """Return the mask losses and the distillation losses (n,) of a group, and add them to `parts`."""
        names = () if self.distillation is None or not group.patches else self.distillation.names
        features = None
        if group.truths or "mask2former" in names:
            # Once for the masks and for the teacher.
            states = torch.stack([own.states.view(*own.grid, -1) for own in group.patches])
            features = self.model.mask_head.pixel_features(states)
        masks = None
        if group.truths and features is not None:
            masks = self._mask_losses(group, features, parts)
            parts["mask"].append(masks.mask.detach())
            parts["dice"].append(masks.dice.detach())
        if self.distillation is None or not names:
            return masks, ()
        losses = []
        for number, (patches, targets) in enumerate(zip(group.patches, group.targets, strict=True)):
            student = None
            if features is not None and "mask2former" in names:
                student = self.model.mask_head.mask_features_of(features[number])
            losses.append(self.distillation(patches, student, targets))
        distilled = {name: torch.stack([own[name] for own in losses]) for name in names}
        for name, values in distilled.items():
            parts[name].append(values.detach())
        return masks, tuple(distilled.values())

    def _mask_losses(self, group: _Group, features: Tensor, parts: dict[str, list[Tensor]]) -> SailMaskLoss:
        """Return the mask losses (n,) of a group; add the IoU of its masks to `parts`."""
        head, counts = self.model.mask_head, [len(own) for own in group.seg_states]
        queries = self.model.mask_tokens(torch.cat(group.seg_states))[:, 0].to(head.dtype)
        padded = pad_sequence(queries.split(counts), batch_first=True)
        is_mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        logits = head.logits_of(features, padded).flatten(0, 1)[is_mask.flatten().nonzero()[:, 0].to(features.device)]
        truths = torch.cat(group.truths).to(logits.device)
        with torch.no_grad():
            small = F.interpolate(truths[None].float(), size=logits.shape[-2:], mode="area")[0]
            predicted, wanted = logits > 0, small > 0.5
            union = (predicted | wanted).flatten(1).sum(dim=1)
            overlap = (predicted & wanted).flatten(1).sum(dim=1)
            parts["iou"].append(means_of(torch.where(union > 0, overlap / union.clamp(min=1), 1.0), counts))
        if self.num_points is None:
            return dense_mask_losses(logits, small, counts=counts)
        points = sample_points(logits.detach(), num_points=self.num_points)
        return point_mask_losses(logits, truths, points, counts=counts)


@dataclass(frozen=True)
class _Group:
    """Samples that are computed together: their images have one grid and their masks one size.

    Attributes:
        rows: Of the batch.
        patches: One per image; empty for samples without an image.
        targets: Features of the teachers, one entry per image.
        seg_states: (K, D) of each sample; empty for samples without a mask loss.
        truths: (K, H, W) of each of these samples.
    """

    rows: list[int] = field(default_factory=list)
    patches: list[PatchStates] = field(default_factory=list)
    targets: list[dict[TeacherName, Tensor]] = field(default_factory=list)
    seg_states: list[Tensor] = field(default_factory=list)
    truths: list[Tensor] = field(default_factory=list)


def _word_losses(logits: Tensor, words: Tensor) -> Tensor:
    """Return, for each sample (B,), the mean cross-entropy between the scores of its tokens and each of their words.

    Args:
        logits: (B, L, V).
        words: (B, L, C) ids, negative where there is none. A sample without words has the loss 0.
    """
    rows, tokens, columns = (words >= 0).nonzero(as_tuple=True)
    return _mean_losses(logits, rows, tokens, words[rows, tokens, columns])


def _text_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the supervised tokens of each sample (B,)."""
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    rows, tokens = (targets != IGNORED_LABEL).nonzero(as_tuple=True)
    return _mean_losses(logits, rows, tokens, targets[rows, tokens])


def _mean_losses(logits: Tensor, rows: Tensor, tokens: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy (B,) of the scores (B, L, V) at n tokens of a batch, 0 for a sample without any.

    Rows, tokens and targets (n,) are found where the labels are, on the CPU, so that a GPU is not waited for.
    """
    counts = torch.bincount(rows, minlength=len(logits)).clamp(min=1).to(logits.device)
    rows, tokens, targets = (own.to(logits.device) for own in (rows, tokens, targets))
    # index_select, whose gradient is faster on a GPU than that of indexing.
    selected = logits.flatten(0, 1).index_select(0, rows * logits.shape[1] + tokens)
    losses = F.cross_entropy(selected.float(), targets, reduction="none")
    return losses.new_zeros(len(logits)).index_add(0, rows, losses) / counts
