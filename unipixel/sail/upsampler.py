"""The mask head: a learned upsampler of patch states, and masks as dot products with the states of `[SEG]`.

Shape letters: h, w rows and columns of patches, D width of the transformer, U width of the head, C mask channels,
K masks, R rows of one strip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

MAX_HEAD_WIDTH = 1024
_NORM_EPSILON = 1e-6
# Elements of one strip of the widest activation: about 16 MB in float32, so that a strip stays in the cache.
_STRIP_ELEMENTS = 2**22


class DepthwiseSeparable(nn.Module):
    """A depthwise 3 x 3 convolution followed by a 1 x 1 convolution (arXiv:1704.04861)."""

    def __init__(self, width: int) -> None:
        """Build both for `width` channels."""
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.pointwise = nn.Conv2d(width, width, 1)


class ChannelNorm(nn.Module):
    """Layer normalisation over channels."""

    def __init__(self, width: int) -> None:
        """Build it for `width` channels."""
        super().__init__()
        self.ln = nn.LayerNorm(width, eps=_NORM_EPSILON)


class UpsampleBlock(nn.Sequential):
    """Doubles the resolution: transposed convolution, GELU, separable convolution, normalisation over channels.

    Maps are channels-last, so that everything but the depthwise convolution is a matrix product over pixels.
    """

    def __init__(self, width: int) -> None:
        """Build the block for `width` channels, with the tensor names of the published model."""
        super().__init__(
            nn.ConvTranspose2d(width, width, 2, stride=2), nn.GELU(), DepthwiseSeparable(width), ChannelNorm(width)
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Upsample (h, w, U) to (2h, 2w, U)."""
        return self.upsample_rows(pixels, 0, len(pixels))

    def upsample_rows(self, pixels: Tensor, start: int, stop: int) -> Tensor:
        """Upsample the rows from `start` to `stop` of a map (h, w, U).

        Args:
            pixels: The whole map; the rows next to the strip are used too.
            start: First row of the strip.
            stop: Row after the last one.

        Returns:
            (2 * (stop - start), 2w, U).
        """
        above, below = int(start > 0), int(stop < len(pixels))
        wide = F.gelu(self._double(pixels[start - above : stop + below]))
        # Each neighbouring row gives two, of which the convolution needs the nearer one.
        wide = wide[above : len(wide) - below]
        return self._separable(wide, padding=(0 if above else 1, 0 if below else 1))

    def _double(self, pixels: Tensor) -> Tensor:
        """Apply the transposed convolution, whose kernel is its stride: one matrix product per row parity."""
        transposed = cast("nn.ConvTranspose2d", self[0])
        rows, columns, width = pixels.shape
        weight = transposed.weight.permute(2, 0, 3, 1).reshape(2, width, 2 * width)
        bias = cast("Tensor", transposed.bias).repeat(2)
        halves = [torch.addmm(bias, pixels.reshape(-1, width), weight[parity]) for parity in range(2)]
        doubled = torch.stack([half.view(rows, columns, 2 * width) for half in halves], dim=1)
        return doubled.view(2 * rows, 2 * columns, width)

    def _separable(self, pixels: Tensor, *, padding: tuple[int, int]) -> Tensor:
        separable, norm = cast("DepthwiseSeparable", self[2]), cast("ChannelNorm", self[3]).ln
        channels_first = pixels.permute(2, 0, 1)[None]
        if padding != (1, 1):
            channels_first = F.pad(channels_first, (0, 0, *padding))
        vertical = 1 if padding == (1, 1) else 0
        depthwise = separable.depthwise
        mixed = F.conv2d(
            channels_first, depthwise.weight, depthwise.bias, padding=(vertical, 1), groups=depthwise.groups
        )[0].permute(1, 2, 0)
        mixed = F.linear(mixed, separable.pointwise.weight.flatten(1), separable.pointwise.bias)
        return F.layer_norm(mixed, norm.normalized_shape, norm.weight, norm.bias, norm.eps)


