"""The four published SAM 2.1 sizes agree with the models of the package's configuration files."""

from __future__ import annotations

import pytest
from accelerate import init_empty_weights
from sam2.build_sam import build_sam2

from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.segmenter import Segmenter


@pytest.mark.parametrize(("name", "file"), [("tiny", "t"), ("small", "s"), ("base_plus", "b+"), ("large", "l")])
def test_names_and_shapes_equal_those_of_the_package(name: str, file: str) -> None:
    with init_empty_weights(include_buffers=False):
        ours = Segmenter(SegmenterConfig.preset(name))
        theirs = build_sam2(
            f"configs/sam2.1/sam2.1_hiera_{file}.yaml", device="meta", mode="train", apply_postprocessing=False
        )
    shapes = {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in ours.state_dict().items()} == shapes
