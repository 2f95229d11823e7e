"""The loss of the dense pre-training: text, mask tokens and auxiliary heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unipixel.train.nano.auxiliary_heads import AuxiliaryHeads
from unipixel.train.nano.dense_batch import DenseBatch
from unipixel.train.nano.dense_model import DenseModel, DenseStates
from unipixel.train.nano.dense_targets import SIZE_POSITIONS
from unipixel.train.nano.loop.training_loop import LoopObjective
from unipixel.train.nano.pretraining_recipe import PretrainingLossWeights

_MAIN_PARTS = ("text", "mask_tokens")


class PretrainingObjective(LoopObjective):
    """A model with the loss of its pre-training."""

    def __init__(self, dense: DenseModel, *, weights: PretrainingLossWeights) -> None:
        """Add the heads to a model.

        Args:
            dense: The model.
            weights: Weights of the parts of the loss.
        """
        super().__init__()
        config = dense.model.config
        self.dense = dense
        self.heads = AuxiliaryHeads(width=config.width, pooled_width=config.pooled_width)
        self.weights = weights

    def compile_blocks(self) -> None:
        """Compile the layers of both transformers."""
        self.dense.compile_blocks()

    def forward(self, batch: DenseBatch, *, progress: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and its parts for the log.

        Args:
            batch: From a `BatchFeed`.
            progress: Fraction of the run that is over; the weights of auxiliary heads fall with it.
        """
        states = self.dense(batch)
        # States (B, N, D) of visual tokens in the middle of the language model.
        cells = states.middle[self.dense.is_visual(batch.input_ids)].unflatten(0, (len(batch.input_ids), -1))
        figures = {
            **self._text(states, batch),
            **self._token_targets(states, cells, batch),
            **self._masks(states, cells, batch),
        }
        accuracy = figures.pop("accuracy")
        help_left = 1 - (1 - self.weights.final_auxiliary_fraction) * progress
        loss = torch.stack([
            getattr(self.weights, name) * (1.0 if name in _MAIN_PARTS else help_left) * value
            for name, value in figures.items()
        ]).sum()  # fmt: skip
        return loss, {name: value.detach() for name, value in {**figures, "accuracy": accuracy}.items()}

    def _text(self, states: DenseStates, batch: DenseBatch) -> dict[str, Tensor]:
        is_supervised = batch.is_supervised[:, 1:]
        following = batch.input_ids[:, 1:][is_supervised]
        logits = self.dense.model.logits(states.hidden[:, :-1][is_supervised]).float()
        accuracy = (logits.argmax(dim=-1) == following).float().mean()
        return {"text": F.cross_entropy(logits, following), "accuracy": accuracy}

    def _token_targets(self, states: DenseStates, cells: Tensor, batch: DenseBatch) -> dict[str, Tensor]:
        heads, config = self.heads, self.dense.model.config
        figures = {
            "vision": heads.vision(states.pooling_rows, batch.attributes, batch.positions[..., SIZE_POSITIONS]),
            "visual_tokens": heads.visual_tokens(cells, batch.attributes, batch.positions),
        }
        if len(batch.reference_attributes):
            ids = batch.input_ids
            is_reference = (ids == config.mem_token_id) | (ids == config.ref_token_id)
            figures["memory"] = heads.memory(
                states.middle[is_reference], batch.reference_attributes, batch.reference_positions
            )
        return figures

    def _masks(self, states: DenseStates, cells: Tensor, batch: DenseBatch) -> dict[str, Tensor]:
        if not len(batch.mask_rows):
            return {}
        model = self.dense.model
        # The state that predicts `<|seg|>` describes its mask, not that of the token itself.
        is_next = batch.input_ids[:, 1:] == model.config.seg_token_id
        hidden, middle = (own[:, :-1][is_next] for own in (states.hidden, states.middle))
        return self.heads.masks(model, hidden, middle, cells, batch)
