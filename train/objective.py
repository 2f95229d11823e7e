"""What UniPixel learns: the words of an answer, and the mask behind each `<|seg|>`.

Shape letters: B samples, L tokens, D language width, M tracks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unipixel.model.unipixel import UniPixel
from unipixel.tracking.types import SegmentPrompt
from unipixel.train.datasets.collate import ExampleBatch
from unipixel.train.losses import LossWeights, text_loss
from unipixel.train.memory_rollout import FirstFramePrompts, memory_rollout
from unipixel.train.segmenter_objective import MaskLossMeter


class UniPixelObjective(nn.Module):
    """A model with the loss of the paper: text plus masks (section 3.4)."""

    def __init__(self, model: UniPixel, *, weights: LossWeights | None = None) -> None:
        super().__init__()
        self.model = model
        self.weights = weights or LossWeights()

    def forward(self, batch: ExampleBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts."""
        batch = batch.to(self.model.device)
        if batch.encoded is None:
            return {"loss": _no_loss(self.model)}
        inputs = batch.encoded.inputs
        embedded = self.model.embed(inputs, self.model.encode_videos(inputs.videos))
        # Padding is on the right, where no real token looks.
        hidden = self.model.model(embedded.embeds, embedded.position_ids)
        figures = {"text": text_loss(hidden, batch.encoded.labels, score=self.model.logits)}
        loss = self.weights.text * figures["text"]
        if len(batch.owners):
            is_named = inputs.input_ids[:, 1:] == self.model.config.seg_token_id
            # The state that predicts `<|seg|>` describes its mask, not that of the token itself.
            masks = self._mask_loss(hidden[:, :-1][is_named][batch.owners], batch)
            loss = loss + masks.pop("loss")
            figures |= masks
        return {"loss": loss, **{name: value.detach() for name, value in figures.items()}}

    def _mask_loss(self, states: Tensor, batch: ExampleBatch) -> dict[str, Tensor]:
        tokens = self.model.mask_tokens(states)
        # SAM computes in float32 whatever the language model's type.
        with torch.autocast(states.device.type, enabled=False):
            features = self.model.sam2.encode(batch.frames.float())
            everyone = torch.arange(len(batch.owners), device=states.device)
            anchors = [FirstFramePrompts(everyone, SegmentPrompt(tokens=tokens.float()))]
            tally = MaskLossMeter(self.weights)
            for step in memory_rollout(self.model.sam2, features, batch.tracks, anchors):
                tally.add(step.segmentation, batch.labels[step.rows, step.step])
        return tally.means()


def _no_loss(model: nn.Module) -> Tensor:
    """A loss without effect where every sample was broken, so that all processes still take the step."""
    trained = [parameter.sum() for parameter in model.parameters() if parameter.requires_grad]
    return torch.stack(trained).sum() * 0
