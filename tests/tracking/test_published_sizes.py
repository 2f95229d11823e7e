"""The published sizes of SAM 2.1 and SAM 2.0 agree with the models of the package's configuration files."""

from __future__ import annotations

import pytest
from accelerate import init_empty_weights
from sam2.build_sam import build_sam2

from unipixel.checkpoints.segmenter_tensors import official_shapes
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.segmenter import Segmenter


@pytest.mark.parametrize("version", ["sam2.1", "sam2"])
@pytest.mark.parametrize("size", ["t", "s", "b+", "l"])
def test_names_and_shapes_equal_those_of_the_package(version: str, size: str) -> None:
    name = f"configs/{version}/{version}_hiera_{size}.yaml"
    with init_empty_weights(include_buffers=False):
        ours = Segmenter(SegmenterConfig.preset(name))
        theirs = build_sam2(name, device="meta", mode="train", apply_postprocessing=False)
    shapes = {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in ours.state_dict().items()} == shapes
    # Computed without torch, to refuse a checkpoint before anything is loaded.
    assert official_shapes(ours.config) == shapes
