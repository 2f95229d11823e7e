"""The optimiser with Muon, held against torch's own Muon and AdamW."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from unipixel.train.optimizer import MuonAdamW, is_matrix
from unipixel.train.recipe_files import load_recipe
from unipixel.train.stages import prepare
from unipixel.train.trainer import run


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
    named = list(net.named_parameters())
    return [p for n, p in named if is_matrix(n, p)], [p for n, p in named if not is_matrix(n, p)]


def test_steps_are_those_of_the_two_optimisers_taken_apart() -> None:
    together, apart = _net(), _net()
    matrices, others = _split(together)
    joined = MuonAdamW([{"params": matrices, "weight_decay": 0.1}], [{"params": others}], lr=0.01, weight_decay=0.0)
    matrices, others = _split(apart)
    assert [p.shape for p in matrices] == [(5, 6), (3, 5)]
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


def test_tables_of_embeddings_are_no_matrices() -> None:
    table = nn.Embedding(8, 4).weight
    assert not is_matrix("model.language_model.embed_tokens.weight", table)
    assert not is_matrix("lm_head.weight", table)
    assert is_matrix("layers.0.mlp.up_proj.weight", nn.Linear(4, 8).weight)
    assert not is_matrix("layers.0.mlp.up_proj.bias", nn.Linear(4, 8).bias)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, optimizer: str) -> None:
    results = []
    for name, stops in (("whole", [None]), ("killed", [2, None])):
        options = [
            f"output={tmp_path / name}", f"loop.optimizer={optimizer}", "loop.max_steps=4", "loop.batch_size=1",
            "loop.save_every=2", "data.render_size=48", "model={sizes='sizes.toml', image_size=64}",
        ]  # fmt: skip
        recipe = load_recipe("nano/boxes", options)
        for stop in stops:
            job = prepare(recipe)
            run(recipe, job.objective, job.dataset, job.collate, stop_after=stop)
        results.append(torch.cat([parameter.detach().flatten() for parameter in job.objective.parameters()]))
    torch.testing.assert_close(results[0], results[1])
