"""The model a run starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from unipixel.checkpoints.lora import load_partial
from unipixel.checkpoints.tensor_layout import PARTIAL_FILE
from unipixel.model.unipixel import UniPixel
from unipixel.processing.chat_template import Tokenizer, load_tokenizer
from unipixel.processing.processor import Processor
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.segmenter import Segmenter
from unipixel.train.checkpoints import SEGMENTER_WEIGHTS
from unipixel.train.nano.model_config import configure, frame_budget
from unipixel.train.nano.tokenizer import build_tokenizer, synthetic_texts
from unipixel.train.recipe import Recipe, RunRecipe
from unipixel.train.segmenter_objective import SegmenterObjective

_SEGMENTER_PREFIX = "segmenter."
_WORD_SCALE = 0.2
# Rows and columns from a patch to those beside it.
_BESIDE, _ASLANT = ((0, -1), (0, 1), (-1, 0), (1, 0)), ((-1, -1), (1, 1), (-1, 1), (1, -1))
# How much more the patch meant is attended to than others: each pair of channels adds up to this to its logit.
_NEARNESS = 4.0
# The same for a place in a memory, and how many of the pairs per axis say so.
_SAMENESS, _NUM_TURNS = 1.0, 8


def load_start(recipe: RunRecipe) -> tuple[UniPixel, Processor]:
    """Build or load a model with its processor, in float32.

    Raises:
        ValueError: The recipe names no start, or its parts do not fit together.
        OSError: Weights cannot be read.
    """
    given = recipe.model
    if given.sizes is not None:
        model, processor = _from_nothing(recipe)
    elif given.start is not None:
        model = UniPixel.from_pretrained(given.start, dtype=torch.float32)
        processor = Processor.from_pretrained(given.start)
    elif given.qwen is not None and given.sam2 is not None:
        model = UniPixel.from_base(given.qwen, given.sam2, image_size=given.image_size or 768, seed=recipe.seed)
        processor = Processor(model.config, load_tokenizer(given.qwen))
    else:
        raise ValueError("the recipe names no start: give [model] sizes, start, or qwen with sam2")
    if given.image_size not in (None, model.config.segmenter.image_size):
        model = _resized(model, int(given.image_size or 0))
        processor = Processor(model.config, processor.tokenizer, budget=processor.budget)
    if given.segmenter is not None:
        model.sam2.load_state_dict(_segmenter_state(given.segmenter))
    for folder in given.partial:
        load_partial(model, Path(folder) / PARTIAL_FILE)
    return model.train(), processor


def load_segmenter(recipe: Recipe) -> SegmenterObjective:
    """Build a segmenter from sizes, with the weights of an earlier run where the recipe names one.

    Raises:
        ValueError: The recipe gives no sizes.
        OSError: Weights cannot be read.
    """
    tree = dict(recipe.sizes()["segmenter"])
    if recipe.model.image_size is not None:
        tree["image_size"] = recipe.model.image_size
    config = SegmenterConfig.from_tree(tree)
    segmenter = Segmenter(config)
    if recipe.model.segmenter is None:
        _spread(segmenter)
    else:
        segmenter.load_state_dict(_segmenter_state(recipe.model.segmenter))
    segmenter.sam_prompt_encoder.requires_grad_(not recipe.model.freeze_prompt_encoder)
    return SegmenterObjective(segmenter, weights=recipe.losses)


def _from_nothing(recipe: RunRecipe) -> tuple[UniPixel, Processor]:
    sizes = recipe.sizes()
    tokenizer = _tokenizer(recipe, sizes["vocabulary"])
    config = configure(sizes, tokenizer, image_size=recipe.model.image_size)
    # Seeded again: whether the tokenizer was there already must not change the weights.
    torch.manual_seed(recipe.seed)
    model = UniPixel(config)
    init_transformers(model)
    return model, Processor(config, tokenizer, budget=frame_budget(sizes))


def _tokenizer(recipe: RunRecipe, vocabulary: Mapping[str, int]) -> Tokenizer:
    """Load the tokenizer that the recipe names, or the one of this run, which is made at its start."""
    if recipe.model.tokenizer is not None:
        return Processor.from_pretrained(recipe.model.tokenizer).tokenizer
    folder = Path(recipe.output) / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        texts = synthetic_texts(seed=recipe.seed * 1_000_000_000, num_samples=vocabulary["num_samples"])
        build_tokenizer(texts, size=vocabulary["size"]).save_pretrained(str(folder))
    return load_tokenizer(folder)


def init_transformers(model: UniPixel) -> None:
    """Let small transformers tell their tokens apart from the start.

    At transformers' own 0.02, made for wide models, all tokens are attended to alike, and a word is lost in what
    the layers add to it: after 2000 steps nothing of the question had reached the state that a mask comes from.
    """
    language, visual = model.model.language_model, model.model.visual
    nn.init.normal_(language.embed_tokens.weight, std=_WORD_SCALE)
    _spread_layers(language.layers)
    nn.init.normal_(visual.patch_embed.proj.weight, std=visual.patch_embed.proj.weight[0].numel() ** -0.5)
    _spread_layers(visual.blocks)
    for place, block in enumerate(visual.blocks):
        ways = _BESIDE if place % 2 == 0 else _ASLANT
        _look_beside(block.attn, ways, visual.rotary_pos_emb.inv_freq)


def _spread_layers(layers: nn.ModuleList) -> None:
    # What the layers add stays small beside what there is, as in GPT-2.
    residual_share = (2 * len(layers)) ** -0.5
    for name, parameter in layers.named_parameters():
        if parameter.ndim == 2:
            is_added = name.endswith(("o_proj.weight", "attn.proj.weight", "down_proj.weight"))
            nn.init.normal_(parameter, std=(residual_share if is_added else 1.0) * parameter.shape[1] ** -0.5)


def _look_beside(attention: Any, ways: Sequence[tuple[int, int]], angles: Tensor) -> None:
    """Let each head of the vision transformer attend, at first, to the patch beside its own in one direction.

    A vision transformer from nothing has to learn from its data that edges continue in the next patch; a convolution
    has it built in (arXiv:2103.10697 starts attention as one). With rotary positions constant queries and keys do it:
    a pair of channels that turns by an angle per patch agrees best where the query is turned by as much beforehand.

    Args:
        attention: A layer of the vision transformer.
        ways: Rows and columns from a patch to the one that a head attends to; heads beyond them attend as drawn.
        angles: (d / 4,) by which the pairs of channels of a head turn per patch.
    """
    heads, width, count = attention.num_heads, attention.head_dim, len(angles)
    size = (_NEARNESS * width**0.5) ** 0.5
    with torch.no_grad():
        queries, keys, _ = attention.qkv.bias.view(3, heads, width)
        for head, way in zip(range(heads), ways, strict=False):
            for first, steps in zip((0, count), way, strict=True):
                # The other angles hardly differ between the patches of a small frame.
                for channel in range(min(2, count)):
                    turn = angles[channel] * steps
                    keys[head, first + channel] = size
                    queries[head, first + channel] = size * turn.cos()
                    queries[head, 2 * count + first + channel] = size * turn.sin()


def _resized(model: UniPixel, image_size: int) -> UniPixel:
    """The same weights behind a segmenter of another input size; none of its weights depends on it."""
    tree = {**model.config.segmenter.to_tree(), "image_size": image_size}
    other = UniPixel(replace(model.config, segmenter=SegmenterConfig.from_tree(tree)))
    other.load_state_dict(model.state_dict())
    return other


def _spread(segmenter: Segmenter) -> None:
    """Let signals keep their size through the layers that no residual path goes around.

    PyTorch's own initialisation shrinks them at each, and a model from nothing first has to grow them:
    measured on 1300 drawn frames, colours were told apart by a third more pixels.
    """
    decoder = segmenter.sam_mask_decoder
    layers = [segmenter.image_encoder.trunk.patch_embed.proj, decoder.conv_s0, decoder.conv_s1]
    layers += [level.conv for level in segmenter.image_encoder.neck.convs]
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
    for layer in segmenter.memory_attention.layers:
        init_identity_memory_attention(layer.cross_attn_image)


def init_identity_memory_attention(attention: Any) -> None:
    """Let the reading of a memory attend, at first, to the place in the earlier frame where it is in this one.

    An object is near where it was a frame ago; a segmenter from nothing has to find out that places in memories are
    places. What `_look_beside` does for patches is done here for frames.

    Args:
        attention: A layer's attention to memories, with axial rotary positions; changed in place.
    """
    width = attention.q_proj.out_features // attention.num_heads
    size = (_SAMENESS * width**0.5) ** 0.5
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            # Neighbouring channels turn together; the first half by columns, the other by rows, fast pairs first.
            pairs = projection.bias.view(attention.num_heads, 2, width // 4, 2)
            pairs[:, :, :_NUM_TURNS, 0] += size


def _segmenter_state(source: str) -> dict[str, Tensor]:
    """Weights of a segmenter that a stage left, or of the one in a whole model."""
    file = Path(source) / SEGMENTER_WEIGHTS
    if not file.is_file():
        return UniPixel.from_pretrained(source, dtype=torch.float32).sam2.state_dict()
    return {
        name.removeprefix(_SEGMENTER_PREFIX): tensor
        for name, tensor in load_file(file).items()
        if name.startswith(_SEGMENTER_PREFIX)
    }
