"""Initial models: settings of memory, and the initialisation of attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.byte_model import byte_config
from helpers.dense_training import dense_checkpoint, dense_recipe
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed, apply_rotary_pos_emb_vision

from unipixel.model.unipixel import UniPixel
from unipixel.train.initialization import init_identity_memory_attention, load_initial_model
from unipixel.train.recipe_files import load_any_recipe


def test_vision_heads_attend_to_neighbouring_patches_at_first(tmp_path: Path) -> None:
    recipe = load_any_recipe("nano/segmenter", ["model={sizes='sizes.toml', tokenizer='unipixel-nano'}"])
    visual = load_initial_model(recipe)[0].model.visual
    side, centre = 18, (9, 7)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = torch.cat([axis.reshape(-1, 1) * visual.rotary_pos_emb.inv_freq for axis in (rows, columns)], dim=1)
    angles = torch.cat([angles, angles], dim=1)
    attended = []
    for block in visual.blocks[:2]:
        zeros = torch.zeros(side**2, block.attn.qkv.in_features)
        queries, keys, _ = block.attn.qkv(zeros).view(side**2, 3, block.attn.num_heads, -1).unbind(dim=1)
        queries, keys = apply_rotary_pos_emb_vision(queries, keys, angles.cos(), angles.sin())
        scores = torch.einsum("qhd,khd->hqk", queries, keys) * queries.shape[-1] ** -0.5
        weight, best = scores[:, centre[0] * side + centre[1]].softmax(dim=-1).max(dim=-1)
        assert weight.min() > 0.3
        attended += [(patch // side - centre[0], patch % side - centre[1]) for patch in best.tolist()]
    assert sorted(attended) == sorted((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column)


def test_patches_are_embedded_as_transformers_does_it() -> None:
    embed = UniPixel(byte_config()).model.visual.patch_embed
    patches = torch.randn(6, embed.proj.weight[0].numel(), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(embed(patches), Qwen2_5_VisionPatchEmbed.forward(embed, patches))


def test_memory_attention_attends_to_the_same_position_at_first() -> None:
    attention = RoPEAttention(
        embedding_dim=64, num_heads=2, downsample_rate=1, dropout=0.0, kv_in_dim=16, feat_sizes=(9, 9),
        rope_k_repeat=True,
    )  # fmt: skip
    for projection in (attention.q_proj, attention.k_proj):
        nn.init.zeros_(projection.bias)
    init_identity_memory_attention(attention)
    # Only the biases, so that attention depends on positions alone.
    query, key = (projection.bias.view(1, 1, 2, 32).expand(1, 81, 2, 32).transpose(1, 2)
                  for projection in (attention.q_proj, attention.k_proj))  # fmt: skip
    query, key = apply_rotary_enc(query, key, freqs_cis=attention.freqs_cis)
    weights = (query @ key.mT * 32**-0.5).softmax(dim=-1)
    assert torch.equal(weights.argmax(dim=-1), torch.arange(81).expand(1, 2, 81))
    positions = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij"), dim=-1).view(81, 2)
    distances = torch.cdist(positions, positions)
    assert (weights * distances).sum(dim=-1).mean() < 3.5 < distances.mean()


def test_memory_settings_of_a_recipe_reach_a_loaded_model(tmp_path: Path) -> None:
    start = dense_checkpoint(tmp_path / "start")
    settings = ["model.memory_pool_weighting=coverage", "model.memory_position_embedding=true"]
    model, processor = load_initial_model(
        dense_recipe(start, tmp_path / "run", *settings, "model.max_tokens_per_frame=24")
    )
    assert (model.config.memory_pool_weighting, model.config.memory_position_embedding) == ("coverage", True)
    assert processor.budget.max_tokens == 24
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    again, _ = load_initial_model(dense_recipe(tmp_path / "saved", tmp_path / "again"))
    assert again.config.memory_pool_weighting == "coverage"
    with pytest.raises(ValueError, match="memory_position_embedding is false"):
        load_initial_model(
            dense_recipe(tmp_path / "saved", tmp_path / "again", "model.memory_position_embedding=false")
        )


def test_memory_settings_of_a_recipe_replace_those_of_the_sizes() -> None:
    given = "model={sizes='sizes.toml', tokenizer='unipixel-nano', memory_position_embedding=false}"
    model, _ = load_initial_model(load_any_recipe("nano/pretrain", [given]))
    assert (model.config.memory_pool_weighting, model.config.memory_position_embedding) == ("coverage", False)
