"""What UniPixel learns: the words of an answer, and the mask behind each `<|seg|>`.

Shape letters: B samples, L tokens, D language width, M tracks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unipixel.inputs import ModelInputs, VideoFeatures
from unipixel.model import UniPixel
from unipixel.tracking.segmentation import SegmentPrompt
from unipixel.train.collate import ExampleBatch
from unipixel.train.losses import LossWeights, text_loss
from unipixel.train.rollout import AnchorPrompts, roll_out
from unipixel.train.segmentation import MaskTally, box_tokens
from unipixel.train.sight import MOVING_PLACES, PointingHead, Sight, SightHead

_POINTING_WEIGHT = 3.0


class EyesObjective(nn.Module):
    """A model's vision transformer, asked for the look of everything: a start for one that comes from nothing."""

    def __init__(self, model: UniPixel) -> None:
        super().__init__()
        if model.config.memory_pool_order != "raster":
            raise ValueError(f"eyes need a model that pools in raster order, not {model.config.memory_pool_order}")
        self.model = model
        self.head = SightHead(model.config.pooled_width, num_places=0)

    def forward(self, batch: ExampleBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, the share of objects' cells that are named right."""
        batch = batch.to(self.model.device)
        if batch.encoded is None:
            return {"loss": _no_loss(self.model)}
        features = self.model.encode_videos(batch.encoded.inputs.videos)
        figures = self.head(torch.cat([clip.pooling_rows for clip in features]), batch.sights)
        return {"loss": figures["sight"], "looks": figures["looks"]}


class UniPixelObjective(nn.Module):
    """A model with the loss of the paper: text plus masks (section 3.4)."""

    def __init__(self, model: UniPixel, *, weights: LossWeights | None = None) -> None:
        super().__init__()
        self.model = model
        self.weights = weights or LossWeights()
        has_sight = self.weights.sight > 0
        self.eyes = EyesObjective(model).head if has_sight else None
        self.sight = SightHead(model.config.width, num_places=MOVING_PLACES) if has_sight else None
        self.pointing = PointingHead(model.config.width) if has_sight else None

    def forward(self, batch: ExampleBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts."""
        batch = batch.to(self.model.device)
        if batch.encoded is None:
            return {"loss": _no_loss(self.model)}
        inputs = batch.encoded.inputs
        features = self.model.encode_videos(inputs.videos)
        hidden, middle = self._read(inputs, features)
        figures = {"text": text_loss(hidden, batch.encoded.labels, score=self.model.logits)}
        loss = figures["text"]
        is_named = inputs.input_ids[:, 1:] == self.model.config.seg_token_id
        if batch.sights:
            sight, seen = self._sight_loss(features, middle, is_named, inputs, batch.sights)
            loss = loss + self.weights.sight * sight
            figures |= seen
        if len(batch.places):
            # The state that predicts `<|seg|>` describes its mask, not that of the token itself.
            states = hidden[:, :-1][is_named]
            if self.weights.place:
                figures["place"] = self._place_loss(states, batch.places)
                loss = loss + self.weights.place * figures["place"]
            if len(batch.owners):
                masks = self._mask_loss(states[batch.owners], batch)
                loss = loss + masks.pop("loss")
                figures |= masks
        return {"loss": loss, **{name: value.detach() for name, value in figures.items()}}

    def _read(self, inputs: ModelInputs, features: Sequence[VideoFeatures]) -> tuple[Tensor, Tensor]:
        """States (B, L, D) before the final norm, and those that a third of the layers still read."""
        embedded = self.model.embed(inputs, features)
        layers = self.model.model.language_model.layers
        seen: list[Tensor] = []
        handle = layers[len(layers) * 2 // 3 - 1].register_forward_hook(
            lambda _layer, _given, state: seen.append(state)
        )
        try:
            hidden = self.model.model(embedded.embeds, embedded.position_ids, attention_mask=embedded.attention_mask)
        finally:
            handle.remove()
        return hidden, seen[0]

    def _sight_loss(
        self,
        features: Sequence[VideoFeatures],
        middle: Tensor,
        is_named: Tensor,
        inputs: ModelInputs,
        sights: Sequence[Sight],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.eyes is None or self.sight is None or self.pointing is None:
            raise RuntimeError("what is where was given, but the recipe does not ask for it: set losses.sight")
        seen = self.eyes(torch.cat([clip.pooling_rows for clip in features]), sights)
        visual_ids = torch.tensor(self.model.config.rope_layout.visual_ids, device=middle.device)
        is_visual = torch.isin(inputs.input_ids, visual_ids)
        figures = self.sight(middle[is_visual], sights)
        asked = [states[where] for states, where in zip(middle[:, :-1], is_named, strict=True)]
        cells = [states[where] for states, where in zip(middle, is_visual, strict=True)]
        figures |= self.pointing(asked, cells, sights)
        total = seen["sight"] + figures["sight"] + _POINTING_WEIGHT * (figures["pointing"] + figures["naming"])
        return total, {**figures, "eyes": seen["looks"]}

    def _place_loss(self, states: Tensor, places: Tensor) -> Tensor:
        is_known = ~places.flatten(1).isnan().any(dim=1)
        with torch.no_grad():
            wanted = box_tokens(self.model.sam2, places[is_known])
        distances = (self.model.mask_tokens(states[is_known]) - wanted) ** 2
        return distances.mean() if len(distances) else distances.sum()

    def _mask_loss(self, states: Tensor, batch: ExampleBatch) -> dict[str, Tensor]:
        tokens = self.model.mask_tokens(states)
        # SAM computes in float32 whatever the language model's type.
        with torch.autocast(states.device.type, enabled=False):
            features = self.model.sam2.encode(batch.frames.float())
            everyone = torch.arange(len(batch.owners), device=states.device)
            anchors = [AnchorPrompts(everyone, SegmentPrompt(tokens=tokens.float()))]
            tally = MaskTally(self.weights)
            for step in roll_out(self.model.sam2, features, batch.tracks, anchors):
                tally.add(step.segmentation, batch.labels[step.rows, step.step])
        return tally.means()


def _no_loss(model: nn.Module) -> Tensor:
    """A loss without effect where every sample was broken, so that all processes still take the step."""
    trained = [parameter.sum() for parameter in model.parameters() if parameter.requires_grad]
    return torch.stack(trained).sum() * 0
