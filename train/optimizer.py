"""Muon for the matrices of transformer blocks, AdamW for everything else, behind one optimiser's interface.

AdamW moves every entry of a matrix by about the learning rate. Where gradients agree for a few hundred steps, that
adds up along few directions: in a small language model from nothing the states between layers grew from 3 to 700,
and what one attention head had found was lost in them. Muon (https://kellerjordan.github.io/posts/muon/) moves
all directions of a matrix by the same small amount; with it, and with layers that add less at the start, they stayed
below 120. The two were not tried apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_BLOCKS = re.compile(r"\bmodel\.(language_model\.layers|visual\.blocks)\.\d+\.")


class MuonAdamW(torch.optim.Optimizer):
    """Two optimisers that step together; schedulers see the groups of both."""

    def __init__(
        self, matrices: list[dict[str, Any]], others: list[dict[str, Any]], *, lr: float, **options: Any
    ) -> None:
        """Build both.

        Args:
            matrices: Groups of parameters for Muon, with their options.
            others: Groups for AdamW.
            lr: Learning rate of groups that name none. One rate serves both: Muon's steps are scaled to the size
                of AdamW's (arXiv:2502.16982).
            **options: As for AdamW.

        Raises:
            RuntimeError: This torch has no Muon.
        """
        if not hasattr(torch.optim, "Muon"):
            raise RuntimeError(f"the optimizer muon needs torch 2.9 or later, this is {torch.__version__}")
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"))
        if others:
            self._parts.append(torch.optim.AdamW(others, lr=lr, **options))
        super().__init__(self._groups(), {})
        # The parts' own dictionaries: a scheduler's new rate must reach them.
        self.param_groups = self._groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step with each."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the states of both."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = self._groups()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts for group in part.param_groups]


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix within the blocks of a transformer.

    Heads are left to AdamW: a step of equal size in each of their few directions moves what they say by several
    per cent, and they never come to rest.
    """
    return parameter.ndim == 2 and _BLOCKS.search(name) is not None
