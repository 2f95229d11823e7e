"""What UniPixel learns: the words of an answer, and the mask behind each `<|seg|>`.

Shape letters: B samples, L tokens, D language width, M tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unipixel.inputs import ModelInputs, VideoFeatures
from unipixel.model import UniPixel
from unipixel.tracking.segmentation import SegmentPrompt
from unipixel.train.collate import ExampleBatch
from unipixel.train.losses import LossWeights, text_loss
from unipixel.train.rollout import AnchorPrompts, roll_out
from unipixel.train.segmentation import MaskTally, object_tokens
from unipixel.train.sight import (
    MOVING_PLACES,
    OutlineHead,
    PointingHead,
    Sight,
    SightHead,
    attention_loss,
    tapped_layer,
)

_POINTING_WEIGHT = 3.0
_HEADS_FILE = "heads.safetensors"


@dataclass(frozen=True)
class _Reading:
    """States of a batch.

    Attributes:
        hidden: (B, L, D) before the final norm.
        middle: (B, L, D) those that a third of the layers still read.
        found: (B, L, D) those after the layer that reads `middle`.
        heads: Queries and keys (B, H, L, d) of some heads by layer, after their rotation.
    """

    hidden: Tensor
    middle: Tensor
    found: Tensor
    heads: dict[int, tuple[Tensor, Tensor]]


class Eyes(nn.Module):
    """What the vision transformer is asked about every cell: the looks and the outline of what is there."""

    def __init__(self, width: int) -> None:
        """Build the heads for pooling rows of a width D."""
        super().__init__()
        self.looks = SightHead(width, num_places=0)
        self.outlines = OutlineHead(width)

    def forward(self, features: Sequence[VideoFeatures], sights: Sequence[Sight]) -> dict[str, Tensor]:
        """Return the loss `seen` and, for the log, `way`, `part` and `eyes`, the share of cells named right."""
        rows = torch.cat([clip.pooling_rows for clip in features])
        looks = self.looks(rows, sights)
        outlines = self.outlines(rows, torch.cat([sight.outlines for sight in sights]))
        loss = looks["sight"] + outlines.pop("outline")
        return {"seen": loss, "eyes": looks["looks"], **outlines}


class EyesObjective(nn.Module):
    """A model's vision transformer alone: a start for one that comes from nothing."""

    def __init__(self, model: UniPixel) -> None:
        super().__init__()
        if model.config.memory_pool_order != "raster":
            raise ValueError(f"eyes need a model that pools in raster order, not {model.config.memory_pool_order}")
        self.model = model
        self.eyes = Eyes(model.config.pooled_width)

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
        self.eyes = EyesObjective(model).eyes if has_sight else None
        self.sight = SightHead(width, num_places=MOVING_PLACES) if has_sight else None
        self.held = SightHead(width, num_places=MOVING_PLACES) if has_sight else None
        self.pointing = PointingHead(width) if has_sight else None
        # The corners of the box as plain numbers, as soon as they were found: a simpler target than SAM's tokens.
        corners = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, 4))
        self.corners = corners if self.weights.place else None

    def save_heads(self, folder: Path) -> None:
        """Write the heads that are not part of the model, so that a later stage goes on with them."""
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items() if not _is_model(name)}
        if state:
            save_file(state, folder / _HEADS_FILE, metadata={"format": "pt"})

    def load_heads(self, folder: Path) -> None:
        """Take over the heads of an earlier stage where it left any that this one has."""
        if (folder / _HEADS_FILE).is_file():
            wanted = self.state_dict()
            found = load_file(folder / _HEADS_FILE)
            self.load_state_dict({name: found[name] for name in found if name in wanted}, strict=False)

    def forward(self, batch: ExampleBatch) -> dict[str, Tensor]:
        """Return `loss` and, for the log, its parts."""
        batch = batch.to(self.model.device)
        if batch.encoded is None:
            return {"loss": _no_loss(self.model)}
        inputs = batch.encoded.inputs
        features = self.model.encode_videos(inputs.videos)
        reading = self._read(inputs, features)
        hidden = reading.hidden
        figures = {"text": text_loss(hidden, batch.encoded.labels, score=self.model.logits)}
        loss = figures["text"]
        is_named = inputs.input_ids[:, 1:] == self.model.config.seg_token_id
        if batch.sights:
            sight, seen = self._sight_loss(features, reading, is_named, inputs, batch.sights)
            loss = loss + self.weights.sight * sight
            figures |= seen
        if len(batch.places):
            # The state that predicts `<|seg|>` describes its mask, not that of the token itself.
            states = hidden[:, :-1][is_named]
            if self.corners is not None:
                figures |= self._place_losses(states, self.corners(reading.found[:, :-1][is_named]), batch)
                loss = loss + self.weights.place * (figures["place"] + figures["corners"])
            if len(batch.owners):
                masks = self._mask_loss(states[batch.owners], batch)
                loss = loss + masks.pop("loss")
                figures |= masks
        return {"loss": loss, **{name: value.detach() for name, value in figures.items()}}

    def _read(self, inputs: ModelInputs, features: Sequence[VideoFeatures]) -> _Reading:
        embedded = self.model.embed(inputs, features)
        decoder = self.model.model.language_model
        tap = tapped_layer(self.model)
        asked = (tap - 2, tap) if self.sight is not None else ()
        states: dict[int, Tensor] = {}
        handles = [
            decoder.layers[layer].register_forward_hook(
                lambda _layer, _given, out, name=layer: states.update({name: out})
            )
            for layer in {tap - 1, tap, *(layer - 1 for layer in asked)}
        ]
        try:
            hidden = self.model.model(embedded.embeds, embedded.position_ids, attention_mask=embedded.attention_mask)
        finally:
            for handle in handles:
                handle.remove()
        turns = decoder.rotary_emb(embedded.embeds, embedded.position_ids) if asked else ()
        heads = {layer: _heads(decoder.layers[layer], states[layer - 1], *turns) for layer in asked}
        return _Reading(hidden, states[tap - 1], states[tap], heads)

    def _sight_loss(
        self,
        features: Sequence[VideoFeatures],
        reading: _Reading,
        is_named: Tensor,
        inputs: ModelInputs,
        sights: Sequence[Sight],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.eyes is None or self.sight is None or self.held is None or self.pointing is None:
            raise RuntimeError("what is where was given, but the recipe does not ask for it: set losses.sight")
        middle = reading.middle
        seen = self.eyes(features, sights)
        visual_ids = torch.tensor(self.model.config.rope_layout.visual_ids, device=middle.device)
        is_visual = torch.isin(inputs.input_ids, visual_ids)
        config = self.model.config
        is_held = (inputs.input_ids == config.mem_token_id) | (inputs.input_ids == config.ref_token_id)
        figures = self.sight(middle[is_visual], sights)
        asked = [states[where] for states, where in zip(middle[:, :-1], is_named, strict=True)]
        cells = [states[where] for states, where in zip(middle, is_visual, strict=True)]
        figures |= self.pointing(asked, cells, sights)
        early, late = (reading.heads[layer] for layer in sorted(reading.heads))
        asking = nn.functional.pad(is_named, (0, 1))
        # One head finds the object wherever it is seen, the others where its mask is asked for: the mean over all
        # places of an object that moves is none of them.
        everywhere, there = ((own[:, :1] for own in late), (own[:, 1:] for own in late))
        asked_for = {"asking": asking, "cells": is_visual}
        figures["attention"] = attention_loss(*everywhere, covers=[sight.covers for sight in sights], **asked_for)
        figures["anchoring"] = attention_loss(*there, covers=[sight.anchored for sight in sights], **asked_for)
        total = seen.pop("seen") + figures["sight"]
        total = total + _POINTING_WEIGHT * (
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
        return total, {**figures, **seen}

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


def _heads(layer: Any, states: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys (B, H, L, d) that a decoder layer makes of states (B, L, D), one head per shared key."""
    attention = layer.self_attn
    given = layer.input_layernorm(states)
    queries, keys = (
        _turned(project(given).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2), cosines, sines)
        for project in (attention.q_proj, attention.k_proj)
    )
    return queries[:, :: queries.shape[1] // keys.shape[1]], keys


def _turned(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions (arXiv:2104.09864) laid on (B, H, L, d), halves together as Qwen2 has them."""
    first, second = states.chunk(2, dim=-1)
    return states * cosines[:, None] + torch.cat([-second, first], dim=-1) * sines[:, None]


def _is_model(name: str) -> bool:
    return name.startswith("model.")
