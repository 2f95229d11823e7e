"""Muon for the matrices of transformer blocks, all matrices of one shape in one step.

AdamW moves every entry of a matrix by about the learning rate. Where gradients agree for a few hundred steps, that
adds up along few directions. Muon (https://kellerjordan.github.io/posts/muon/) moves all directions of a matrix by
the same small amount. `torch.optim.Muon` takes matrices one by one, about ten launches each on a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_BLOCKS = re.compile(
    r"\bmodel\.(language_model\.layers|visual\.blocks|layers)\.\d+\."
    r"|^segmenter\.(image_encoder\.trunk\.blocks|memory_attention\.layers|sam_mask_decoder\.transformer\.layers)\.\d+\."
)
# Coefficients of the Newton-Schulz iteration, its steps, and the scale that gives steps the size of AdamW's
# (arXiv:2502.16982): the defaults of torch.optim.Muon with adjust_lr_fn="match_rms_adamw".
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
_NUM_ITERATIONS, _RMS_SCALE = 5, 0.2
_EPSILON = 1e-7
ADAMW_BETAS = (0.9, 0.98)
"""Momenta of AdamW beside Muon."""


class BatchedMuon:
    """`torch.optim.Muon` with steps of AdamW's size, over stacks of matrices of one shape."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.01, momentum: float = 0.95
    ) -> None:
        """Prepare to step.

        Args:
            matrices: Parameters of two dimensions.
            lr: Learning rate; `param_groups[0]["lr"]` changes it.
            weight_decay: Decay of the weights, times the learning rate.
            momentum: Weight of earlier gradients.

        Raises:
            ValueError: A parameter is no matrix.
        """
        stacks: dict[torch.Size, list[Tensor]] = {}
        for matrix in matrices:
            if matrix.ndim != 2:
                raise ValueError(f"Muon moves matrices, got a parameter of the shape {tuple(matrix.shape)}")
            stacks.setdefault(matrix.shape, []).append(matrix)
        self._stacks = list(stacks.values())
        self._momenta = [torch.zeros(len(own), *own[0].shape, device=own[0].device) for own in self._stacks]
        self._weight_decay, self._momentum = weight_decay, momentum
        self.param_groups: list[dict[str, Any]] = [{"lr": lr}]

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for own in self._stacks:
            for matrix in own:
                matrix.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every matrix; one without a gradient is moved by its momentum."""
        rate = self.param_groups[0]["lr"]
        for own, momenta in zip(self._stacks, self._momenta, strict=True):
            gradients = torch.stack([torch.zeros_like(m) if m.grad is None else m.grad for m in own]).float()
            momenta.lerp_(gradients, 1 - self._momentum)
            updates = _orthogonalised(gradients.lerp(momenta, self._momentum))
            scale = _RMS_SCALE * max(own[0].shape) ** 0.5
            torch._foreach_mul_(own, 1 - rate * self._weight_decay)
            torch._foreach_add_(own, list(updates.float().unbind(0)), alpha=-rate * scale)

    def reset(self) -> None:
        """Forget earlier gradients."""
        for momenta in self._momenta:
            momenta.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return the momenta."""
        return {"momenta": list(self._momenta)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over momenta.

        Raises:
            ValueError: They belong to other matrices.
        """
        given = state["momenta"]
        if [own.shape for own in given] != [own.shape for own in self._momenta]:
            raise ValueError("the momenta belong to a model of other sizes")
        for momenta, own in zip(self._momenta, given, strict=True):
            momenta.copy_(own)


class MuonAdamW(torch.optim.Optimizer):
    """`BatchedMuon` for some matrices and AdamW for all other parameters, as one optimiser with one schedule."""

    def __init__(
        self, matrices: Sequence[nn.Parameter], others: Iterable[dict[str, Any]], *, lr: float, weight_decay: float
    ) -> None:
        """Prepare to step.

        Args:
            matrices: Parameters of two dimensions, moved by Muon.
            others: Parameter groups of AdamW.
            lr: Learning rate of the matrices, and of groups without their own.
            weight_decay: Decay of the matrices.

        Raises:
            ValueError: A matrix has not two dimensions.
        """
        muon = BatchedMuon(matrices, lr=lr, weight_decay=weight_decay)
        adamw = torch.optim.AdamW(others, lr=lr, betas=ADAMW_BETAS)
        super().__init__([{"params": list(matrices), **muon.param_groups[0]}, *adamw.param_groups], {"lr": lr})
        self._muon, self._adamw = muon, adamw
        self._share_groups()

    def _share_groups(self) -> None:
        # A schedule changes the groups of this optimiser, which the two parts read.
        self._muon.param_groups = self.param_groups[:1]
        self.param_groups[1:] = self._adamw.param_groups

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move all parameters."""
        loss = None if closure is None else closure()
        self._muon.step()
        self._adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both parts and the learning rate of the matrices."""
        rates = {name: value for name, value in self.param_groups[0].items() if name != "params"}
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict(), "matrices": rates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state.

        Raises:
            ValueError: It belongs to other parameters.
        """
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self.param_groups[0].update(state_dict["matrices"])
        self._share_groups()


def _orthogonalised(updates: Tensor) -> Tensor:
    """Bring the singular values of matrices (n, rows, columns) near 1, in bfloat16 as `torch.optim.Muon` does."""
    matrices = updates.bfloat16()
    is_tall = matrices.shape[1] > matrices.shape[2]
    if is_tall:
        matrices = matrices.mT
    matrices = matrices / matrices.flatten(1).norm(dim=1).clamp(min=_EPSILON)[:, None, None]
    for _ in range(_NUM_ITERATIONS):
        gram = matrices @ matrices.mT
        powers = torch.baddbmm(gram, gram, gram, beta=_CUBIC, alpha=_QUINTIC)
        matrices = torch.baddbmm(matrices, powers, matrices, beta=_LINEAR)
    return matrices.mT if is_tall else matrices


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix within the blocks of a transformer.

    Heads are left to AdamW: with Muon, a step of equal size in each of their few directions changes their output by
    several per cent, so that they do not converge.
    """
    return parameter.ndim == 2 and _BLOCKS.search(name) is not None
