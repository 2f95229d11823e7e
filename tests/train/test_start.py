"""How a model that starts from nothing sees before its first step."""

from __future__ import annotations

from pathlib import Path

import torch
from byte_model import byte_config
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed, apply_rotary_pos_emb_vision

from unipixel.model import UniPixel
from unipixel.train.recipe_files import load_recipe
from unipixel.train.start import load_start


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


def test_memory_can_begin_as_what_is_seen(tmp_path: Path) -> None:
    recipe = load_recipe("nano/words", [f"output={tmp_path}", "model={sizes='sizes.toml', is_memory_seen=true}"])
    model, _ = load_start(recipe)
    rows = torch.randn(5, model.config.pooled_width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.msk_proj(rows), model.model.visual.merger.mlp(rows))
