"""How a model that starts from nothing sees before its first step, and what it costs to compute with it."""

from __future__ import annotations

from pathlib import Path

import torch
from helpers.byte_model import byte_config
from helpers.tiny_training import save_training_checkpoint, tiny_recipe
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed, apply_rotary_pos_emb_vision

from unipixel.model.unipixel import UniPixel
from unipixel.train import trainer
from unipixel.train.build import prepare
from unipixel.train.initialization import init_identity_memory_attention, load_initial_model
from unipixel.train.objective import UniPixelObjective
from unipixel.train.precision import Float32Attention
from unipixel.train.recipe_files import load_recipe


def test_heads_of_the_vision_transformer_begin_with_the_patches_around(tmp_path: Path) -> None:
    recipe = load_recipe("nano/segmenter", ["model={sizes='sizes.toml', tokenizer='unipixel-nano'}"])
    visual = load_initial_model(recipe)[0].model.visual
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


def test_attention_is_exact_while_products_are_rounded() -> None:
    query, key, value = torch.randn(3, 1, 2, 40, 8, generator=torch.Generator().manual_seed(0)).unbind()
    attend = nn.functional.scaled_dot_product_attention
    exact = attend(query, key, value)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attend(query, key, value)
        with Float32Attention():
            seen = attend(query, key, value)
            product = query @ key.mT
    assert rounded.dtype == product.dtype == torch.bfloat16
    assert torch.equal(seen, exact)


def test_training_in_bfloat16_attends_in_float32(tmp_path: Path) -> None:
    start = save_training_checkpoint(tmp_path / "start")
    recipe = tiny_recipe("stage2", start, tmp_path / "run", "training.precision=bfloat16",
                         "data.tasks={'image:segment/attribute'=1.0}")  # fmt: skip
    job = prepare(recipe)
    kinds = set()
    assert isinstance(job.objective, UniPixelObjective)
    layer = job.objective.model.model.language_model.layers[0].self_attn

    def watch(_module: nn.Module, given: tuple[Tensor, ...]) -> None:
        # What the projection after attention is given is what attention returned.
        kinds.add(given[0].dtype)

    handle = layer.o_proj.register_forward_pre_hook(watch)
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    handle.remove()
    assert kinds == {torch.float32}


def test_memories_are_read_at_first_where_the_object_is_now() -> None:
    attention = RoPEAttention(
        embedding_dim=64, num_heads=2, downsample_rate=1, dropout=0.0, kv_in_dim=16, feat_sizes=(9, 9),
        rope_k_repeat=True,
    )  # fmt: skip
    for projection in (attention.q_proj, attention.k_proj):
        nn.init.zeros_(projection.bias)
    init_identity_memory_attention(attention)
    # No value of any token: what is left is where it is.
    query, key = (projection.bias.view(1, 1, 2, 32).expand(1, 81, 2, 32).transpose(1, 2)
                  for projection in (attention.q_proj, attention.k_proj))  # fmt: skip
    query, key = apply_rotary_enc(query, key, freqs_cis=attention.freqs_cis)
    shares = (query @ key.mT * 32**-0.5).softmax(dim=-1)
    assert torch.equal(shares.argmax(dim=-1), torch.arange(81).expand(1, 2, 81))
    places = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij"), dim=-1).view(81, 2)
    distances = torch.cdist(places, places)
    assert (shares * distances).sum(dim=-1).mean() < 3.5 < distances.mean()
