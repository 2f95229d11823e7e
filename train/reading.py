"""A language model's pass over a batch, with the states and heads of layers that a training asks.

Shape letters: B samples, H heads, L tokens, D language width, d channels of a head.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unipixel.inputs import EmbeddedInputs
from unipixel.model import UniPixel


@dataclass(frozen=True)
class Reading:
    """What the layers made of a batch.

    Attributes:
        hidden: (B, L, D) before the final norm.
    """

    hidden: Tensor
    _states: dict[int, Tensor]
    _layers: Any
    _turns: tuple[Tensor, Tensor]

    def after(self, layer: int) -> Tensor:
        """Return the states (B, L, D) after a layer, those of the text itself after layer -1.

        Raises:
            KeyError: The layer was not asked for.
        """
        return self._states[layer]

    def heads(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return queries and keys (B, H, L, d) of a layer after their rotation, one head per shared key.

        Raises:
            KeyError: The layer before it was not asked for.
        """
        attention = self._layers[layer].self_attn
        given = self._layers[layer].input_layernorm(self.after(layer - 1))
        queries, keys = (
            _turned(project(given).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2), *self._turns)
            for project in (attention.q_proj, attention.k_proj)
        )
        return queries[:, :: queries.shape[1] // keys.shape[1]], keys


def read(model: UniPixel, embedded: EmbeddedInputs, *, after: Collection[int] = ()) -> Reading:
    """Run the language model.

    Args:
        model: Whose language model it is.
        embedded: A batch padded on the right, where no real token looks.
        after: Layers whose states are kept; -1 is the text itself.
    """
    decoder = model.model.language_model
    states = {-1: embedded.embeds}
    handles = [
        decoder.layers[layer].register_forward_hook(lambda _layer, _given, out, name=layer: states.update({name: out}))
        for layer in set(after) - {-1}
    ]
    try:
        hidden = model.model(embedded.embeds, embedded.position_ids)
    finally:
        for handle in handles:
            handle.remove()
    turns = decoder.rotary_emb(embedded.embeds, embedded.position_ids)
    return Reading(hidden, states, decoder.layers, turns)


def _turned(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary positions (arXiv:2104.09864) laid on (B, H, L, d), halves together as Qwen2 has them."""
    first, second = states.chunk(2, dim=-1)
    return states * cosines[:, None] + torch.cat([-second, first], dim=-1) * sines[:, None]
