"""Training objective of Pixel-SAIL (arXiv:2504.10465, section 3.4): text, masks and distilled features.

Shape letters: B samples, L tokens, K masks, h, w logits, H, W image in pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unipixel.model.inputs import ModelInputs
from unipixel.processing.processor import IGNORED_LABEL
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_inputs import PatchStates
from unipixel.train.sail.distillation import FeatureDistillation
from unipixel.train.sail.sail_losses import (
    SailMaskLoss,
    dense_mask_loss,
    point_mask_loss,
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
        device = output.logits.device
        text_losses = _text_losses(output.logits, batch.labels.to(device))
        parts: dict[str, list[Tensor]] = defaultdict(list)
        totals, images = [], iter(output.patch_states)
        targets = iter(self._targets(batch, num_images=len(output.patch_states), device=device))
        has_image = _has_image(batch.inputs, self.model)
        for row, text in enumerate(text_losses):
            masks: SailMaskLoss | None = None
            distilled: dict[TeacherName, Tensor] = {}
            if has_image[row]:
                patches, own_targets = next(images), next(targets)
                masks, distilled = self._image_losses(
                    patches, output.seg_states[row], batch.masks[row].to(device), own_targets, parts
                )
            totals.append(total_loss(text, masks, tuple(distilled.values()), weights=self.weights))
            own = [("text", text), *distilled.items()]
            if masks is not None:
                own += [("mask", masks.mask), ("dice", masks.dice)]
            for name, value in own:
                parts[name].append(value.detach())
        means = {name: torch.stack(values).mean() for name, values in parts.items()}
        # An invalid sample counts as 0: the loss does not depend on how samples are divided among processes.
        loss = torch.stack(totals).sum() / (len(totals) + len(batch.invalid))
        if batch.object_words is not None:
            is_patch = (batch.inputs.input_ids.to(device) == self.model.config.image_token_id)[..., None]
            for name, is_other in (("patch_words", ~is_patch), ("prompt_words", is_patch)):
                words = batch.object_words.to(device).masked_fill(is_other, IGNORED_LABEL)
                losses = _word_losses(output.logits, words)
                loss = loss + self.weights.object_words * losses.sum() / (len(totals) + len(batch.invalid))
                means[name] = losses.detach().mean()
        return {"loss": loss, **means}

    def _targets(self, batch: SailBatch, *, num_images: int, device: torch.device) -> list[dict[TeacherName, Tensor]]:
        """Return the features of teachers for each image of a batch; nothing without teachers."""
        if self.distillation is None:
            return [{}] * num_images
        if len(batch.images) != num_images:
            raise ValueError(
                f"the batch has {len(batch.images)} of {num_images} images for teachers: encode its samples with "
                "has_image=True"
            )
        return self.distillation.targets(batch.images, device=device)

    def _image_losses(
        self,
        patches: PatchStates,
        seg_states: Tensor,
        truths: Tensor,
        targets: Mapping[TeacherName, Tensor],
        parts: dict[str, list[Tensor]],
    ) -> tuple[SailMaskLoss | None, dict[TeacherName, Tensor]]:
        """Return the mask losses and the distillation losses of one sample with an image."""
        # Once for the masks and for the teacher.
        is_needed = len(seg_states) or "mask2former" in targets
        features = self.model.pixel_features(patches) if is_needed else None
        masks = None
        if len(seg_states):
            logits = self.model.mask_logits(patches, self.model.mask_tokens(seg_states), features=features)
            masks = self._mask_loss(logits, truths, parts)
        if self.distillation is None or not targets:
            return masks, {}
        student = None
        if features is not None and "mask2former" in targets:
            student = self.model.mask_head.mask_features_of(features)
        return masks, self.distillation(patches, student, targets)

    def _mask_loss(self, logits: Tensor, truths: Tensor, parts: dict[str, list[Tensor]]) -> SailMaskLoss | None:
        """Return the mask losses of one sample, None where a mask was cut off; add the IoU of its masks to `parts`."""
        if len(logits) != len(truths) or not len(truths):
            return None
        with torch.no_grad():
            small = F.interpolate(truths[None].float(), size=logits.shape[-2:], mode="area")[0]
            predicted, wanted = logits > 0, small > 0.5
            union = (predicted | wanted).flatten(1).sum(dim=1)
            overlap = (predicted & wanted).flatten(1).sum(dim=1)
            parts["iou"].append(torch.where(union > 0, overlap / union.clamp(min=1), 1.0).mean())
        if self.num_points is None:
            return dense_mask_loss(logits, small)
        points = sample_points(logits.detach(), num_points=self.num_points)
        return point_mask_loss(logits, truths, points)


def _word_losses(logits: Tensor, words: Tensor) -> Tensor:
    """Return, for each sample (B,), the mean cross-entropy between the scores of its tokens and each of their words.

    Args:
        logits: (B, L, V).
        words: (B, L, C) ids, negative where there is none. A sample without words has the loss 0.
    """
    rows, tokens, columns = (words >= 0).nonzero(as_tuple=True)
    losses = F.cross_entropy(logits[rows, tokens].float(), words[rows, tokens, columns], reduction="none")
    counts = torch.bincount(rows, minlength=len(logits)).clamp(min=1)
    return losses.new_zeros(len(logits)).index_add(0, rows, losses) / counts


def _text_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy of the supervised tokens of each sample (B,)."""
    targets = F.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    is_supervised = targets != IGNORED_LABEL
    losses = F.cross_entropy(logits[is_supervised].float(), targets[is_supervised], reduction="none")
    sums = losses.new_zeros(len(labels))
    sums = sums.index_add(0, is_supervised.nonzero()[:, 0], losses)
    return sums / is_supervised.sum(dim=1).clamp(min=1)


def _has_image(inputs: ModelInputs, model: PixelSail) -> list[bool]:
    is_image = inputs.input_ids == model.config.image_token_id
    return [bool(value) for value in is_image.any(dim=1)]
