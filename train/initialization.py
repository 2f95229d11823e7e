"""Initial models of training runs: loaded from checkpoints, or initialised at random."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

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
from unipixel.train.nano.segmenter.segmenter_recipe import SegmenterRecipe
from unipixel.train.nano.tokenizer import build_tokenizer, synthetic_texts
from unipixel.train.recipe import ModelRecipe, RunRecipe
from unipixel.train.segmenter_objective import SegmenterObjective

_SEGMENTER_PREFIX = "segmenter."
EMBEDDING_STD = 0.2
"""Standard deviation of the embeddings of small language models."""
# (row, column) offsets from a patch to its neighbours.
_ADJACENT_OFFSETS, _DIAGONAL_OFFSETS = ((0, -1), (0, 1), (-1, 0), (1, 0)), ((-1, -1), (1, 1), (-1, 1), (1, -1))
# Largest contribution of a pair of channels to the attention logit of the selected neighbour.
_NEIGHBOUR_LOGIT = 4.0
# The same for the selected position in a memory, and the number of pairs per axis that contribute.
_IDENTITY_LOGIT, _NUM_IDENTITY_PAIRS = 1.0, 8


def load_initial_model(recipe: RunRecipe) -> tuple[UniPixel, Processor]:
    """Build or load the model of a recipe with its processor, in float32.

    Raises:
        ValueError: The recipe gives no initial weights, or its settings contradict each other.
        OSError: Weights cannot be read.
    """
    settings = recipe.model
    if settings.sizes is not None:
        model, processor = _initialise(recipe)
    elif settings.checkpoint is not None:
        model = UniPixel.from_pretrained(settings.checkpoint, dtype=torch.float32)
        processor = Processor.from_pretrained(settings.checkpoint)
    elif settings.qwen is not None and settings.sam2 is not None:
        image_size = settings.image_size or 768
        model = UniPixel.from_base(settings.qwen, settings.sam2, image_size=image_size, seed=recipe.seed)
        processor = Processor(model.config, load_tokenizer(settings.qwen))
    else:
        raise ValueError("the recipe gives no initial weights: set [model] sizes, checkpoint, or qwen with sam2")
    _set_memory(model, settings)
    budget = processor.budget
    if settings.max_tokens_per_frame is not None:
        budget = replace(budget, max_tokens=settings.max_tokens_per_frame)
    if settings.image_size not in (None, model.config.segmenter.image_size):
        model = _with_image_size(model, int(settings.image_size or 0))
    if settings.segmenter is not None:
        model.sam2.load_state_dict(_segmenter_state(settings.segmenter))
    for folder in settings.extra_checkpoints:
        load_partial(model, Path(folder) / PARTIAL_FILE)
    return model.train(), Processor(model.config, processor.tokenizer, budget=budget)


def _set_memory(model: UniPixel, settings: ModelRecipe) -> None:
    """Change how a loaded model pools and embeds memory; a new position embedding changes no output at first."""
    if settings.memory_pool_weighting is not None:
        model.config = replace(model.config, memory_pool_weighting=settings.memory_pool_weighting)
    if settings.memory_position_embedding:
        model.add_memory_positions()
    elif settings.memory_position_embedding is False and model.config.memory_position_embedding:
        raise ValueError("[model] memory_position_embedding is false, but the checkpoint was trained with it")


def load_segmenter(recipe: SegmenterRecipe) -> SegmenterObjective:
    """Build a segmenter from sizes, with the weights of an earlier run where the recipe gives one.

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
        init_segmenter(segmenter)
    else:
        segmenter.load_state_dict(_segmenter_state(recipe.model.segmenter))
    segmenter.sam_prompt_encoder.requires_grad_(not recipe.model.freeze_prompt_encoder)
    return SegmenterObjective(segmenter, weights=recipe.losses)


def _initialise(recipe: RunRecipe) -> tuple[UniPixel, Processor]:
    sizes = recipe.sizes()
    settings = recipe.model
    given = {"pool_weighting": settings.memory_pool_weighting, "position_embedding": settings.memory_position_embedding}
    memory = sizes.get("memory", {}) | {name: value for name, value in given.items() if value is not None}
    sizes = {**sizes, "memory": memory}
    tokenizer = _tokenizer(recipe, sizes["vocabulary"])
    config = configure(sizes, tokenizer, image_size=recipe.model.image_size)
    # Seeded again: the weights must not depend on whether the tokenizer was trained before.
    torch.manual_seed(recipe.seed)
    model = UniPixel(config)
    init_transformers(model)
    return model, Processor(config, tokenizer, budget=frame_budget(sizes))


def _tokenizer(recipe: RunRecipe, vocabulary: Mapping[str, int]) -> Tokenizer:
    """Load the tokenizer that the recipe gives, or the one that this run trains at its start."""
    if recipe.model.tokenizer is not None:
        return Processor.from_pretrained(recipe.model.tokenizer).tokenizer
    folder = Path(recipe.output) / "tokenizer"
    if not (folder / "tokenizer.json").is_file():
        texts = synthetic_texts(seed=recipe.seed * 1_000_000_000, num_samples=vocabulary["num_samples"])
        tokenizer = build_tokenizer(texts, size=vocabulary["size"])
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent) as own:
            tokenizer.save_pretrained(own)
            folder.mkdir(exist_ok=True)
            # Every process of a run trains the same one. The file that is looked for is moved last.
            for file in sorted(Path(own).iterdir(), key=lambda file: file.name == "tokenizer.json"):
                file.replace(folder / file.name)
    return load_tokenizer(folder)


