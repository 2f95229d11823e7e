"""Qwen2.5-VL: vision transformer, language model, position ids and prompt cache.

Shape letters: B samples, L tokens, D language width.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache, Qwen2_5_VLConfig
from transformers.masking_utils import create_causal_mask
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLTextModel,
)

from unipixel.memory.representation import short_repr
from unipixel.model.inputs import VideoFeatures, VideoInput, VisualInput
from unipixel.model.vision_attention import WindowBatchAttention, clip_windows
from unipixel.sail.sail_inputs import ImagePatches, PatchStates

CACHE_ARGUMENT = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
"""Name of the argument of transformers that takes keys and values: `past_key_values` in its earlier releases."""


class LinearPatchEmbed(Qwen2_5_VisionPatchEmbed):
    """Patch embedding as a matrix product: the convolution's kernel and stride are the patch size."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Embed (N, 3 * temporal_patch * patch * patch) patches as (N, vision width)."""
        weight = self.proj.weight
        return nn.functional.linear(hidden_states.to(weight.dtype), weight.flatten(1))


class QwenVL(nn.Module):
    """The two transformers of Qwen2.5-VL, with the parameter names of the transformers library."""

    def __init__(self, config: Qwen2_5_VLConfig, *, pooling_order: str, attention: str = "sdpa") -> None:
        """Build both transformers.

        Args:
            config: Sizes.
            pooling_order: `window` or `raster`, see `VideoFeatures.pooling_rows`.
            attention: Attention implementation of transformers: `sdpa`, `eager` or `flash_attention_2`.
        """
        super().__init__()
        self.config = config
        self.pooling_order = pooling_order
        self.visual = Qwen2_5_VisionTransformerPretrainedModel._from_config(
            config.vision_config, attn_implementation=attention
        )
        self.visual.patch_embed.__class__ = LinearPatchEmbed
        if attention == "sdpa":
            for block in self.visual.blocks:
                block.attn.__class__ = WindowBatchAttention
        self.language_model = Qwen2_5_VLTextModel._from_config(config.text_config, attn_implementation=attention)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QwenVL:
        rotaries = (self.visual.rotary_pos_emb, self.language_model.rotary_emb)
        apply_keeping_tables(super()._apply, fn, recurse, rotaries=rotaries)
        return self

    def encode_videos(self, videos: Sequence[VideoInput]) -> list[VideoFeatures]:
        """Run the vision transformer over all clips in one pass.

        Raises:
            ValueError: A clip's patches do not fill its grid.
        """
        if not videos:
            return []
        self._check_patches(videos)
        merge = self.visual.spatial_merge_size
        first = self.visual.patch_embed.proj.weight
        pixels = torch.cat([video.pixel_values for video in videos]).to(first.device)
        grids = torch.tensor([video.grid_thw for video in videos], device=first.device)
        window_cells = self.visual.window_size // self.visual.patch_size // merge
        extra = {}
        if isinstance(self.visual.blocks[0].attn, WindowBatchAttention):
            sizes = {"merge_size": merge, "window_cells": window_cells}
            extra["windows"] = clip_windows([video.grid_thw for video in videos], device=first.device, **sizes)
        output = self.visual(pixels, grid_thw=grids, **extra)
        rows = self.visual.merger.ln_q(output.last_hidden_state)
        rows = rows.reshape(-1, rows.shape[-1] * merge**2)
        counts = [video.grid_thw[0] * video.grid_thw[1] * video.grid_thw[2] // merge**2 for video in videos]
        features = []
        for video, tokens, pooling_rows in zip(
            videos, output.pooler_output.split(counts), rows.split(counts), strict=True
        ):
            if self.pooling_order == "raster":
                order = window_order(video.grid_thw, merge_size=merge, window_cells=window_cells)
                pooling_rows = pooling_rows[order.argsort().to(pooling_rows.device)]
            features.append(VideoFeatures(tokens, pooling_rows, video.grid_thw, video.seconds_per_grid))
        return features

    def forward(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Run the decoder layers.

        The layers are called one by one because transformers returns the last state only after the
        final norm, and the mask head takes the state before it.

        Args:
            embeds: (B, L, D).
            position_ids: (3, B, L).
            attention_mask: (B, cached + L) bool, False on padding; None where nothing is padded.
            cache: Keys and values of earlier tokens; extended by this call.

        Returns:
            (B, L, D) states before the final norm.
        """
        decoder = self.language_model
        mask = create_causal_mask(
            config=decoder.config,
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=None,
            **{CACHE_ARGUMENT: cache},
        )
        rotary = decoder.rotary_emb(embeds, position_ids)
        hidden = embeds
        for layer in decoder.layers:
            hidden = layer(
                hidden,
                attention_mask=mask,
                position_embeddings=rotary,
                use_cache=cache is not None,
                **{CACHE_ARGUMENT: cache},
            )
        return hidden

    def _check_patches(self, videos: Sequence[VideoInput]) -> None:
        merge = self.visual.spatial_merge_size
        for video in videos:
            t, h, w = video.grid_thw
            if h % merge or w % merge:
                raise ValueError(f"grid_thw {video.grid_thw}: rows and columns must be multiples of {merge}")
            if len(video.pixel_values) != t * h * w:
                raise ValueError(
                    f"grid_thw {video.grid_thw} needs {t * h * w} patches, pixel_values has {len(video.pixel_values)}"
                )


def apply_keeping_tables(
    apply: Callable[..., object], fn: Callable[[Tensor], Tensor], recurse: bool, *, rotaries: Sequence[nn.Module]
) -> None:
    """Move or cast a module, except its rotary frequencies, which stay in float32: in bfloat16 positions coincide.

    Args:
        apply: The `_apply` of the module's base class.
        fn: Applied to every tensor.
        recurse: Whether it is applied to submodules.
        rotaries: Modules whose buffers keep their type.
    """
    tables = [dict(rotary.named_buffers()) for rotary in rotaries]
    apply(fn, recurse)
    for rotary, kept in zip(rotaries, tables, strict=True):
        for name, table in kept.items():
            setattr(rotary, name, table.to(getattr(rotary, name).device))


def window_order(grid_thw: tuple[int, int, int], *, merge_size: int, window_cells: int) -> Tensor:
    """Return the raster index of each merged token, in the order of the vision transformer's windows.

    Args:
        grid_thw: Patch grid.
        merge_size: Patches merged along each side.
        window_cells: Merged tokens along each side of an attention window.
    """
    t, rows, columns = grid_thw[0], grid_thw[1] // merge_size, grid_thw[2] // merge_size
    row = torch.arange(rows).view(1, -1, 1).expand(t, rows, columns)
    column = torch.arange(columns).view(1, 1, -1).expand(t, rows, columns)
    windows_across = -(-columns // window_cells)
    windows_down = -(-rows // window_cells)
    window = (row // window_cells) * windows_across + column // window_cells
    window = window + windows_down * windows_across * torch.arange(t).view(-1, 1, 1)
    return torch.argsort(window.flatten(), stable=True)


@dataclass(frozen=True)
class RopeLayout:
    """Configuration values that determine position ids.

    Attributes:
        visual_ids: Placeholder ids of merged visual tokens (image and video).
        merge_size: Patches merged along each side.
        tokens_per_second: Temporal positions per second of video.
    """

    visual_ids: tuple[int, ...]
    merge_size: int
    tokens_per_second: int


def rope_positions(
    input_ids: Tensor,
    lengths: Sequence[int],
    videos: Sequence[VisualInput],
    layout: RopeLayout,
) -> tuple[Tensor, Tensor]:
    """Compute the (time, row, column) position of each token as in the training of the published weights.

    Text after a clip starts one past the largest of its time, row and column positions, and the seconds
    per frame pair are truncated to an integer before scaling (transformers 4.53.3). Transformers 5
    considers rows and columns only, which shifts the text after long clips.

    Args:
        input_ids: (B, L), padded on the right.
        lengths: Tokens of each sample without padding.
        videos: Clips in the order of their tokens over the batch.
        layout: From `UniPixelConfig.rope_layout`.

    Returns:
        (3, B, L) positions, 0 on padding, and the (B,) position of the token that follows each sample.

    Raises:
        ValueError: The visual tokens in the text do not match the clips.
    """
    positions = torch.zeros(3, *input_ids.shape, dtype=torch.long)
    following = torch.zeros(len(lengths), dtype=torch.long)
    remaining = iter(videos)
    for sample, length in enumerate(lengths):
        ids = input_ids[sample, :length].cpu()
        is_visual = torch.isin(ids, torch.tensor(layout.visual_ids))
        start, cursor = 0, 0
        while cursor < length:
            if not is_visual[cursor]:
                ahead = torch.nonzero(is_visual[cursor:])
                count = int(ahead[0]) if len(ahead) else length - cursor
                positions[:, sample, cursor : cursor + count] = torch.arange(start, start + count)
                start += count
            else:
                video = next(remaining, None)
                block = _video_positions(video, layout)
                count = block.shape[1]
                if not bool(is_visual[cursor : cursor + count].all()) or cursor + count > length:
                    present = int(is_visual[cursor:].long().cumprod(0).sum())
                    raise ValueError(
                        f"sample {sample}: a clip has {count} merged tokens, the text {present} visual tokens for it"
                    )
                positions[:, sample, cursor : cursor + count] = block + start
                start += int(block.max()) + 1
            cursor += count
        following[sample] = start
    if next(remaining, None) is not None:
        raise ValueError(f"{len(videos)} videos were given, the text has visual tokens for fewer")
    return positions.to(input_ids.device), following.to(input_ids.device)


def _video_positions(video: VisualInput | None, layout: RopeLayout) -> Tensor:
    """Return (3, tokens) positions of a clip, starting from 0."""
    if video is None:
        raise ValueError("the text has visual tokens for more videos than were given")
    if isinstance(video, ImagePatches):
        raise TypeError("an image of Pixel-SAIL has no positions of a clip: give a VideoInput or VideoFeatures")
    t, h, w = video.grid_thw
    rows, columns = h // layout.merge_size, w // layout.merge_size
    step = int(video.seconds_per_grid) * layout.tokens_per_second
    time = (torch.arange(t) * step).view(-1, 1, 1).expand(t, rows, columns)
    row = torch.arange(rows).view(1, -1, 1).expand(t, rows, columns)
    column = torch.arange(columns).view(1, 1, -1).expand(t, rows, columns)
    return torch.stack([time, row, column]).flatten(1)


@dataclass(frozen=True)
class PromptCache:
    """Keys and values of a processed text, to be continued any number of times.

    It is never changed: a continuation creates a new one, which shares its tensors.

    Attributes:
        cache: Keys and values of all layers, batch of one.
        num_tokens: Tokens in the cache.
        next_position: Position of the next token.
        pending_ids: Tokens that were generated but not processed; the next continuation processes them first.
        video: Features of the clip in the text, from which memory is pooled; of an image of Pixel-SAIL, the states
            of its patches, from which masks are computed.
    """

    __repr__ = short_repr

    cache: DynamicCache
    num_tokens: int
    next_position: int
    pending_ids: tuple[int, ...] = ()
    video: VideoFeatures | PatchStates | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the keys, the values and the clip's features."""
        layers = self.cache.layers
        tensors = [tensor for layer in layers for tensor in (layer.keys, layer.values) if tensor is not None]
        visual = 0 if self.video is None else self.video.num_bytes
        return visual + sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def fork(self, batch_size: int = 1) -> DynamicCache:
        """Return a cache for `batch_size` continuations, whose updates do not change this one."""
        forked = copy.copy(self.cache)
        forked.layers = [copy.copy(layer) for layer in self.cache.layers]
        if batch_size > 1:
            for layer in forked.layers:
                layer.keys = layer.keys.expand(batch_size, -1, -1, -1)
                layer.values = layer.values.expand(batch_size, -1, -1, -1)
        return forked
