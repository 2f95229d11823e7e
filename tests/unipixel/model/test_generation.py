"""Generation: streaming, batches, prompt caches, sampling, stopping."""

# mypy: disable-error-code="union-attr, operator, arg-type, assignment"

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from parity.weights import tiny_config, tiny_model

from unipixel.model.generation import AnswerStream, GenerationSettings, prefill
from unipixel.model.inputs import ModelInputs, VideoInput
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import stack_inputs

SHORT = GenerationSettings(max_new_tokens=6)


@pytest.fixture(scope="module")
def clip() -> VideoInput:
    return VideoInput(torch.randn(64, 1176, generator=torch.Generator().manual_seed(3)), (1, 8, 8))


def _question(*tokens: int) -> ModelInputs:
    return ModelInputs(torch.tensor([tokens]))


def _first(clip: VideoInput, *tokens: int) -> ModelInputs:
    return ModelInputs(torch.tensor([[5, 6, *[992] * 16, *tokens]]), videos=(clip,))


def test_greedy_tokens_are_those_of_repeated_forward_passes(recorded_model: UniPixel, clip: VideoInput) -> None:
    """Reference: no cache, one forward pass over the whole text for each token."""
    answer = recorded_model.generate(_first(clip, 30, 31), settings=SHORT)[0]
    tokens: list[int] = []
    with torch.no_grad():
        for _ in range(6):
            tokens.append(int(recorded_model(_first(clip, 30, 31, *tokens)).logits[0, -1].argmax()))
    assert list(answer.token_ids) == tokens
    assert answer.stop_reason == "length"


def test_follow_up_processes_only_its_new_tokens(recorded_model: UniPixel, clip: VideoInput) -> None:
    first = recorded_model.generate(_first(clip, 30, 31), settings=SHORT)[0]
    second = recorded_model.generate(_question(40, 41, 42), prompt_cache=first.prompt_cache, settings=SHORT)[0]
    assert first.num_read_tokens == 20
    # Three new tokens and the last one of the answer, which was generated but not processed.
    assert second.num_read_tokens == 4
    at_once = recorded_model.generate(_first(clip, 30, 31, *first.token_ids, 40, 41, 42), settings=SHORT)[0]
    assert second.token_ids == at_once.token_ids


def test_batch_over_one_prompt_cache_equals_single_answers(recorded_model: UniPixel, clip: VideoInput) -> None:
    prompt_cache = prefill(recorded_model, _first(clip)).prompt_cache
    ids = torch.tensor([[30, 31, 32, 33], [40, 41, 0, 0], [50, 51, 52, 0]])
    batch = ModelInputs(ids, attention_mask=torch.arange(4) < torch.tensor([[4], [2], [3]]))
    together = recorded_model.generate(batch, prompt_cache=prompt_cache, settings=SHORT)
    alone = [
        recorded_model.generate(_question(*row), prompt_cache=prompt_cache, settings=SHORT)[0]
        for row in ((30, 31, 32, 33), (40, 41), (50, 51, 52))
    ]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    assert [answer.num_read_tokens for answer in together] == [4, 2, 3]
    assert all(answer.prompt_cache is None for answer in together)


def test_mask_tokens_come_from_the_state_before_each_seg(recorded_model: UniPixel, clip: VideoInput) -> None:
    tokens = list(recorded_model.generate(_first(clip, 30, 31), settings=SHORT)[0].token_ids)
    seg = tokens[2]
    model = tiny_model(replace(tiny_config(), seg_token_id=seg))
    answer = model.generate(_first(clip, 30, 31), settings=SHORT)[0]
    positions = [position for position, token in enumerate(answer.token_ids) if token == seg]
    inputs = _first(clip, 30, 31, *answer.token_ids)
    with torch.no_grad():
        output = model(inputs)
        expected = model.mask_tokens(model.seg_states(output, inputs.input_ids))
    assert len(answer.mask_tokens) == len(positions) > 0
    torch.testing.assert_close(answer.mask_tokens, expected, atol=1e-4, rtol=1e-4)


def test_stream_yields_the_tokens_of_the_finished_answer(recorded_model: UniPixel, clip: VideoInput) -> None:
    stream = AnswerStream(recorded_model, _first(clip, 30, 31), settings=SHORT)
    tokens = [step.token_id for step in stream]
    assert tuple(tokens) == stream.finish()[0].token_ids


