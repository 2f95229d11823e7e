"""What UniPixel learns: the words of an answer, and the mask behind each `<|seg|>`.

Shape letters: B samples, L tokens, D language width, M tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from unipixel.inputs import ModelInputs, VideoFeatures, VideoInput
from unipixel.model import UniPixel
from unipixel.tracking.segmentation import SegmentPrompt
from unipixel.train.collate import ExampleBatch
from unipixel.train.links import OwnerReader, asked_layers, link_losses
from unipixel.train.losses import LossWeights, text_loss
from unipixel.train.reading import Reading, read
from unipixel.train.rollout import AnchorPrompts, roll_out
from unipixel.train.segmentation import MaskTally, object_tokens
from unipixel.train.sight import MOVING_PLACES, Sight
from unipixel.train.sight_heads import (
    OutlineHead,
    PointingHead,
    SightHead,
    asked_states,
    attention_loss,
    tapped_layer,
)

_POINTING_WEIGHT = 3.0


class Eyes(nn.Module):
    """What the vision transformer is asked about every cell: the looks and the outline of what is there."""

    def __init__(self, row_width: int, token_width: int) -> None:
        """Build the heads for pooling rows and visual tokens of these widths."""
        super().__init__()
        self.looks = SightHead(row_width, num_places=0)
        self.outlines = OutlineHead(row_width)
        # A language model reads its tokens with matrices alone.
        self.tokens = SightHead(token_width, num_places=0, hidden=None)

    def forward(self, features: Sequence[VideoFeatures], sights: Sequence[Sight]) -> dict[str, Tensor]:
        """Return the loss `seen` and, for the log, `way`, `part`, and the shares of cells named right.

        These are `eyes` from what the vision transformer makes of a cell, `tokens` from what it passes on.
        """
        rows = torch.cat([clip.pooling_rows for clip in features])
        looks = self.looks(rows, sights)
        outlines = self.outlines(rows, torch.cat([sight.outlines for sight in sights]))
        tokens = self.tokens(torch.cat([clip.tokens for clip in features]), sights)
        loss = looks["sight"] + outlines.pop("outline") + tokens["sight"]
        return {"seen": loss, "eyes": looks["looks"], "tokens": tokens["looks"], **outlines}


class EyesObjective(nn.Module):
    """A model's vision transformer alone: a start for one that comes from nothing."""

    def __init__(self, model: UniPixel) -> None:
        super().__init__()
        if model.config.memory_pool_order != "raster":
            raise ValueError(f"eyes need a model that pools in raster order, not {model.config.memory_pool_order}")
        self.model = model
        self.eyes = Eyes(model.config.pooled_width, model.config.width)

    def forward(self, batch: ExampleBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts."""
        batch = batch.to(self.model.device)
        if batch.encoded is None:
            return {"loss": _no_loss(self.model)}
        figures = self.eyes(self.model.encode_videos(batch.encoded.inputs.videos), batch.sights)
        return {"loss": figures.pop("seen"), **figures}


class UniPixelObjective(nn.Module):
    """A model with the loss of the paper: text plus masks (section 3.4)."""

    def __init__(self, model: UniPixel, *, weights: LossWeights | None = None) -> None:
        super().__init__()
        self.model = model
        self.weights = weights or LossWeights()
        has_sight = self.weights.sight > 0
        width = model.config.width
        self.sight = SightHead(width, num_places=MOVING_PLACES) if has_sight else None
        self.held = SightHead(width, num_places=MOVING_PLACES) if has_sight else None
        self.pointing = PointingHead(width) if has_sight else None
        self.owners = OwnerReader(width) if self.weights.links else None
        # The corners of the box as plain numbers, as soon as they were found: a simpler target than SAM's tokens.
        corners = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, 4))
        self.corners = corners if self.weights.place else None

    def forward(self, batch: ExampleBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts."""
        batch = batch.to(self.model.device)
        if batch.encoded is None:
            return {"loss": _no_loss(self.model)}
        inputs = batch.encoded.inputs
        features = self._see(inputs.videos)
        reading = self._read(inputs, features, has_links=bool(batch.links))
        hidden = reading.hidden
        figures = {"text": text_loss(hidden, batch.encoded.labels, score=self.model.logits)}
        loss = self.weights.text * figures["text"]
        is_named = inputs.input_ids[:, 1:] == self.model.config.seg_token_id
        if batch.sights:
            sight, seen = self._sight_loss(reading, is_named, inputs, batch.encoded.labels, batch.sights)
            loss = loss + self.weights.sight * sight
            figures |= seen
        if batch.links:
            if self.owners is None:
                raise RuntimeError("links were given, but the recipe does not ask for them: set losses.links")
            links = link_losses(self.model, reading, batch.links)
            links["carried"] = self.owners(self.model, reading, inputs.input_ids, batch.links)
            loss = loss + self.weights.links * torch.stack(list(links.values())).sum()
            figures |= links
        if len(batch.places):
            # The state that predicts `<|seg|>` describes its mask, not that of the token itself.
            states = hidden[:, :-1][is_named]
            if self.corners is not None:
                figures |= self._place_losses(
                    states, self.corners(reading.after(tapped_layer(self.model))[:, :-1][is_named]), batch
                )
                loss = loss + self.weights.place * (figures["place"] + figures["corners"])
            if len(batch.owners):
                masks = self._mask_loss(states[batch.owners], batch)
                loss = loss + masks.pop("loss")
                figures |= masks
        return {"loss": loss, **{name: value.detach() for name, value in figures.items()}}

    def _see(self, videos: Sequence[VideoInput | VideoFeatures]) -> tuple[VideoFeatures, ...]:
        """Features of clips; those seen before come without tokens, which the merger makes of their rows."""
        fresh = iter(self.model.encode_videos([video for video in videos if isinstance(video, VideoInput)]))
        return tuple(next(fresh) if isinstance(video, VideoInput) else self._merged(video) for video in videos)

    def _merged(self, video: VideoFeatures) -> VideoFeatures:
        rows = video.pooling_rows.float()
        return replace(video, tokens=self.model.model.visual.merger.mlp(rows), pooling_rows=rows)

    def _read(self, inputs: ModelInputs, features: Sequence[VideoFeatures], *, has_links: bool) -> Reading:
        tap = tapped_layer(self.model)
        after = {tap - 1, tap}
        if self.sight is not None:
            after.add(tap - 3)
        if has_links:
            after |= asked_layers(self.model)
        return read(self.model, self.model.embed(inputs, features), after=after)

    def _sight_loss(
        self,
        reading: Reading,
        is_named: Tensor,
        inputs: ModelInputs,
        labels: Tensor,
        sights: Sequence[Sight],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.sight is None or self.held is None or self.pointing is None:
            raise RuntimeError("what is where was given, but the recipe does not ask for it: set losses.sight")
        tap = tapped_layer(self.model)
        middle = reading.after(tap - 1)
        visual_ids = torch.tensor(self.model.config.rope_layout.visual_ids, device=middle.device)
        is_visual = torch.isin(inputs.input_ids, visual_ids)
        config = self.model.config
        is_held = (inputs.input_ids == config.mem_token_id) | (inputs.input_ids == config.ref_token_id)
        figures = self.sight(middle[is_visual], sights)
        asked = [states[where] for states, where in zip(middle[:, :-1], is_named, strict=True)]
        cells = [states[where] for states, where in zip(middle, is_visual, strict=True)]
        figures |= self.pointing(asked, cells, sights)
        early, late = reading.heads(tap - 2), reading.heads(tap)
        absent = [sight.absent for sight in sights]
        asking, meant = asked_states(labels, nn.functional.pad(is_named, (0, 1)), absent)
        # One head finds the object wherever it is seen, the others where its mask is asked for: the mean over all
        # places of an object that moves is none of them.
        everywhere, there = ((own[:, :1] for own in late), (own[:, 1:] for own in late))
        for name, heads, covers in (
            ("attention", everywhere, [sight.covers for sight in sights]),
            ("anchoring", there, [sight.anchored for sight in sights]),
        ):
            figures[name] = attention_loss(*heads, asking=asking, cells=is_visual, covers=covers, meant=meant)
        total = figures["sight"] + _POINTING_WEIGHT * (
            figures["pointing"] + figures["naming"] + figures["attention"] + figures["anchoring"]
        )
        if is_held.any():
            held = [sight.held for sight in sights]
            figures["held_attention"] = attention_loss(
                *early, asking=is_held, cells=is_visual, covers=[own.covers for own in held]
            )
            known = self.held(middle[is_held], held)
            figures |= {"held": known["sight"], "held_looks": known["looks"], "held_places": known["places"]}
            total = total + figures["held"] + figures["held_attention"]
        return total, figures

    def _place_losses(self, states: Tensor, corners: Tensor, batch: ExampleBatch) -> dict[str, Tensor]:
        looks = torch.cat([sight.named for sight in batch.sights]).to(states.device) if batch.sights else None
        is_known = ~batch.places.flatten(1).isnan().any(dim=1)
        states, places = states[is_known], batch.places[is_known]
        looks = torch.zeros(len(places), 1, dtype=torch.long) if looks is None else looks[is_known]
        with torch.no_grad():
            wanted = object_tokens(self.model.sam2, places[:, None], looks)
        shares = places.flatten(1) / self.model.config.segmenter.image_size
        parts = {
            "place": (self.model.mask_tokens(states) - wanted) ** 2,
            "corners": (corners[is_known] - shares).abs(),
        }
        return {name: part.mean() if len(part) else part.sum() for name, part in parts.items()}

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
