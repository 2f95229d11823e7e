"""The mask head: a learned upsampler of patch states, and masks as dot products with the states of `[SEG]`.

Shape letters: h, w rows and columns of patches, D width of the transformer, U width of the head, C mask channels,
K masks, R rows of one strip.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

MAX_HEAD_WIDTH = 1024
_NORM_EPSILON = 1e-6
# Elements of one strip of the widest activation: about 16 MB in float32, so that a strip stays in the cache.
_STRIP_ELEMENTS = 2**22
# Blocks of rows in which a triangle is multiplied: 8 need 56 % of the products of a full matrix.
_TRIANGLE_BLOCKS = 8
Activation = Literal["none", "gelu"]


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

    @property
    def separable(self) -> DepthwiseSeparable:
        """The separable convolution."""
        return cast("DepthwiseSeparable", self[2])

    @property
    def norm(self) -> nn.LayerNorm:
        """The normalisation."""
        return cast("ChannelNorm", self[3]).ln

    def forward(self, pixels: Tensor) -> Tensor:
        """Upsample (h, w, U) to (2h, 2w, U); with gradients also a batch (B, h, w, U)."""
        if torch.is_grad_enabled():
            doubled = torch.stack(list(self._row_halves(pixels, *self._row_weights())), dim=-3).flatten(-4, -3)
            mixed = self.separable.depthwise(doubled.movedim(-1, -3)).movedim(-3, -1)
        else:
            (mixed,) = self.depthwise_strips(pixels, rows=len(pixels))
        norm, pointwise = self.norm, self.separable.pointwise
        mixed = _linear(mixed, pointwise.weight.flatten(1), pointwise.bias)
        return F.layer_norm(mixed, norm.normalized_shape, norm.weight, norm.bias, norm.eps)

    def depthwise_strips(self, pixels: Tensor, *, rows: int) -> Iterator[Tensor]:
        """Yield the map before the pointwise convolution in strips, without storing the whole of it or gradients.

        Args:
            pixels: (h, w, U).
            rows: Rows of `pixels` per strip; each strip (2 * rows, 2w, U) has twice as many.
        """
        height, width, channels = pixels.shape
        weights, bias = self._row_weights()
        num_doubled, kept = 0, pixels.new_empty(0, 2 * width + 2, channels)
        for start in range(0, height, rows):
            stop = min(start + rows, height)
            # The convolution needs one doubled row beyond each side of the strip.
            needed = min(stop + 1, height)
            # With a column of zeros on both sides.
            doubled = pixels.new_empty(len(kept) + 2 * (needed - num_doubled), 2 * width + 2, channels)
            doubled[: len(kept)] = kept
            doubled[:, :: 2 * width + 1] = 0
            for parity, half in enumerate(self._row_halves(pixels[num_doubled:needed], weights, bias)):
                doubled[len(kept) + parity :: 2, 1:-1] = half
            num_doubled = needed
            above, below = start > 0, stop < height
            num_rows = 2 * (stop - start) + above + below
            yield self._mix(doubled[:num_rows], above=above, below=below)
            kept = doubled[num_rows - 1 - below :].clone()

    def _row_weights(self) -> tuple[Tensor, Tensor]:
        """Return the transposed convolution as a matrix (2U, U) per row parity, and its bias (2U)."""
        transposed = cast("nn.ConvTranspose2d", self[0])
        channels = transposed.in_channels
        weights = transposed.weight.permute(2, 3, 1, 0).reshape(2, 2 * channels, channels)
        return weights, cast("Tensor", transposed.bias).repeat(2)

    def _row_halves(self, pixels: Tensor, weights: Tensor, bias: Tensor) -> Iterator[Tensor]:
        """Yield the even and the odd rows (..., h, 2w, U) of the transposed convolution, after GELU."""
        *sides, width, channels = pixels.shape
        for weight in weights:
            yield _linear(pixels, weight, bias, "gelu").view(*sides, 2 * width, channels)

    def _mix(self, doubled: Tensor, *, above: bool, below: bool) -> Tensor:
        """Apply the depthwise convolution; `above` and `below` say which neighbouring rows are given."""
        depthwise = self.separable.depthwise
        # In shorter types conv2d adds in float32, which the rows do not.
        if doubled.device.type == "cpu" and doubled.dtype == torch.float32:
            taps = depthwise.weight[:, 0].permute(1, 2, 0).contiguous()
            return _depthwise_rows(doubled, taps, cast("Tensor", depthwise.bias), above=above, below=below)
        channels_first = F.pad(doubled.permute(2, 0, 1)[None], (0, 0, int(not above), int(not below)))
        mixed = F.conv2d(channels_first, depthwise.weight, depthwise.bias, groups=depthwise.groups)
        return mixed[0].permute(1, 2, 0)


def _depthwise_rows(padded: Tensor, taps: Tensor, bias: Tensor, *, above: bool, below: bool) -> Tensor:
    """Apply a depthwise 3 x 3 convolution row by row, which stays in the cache of a CPU: 4 times faster than conv2d.

    Args:
        padded: (rows, columns + 2, U), with one more row where `above` or `below` is true.
        taps: (3, 3, U).
        bias: (U,).
        above: Whether the row above the result is given; otherwise it is zero.
        below: Whether the row below the result is given; otherwise it is zero.
    """
    num_given, columns = len(padded), padded.shape[1] - 2
    output = padded.new_empty(num_given - above - below, columns, padded.shape[2])
    for row, result in enumerate(output):
        centre = row + above
        torch.addcmul(bias, padded[centre, :columns], taps[1, 0], out=result)
        for offset in range(3):
            given = centre + offset - 1
            if 0 <= given < num_given:
                for column in range(int(offset == 1), 3):
                    result.addcmul_(padded[given, column : column + columns], taps[offset, column])
    return output


def _linear(pixels: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation = "none") -> Tensor:
    """Apply a linear layer (O, U) and an activation to (..., U).

    Without gradients, float32 products on a CPU are those of oneDNN, which torch uses for convolutions; on a CPU of AMD
    they are twice as fast as those of MKL, which `F.linear` takes. It reads contiguous weights alone.
    """
    if (
        pixels.device.type == "cpu"
        and pixels.dtype == weight.dtype == torch.float32
        and not torch.is_grad_enabled()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        own_bias = None if bias is None else bias.contiguous()
        fused: Tensor = torch.ops.mkldnn._linear_pointwise(
            pixels, weight.contiguous(), own_bias, activation, [], "none"
        )
        return fused
    projected = F.linear(pixels, weight, bias)
    return F.gelu(projected) if activation == "gelu" else projected


class FoldedProjection:
    """A pointwise convolution, the normalisation after it, and a linear layer, as one matrix product and a triangle.

    With y = W z + b, the normalised y is (y - mean) / deviation. The mean and the linear layer are linear in z, so that
    their product is one matrix. The deviation is the length of C (W z + b) / sqrt(U), where C subtracts the mean; with
    C [W b] = Q R, that of R [z 1], whose triangle has half of the products.
    """

    def __init__(self, block: UpsampleBlock, linear: nn.Linear) -> None:
        """Fold the weights.

        Args:
            block: Its pointwise convolution and normalisation are folded.
            linear: The layer after them.
        """
        pointwise, norm = block.separable.pointwise, block.norm
        weight = torch.cat([pointwise.weight.flatten(1), cast("Tensor", pointwise.bias)[:, None]], dim=1).float()
        centred = weight - weight.mean(dim=0)
        scaled = linear.weight.float() * norm.weight.float()
        product = scaled @ centred
        triangle = torch.linalg.qr(centred, mode="r").R
        dtype = linear.weight.dtype
        self._width, self._epsilon = len(weight), norm.eps
        self._weight, self._bias = (part.to(dtype).contiguous() for part in (product[:, :-1], product[:, -1]))
        self._shift = (linear.weight.float() @ norm.bias.float() + linear.bias.float()).to(dtype)
        step = -(-self._width // _TRIANGLE_BLOCKS)
        self._triangle = [
            (start, block[:, start:-1].to(dtype).contiguous(), block[:, -1].to(dtype).contiguous())
            for start, block in zip(range(0, self._width, step), triangle.split(step), strict=True)
        ]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Apply all three to (rows, columns, U)."""
        rows = pixels.reshape(-1, self._width)
        squares = rows.new_zeros(len(rows), dtype=torch.float32)
        for start, block, offset in self._triangle:
            part = _linear(rows[:, start:], block, offset)
            squares += part.float().square().sum(dim=-1)
        inverse = (squares / self._width + self._epsilon).rsqrt()[:, None].to(rows.dtype)
        projected = torch.addcmul(self._shift, _linear(rows, self._weight, self._bias), inverse)
        return projected.view(*pixels.shape[:2], -1)


