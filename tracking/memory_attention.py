"""Memory attention of SAM 2.1 for all objects of one frame, with the parameters of the sam2 package.

The first self-attention does not depend on the memories, so it is computed once for all objects.

Shape letters: B objects, L tokens of the frame (h*w), K tokens of memory, C embedding width, D memory width.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from unipixel.tracking.acceleration.onednn_products import product

# Query rows of one softmax on a CPU, which bounds the memory of the attention scores.
_QUERY_ROWS = 1024
# Smallest number of memory tokens for which projecting values last saves time; with fewer, results are bit for
# bit those of the package.
_MIN_TOKENS_PROJECTED_LAST = 2048


@functools.lru_cache(maxsize=8)
def rotary_table(side: int, width: int, theta: float, device: torch.device) -> Tensor:
    """Return the axial rotations (side*side, width/2) as complex numbers: x in the first half, then y."""
    # Cached for later calls that may need gradients, so it must not be an inference tensor.
    with torch.inference_mode(False), torch.no_grad():
        # Rounded as in the package (position_encoding.py): bfloat16 memories amplify the last bit.
        rates = 1.0 / (theta ** (torch.arange(0, width, 4, device=device)[: width // 4].float() / width))
        positions = torch.arange(side, device=device, dtype=torch.float32)
        angles = torch.outer(positions, rates)
        x = angles[None].expand(side, -1, -1)
        y = angles[:, None].expand(-1, side, -1)
        both = torch.cat([x, y], dim=-1).flatten(0, 1)
        return torch.polar(torch.ones_like(both), both)


def prepare_queries(attention: Any, tokens: Tensor, positions: Tensor, rotations: Tensor) -> Tensor:
    """Compute the first self-attention of a frame.

    Args:
        attention: The package's MemoryAttention.
        tokens: (1, L, C) embedding of the frame.
        positions: (1, L, C) position encoding of the frame.
        rotations: Table (L, C/2 per head) from `rotary_table`.
    """
    return _self_attention(attention.layers[0], tokens + 0.1 * positions, rotations)


def attend_memory(
    attention: Any, queries: Tensor, memory: tuple[Tensor, Tensor], rotations: Tensor, *, num_rotated: int
) -> Tensor:
    """Compute the memory attention of a frame to the memories of B objects.

    Args:
        attention: The package's MemoryAttention.
        queries: (1, L, C) from `prepare_queries`.
        memory: Tokens (B, K, D) and their position encodings.
        rotations: Table (L, C/2 per head).
        num_rotated: Number of the first K tokens that are spatial positions and are rotated; the rest are pointers.

    Returns:
        Tokens (B, L, C).
    """
    tokens, positions = memory
    keys = tokens + positions
    state = queries
    for index, layer in enumerate(attention.layers):
        if index:
            state = _self_attention(layer, state, rotations)
        attended = _cross_attention(layer.cross_attn_image, layer.norm2(state), keys, tokens, rotations, num_rotated)
        state = state + layer.dropout2(attended)
        inner = layer.dropout(layer.activation(layer.linear1(layer.norm3(state))))
        state = state + layer.dropout3(layer.linear2(inner))
    return attention.norm(state)


def _self_attention(layer: Any, state: Tensor, rotations: Tensor) -> Tensor:
    attention, normed = layer.self_attn, layer.norm1(state)
    query = _apply_rotary(_split_heads(attention.q_proj(normed), attention.num_heads), rotations)
    key = _apply_rotary(_split_heads(attention.k_proj(normed), attention.num_heads), rotations)
    value = _split_heads(attention.v_proj(normed), attention.num_heads)
    attended = F.scaled_dot_product_attention(query, key, value, dropout_p=_dropout(attention))
    return state + layer.dropout1(attention.out_proj(attended.transpose(1, 2).flatten(2)))


def _cross_attention(
    attention: Any, state: Tensor, keys: Tensor, values: Tensor, rotations: Tensor, num_rotated: int
) -> Tensor:
    num_heads = attention.num_heads
    query = _apply_rotary(_split_heads(attention.q_proj(state), num_heads), rotations)
    key = _split_heads(attention.k_proj(keys), num_heads)
    key = torch.cat([_apply_rotary(key[:, :, :num_rotated], rotations), key[:, :, num_rotated:]], dim=2)
    is_projected_last = values.shape[-1] < query.shape[-1] and values.shape[1] >= _MIN_TOKENS_PROJECTED_LAST
    is_projected_last = is_projected_last and values.device.type == "cpu" and not torch.is_grad_enabled()
    if is_projected_last and query.dtype == values.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        attended = _project_values_last(query, key, values, _value_weight_per_head(attention), attention.v_proj.bias)
    else:
        value = _split_heads(attention.v_proj(values), num_heads)
        query = query.expand(len(key), -1, -1, -1)
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=_dropout(attention))
        attended = attended.transpose(1, 2).flatten(2)
    return attention.out_proj(attended)


def _project_values_last(query: Tensor, key: Tensor, values: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Compute attention whose values are projected after the weighted sum.

    Memories have width D = C/4, so the weighted sum before the projection costs a quarter. Attention weights sum
    to one, so the bias can be added last.
    """
    num_objects, num_heads, length = len(key), query.shape[1], query.shape[2]
    query = (query * query.shape[-1] ** -0.5).expand(num_objects, -1, -1, -1)
    attended = values.new_empty(num_objects, length, num_heads, weights.shape[-1])
    for index in range(num_objects):
        for head in range(num_heads):
            keys, columns = key[index, head], values[index].t()
            for start in range(0, length, _QUERY_ROWS):
                rows = slice(start, start + _QUERY_ROWS)
                scores = product(query[index, head, rows], keys)
                # In place, because the scores are the largest array of a frame.
                torch.softmax(scores, dim=-1, out=scores)
                attended[index, rows, head] = product(scores, columns) @ weights[head]
    return attended.flatten(2) + bias


def _value_weight_per_head(attention: Any) -> Tensor:
    """Return the weight of the value projection per head, (heads, D, C / heads)."""
    weight = attention.v_proj.weight
    return weight.view(attention.num_heads, -1, weight.shape[1]).transpose(1, 2)


def _split_heads(tokens: Tensor, num_heads: int) -> Tensor:
    """Reshape (B, L, C) to (B, heads, L, C / heads)."""
    return tokens.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _apply_rotary(tokens: Tensor, rotations: Tensor) -> Tensor:
    """Rotate tokens (B, heads, M*L, c) of M frames by the same table (L, c/2)."""
    pairs = torch.view_as_complex(tokens.float().unflatten(-1, (-1, 2)).contiguous())
    rotated = pairs.unflatten(2, (-1, len(rotations))) * rotations
    return torch.view_as_real(rotated).flatten(4).flatten(2, 3).to(tokens.dtype)


def _dropout(attention: Any) -> float:
    return attention.dropout_p if attention.training else 0.0