def test_end_token_ends_the_answer(recorded_model: UniPixel, clip: VideoInput) -> None:
    tokens = recorded_model.generate(_first(clip, 30, 31), settings=SHORT)[0].token_ids
    model = tiny_model(replace(tiny_config(), eos_token_ids=(tokens[3],)))
    answer = model.generate(_first(clip, 30, 31), settings=SHORT)[0]
    assert answer.token_ids == tokens[: tokens.index(tokens[3]) + 1]
    assert answer.stop_reason == "end"


def test_stop_string_ends_the_answer(recorded_model: UniPixel, clip: VideoInput) -> None:
    tokens = recorded_model.generate(_first(clip, 30, 31), settings=SHORT)[0].token_ids
    settings = replace(SHORT, stop_strings=(f"<{tokens[1]}>",))
    answer = recorded_model.generate(
        _first(clip, 30, 31), settings=settings, decode=lambda ids: "".join(f"<{token}>" for token in ids)
    )[0]
    assert answer.token_ids == tokens[:2]
    assert answer.stop_reason == "stop_string"


def test_stop_string_without_a_decoder_is_refused(recorded_model: UniPixel, clip: VideoInput) -> None:
    with pytest.raises(ValueError, match="stop_strings require `decode`"):
        recorded_model.generate(_first(clip), settings=GenerationSettings(stop_strings=("x",)))


def test_sampling_repeats_with_its_seed_and_varies_without(recorded_model: UniPixel, clip: VideoInput) -> None:
    def sampled(seed: int) -> tuple[int, ...]:
        settings = GenerationSettings(max_new_tokens=12, temperature=2.0, seed=seed)
        return recorded_model.generate(_first(clip, 30, 31), settings=settings)[0].token_ids

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}])
def test_sampling_from_one_token_is_greedy(
    recorded_model: UniPixel, clip: VideoInput, narrow: dict[str, float]
) -> None:
    greedy = recorded_model.generate(_first(clip, 30, 31), settings=SHORT)[0].token_ids
    settings = GenerationSettings(max_new_tokens=6, temperature=1.0, seed=0, **narrow)
    assert recorded_model.generate(_first(clip, 30, 31), settings=settings)[0].token_ids == greedy


def test_generation_stores_nothing_on_the_model(recorded_model: UniPixel, clip: VideoInput) -> None:
    before = {name: set(vars(module)) for name, module in recorded_model.named_modules()}
    recorded_model.generate(_first(clip, 30, 31), settings=SHORT)
    assert {name: set(vars(module)) for name, module in recorded_model.named_modules()} == before


@pytest.mark.parametrize(
    ("field", "value"), [("max_new_tokens", 0), ("temperature", -0.1), ("top_p", 0.0), ("top_k", 0)]
)
def test_settings_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field} must be .* got {value}"):
        GenerationSettings(**{field: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": float("nan")}, "temperature must be 0"),
        ({"temperature": float("inf")}, "temperature must be 0"),
        ({"seed": 10**30}, r"seed must be in \[0, 2\*\*63\)"),
        ({"seed": -1}, r"seed must be in \[0, 2\*\*63\)"),
    ],
)
def test_generation_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerationSettings(**settings)


def test_batch_of_several_clips_equals_one_by_one(recorded_model: UniPixel) -> None:
    """Prompts of different lengths, each with its own clip: padding changes neither positions nor attention."""
    generator = torch.Generator().manual_seed(4)
    clips = [
        VideoInput(torch.randn(t * h * w, 1176, generator=generator), (t, h, w))
        for t, h, w in ((1, 8, 8), (2, 4, 8), (1, 4, 4))
    ]
    parts = [
        ModelInputs(torch.tensor([[5, *[992] * (len(clip.pixel_values) // 4), *range(30, 32 + row)]]), videos=(clip,))
        for row, clip in enumerate(clips)
    ]
    together = recorded_model.generate(stack_inputs(parts, padding_id=0), settings=SHORT)
    alone = [recorded_model.generate(part, settings=SHORT)[0] for part in parts]
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    joined, single = (
        prefill(recorded_model, stack_inputs(parts, padding_id=0)),
        [prefill(recorded_model, part) for part in parts],
    )
    for row, output in enumerate(single):
        length = output.lengths[0]
        torch.testing.assert_close(joined.hidden_states[row, :length], output.hidden_states[0], atol=1e-4, rtol=1e-4)
        assert joined.next_positions[row] == output.next_positions[0]