class MaskHead(nn.Module):
    """Masks from patch states and the states of `[SEG]`.

    Attributes:
        pixel_width: Channels U of `pixel_features`.
    """

    def __init__(self, width: int, *, mask_channels: int, num_blocks: int) -> None:
        """Build a head with PyTorch's default initialisation, as published.

        Args:
            width: Width of the transformer; above 1024 the patch states are projected to 1024 channels first.
            mask_channels: Width of mask features and queries.
            num_blocks: Number of doublings.
        """
        super().__init__()
        self.pixel_width = inner = min(width, MAX_HEAD_WIDTH)
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
        pixels = self._projected(patch_states)
        for block in self.upsample_blocks:
            pixels = block(pixels)
        return pixels

    def mask_features(self, patch_states: Tensor) -> Tensor:
        """Compute the mask features (h * 2^n, w * 2^n, C) from patch states (h, w, D), for distillation."""
        features: Tensor = self.image_feature_projector(self.upsample(patch_states))
        return features

    def mask_logits(self, patch_states: Tensor, queries: Tensor) -> Tensor:
        """Compute the logits of masks without the features of C channels.

        The last linear layer is applied to the queries instead of to every pixel: (W x + b) . q = x . (W^T q) + b . q.
        Without gradients, the last block is computed in strips, which stay in the cache of a CPU, and folded into the
        layer after it, see `FoldedProjection`.

        Args:
            patch_states: (h, w, D).
            queries: (K, C).

        Returns:
            (K, h * 2^n, w * 2^n) float32.
        """
        size = [side * 2 ** len(self.upsample_blocks) for side in patch_states.shape[:2]]
        if not len(queries):
            return patch_states.new_zeros(0, *size, dtype=torch.float32)
        strips = self._feature_strips(self._projected(patch_states))
        return torch.cat([self.logits_of(strip, queries) for strip in strips], dim=1)

    def pixel_features(self, patch_states: Tensor) -> Tensor:
        """Compute what `logits_of` needs of an image, (h * 2^n, w * 2^n, U), once for several turns.

        Args:
            patch_states: (h, w, D), or a batch (B, h, w, D).
        """
        if patch_states.ndim == 4 and not torch.is_grad_enabled():
            return torch.stack([self.pixel_features(own) for own in patch_states])
        strips = self._feature_strips(self._projected(patch_states))
        if torch.is_grad_enabled():
            return next(strips)
        height, width = (side * 2 ** len(self.upsample_blocks) for side in patch_states.shape[:2])
        features = patch_states.new_empty(height, width, self.pixel_width, dtype=self.dtype)
        start = 0
        for strip in strips:
            features[start : start + len(strip)] = strip
            start += len(strip)
        return features

    def logits_of(self, pixel_features: Tensor, queries: Tensor) -> Tensor:
        """Compute logits (K, rows, columns) float32 from `pixel_features` (rows, columns, U) and queries (K, C).

        A batch of features (B, rows, columns, U) and of queries (B, K, C) gives (B, K, rows, columns).
        """
        last = cast("nn.Linear", self.image_feature_projector[2])
        weights, bias = queries @ last.weight, queries @ last.bias
        if pixel_features.ndim == 3:
            return F.linear(pixel_features, weights, bias).permute(2, 0, 1).float()
        logits = weights @ pixel_features.flatten(1, 2).mT + bias[..., None]
        return logits.unflatten(2, pixel_features.shape[1:3]).float()

    def mask_features_of(self, pixel_features: Tensor) -> Tensor:
        """Compute the mask features (rows, columns, C) from `pixel_features`, for distillation."""
        features: Tensor = self.image_feature_projector[2](pixel_features)
        return features

    def _projected(self, patch_states: Tensor) -> Tensor:
        pixels = patch_states.to(self.dtype)
        if self.image_feature_pre_projector is not None:
            pixels = self.image_feature_pre_projector(pixels)
        return pixels

    def _feature_strips(self, pixels: Tensor) -> Iterator[Tensor]:
        """Yield the features before the last layer (R, w * 2^n, U) from the first rows to the last."""
        first = cast("nn.Linear", self.image_feature_projector[0])
        *blocks, last = (cast("UpsampleBlock", block) for block in self.upsample_blocks)
        for block in blocks:
            pixels = block(pixels)
        if torch.is_grad_enabled():
            yield F.relu(first(last(pixels)))
            return
        folded = FoldedProjection(last, first)
        rows = max(1, _STRIP_ELEMENTS // (4 * pixels[0].numel()))
        for strip in last.depthwise_strips(pixels, rows=rows):
            yield folded(strip).relu_()


class PlainHead(nn.Module):
    """Masks of the paper's plain baseline (arXiv:2504.10465, section 3.1): no upsampler and no projection.

    The logits are the dot products of the patch states with the states of `[SEG]`; it has no parameters.

    Attributes:
        pixel_width: Channels D of `pixel_features`.
    """

    dtype = torch.float32

    def __init__(self, width: int) -> None:
        """Build it for a transformer of some width."""
        super().__init__()
        self.pixel_width = width

    def queries(self, seg_states: Tensor) -> Tensor:
        """Return the states (..., D) as they are."""
        return seg_states

    def mask_logits(self, patch_states: Tensor, queries: Tensor) -> Tensor:
        """Compute logits (K, h, w) float32 from patch states (h, w, D) and queries (K, D)."""
        return self.logits_of(patch_states, queries)

    def pixel_features(self, patch_states: Tensor) -> Tensor:
        """Return the patch states (h, w, D) as they are."""
        return patch_states

    def logits_of(self, pixel_features: Tensor, queries: Tensor) -> Tensor:
        """Compute logits (K, h, w) float32 from `pixel_features` and queries (K, D), or those of a batch."""
        logits = queries.float() @ pixel_features.float().flatten(-3, -2).mT
        return logits.unflatten(-1, pixel_features.shape[-3:-1]).float()

    def mask_features_of(self, pixel_features: Tensor) -> Tensor:
        """Return the patch states (h, w, D), for distillation."""
        return pixel_features

    mask_features = mask_features_of


def _two_layers(width: int, inner: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Linear(inner, channels))
