"""The optimiser with Muon, held against torch's own Muon and AdamW."""

from __future__ import annotations

import torch
from helpers.byte_model import byte_config
from torch import nn

from unipixel.model.unipixel import UniPixel
from unipixel.train.optimizer import MuonAdamW, is_matrix


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))


def _step(net: nn.Module, optimizers: list[torch.optim.Optimizer], seed: int) -> None:
    inputs = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
    net(inputs).square().mean().backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


def _split(net: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    return [p for p in net.parameters() if p.ndim == 2], [p for p in net.parameters() if p.ndim == 1]


def test_steps_are_those_of_the_two_optimisers_taken_apart() -> None:
    together, apart = _net(), _net()
    matrices, others = _split(together)
    joined = MuonAdamW([{"params": matrices, "weight_decay": 0.1}], [{"params": others}], lr=0.01, weight_decay=0.0)
    matrices, others = _split(apart)
    single = [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.01, weight_decay=0.0),
    ]
    for seed in range(3):
        _step(together, [joined], seed)
        _step(apart, single, seed)
    for own, other in zip(together.parameters(), apart.parameters(), strict=True):
        assert torch.equal(own, other)


def test_schedulers_reach_both() -> None:
    net = _net()
    matrices, others = _split(net)
    optimizer = MuonAdamW([{"params": matrices}], [{"params": others}], lr=0.01)
    before = [parameter.clone() for parameter in net.parameters()]
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 0.0)
    _step(net, [optimizer], 0)
    assert all(torch.equal(own, old) for own, old in zip(net.parameters(), before, strict=True))


def test_muon_moves_the_blocks_of_both_transformers_and_nothing_else() -> None:
    model = UniPixel(byte_config())
    chosen = {name for name, parameter in model.named_parameters() if is_matrix(name, parameter)}
    assert {".".join(name.split(".")[-3:-1]) for name in chosen} == {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
        "mlp.down_proj", "attn.qkv", "attn.proj",
    }  # fmt: skip
    assert not any("sam2" in name or "embed" in name for name in chosen)