class MaskHead(nn.Module):
    """Masks from patch states and the states of `[SEG]`."""

    def __init__(self, width: int, *, mask_channels: int, num_blocks: int) -> None:
        """Build a head with PyTorch's default initialisation, as published.

        Args:
            width: Width of the transformer; above 1024 the patch states are projected to 1024 channels first.
            mask_channels: Width of mask features and queries.
            num_blocks: Number of doublings.
        """
        super().__init__()
        inner = min(width, MAX_HEAD_WIDTH)
        self.image_feature_pre_projector = _two_layers(width, width, inner) if width > MAX_HEAD_WIDTH else None
        self.upsample_blocks = nn.ModuleList(UpsampleBlock(inner) for _ in range(num_blocks))
        self.image_feature_projector = _two_layers(inner, inner, mask_channels)
        self.seg_token_projector = _two_layers(width, inner, mask_channels)

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the head."""
        return next(self.seg_token_projector.parameters()).dtype

    def queries(self, seg_states: Tensor) -> Tensor:
        """Compute the queries (..., C) of masks from the states (..., D) of their `[SEG]`."""
        projected: Tensor = self.seg_token_projector(seg_states.to(self.dtype))
        return projected

    def upsample(self, patch_states: Tensor) -> Tensor:
        """Compute the upsampled map (h * 2^n, w * 2^n, U) from patch states (h, w, D)."""
        return self._upsampled(self._projected(patch_states))

    def mask_features(self, patch_states: Tensor) -> Tensor:
        """Compute the mask features (h * 2^n, w * 2^n, C) from patch states (h, w, D), for distillation."""
        features: Tensor = self.image_feature_projector(self.upsample(patch_states))
        return features

    def mask_logits(self, patch_states: Tensor, queries: Tensor) -> Tensor:
        """Compute the logits of masks without the features of C channels, which are larger than all other maps.

        The last linear layer is applied to the queries instead of to every pixel: (W x + b) . q = x . (W^T q) + b . q.
        The last block is computed strip by strip.

        Args:
            patch_states: (h, w, D).
            queries: (K, C).

        Returns:
            (K, h * 2^n, w * 2^n) float32.
        """
        size = [side * 2 ** len(self.upsample_blocks) for side in patch_states.shape[:2]]
        if not len(queries):
            return patch_states.new_zeros(0, *size, dtype=torch.float32)
        strips = self._strips(self._projected(patch_states))
        return torch.cat([self.logits_of(self._activate(strip), queries) for strip in strips], dim=1)

    def pixel_features(self, patch_states: Tensor) -> Tensor:
        """Compute what `logits_of` needs of an image, (h * 2^n, w * 2^n, U), once for several turns."""
        return torch.cat([self._activate(strip) for strip in self._strips(self._projected(patch_states))])

    def logits_of(self, pixel_features: Tensor, queries: Tensor) -> Tensor:
        """Compute logits (K, rows, columns) float32 from `pixel_features` (rows, columns, U) and queries (K, C)."""
        last = cast("nn.Linear", self.image_feature_projector[2])
        logits = F.linear(pixel_features, queries @ last.weight, queries @ last.bias)
        return logits.permute(2, 0, 1).float()

    def _activate(self, pixels: Tensor) -> Tensor:
        """Apply the first layer of the feature projector; the second one is applied to the queries."""
        return F.relu(cast("nn.Linear", self.image_feature_projector[0])(pixels))

    def _projected(self, patch_states: Tensor) -> Tensor:
        pixels = patch_states.to(self.dtype)
        if self.image_feature_pre_projector is not None:
            pixels = self.image_feature_pre_projector(pixels)
        return pixels

    def _upsampled(self, pixels: Tensor) -> Tensor:
        for block in self.upsample_blocks:
            pixels = block(pixels)
        return pixels

    def _strips(self, pixels: Tensor) -> Iterator[Tensor]:
        """Yield the upsampled map in strips of rows (R, w * 2^n, U), without storing the whole of it."""
        for block in list(self.upsample_blocks)[:-1]:
            pixels = block(pixels)
        last = cast("UpsampleBlock", self.upsample_blocks[-1])
        # One strip in training, where all activations are kept for the gradient anyway.
        rows = len(pixels) if torch.is_grad_enabled() else max(1, _STRIP_ELEMENTS // (4 * pixels[0].numel()))
        for start in range(0, len(pixels), rows):
            yield last.upsample_rows(pixels, start, min(start + rows, len(pixels)))


def _two_layers(width: int, inner: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, channels))
