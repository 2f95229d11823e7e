"""Windows of equal size are one batch, and the result is that of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.byte_model import byte_config
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
    Qwen2_5_VLVisionAttention,
)

from unipixel.model.inputs import VideoInput
from unipixel.model.qwen import QwenVL
from unipixel.model.vision_attention import AttentionWindows, WindowBatchAttention, clip_windows

CPU = torch.device("cpu")
# Frames of whole windows only, of windows cut at either edge, of one window, and of several sizes in one call.
GRIDS = [[(3, 16, 24)], [(2, 10, 18)], [(1, 4, 6)], [(2, 16, 16), (1, 12, 20), (3, 8, 8)]]


def _clips(grids: list[tuple[int, int, int]]) -> list[VideoInput]:
    generator = torch.Generator().manual_seed(0)
    sizes = [frames * rows * columns for frames, rows, columns in grids]
    return [
        VideoInput(torch.randn(size, 3 * 2 * 14 * 14, generator=generator), grid, 1.0)
        for size, grid in zip(sizes, grids, strict=True)
    ]


@pytest.fixture(scope="module")
def model() -> QwenVL:
    torch.manual_seed(0)
    return QwenVL(byte_config().qwen, pooling_order="raster").eval()


@pytest.fixture(scope="module")
def theirs(model: QwenVL) -> Any:
    config = byte_config().qwen.vision_config
    visual = Qwen2_5_VisionTransformerPretrainedModel._from_config(config, attn_implementation="sdpa").eval()
    visual.load_state_dict(model.visual.state_dict())
    return visual


@torch.no_grad()
@pytest.mark.parametrize("grids", GRIDS)
def test_features_are_those_of_transformers(model: QwenVL, theirs: Any, grids: list[tuple[int, int, int]]) -> None:
    clips = _clips(grids)
    output = theirs(torch.cat([clip.pixel_values for clip in clips]), grid_thw=torch.tensor(grids))
    ours = torch.cat([features.tokens for features in model.encode_videos(clips)])
    assert type(theirs.blocks[0].attn) is Qwen2_5_VLVisionAttention
    assert type(model.visual.blocks[0].attn) is WindowBatchAttention
    assert torch.allclose(ours, output.pooler_output, atol=1e-5, rtol=0)
    # The layouts come from the grids, and from the boundaries alone if another caller runs the transformer.
    alone = model.visual(torch.cat([clip.pixel_values for clip in clips]), grid_thw=torch.tensor(grids))
    assert torch.equal(alone.pooler_output, ours)


@pytest.mark.parametrize("grids", GRIDS)
def test_layouts_of_a_clip_are_the_boundaries_of_transformers(grids: list[tuple[int, int, int]]) -> None:
    from transformers.vision_utils import get_vision_window_index

    _, boundaries = get_vision_window_index(torch.tensor(grids), 2, 112, 14)
    layouts = clip_windows(grids, merge_size=2, window_cells=4, device=CPU)
    expected = AttentionWindows.of_lengths(boundaries.diff().tolist(), device=CPU)
    layout = layouts[len(boundaries) - 1]
    assert layout.groups == expected.groups
    assert (layout.order is None) == (expected.order is None)
    assert layout.order is None or (expected.order is not None and torch.equal(layout.order, expected.order))


def test_windows_of_one_size_need_no_reordering() -> None:
    assert AttentionWindows.of_lengths([64] * 6, device=CPU).order is None
    mixed = AttentionWindows.of_lengths([4, 2, 4], device=CPU)
    assert mixed.groups == ((2, 4), (1, 2))
    assert mixed.order is not None
    assert mixed.order.tolist() == [0, 1, 2, 3, 6, 7, 8, 9, 4, 5]


def test_gradients_reach_the_patches(model: QwenVL) -> None:
    (clip,) = _clips([(1, 8, 12)])
    pixels = clip.pixel_values.requires_grad_()
    model.encode_videos([VideoInput(pixels, clip.grid_thw, 1.0)])[0].tokens.sum().backward()
    assert pixels.grad is not None
    assert float(pixels.grad.abs().min(dim=1).values.max()) > 0


def test_eager_attention_is_that_of_transformers() -> None:
    model = QwenVL(byte_config().qwen, pooling_order="raster", attention="eager")
    assert type(model.visual.blocks[0].attn) is Qwen2_5_VLVisionAttention
