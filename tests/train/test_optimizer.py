"""The batched optimiser against torch's own Muon."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unipixel.model.unipixel import UniPixel
from unipixel.train.optimizer import ADAMW_BETAS, BatchedMuon, MuonAdamW, is_matrix

SHAPES = [(6, 5), (5, 6), (6, 5), (4, 4), (16, 3), (6, 5)]


def matrices(seed: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def set_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    for parameter, drawn in zip(parameters, matrices(seed), strict=True):
        parameter.grad = drawn.detach().clone()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_batched_steps_equal_those_of_torchs_muon() -> None:
    batched, single = matrices(0), matrices(0)
    ours = BatchedMuon(batched, lr=0.02, weight_decay=0.1)
    theirs = torch.optim.Muon(single, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(1, 5):
        set_gradients(batched, step)
        set_gradients(single, step)
        ours.step()
        theirs.step()
    for own, other in zip(batched, single, strict=True):
        # Products in bfloat16 may be summed in another order.
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-3)


def test_state_restores_the_momenta() -> None:
    whole, resumed = matrices(0), matrices(0)
    first, second = BatchedMuon(whole, lr=0.02), BatchedMuon(resumed, lr=0.02)
    set_gradients(whole, 1)
    first.step()
    for own, other in zip(resumed, whole, strict=True):
        own.data.copy_(other.data)
    second.load_state_dict(first.state_dict())
    for optimizer, parameters in ((first, whole), (second, resumed)):
        set_gradients(parameters, 2)
        optimizer.step()
    for own, other in zip(resumed, whole, strict=True):
        assert torch.equal(own, other)


def test_state_of_other_matrices_is_refused() -> None:
    other = BatchedMuon(matrices(0)[:2], lr=0.02)
    with pytest.raises(ValueError, match="other sizes"):
        BatchedMuon(matrices(0), lr=0.02).load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"matrices.*\(3,\)"):
        BatchedMuon([nn.Parameter(torch.zeros(3))], lr=0.02)


def test_muon_moves_the_blocks_of_both_transformers_and_nothing_else(model: UniPixel) -> None:
    chosen = {name for name, parameter in model.named_parameters() if is_matrix(name, parameter)}
    assert {".".join(name.split(".")[-3:-1]) for name in chosen} == {
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
        "mlp.down_proj", "attn.qkv", "attn.proj",
    }  # fmt: skip
    assert not any("sam2" in name or "embed" in name for name in chosen)


def two_parts(seed: int) -> tuple[MuonAdamW, list[nn.Parameter], nn.Parameter]:
    own, bias = matrices(seed), nn.Parameter(torch.ones(3))
    groups = [{"params": [bias], "lr": 0.01, "weight_decay": 0.0}]
    return MuonAdamW(own, groups, lr=0.02, weight_decay=0.1), own, bias


def test_one_optimiser_steps_both_parts_at_the_rates_of_a_schedule_and_resumes() -> None:
    joint, own, bias = two_parts(0)
    others, other_bias = matrices(0), nn.Parameter(torch.ones(3))
    muon = BatchedMuon(others, lr=0.02, weight_decay=0.1)
    adamw = torch.optim.AdamW([other_bias], lr=0.01, weight_decay=0.0, betas=ADAMW_BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(joint, lambda step: 0.5**step)
    for step in range(4):
        for group in (*muon.param_groups, *adamw.param_groups):
            group["lr"] = (0.02 if group is muon.param_groups[0] else 0.01) * 0.5**step
        for parameters, vector in ((own, bias), (others, other_bias)):
            set_gradients(parameters, step)
            vector.grad = torch.full((3,), float(step + 1))
        joint.step()
        schedule.step()
        muon.step()
        adamw.step()
        if step == 1:
            state, resumed = joint.state_dict(), two_parts(0)
            resumed[0].load_state_dict(state)
            with torch.no_grad():
                for new, old in zip((*resumed[1], resumed[2]), (*own, bias), strict=True):
                    new.copy_(old)
            joint, own, bias = resumed
            schedule = torch.optim.lr_scheduler.LambdaLR(joint, lambda step: 0.5**step, last_epoch=1)
    for one, two in zip((*own, bias), (*others, other_bias), strict=True):
        assert torch.equal(one, two)
