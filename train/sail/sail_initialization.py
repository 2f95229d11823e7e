"""Start of a Pixel-SAIL training run: a model from sizes, from a checkpoint, or from a language model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from unipixel.model.config_values import check_sizes
from unipixel.processing.chat_template import Tokenizer
from unipixel.processing.special_tokens import END_OF_TEXT, IM_END, IM_START
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_config import SAIL_TOKENS, VISION_TOKENS, PixelSailConfig, text_config
from unipixel.sail.upsampler import MaskHead
from unipixel.train.initialization import EMBEDDING_STD, RotaryPair, attend_to_offset, init_layers
from unipixel.train.nano.tokenizer import build_tokenizer
from unipixel.train.sail.drawn_images import DrawnImageSettings, draw_sail_sample
from unipixel.train.sail.drawn_turns import SAIL_TASKS

_SECTIONS = ("vocabulary", "transformer", "image")
_VOCABULARY = ("size", "num_samples")
_REQUIRED = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
)  # fmt: skip
_TRANSFORMER = (
    *_REQUIRED, "max_position_embeddings", "rms_norm_eps", "hidden_act", "tie_word_embeddings", "initializer_range",
    "rope_theta",
)  # fmt: skip
# Of a model with a learned vocabulary, which has no placeholder of the EVEv2 variant.
_IMAGE = (
    "patch_size", "num_upsample_blocks", "mask_channels", "num_prompts", "max_side", "rotary_layout", "prompt_encoding",
    "image_mean", "image_std", "max_tokens",
)  # fmt: skip
_TEXT_SIZES = ((64, 96), (96, 64))
# (row, column) offsets from a patch to the neighbours to which the heads after the first one attend, per layer.
_NEIGHBOUR_OFFSETS = (((0, -1), (0, 1)), ((-1, 0), (1, 0)), ((-1, -1), (1, 1)), ((-1, 1), (1, -1)))
# By how much the attention logit of a neighbour exceeds that of the patch one further, and the largest contribution of
# the channels that distinguish distant patches.
_NEIGHBOUR_CONTRAST, _DISTANCE_LOGIT = 2.0, 4.0
# Norm of a prompt that is added to a patch, relative to its token embedding: about that of the pixels at first.
_PROMPT_GAIN = 3.0
# Gain of queries and keys of prompts in the first layer, and its growth per layer: layers add to the states, in which
# the share of the prompts decreases.
_LOOKUP_GAIN, _LOOKUP_GROWTH = 0.7, 1 / 3
# Standard deviation of what the upsampling blocks at first add to the repeated states.
_UPSAMPLING_NOISE = 0.3


def configure_sail(
    sizes: Mapping[str, Any], tokenizer: Tokenizer, *, image_settings: Mapping[str, Any] | None = None
) -> PixelSailConfig:
    """Describe a model.

    Args:
        sizes: Tables that `check_sail_sizes` accepts.
        tokenizer: Its vocabulary decides the rows of the embedding.
        image_settings: Replace entries of `image`.

    Raises:
        ValueError: Values do not fit together.
    """
    transformer, image = dict(sizes["transformer"]), {**sizes["image"], **(image_settings or {})}
    theta = transformer.pop("rope_theta", 1_000_000.0)
    layout = image.get("rotary_layout", "split")
    tokens = (*VISION_TOKENS, *SAIL_TOKENS, IM_START, IM_END, END_OF_TEXT)
    return PixelSailConfig(
        text=text_config(
            {**transformer, "vocab_size": -(-len(tokenizer) // 8) * 8}, rope_theta=theta, rotary_layout=layout
        ),
        token_ids={token: int(tokenizer.convert_tokens_to_ids(token)) for token in tokens},
        **image,
    )


def check_sail_sizes(sizes: Mapping[str, Any]) -> None:
    """Check the tables of a sizes file, before a tokenizer is learned.

    Args:
        sizes: Tables `vocabulary`, `transformer` (sizes of the text model of Qwen2.5-VL, and `rope_theta`) and `image`
            (fields of `PixelSailConfig`).

    Raises:
        ValueError: A table or a size is missing, unknown or out of range.
    """
    if set(sizes) != set(_SECTIONS) or not all(isinstance(table, Mapping) for table in sizes.values()):
        raise ValueError(f"a sizes file of Pixel-SAIL holds the tables {list(_SECTIONS)}, got {sorted(sizes)}")
    for table, allowed in (("vocabulary", _VOCABULARY), ("transformer", _TRANSFORMER), ("image", _IMAGE)):
        if unknown := sorted(set(sizes[table]) - set(allowed)):
            raise ValueError(
                f"the sizes file has unknown settings {unknown} in [{table}]: allowed are {sorted(allowed)}"
            )
    for table, required in (("vocabulary", _VOCABULARY), ("transformer", _REQUIRED)):
        if missing := sorted(set(required) - set(sizes[table])):
            raise ValueError(f"the sizes file lacks {missing} in [{table}]")
    for name in _VOCABULARY:
        if type(sizes["vocabulary"][name]) is not int or sizes["vocabulary"][name] < 1:
            raise ValueError(
                f"the sizes file has [vocabulary] {name} = {sizes['vocabulary'][name]!r}: give an integer of at least 1"
            )
    theta = sizes["transformer"].get("rope_theta", 1.0)
    if isinstance(theta, bool) or not isinstance(theta, int | float) or theta <= 0:
        raise ValueError(f"the sizes file has [transformer] rope_theta = {theta!r}: give a number above 0")
    check_sizes(sizes["transformer"])


def init_sail(model: PixelSail) -> None:
    """Initialise a small model so that the influence of tokens on others does not vanish, and regions are found.

    See `unipixel.train.initialization.init_transformers`: with a standard deviation of 0.02, 700 steps of `sail/nano`
    left masks and answers independent of the question.
    """
    text: Any = model.single_transformer.model
    nn.init.normal_(text.embed_tokens.weight, std=EMBEDDING_STD)
    init_layers(text.layers)
    nn.init.normal_(text.vis_embed.weight, std=text.vis_embed.in_features**-0.5)
    for layer, offsets in zip(text.layers, _NEIGHBOUR_OFFSETS, strict=False):
        _init_neighbour_heads(layer.self_attn, offsets, text.rotary_emb)
    if text.vp_embed is not None:
        nn.init.normal_(text.vp_embed.weight, std=_PROMPT_GAIN * text.vp_embed.in_features**-0.5)
        _init_prompt_lookup(text, list(model.config.prompt_token_ids))
    if isinstance(model.mask_head, MaskHead) and model.mask_head.image_feature_pre_projector is None:
        _init_similarity_head(model.mask_head)


@torch.no_grad()
def _init_neighbour_heads(attention: Any, offsets: Sequence[tuple[int, int]], rotary: Any) -> None:
    """Initialise the heads after the first one so that they attend to neighbouring patches.

    Args:
        attention: Attention of a layer; the biases of queries and keys are changed in place.
        offsets: (row, column) offset per head; further heads keep their random initialisation.
        rotary: Rotary embedding of the model, which says what the channels encode.
    """
    sections, angles = rotary.config.rope_parameters["mrope_section"], rotary.inv_freq.tolist()
    # The sections name, in turn, the channels of time, rows and columns.
    axes = [number % 3 - 1 for number, size in enumerate(sections) for _ in range(size)]
    pairs = []
    for axis in (0, 1):
        channels = [channel for channel, own in enumerate(axes) if own == axis][:2]
        # The fastest channel distinguishes neighbours, but repeats itself across a grid; the next one does not.
        logits = (_NEIGHBOUR_CONTRAST / (1 - math.cos(angles[channels[0]])), _DISTANCE_LOGIT)
        pairs += [RotaryPair(axis, own, angles[own], logit) for own, logit in zip(channels, logits, strict=False)]
    queries = attention.q_proj.bias.view(-1, attention.head_dim)
    keys = attention.k_proj.bias.view(-1, attention.head_dim)
    # With fewer keys than queries, heads that share keys would attend to one offset.
    if len(queries) == len(keys):
        for query, key, offset in zip(queries[1:], keys[1:], offsets, strict=False):
            attend_to_offset(query, key, offset, pairs)


@torch.no_grad()
def _init_prompt_lookup(text: Any, prompt_token_ids: list[int]) -> None:
    """Initialise the first head of every layer so that a prompt in the text attends to the patches with this prompt.

    Without it, 6,400 steps of `sail/nano` learned to attend to the patches of all prompts alike: each of query and key
    is of use only when the other one separates the prompts.

    Args:
        text: The transformer; its query and key matrices are changed in place.
        prompt_token_ids: Ids of the prompts.
    """
    tokens = text.embed_tokens.weight[prompt_token_ids]
    # Rows (K, D), each orthogonal to all other prompts.
    in_text, in_patches = (nn.functional.normalize(torch.linalg.pinv(own).T) for own in (tokens, text.vp_embed(tokens)))
    half = text.layers[0].self_attn.head_dim // 2
    # Two channels form a rotary pair; the last pairs rotate least with the distance between text and patch.
    slowest = [channel for first in reversed(range(half)) for channel in (first, first + half)]
    channels = slowest[: len(tokens)]
    for number, layer in enumerate(text.layers):
        gain = _LOOKUP_GAIN * (1 + _LOOKUP_GROWTH * number)
        layer.self_attn.q_proj.weight[channels] += gain * in_text[: len(channels)]
        layer.self_attn.k_proj.weight[channels] += gain * in_patches[: len(channels)]


@torch.no_grad()
def _init_similarity_head(head: Any) -> None:
    """Initialise a mask head so that the mask of a query is where the states of patches are similar to its own.

    Upsampling at first repeats the states, with some noise, and both projections are the same: the state of `[SEG]`
    and those of patches are in one space, which `losses.object_words` fills with the words of objects.
    """
    for block in head.upsample_blocks:
        transposed, _, separable, _ = block
        for convolution in (transposed, separable.pointwise):
            identity = torch.eye(convolution.in_channels)[:, :, None, None]
            nn.init.normal_(convolution.weight, std=_UPSAMPLING_NOISE * convolution.in_channels**-0.5)
            convolution.weight += identity
            nn.init.zeros_(convolution.bias)
        nn.init.normal_(
            separable.depthwise.weight, std=_UPSAMPLING_NOISE * separable.depthwise.weight[0].numel() ** -0.5
        )
        separable.depthwise.weight[:, :, 1, 1] += 1
        nn.init.zeros_(separable.depthwise.bias)
    first, _, last = head.image_feature_projector
    nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
    nn.init.zeros_(first.bias)
    # Logits of the size 1.
    nn.init.normal_(last.weight, std=last.in_features**-0.5 * last.out_features**-0.25)
    # Without the mean of the activations, the logits of unrelated states are about 0.
    last.bias.copy_(-(last.weight @ first.weight.norm(dim=1)) / math.sqrt(2 * math.pi))
    head.seg_token_projector.load_state_dict(head.image_feature_projector.state_dict())


def build_sail_tokenizer(sizes: Mapping[str, Any], *, seed: int) -> Tokenizer:
    """Learn a small vocabulary from the texts of drawn images.

    Args:
        sizes: Its table `vocabulary` gives `size` and `num_samples`.
        seed: Seed of the images.
    """
    vocabulary = sizes["vocabulary"]
    special = (END_OF_TEXT, IM_START, IM_END, *VISION_TOKENS, *SAIL_TOKENS)
    return build_tokenizer(
        _texts(seed=seed, num_samples=vocabulary["num_samples"]), size=vocabulary["size"], special_tokens=special
    )


def _texts(*, seed: int, num_samples: int) -> Iterator[str]:
    settings = DrawnImageSettings(_TEXT_SIZES, 4, dict.fromkeys(SAIL_TASKS, 1.0))
    for number in range(num_samples):
        for turn in draw_sail_sample([seed, number], settings).turns:
            for text in (f"user\n{turn.question}", turn.answer or ""):
                # Special tokens are no part of the pairs.
                for token in SAIL_TOKENS:
                    text = text.replace(token, "")
                yield text
