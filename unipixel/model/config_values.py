"""Checks of the sizes in an untrusted config.json, before a model is built from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT_SIZES = {
    "vocab_size": 2**24,
    "hidden_size": 2**16,
    "intermediate_size": 2**20,
    "num_hidden_layers": 1000,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "max_position_embeddings": 2**24,
}
_VISION_SIZES = {
    "depth": 1000,
    "hidden_size": 2**16,
    "intermediate_size": 2**20,
    "num_heads": 1024,
    "out_hidden_size": 2**16,
    "patch_size": 256,
    "temporal_patch_size": 16,
    "spatial_merge_size": 16,
    "window_size": 2**14,
    "in_channels": 16,
}
_VISION_NUMBERS = ("tokens_per_second",)


def check_sizes(fields: Mapping[str, Any]) -> None:
    """Check the sizes of both transformers, nested or at the top level.

    Args:
        fields: Content of config.json.

    Raises:
        ValueError: A size has another type or is out of range, the heads do not divide the width, or the top level
            contradicts `text_config`.
    """
    text = _section(fields, "text_config")
    vision = _section(fields, "vision_config")
    # transformers updates the vocabulary of `text_config` alone when it resizes the embedding.
    for name in (text.keys() & _TEXT_SIZES.keys() & fields.keys()) - {"vocab_size"}:
        if fields[name] is not None and text[name] is not None and fields[name] != text[name]:
            raise ValueError(
                f"config.json has {name} = {fields[name]!r} at its top level and {text[name]!r} in text_config: "
                "they must be equal"
            )
    sizes = {name: text[name] if text.get(name) is not None else fields.get(name) for name in _TEXT_SIZES}
    _check_ranges(sizes, _TEXT_SIZES, "")
    _check_ranges(vision, _VISION_SIZES, "vision_config.")
    for name in _VISION_NUMBERS:
        value = vision.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6):
            raise ValueError(f"config.json has vision_config.{name} = {value!r}: it must be a number above 0")
    _check_division(sizes, "num_attention_heads", "hidden_size", "")
    _check_division(sizes, "num_key_value_heads", "num_attention_heads", "")
    _check_division(vision, "num_heads", "hidden_size", "vision_config.")
    blocks, depth = vision.get("fullatt_block_indexes"), vision.get("depth")
    if blocks is not None and not (isinstance(blocks, list) and all(_is_size(block, 0, 1000) for block in blocks)):
        raise ValueError(f"config.json has vision_config.fullatt_block_indexes = {blocks!r:.80}: give a list of blocks")
    if blocks and depth is not None and max(blocks) >= depth:
        raise ValueError(
            f"config.json has full attention in block {max(blocks)}, the vision transformer {depth} blocks"
        )


def check_integer_field(fields: Mapping[str, Any], name: str, *, low: int = 0, high: int = 2**24) -> None:
    """Check that a field of config.json is an integer in a range; a missing one is allowed.

    Raises:
        ValueError: It is something else.
    """
    value = fields.get(name)
    if value is not None and not _is_size(value, low, high):
        raise ValueError(f"config.json has {name} = {value!r:.80}: it must be an integer in [{low}, {high}]")


def _section(fields: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = fields.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f"config.json has {name} = {value!r:.80}: it must be an object")
    return value or {}


def _check_ranges(values: Mapping[str, Any], limits: Mapping[str, int], prefix: str) -> None:
    for name, high in limits.items():
        value = values.get(name)
        if value is not None and not _is_size(value, 1, high):
            raise ValueError(f"config.json has {prefix}{name} = {value!r:.80}: it must be an integer in [1, {high}]")


def _check_division(values: Mapping[str, Any], divisor: str, name: str, prefix: str) -> None:
    count, total = values.get(divisor), values.get(name)
    if count is not None and total is not None and total % count:
        raise ValueError(f"config.json has {prefix}{name} = {total}, which {prefix}{divisor} = {count} does not divide")


def _is_size(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
