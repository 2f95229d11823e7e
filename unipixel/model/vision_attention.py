"""Attention of Qwen2.5-VL's vision transformer over windows, those of equal size in one batch.

transformers computes one window after another: hundreds of small products per layer of a clip, which leave the
processor idle between them.

Shape letters: N patches, H heads, C channels per head.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)


@dataclass(frozen=True)
class AttentionWindows:
    """Windows of patches that attend to each other only.

    Attributes:
        groups: Number and length of the windows of each length.
        order: (N,) patches in the order of the groups; None if all windows are equally long.
        inverse: (N,) position of each patch in `order`; None likewise.
    """

    groups: tuple[tuple[int, int], ...]
    order: Tensor | None = None
    inverse: Tensor | None = None

    @classmethod
    def of_lengths(cls, lengths: Sequence[int], *, device: torch.device) -> AttentionWindows:
        """Group consecutive windows by their lengths."""
        by_length: dict[int, list[int]] = {}
        for window, length in enumerate(lengths):
            by_length.setdefault(length, []).append(window)
        groups = tuple((len(windows), length) for length, windows in by_length.items())
        if len(groups) == 1:
            return cls(groups)
        starts = [0, *itertools.accumulate(lengths)]
        order = torch.cat(
            [torch.arange(starts[window], starts[window + 1]) for windows in by_length.values() for window in windows]
        )
        return cls(groups, order.to(device), order.argsort().to(device))


class WindowBatchAttention(Qwen2_5_VLVisionAttention):
    """Scaled dot-product attention with windows of equal size as a batch.

    A class for modules that exist: parameters and their names are those of transformers.
    """

    def forward(
        self,
        hidden_states: Tensor,
        cu_seqlens: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        windows: dict[int, AttentionWindows] | None = None,
        **kwargs: object,
    ) -> Tensor:
        """Compute the attention.

        Args:
            hidden_states: (N, H * C).
            cu_seqlens: Boundaries of the windows.
            position_embeddings: Cosines and sines (N, C) of the rotary encoding.
            windows: The windows by their number, for all layers of a call; computed from `cu_seqlens` if absent.
            kwargs: Other arguments of transformers, which concern other implementations.
        """
        del kwargs
        if position_embeddings is None:
            raise ValueError("position_embeddings are required")
        qkv = self.qkv(hidden_states).reshape(len(hidden_states), 3, self.num_heads, -1)
        query, key, value = qkv.unbind(1)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        layout = (windows or {}).get(len(cu_seqlens) - 1)
        if layout is None:
            layout = AttentionWindows.of_lengths(cu_seqlens.diff().tolist(), device=hidden_states.device)
        parts = [query, key, value]
        if layout.order is not None:
            parts = [part[layout.order] for part in parts]
        sizes = [count * length for count, length in layout.groups]
        attended = [
            self._attend(*group, shape=shape)
            for *group, shape in zip(*(part.split(sizes) for part in parts), layout.groups, strict=True)
        ]
        joined = attended[0] if len(attended) == 1 else torch.cat(attended)
        return self.proj(joined if layout.inverse is None else joined[layout.inverse])

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *, shape: tuple[int, int]) -> Tensor:
        """Attend within windows; all tensors are (number * length, H, C), the result is (number * length, H * C)."""
        query, key, value = (part.unflatten(0, shape).transpose(1, 2) for part in (query, key, value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=self.scaling)
        return attended.transpose(1, 2).flatten(0, 1).flatten(1)


def clip_windows(
    grids_thw: Sequence[tuple[int, int, int]], *, merge_size: int, window_cells: int, device: torch.device
) -> dict[int, AttentionWindows]:
    """Return the two layouts of windows of some clips, by their number: whole frames, and windows within them.

    Args:
        grids_thw: Patch grid of each clip.
        merge_size: Patches merged along each side.
        window_cells: Merged tokens along each side of a window.
        device: Device of the vision transformer.
    """
    frames, windows = [], []
    for num_frames, height, width in grids_thw:
        frames += [height * width] * num_frames
        rows, columns = (_window_sides(side // merge_size, window_cells) for side in (height, width))
        windows += [row * column * merge_size**2 for row in rows for column in columns] * num_frames
    # Where both are equally many, they are the same.
    return {len(lengths): AttentionWindows.of_lengths(lengths, device=device) for lengths in (windows, frames)}


def _window_sides(cells: int, window_cells: int) -> list[int]:
    full, rest = divmod(cells, window_cells)
    return [window_cells] * full + ([rest] if rest else [])
