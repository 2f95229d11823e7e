"""How a model that starts from nothing sees before its first step, and what it costs to compute with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from byte_model import byte_config
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed, apply_rotary_pos_emb_vision

from unipixel.inputs import VideoInput
from unipixel.model import UniPixel
from unipixel.train.precision import attend_in_float32
from unipixel.train.recipe_files import load_recipe
from unipixel.train.start import load_start


@contextmanager
def types_of_attention() -> Iterator[set[torch.dtype]]:
    """What PyTorch's fused attention is given."""
    seen = set()
    fused = nn.functional.scaled_dot_product_attention

    def watched(query: Tensor, *given: Any, **options: Any) -> Tensor:
        seen.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype)
        return fused(query, *given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "scaled_dot_product_attention", watched)
        yield seen


def test_heads_of_the_vision_transformer_begin_with_the_patches_around(tmp_path: Path) -> None:
    recipe = load_recipe("nano/words", [f"output={tmp_path}", "model={sizes='sizes.toml'}"])
    visual = load_start(recipe)[0].model.visual
    side, place = 18, (9, 7)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = torch.cat([axis.reshape(-1, 1) * visual.rotary_pos_emb.inv_freq for axis in (rows, columns)], dim=1)
    angles = torch.cat([angles, angles], dim=1)
    met = []
    for block in visual.blocks[:2]:
        nothing = torch.zeros(side**2, block.attn.qkv.in_features)
        queries, keys, _ = block.attn.qkv(nothing).view(side**2, 3, block.attn.num_heads, -1).unbind(dim=1)
        queries, keys = apply_rotary_pos_emb_vision(queries, keys, angles.cos(), angles.sin())
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * queries.shape[-1] ** -0.5
        share, best = scores[:, place[0] * side + place[1]].softmax(dim=-1).max(dim=-1)
        assert share.min() > 0.3
        met += [(patch // side - place[0], patch % side - place[1]) for patch in best.tolist()]
    assert sorted(met) == sorted((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column)


def test_patches_are_embedded_as_transformers_does_it() -> None:
    embed = UniPixel(byte_config()).model.visual.patch_embed
    patches = torch.randn(6, embed.proj.weight[0].numel(), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(embed(patches), Qwen2_5_VisionPatchEmbed.forward(embed, patches))


def test_attention_in_float32_is_as_exact_as_its_inputs() -> None:
    torch.manual_seed(0)
    model = UniPixel(byte_config()).eval()
    vision = model.config.qwen.vision_config
    patches = torch.randn(4 * 4, 3 * vision.temporal_patch_size * vision.patch_size**2)
    clip = VideoInput(patches, (1, 4, 4))
    with torch.no_grad():
        exact = model.encode_videos([clip])[0].tokens
        attend_in_float32(model)
        assert torch.equal(model.encode_videos([clip])[0].tokens, exact)
        with torch.autocast("cpu", torch.bfloat16), types_of_attention() as seen:
            rough = model.encode_videos([clip])[0].tokens
    assert seen == {torch.float32}
    assert (rough - exact).abs().max() == pytest.approx(0, abs=0.05 * float(exact.abs().max()))