def init_transformers(model: UniPixel) -> None:
    """Initialise small transformers so that the influence of a token on others does not vanish.

    With the default standard deviation of 0.02, meant for wide models, attention is nearly uniform and the embeddings
    are small beside the output of the layers: after 2000 steps the mask tokens did not depend on the question.
    """
    language, visual = model.model.language_model, model.model.visual
    nn.init.normal_(language.embed_tokens.weight, std=EMBEDDING_STD)
    init_layers(language.layers)
    nn.init.normal_(visual.patch_embed.proj.weight, std=visual.patch_embed.proj.weight[0].numel() ** -0.5)
    init_layers(visual.blocks)
    for index, block in enumerate(visual.blocks):
        offsets = _ADJACENT_OFFSETS if index % 2 == 0 else _DIAGONAL_OFFSETS
        _init_neighbour_attention(block.attn, offsets, visual.rotary_pos_emb.inv_freq)


def init_layers(layers: nn.ModuleList) -> None:
    """Initialise the matrices of transformer layers so that they preserve the variance of their input."""
    # Scaled residual projections, as in GPT-2.
    residual_scale = (2 * len(layers)) ** -0.5
    for name, parameter in layers.named_parameters():
        if parameter.ndim == 2:
            is_residual = name.endswith(("o_proj.weight", "attn.proj.weight", "down_proj.weight"))
            nn.init.normal_(parameter, std=(residual_scale if is_residual else 1.0) * parameter.shape[1] ** -0.5)


@torch.no_grad()
def _init_neighbour_attention(attention: Any, offsets: Sequence[tuple[int, int]], angles: Tensor) -> None:
    """Initialise each head of a vision layer to attend to a neighbouring patch in one direction.

    This gives the vision transformer the locality of a convolution (arXiv:2103.10697 initialises attention as one).
    With rotary positions constant queries and keys suffice: the dot product of a pair of channels is largest at the
    offset by which the query was rotated in advance.

    Args:
        attention: Attention of a layer of the vision transformer; changed in place.
        offsets: (row, column) offset per head; further heads keep their random initialisation.
        angles: (d / 4,) rotation of the pairs of channels per patch.
    """
    heads, width, count = attention.num_heads, attention.head_dim, len(angles)
    # The smaller angles differ little between the patches of a small frame.
    pairs = [
        RotaryPair(axis, axis * count + channel, float(angles[channel]), _NEIGHBOUR_LOGIT)
        for axis in (0, 1)
        for channel in range(min(2, count))
    ]
    queries, keys, _ = attention.qkv.bias.view(3, heads, width)
    for head, offset in zip(range(heads), offsets, strict=False):
        attend_to_offset(queries[head], keys[head], offset, pairs)


class RotaryPair(NamedTuple):
    """Two channels of an attention head that rotary positions turn by an angle per patch.

    Attributes:
        axis: 0 for rows, 1 for columns.
        channel: The first channel; the second is half a head further.
        angle: Angle per patch.
        logit: Contribution to the attention logit of the patch at the offset, where it is largest.
    """

    axis: int
    channel: int
    angle: float
    logit: float


def attend_to_offset(queries: Tensor, keys: Tensor, offset: tuple[int, int], pairs: Sequence[RotaryPair]) -> None:
    """Set the biases of a head so that it attends to the patch at an offset.

    Args:
        queries: Bias of the queries (d); changed in place.
        keys: That of the keys (d); changed in place.
        offset: Rows and columns.
        pairs: Channels that select the patch.
    """
    half = len(keys) // 2
    for axis, channel, angle, logit in pairs:
        size = (logit * len(keys) ** 0.5) ** 0.5
        keys[channel] = size
        queries[channel] = size * math.cos(angle * offset[axis])
        queries[half + channel] = size * math.sin(angle * offset[axis])


def _with_image_size(model: UniPixel, image_size: int) -> UniPixel:
    """Return the model with another input size of the segmenter, on which no weight depends."""
    tree = {**model.config.segmenter.to_tree(), "image_size": image_size}
    other = UniPixel(replace(model.config, segmenter=SegmenterConfig.from_tree(tree)))
    other.load_state_dict(model.state_dict())
    return other


def init_segmenter(segmenter: Segmenter) -> None:
    """Initialise the layers without a residual path so that they preserve the variance of their input.

    PyTorch's default reduces it at each layer. On 1300 synthetic frames this initialisation classified the colour of a
    third more pixels correctly.
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
    """Initialise memory attention to attend to the same position of the earlier frame.

    Objects move little from frame to frame. The method is that of `_init_neighbour_attention`, without an offset.

    Args:
        attention: A layer's attention to memories, with axial rotary positions; changed in place.
    """
    width = attention.q_proj.out_features // attention.num_heads
    size = (_IDENTITY_LOGIT * width**0.5) ** 0.5
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            # Adjacent channels form pairs; the first half rotates by column, the second by row, high frequencies first.
            pairs = projection.bias.view(attention.num_heads, 2, width // 4, 2)
            pairs[:, :, :_NUM_IDENTITY_PAIRS, 0] += size


def _segmenter_state(source: str) -> dict[str, Tensor]:
    """Return the weights of a trained segmenter, or of the segmenter in a whole model."""
    file = Path(source) / SEGMENTER_WEIGHTS
    if not file.is_file():
        return UniPixel.from_pretrained(source, dtype=torch.float32).sam2.state_dict()
    return {
        name.removeprefix(_SEGMENTER_PREFIX): tensor
        for name, tensor in load_file(file).items()
        if name.startswith(_SEGMENTER_PREFIX)
    }
