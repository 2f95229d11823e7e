from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor, smart_resize

from unipixel.processing.image_processing import (
    FrameBudget,
    PatchSizes,
    check_frames,
    fit_size,
    resize_frame,
    to_patches,
)

sides = st.integers(1, 3000)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@given(sides, sides, st.sampled_from([28, 32, 12]), st.integers(1, 200), st.integers(1, 16))
def test_fit_size_agrees_with_transformers(height: int, width: int, cell: int, low: int, ratio: int) -> None:
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(ValueError, match="up to 200 times"):
            fit_size(height, width, cell=cell, min_tokens=low, max_tokens=low * ratio)
        return
    expected = smart_resize(height, width, cell, low * cell**2, low * ratio * cell**2)
    assert fit_size(height, width, cell=cell, min_tokens=low, max_tokens=low * ratio) == expected


def test_fit_size_of_published_cases() -> None:
    # 480 x 854 frames of the golden cases: 16 frames, and 5 frames with three times the tokens.
    assert fit_size(480, 854, cell=28, min_tokens=128, max_tokens=256) == (308, 588)
    assert fit_size(480, 854, cell=28, min_tokens=128, max_tokens=768) == (476, 840)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_to_patches_agrees_with_transformers_on_clips(num_frames: int) -> None:
    frames = noise(num_frames, 56, 84, 3)
    patches, grid = to_patches(list(frames), PatchSizes())
    peer = Qwen2VLVideoProcessor()([torch.from_numpy(frames).permute(0, 3, 1, 2)], do_resize=False, return_tensors="pt")
    assert grid == tuple(peer["video_grid_thw"][0].tolist())
    torch.testing.assert_close(patches, peer["pixel_values_videos"], atol=1e-6, rtol=0)


def test_to_patches_agrees_with_transformers_on_an_image_and_its_resize() -> None:
    image = noise(70, 101, 3)
    size = fit_size(70, 101, cell=28, min_tokens=16, max_tokens=64)
    patches, grid = to_patches([resize_frame(image, size)], PatchSizes())
    peer = Qwen2VLImageProcessorPil(min_pixels=16 * 784, max_pixels=64 * 784)(image, return_tensors="pt")
    assert grid == tuple(peer["image_grid_thw"][0].tolist())
    torch.testing.assert_close(patches, peer["pixel_values"], atol=1e-6, rtol=0)


def test_to_patches_of_other_sizes_agrees_with_transformers() -> None:
    frames = noise(4, 48, 96, 3)
    patches, grid = to_patches(list(frames), PatchSizes(patch=8, merge=3))
    peer = Qwen2VLVideoProcessor(patch_size=8, merge_size=3)(
        [torch.from_numpy(frames).permute(0, 3, 1, 2)], do_resize=False, return_tensors="pt"
    )
    assert grid == (2, 6, 12)
    torch.testing.assert_close(patches, peer["pixel_values_videos"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("num_frames", "expected"), [(16, 256), (9, 256), (8, 512), (5, 768), (1, 4096), (60, 256)])
def test_budget_gives_short_clips_more_tokens(num_frames: int, expected: int) -> None:
    assert FrameBudget().max_tokens_of(num_frames) == expected


def test_budget_is_read_where_it_was_written(tmp_path: Path) -> None:
    assert FrameBudget.read(tmp_path) == FrameBudget(16, 128, 256)
    FrameBudget(8, 4, 9, is_still=True).write(tmp_path)
    assert FrameBudget.read(tmp_path) == FrameBudget(8, 4, 9, is_still=True)


@pytest.mark.parametrize(
    "fields", [{"num_frames": 0}, {"min_tokens": 2.0}, {"min_tokens": 9, "max_tokens": 8}, {"is_still": 1}]
)
def test_budget_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        FrameBudget(**fields)


@pytest.mark.parametrize("text", ["[]", '{"frames": 3}'])
def test_budget_from_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "unipixel_processor.json").write_text(text)
    with pytest.raises(ValueError, match=r"must be an object with some of the fields \['is_still', 'max_tokens'"):
        FrameBudget.read(tmp_path)


@pytest.mark.parametrize(
    ("frames", "error", "message"),
    [
        ([], ValueError, "no frame was given"),
        ([np.zeros((4, 4, 3))], TypeError, "frame 0 must be a uint8 array .* got float64"),
        ([[1, 2]], TypeError, "got list"),
        ([noise(4, 4)], ValueError, r"must have the shape \(H, W, 3\), RGB, got \(4, 4\)"),
        ([noise(4, 4, 4)], ValueError, r"got \(4, 4, 4\)"),
        ([noise(4, 4, 3), noise(4, 5, 3)], ValueError, r"frame 1 is \(4, 5, 3\), frame 0 \(4, 4, 3\)"),
    ],
)
def test_frames_of_another_kind_are_refused(frames: list, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_frames(frames)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
def test_patches_are_a_rearrangement_of_the_pixels(num_frames: int, rows: int, columns: int) -> None:
    frames = noise(num_frames, rows * 28, columns * 28, 3)
    patches, grid = to_patches(list(frames), PatchSizes())
    assert grid == ((num_frames + 1) // 2, rows * 2, columns * 2)
    red = patches.view(-1, 3, 2, 14, 14)[:, 0] * 0.26862954 + 0.48145466
    doubled = np.concatenate([frames, frames[-1:]]) if num_frames % 2 else frames
    np.testing.assert_allclose(np.sort(red.flatten() * 255), np.sort(doubled[..., 0].flatten()), atol=1e-3)
