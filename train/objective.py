"""What UniPixel learns: the words of an answer, and the mask behind each `<|seg|>`.

Shape letters: B samples, L tokens, D language width, M tracks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unipixel.inputs import ModelInputs
from unipixel.model import UniPixel
from unipixel.tracking.segmentation import SegmentPrompt
from unipixel.train.collate import ExampleBatch
from unipixel.train.losses import MaskLossWeights, text_loss
from unipixel.train.rollout import AnchorPrompts, roll_out
from unipixel.train.segmentation import MaskTally


class UniPixelObjective(nn.Module):
    """A model with the loss of the paper: text plus masks (section 3.4)."""

    def __init__(self, model: UniPixel, *, weights: MaskLossWeights | None = None) -> None:
        super().__init__()
        self.model = model
        self.weights = weights or MaskLossWeights()

    def forward(self, batch: ExampleBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts."""
        batch = batch.to(self.model.device)
        if batch.encoded is None:
            # Every sample was broken: a loss without effect, so that all processes still take the step.
            trained = [parameter.sum() for parameter in self.model.parameters() if parameter.requires_grad]
            return {"loss": torch.stack(trained).sum() * 0}
        hidden = self._read(batch.encoded.inputs)
        ids, labels = batch.encoded.inputs.input_ids, batch.encoded.labels
        text = text_loss(hidden, labels, score=self.model.logits)
        if not len(batch.owners):
            return {"loss": text, "text": text.detach()}
        masks = self._mask_loss(hidden, ids, batch)
        loss = text + masks.pop("loss")
        return {"loss": loss, "text": text.detach(), **masks}

    def _read(self, inputs: ModelInputs) -> Tensor:
        """States (B, L, D) before the final norm."""
        features = self.model.encode_videos(inputs.videos)
        embedded = self.model.embed(inputs, features)
        return self.model.model(embedded.embeds, embedded.position_ids, attention_mask=embedded.attention_mask)

    def _mask_loss(self, hidden: Tensor, ids: Tensor, batch: ExampleBatch) -> dict[str, Tensor]:
        # The state that predicts `<|seg|>` describes its mask, not that of the token itself.
        states = hidden[:, :-1][ids[:, 1:] == self.model.config.seg_token_id]
        tokens = self.model.mask_tokens(states[batch.owners])
        # SAM computes in float32 whatever the language model's type.
        with torch.autocast(hidden.device.type, enabled=False):
            features = self.model.sam2.encode(batch.frames.float())
            everyone = torch.arange(len(batch.owners), device=hidden.device)
            anchors = [AnchorPrompts(everyone, SegmentPrompt(tokens=tokens.float()))]
            tally = MaskTally(self.weights)
            for step in roll_out(self.model.sam2, features, batch.tracks, anchors):
                tally.add(step.segmentation, batch.labels[step.rows, step.step])
        return tally.means()
