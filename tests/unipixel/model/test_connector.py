"""References, mask tokens and pooled memory."""

# mypy: disable-error-code="union-attr, operator, arg-type, assignment"

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unipixel.memory.mask_pooling import TokenMasks
from unipixel.model.connector import pool_memory
from unipixel.model.inputs import ModelInputs, ReferencePrompt, VideoFeatures, VideoInput
from unipixel.model.unipixel import UniPixel
from unipixel.model.visual_prompt_encoder import FourierTime

REF, SEG, MEM = 994, 995, 996
POINT = ReferencePrompt(torch.tensor([[10.0, 20.0]]), 1, 4)
BOX = ReferencePrompt(torch.tensor([[10.0, 20.0], [60.0, 90.0]]), 3, 4)


class TestReferences:
    def test_mixed_references_keep_their_order(self, recorded_model: UniPixel) -> None:
        with torch.no_grad():
            together = recorded_model.prompt_encoder([BOX, POINT, BOX])
            alone = torch.cat([recorded_model.prompt_encoder([one]) for one in (BOX, POINT, BOX)])
        torch.testing.assert_close(together, alone)

    def test_frame_changes_the_embedding(self, recorded_model: UniPixel) -> None:
        later = ReferencePrompt(POINT.coords, 2, 4)
        with torch.no_grad():
            first, second = recorded_model.prompt_encoder([POINT, later])
        assert not torch.allclose(first, second)

    def test_time_features_are_the_closed_form(self) -> None:
        encoder = FourierTime(8)
        matrix = encoder.positional_encoding_gaussian_matrix[0]
        angles = 2 * math.pi * (2 * 0.25 - 1) * matrix
        expected = torch.cat([angles.sin(), angles.cos()])
        torch.testing.assert_close(encoder(torch.tensor([0.25]))[0], expected)

    def test_time_matrix_is_the_same_in_every_process(self) -> None:
        torch.manual_seed(1)
        one = FourierTime(8)
        torch.manual_seed(2)
        assert torch.equal(one.positional_encoding_gaussian_matrix, FourierTime(8).positional_encoding_gaussian_matrix)

    @pytest.mark.parametrize(("shape", "frame"), [((3, 2), 0), ((2,), 0), ((1, 2), 4), ((1, 2), -1)])
    def test_impossible_references_are_refused(self, shape: tuple[int, ...], frame: int) -> None:
        with pytest.raises(ValueError, match="must be"):
            ReferencePrompt(torch.zeros(shape), frame, 4)

    def test_short_coordinates_are_refused(self) -> None:
        with pytest.raises(TypeError, match="float32"):
            ReferencePrompt(torch.zeros(1, 2, dtype=torch.bfloat16), 0, 4)


class TestPooling:
    @given(st.integers(0, 2**32 - 1))
    @settings(max_examples=25, deadline=None)
    def test_rows_are_the_means_under_the_masks(self, seed: int) -> None:
        """Reference: select and average in a loop."""
        random = torch.Generator().manual_seed(seed)
        rows = torch.randn(3 * 4 * 5, 7, generator=random)
        masks = torch.rand(3, 2, 4, 5, generator=random) > 0.8
        masks[1, 0] = False
        expected = [
            rows[t * 20 : (t + 1) * 20][masks[t, o].flatten()].mean(0)
            for o in range(2)
            for t in range(3)
            if masks[t, o].any()
        ]
        pooled = pool_memory(VideoFeatures(rows, rows, (3, 8, 10)), TokenMasks.from_cells(masks))
        assert len(pooled) == len(expected)
        for ours, theirs in zip(pooled, expected, strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_masks_on_another_grid_are_refused(self) -> None:
        features = VideoFeatures(torch.zeros(60, 7), torch.zeros(60, 7), (3, 8, 10))
        with pytest.raises(ValueError, match=r"must be \(3, objects, 20 cells"):
            pool_memory(features, TokenMasks.from_cells(torch.ones(3, 1, 5, 5)))


class TestPlaceholders:
    clip = VideoInput(torch.zeros(16, 1176), (1, 4, 4))

    def _forward(self, model: UniPixel, *tokens: int, references: tuple = (), mask: torch.Tensor | None = None) -> None:
        ids = torch.tensor([[5, *[992] * 4, *tokens]])
        memory = () if mask is None else (TokenMasks.from_cells(mask),)
        model(ModelInputs(ids, videos=(self.clip,), references=references, memory_masks=memory))

    def test_reference_without_its_prompt_is_refused(self, recorded_model: UniPixel) -> None:
        with pytest.raises(ValueError, match=r"has 2 <\|ref\|>, 1 were given: give one point or box"):
            self._forward(recorded_model, REF, REF, references=(POINT,))

    def test_prompt_without_its_reference_is_refused(self, recorded_model: UniPixel) -> None:
        with pytest.raises(ValueError, match=r"has 0 <\|ref\|>, 2 were given"):
            self._forward(recorded_model, 7, references=(POINT, BOX))

    def test_memory_token_without_a_mask_is_refused(self, recorded_model: UniPixel) -> None:
        with pytest.raises(ValueError, match=r"has 1 <\|mem\|>, 0 were given"):
            self._forward(recorded_model, MEM)

    def test_memory_token_of_an_empty_mask_is_refused(self, recorded_model: UniPixel) -> None:
        with pytest.raises(ValueError, match=r"an object whose mask is empty has none"):
            self._forward(recorded_model, MEM, mask=torch.zeros(1, 1, 2, 2, dtype=torch.bool))

    def test_masks_for_other_clips_are_refused(self) -> None:
        with pytest.raises(ValueError, match="memory_masks has 2 entries for 1 videos"):
            ModelInputs(torch.zeros(1, 1), videos=(self.clip,), memory_masks=(None, None))
