"""Position ids, window order, prompt caches and precision of Qwen2.5-VL."""

# mypy: disable-error-code="union-attr, operator, arg-type, assignment"

from __future__ import annotations

import pytest
import torch
from parity.weights import tiny_config, tiny_model

from unipixel.model.generation import GenerationSettings, prefill
from unipixel.model.inputs import ModelInputs, VideoFeatures, VideoInput
from unipixel.model.qwen import rope_positions, window_order
from unipixel.model.unipixel import UniPixel

VIDEO = 992


def _clip(t: int, h: int, w: int, *, seconds: float = 1.0, seed: int = 0) -> VideoInput:
    patches = torch.randn(t * h * w, 1176, generator=torch.Generator().manual_seed(seed))
    return VideoInput(patches, (t, h, w), seconds)


def _ids(num_visual: int, before: int = 3, after: int = 4) -> torch.Tensor:
    return torch.tensor([[5] * before + [VIDEO] * num_visual + list(range(20, 20 + after))])


class TestRopePositions:
    layout = tiny_config().rope_layout

    def _positions(self, clip: VideoInput, before: int = 2, after: int = 2) -> torch.Tensor:
        t, h, w = clip.grid_thw
        ids = _ids(t * h * w // 4, before, after)
        return rope_positions(ids, [ids.shape[1]], [clip], self.layout)[0][:, 0]

    def test_text_after_a_long_clip_starts_past_its_time(self) -> None:
        # 8 pairs step by 2: the last is at 2 + 14, far past the 3 rows and columns.
        positions = self._positions(_clip(8, 6, 6))
        assert positions[:, 2].tolist() == [2, 2, 2]
        assert positions[0, -3].item() == 16
        assert positions[:, -2].tolist() == [17, 17, 17]

    def test_text_after_a_wide_clip_starts_past_its_columns(self) -> None:
        positions = self._positions(_clip(1, 4, 20))
        assert positions[:, -2].tolist() == [12, 12, 12]

    @pytest.mark.parametrize(("seconds", "step"), [(1.0, 2), (0.5, 0), (1.9, 2), (2.0, 4)])
    def test_seconds_are_truncated_before_they_are_scaled(self, seconds: float, step: int) -> None:
        positions = self._positions(_clip(2, 4, 4, seconds=seconds))
        assert positions[0, 6].item() - positions[0, 2].item() == step

    def test_rows_and_columns_follow_the_merged_grid(self) -> None:
        positions = self._positions(_clip(1, 4, 6))
        assert positions[1, 2:8].tolist() == [2, 2, 2, 3, 3, 3]
        assert positions[2, 2:8].tolist() == [2, 3, 4, 2, 3, 4]

    def test_padding_is_left_out(self) -> None:
        ids = torch.tensor([[5, 6, 7, 0, 0], [5, 6, 7, 8, 9]])
        positions, following = rope_positions(ids, [3, 5], [], self.layout)
        assert positions[0].tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 3, 4]]
        assert following.tolist() == [3, 5]

    def test_clip_of_another_size_is_refused_with_both_numbers(self) -> None:
        with pytest.raises(ValueError, match=r"clip has 9 merged tokens, the text 4 visual tokens"):
            rope_positions(_ids(4), [11], [_clip(1, 6, 6)], self.layout)

    def test_text_without_its_clip_is_refused(self) -> None:
        with pytest.raises(ValueError, match="more videos than were given"):
            rope_positions(_ids(4), [11], [], self.layout)

    def test_clip_without_its_text_is_refused(self) -> None:
        with pytest.raises(ValueError, match="visual tokens for fewer"):
            rope_positions(torch.tensor([[5, 6]]), [2], [_clip(1, 4, 4)], self.layout)


class TestWindowOrder:
    def test_small_grid_is_in_raster_order(self) -> None:
        order = window_order((2, 8, 8), merge_size=2, window_cells=4)
        assert order.tolist() == list(range(32))

    def test_partial_windows_come_last_in_their_row(self) -> None:
        # 5 columns make a window of 4 and one of 1.
        order = window_order((1, 4, 10), merge_size=2, window_cells=4)
        assert order.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 4, 9]

    @pytest.mark.parametrize("grid", [(1, 10, 14), (3, 18, 8), (2, 24, 42)])
    def test_pooling_rows_give_the_visual_tokens(
        self, recorded_model: UniPixel, monkeypatch: pytest.MonkeyPatch, grid: tuple[int, int, int]
    ) -> None:
        """Reference: the merger applied to rows in raster order gives the output of transformers."""
        monkeypatch.setattr(recorded_model.model, "pooling_order", "raster")
        with torch.no_grad():
            features = recorded_model.encode_videos([_clip(*grid)])[0]
            merged = recorded_model.model.visual.merger.mlp(features.pooling_rows)
        torch.testing.assert_close(merged, features.tokens, atol=1e-5, rtol=1e-5)


