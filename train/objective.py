"""Training objective of UniPixel: the text of answers and the mask of each `<|seg|>`.

Shape letters: B samples, L tokens, D language width, M tracks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unipixel.model.unipixel import UniPixel
from unipixel.tracking.types import SegmentPrompt
from unipixel.train.datasets.collate import ExampleBatch
from unipixel.train.losses import text_losses
from unipixel.train.memory_rollout import FirstFramePrompts, memory_rollout
from unipixel.train.recipe import LossWeights
from unipixel.train.segmenter_objective import MaskLossMeter


class UniPixelObjective(nn.Module):
    """A model with the loss of the paper, text plus masks (section 3.4).

    It is the mean over the samples of the loss of each one, where an invalid sample counts as 0: equal batches give
    equal gradients, however they are divided among processes. The published training had one sample per process.
    """

    def __init__(self, model: UniPixel, *, weights: LossWeights | None = None) -> None:
        super().__init__()
        self.model = model
        self.weights = weights or LossWeights()

    def forward(self, batch: ExampleBatch) -> dict[str, Tensor]:
        """Return `loss` and its parts for the log."""
        batch = batch.to(self.model.device)
        if batch.encoded is None:
            return {"loss": self._zero_loss()}
        inputs = batch.encoded.inputs
        embedded = self.model.embed(inputs, self.model.encode_videos(inputs.videos))
        # Padding is on the right, so that causal attention needs no mask.
        hidden = self.model.model(embedded.embeds, embedded.position_ids)
        texts = text_losses(hidden, batch.encoded.labels, logits_of=self.model.logits)
        metrics = {"text": texts.mean()}
        loss = self.weights.text * texts.sum() / batch.num_samples
        if len(batch.seg_indices):
            is_seg = inputs.input_ids[:, 1:] == self.model.config.seg_token_id
            # The state that predicts `<|seg|>` describes its mask, not that of the token itself.
            samples = is_seg.nonzero()[batch.seg_indices, 0]
            masks = self._mask_loss(hidden[:, :-1][is_seg][batch.seg_indices], batch, samples)
            loss = loss + masks.pop("loss")
            metrics |= masks
        return {"loss": loss, **{name: value.detach() for name, value in metrics.items()}}

    def _mask_loss(self, states: Tensor, batch: ExampleBatch, samples: Tensor) -> dict[str, Tensor]:
        tokens = self.model.mask_tokens(states)
        # SAM computes in float32 whatever the language model's type.
        with torch.autocast(states.device.type, enabled=False):
            features = self.model.sam2.encode(batch.frames.float())
            rows = torch.arange(len(batch.seg_indices), device=states.device)
            prompts = [FirstFramePrompts(rows, SegmentPrompt(tokens=tokens.float()))]
            meter = MaskLossMeter(self.weights)
            for step in memory_rollout(self.model.sam2, features, batch.tracks, prompts):
                kept = (step.step < batch.lengths[step.rows]).nonzero()[:, 0]
                rows = step.rows[kept]
                meter.add(step.segmentation.select(kept.tolist()), batch.labels[rows, step.step], samples=samples[rows])
        return meter.means(num_samples=batch.num_samples)

    def _zero_loss(self) -> Tensor:
        """Return a loss with zero gradients for a batch of invalid samples, so that the process still takes the step.

        The layers run on one empty token, because processes that share weights gather them layer by layer.
        """
        device = self.model.device
        empty = torch.zeros(1, 1, self.model.config.width, dtype=self.model.dtype, device=device, requires_grad=True)
        positions = torch.zeros(3, 1, 1, dtype=torch.long, device=device)
        return 0.0 * self.model.model(empty, positions).float().sum()