class TestEncoding:
    def test_patches_that_do_not_fill_the_grid_are_refused(self, recorded_model: UniPixel) -> None:
        clip = VideoInput(torch.zeros(15, 1176), (1, 4, 4))
        with pytest.raises(ValueError, match=r"needs 16 patches, pixel_values has 15"):
            recorded_model.encode_videos([clip])

    def test_clips_encoded_together_equal_clips_encoded_alone(self, recorded_model: UniPixel) -> None:
        clips = [_clip(2, 8, 12, seed=1), _clip(1, 6, 6, seed=2)]
        with torch.no_grad():
            together = recorded_model.encode_videos(clips)
            alone = [recorded_model.encode_videos([clip])[0] for clip in clips]
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one.tokens, other.tokens, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(one.pooling_rows, other.pooling_rows, atol=1e-5, rtol=1e-5)

    def test_features_passed_in_give_the_same_output(self, recorded_model: UniPixel) -> None:
        ids = _ids(6)
        with torch.no_grad():
            first = recorded_model(ModelInputs(ids, videos=(_clip(1, 4, 6),)))
            again = recorded_model(ModelInputs(ids, videos=first.video_features))
        assert isinstance(first.video_features[0], VideoFeatures)
        assert torch.equal(first.logits, again.logits)


class TestPrecision:
    def test_cast_keeps_rotary_tables_coordinates_and_sam_in_float32(self) -> None:
        model = tiny_model()
        tables = [module.inv_freq.clone() for module in _rotaries(model)]
        fourier = model.prompt_encoder.tem_pe.positional_encoding_gaussian_matrix.clone()
        model.to(torch.bfloat16)
        assert model.dtype == torch.bfloat16
        assert all(torch.equal(m.inv_freq, table) for m, table in zip(_rotaries(model), tables, strict=True))
        assert torch.equal(model.prompt_encoder.tem_pe.positional_encoding_gaussian_matrix, fourier)
        assert {parameter.dtype for parameter in model.sam2.parameters()} == {torch.float32}

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_runs_close_to_float32(self, recorded_model: UniPixel, dtype: torch.dtype) -> None:
        inputs = ModelInputs(_ids(24), videos=(_clip(1, 8, 12),))
        with torch.no_grad():
            expected = recorded_model(inputs).logits
            half = tiny_model().to(dtype)(inputs).logits
        assert half.dtype == dtype
        assert torch.nn.functional.cosine_similarity(half.float(), expected, dim=-1).min() > 0.99


class TestPromptCache:
    def test_continuation_equals_reading_at_once(self, recorded_model: UniPixel) -> None:
        clip = _clip(2, 8, 8)
        whole = torch.cat([_ids(32), torch.tensor([[41, 42, 43]])], dim=1)
        at_once = prefill(recorded_model, ModelInputs(whole, videos=(clip,)))
        first = prefill(recorded_model, ModelInputs(_ids(32), videos=(clip,)))
        second = prefill(recorded_model, ModelInputs(torch.tensor([[41, 42, 43]])), prompt_cache=first.prompt_cache)
        torch.testing.assert_close(second.hidden_states, at_once.hidden_states[:, -3:], atol=1e-4, rtol=1e-4)
        assert second.lengths == [3]

    def test_prompt_cache_is_not_changed_by_its_continuations(self, recorded_model: UniPixel) -> None:
        prompt_cache = prefill(recorded_model, ModelInputs(_ids(8), videos=(_clip(1, 8, 4),))).prompt_cache
        question = ModelInputs(torch.tensor([[41, 42]]))
        settings = GenerationSettings(max_new_tokens=4)
        first = recorded_model.generate(question, prompt_cache=prompt_cache, settings=settings)[0]
        recorded_model.generate(ModelInputs(torch.tensor([[77, 78, 79]])), prompt_cache=prompt_cache, settings=settings)
        again = recorded_model.generate(question, prompt_cache=prompt_cache, settings=settings)[0]
        assert prompt_cache.num_tokens == 15
        assert prompt_cache.cache.get_seq_length() == 15
        assert first.token_ids == again.token_ids

    def test_second_clip_after_a_prompt_cache_is_refused(self, recorded_model: UniPixel) -> None:
        prompt_cache = prefill(recorded_model, ModelInputs(_ids(8), videos=(_clip(1, 8, 4),))).prompt_cache
        with pytest.raises(ValueError, match="start a new conversation"):
            prefill(recorded_model, ModelInputs(_ids(8), videos=(_clip(1, 8, 4),)), prompt_cache=prompt_cache)


def _rotaries(model: UniPixel) -> tuple[torch.nn.Module, torch.nn.Module]:
    return model.model.visual.rotary_pos_emb, model.model.language_model.rotary_emb
