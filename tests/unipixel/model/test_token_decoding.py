"""Decoding with a cache of fixed size: the states, ids and caches of the cache that grows."""

# mypy: disable-error-code="union-attr"

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from helpers.sail_model import CHECKPOINT, GOLDEN, recorded_image, recorded_prompts, recorded_sail
from parity.run_sail_case import SailCase
from parity.weights import tiny_model
from torch import Tensor

from unipixel.memory.mask_pooling import TokenMasks
from unipixel.model.generation import AnswerStream, Generation, GenerationSettings, prefill
from unipixel.model.inputs import ModelInputs, VideoInput
from unipixel.model.language_model import LanguageModel
from unipixel.model.token_decoding import (
    DynamicCacheDecoder,
    StaticCacheDecoder,
    Step,
    cache_length,
    capture_graph,
    open_decoder,
)
from unipixel.model.unipixel import UniPixel
from unipixel.processing.chat_template import Turn


@pytest.fixture(scope="module")
def clip() -> VideoInput:
    return VideoInput(torch.randn(64, 1176, generator=torch.Generator().manual_seed(3)), (1, 8, 8))


@pytest.fixture(scope="module")
def padded(clip: VideoInput) -> tuple[ModelInputs, ModelInputs]:
    """A clip, and three questions of several lengths about it."""
    ids = torch.tensor([[30, 31, 32, 33], [40, 41, 0, 0], [50, 51, 52, 0]])
    questions = ModelInputs(ids, attention_mask=torch.arange(4) < torch.tensor([[4], [2], [3]]))
    return ModelInputs(torch.tensor([[5, 6, *[992] * 16]]), videos=(clip,)), questions


def _turns(model: UniPixel, clip: VideoInput, implementation: Any, *, device: str = "cpu") -> list[Generation]:
    """Three turns; the second injects the memory of an object."""
    settings = GenerationSettings(max_new_tokens=40, cache_implementation=implementation)
    cells = torch.zeros(1, 1, 4, 4)
    cells[0, 0, 1:3, 2:] = 1
    mem = model.config.mem_token_id
    turns = [
        ModelInputs(torch.tensor([[5, 6, *[992] * 16, 30, 31]]), videos=(clip,)),
        ModelInputs(torch.tensor([[40, mem, 41]]), memory_masks=(TokenMasks.from_cells(cells),)),
        ModelInputs(torch.tensor([[50, 51, 52, 53]])),
    ]
    answers: list[Generation] = []
    for turn in turns:
        prompt_cache = answers[-1].prompt_cache if answers else None
        answers += model.generate(turn.to(device), prompt_cache=prompt_cache, settings=settings)
    return answers


def _assert_equal_steps(
    model: LanguageModel, inputs: ModelInputs, *, before: ModelInputs | None = None, num_steps: int,
    prepare: Callable[[Step], Step] | None = None,
) -> StaticCacheDecoder:  # fmt: skip
    """Compare states and logits of both decoders for given tokens."""
    cached = None if before is None else prefill(model, before).prompt_cache
    outputs = [prefill(model, inputs, prompt_cache=cached) for _ in range(2)]
    state: dict[str, Any] = {"attention_mask": outputs[0].attention_mask, "next_positions": outputs[0].next_positions}
    fixed = StaticCacheDecoder(model, outputs[0].cache, prepare=prepare, **state)
    growing = DynamicCacheDecoder(model, outputs[1].cache, **state)
    generator = torch.Generator().manual_seed(0)
    for _ in range(num_steps):
        ids = torch.randint(10, 90, (len(inputs.input_ids),), generator=generator)
        with torch.no_grad():
            expected, given = growing.step(ids), fixed.step(ids).clone()
            torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(model.logits(given), model.logits(expected), atol=1e-5, rtol=1e-5)
    assert fixed.next_position == growing.next_position
    return fixed


def test_static_cache_gives_the_answers_of_the_growing_one_over_several_turns(
    recorded_model: UniPixel, clip: VideoInput
) -> None:
    expected, given = (_turns(recorded_model, clip, kind) for kind in ("dynamic", "static"))
    assert [answer.token_ids for answer in given] == [answer.token_ids for answer in expected]
    for ours, theirs in zip(given, expected, strict=True):
        assert ours.prompt_cache.num_tokens == theirs.prompt_cache.num_tokens
        assert ours.prompt_cache.next_position == theirs.prompt_cache.next_position
        assert ours.prompt_cache.pending_ids == theirs.prompt_cache.pending_ids
        for layer, other in zip(ours.prompt_cache.cache.layers, theirs.prompt_cache.cache.layers, strict=True):
            torch.testing.assert_close(layer.keys, other.keys, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(layer.values, other.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_static_cache_gives_the_states_of_a_padded_batch(
    padded: tuple[ModelInputs, ModelInputs], attention: str
) -> None:
    model = tiny_model()
    model.model.language_model.config._attn_implementation = attention
    assert model.attention == attention
    _assert_equal_steps(model, padded[1], before=padded[0], num_steps=6)


def test_a_full_cache_doubles_and_its_step_is_prepared_once_per_size(
    recorded_model: UniPixel, padded: tuple[ModelInputs, ModelInputs]
) -> None:
    prepared: list[Step] = []

    def prepare(step: Step) -> Step:
        prepared.append(step)
        return step

    fixed = _assert_equal_steps(recorded_model, padded[0], num_steps=130, prepare=prepare)
    # 18 tokens of the prompt: 64 entries, then 128, then 256.
    assert len(prepared) == 3
    assert fixed.cache().get_seq_length() == 148


def test_a_step_is_compiled_as_one_graph_per_size(
    recorded_model: UniPixel, padded: tuple[ModelInputs, ModelInputs]
) -> None:
    """`fullgraph` refuses a step that reads a value of the device, which a CUDA graph cannot contain either."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = partial(torch.compile, backend="aot_eager", fullgraph=True, dynamic=False)
    _assert_equal_steps(recorded_model, padded[1], before=padded[0], num_steps=50, prepare=compiled)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    torch._dynamo.reset()


def test_static_cache_gives_the_states_of_pixel_sail() -> None:
    sail, processor = recorded_sail()
    image = processor.image(recorded_image("case_refer"))
    inputs = processor.encode([Turn("Please segment the red square in this image.")], image=image).inputs
    compiled = partial(torch.compile, backend="aot_eager", fullgraph=True, dynamic=False)
    _assert_equal_steps(sail, inputs, num_steps=4, prepare=compiled)
    torch._dynamo.reset()


def test_static_cache_gives_the_states_of_eve() -> None:
    case = SailCase(CHECKPOINT, GOLDEN / "case_eve")
    case._load()
    image = case.processor.image(case.inputs["image"].numpy(), recorded_prompts("case_eve"))
    inputs = case.processor.encode([Turn("What is <Prompt6>?")], image=image).inputs
    _assert_equal_steps(case.model, inputs, num_steps=4)


def test_static_cache_gives_the_masks_of_pixel_sail() -> None:
    """Its masks need the state after `[SEG]`, so that the step order differs."""
    sail, processor = recorded_sail()
    image = processor.image(recorded_image("case_refer"))
    inputs = processor.encode([Turn("Please segment the red square in this image.")], image=image).inputs

    def generate(implementation: Any) -> Generation:
        settings = GenerationSettings(max_new_tokens=12, cache_implementation=implementation)
        return sail.generate(inputs, settings=settings)[0]

    expected, given = generate("dynamic"), generate("static")
    assert given.token_ids == expected.token_ids
    torch.testing.assert_close(given.mask_tokens, expected.mask_tokens, atol=1e-4, rtol=1e-4)


def test_a_cpu_keeps_the_growing_cache_by_default(recorded_model: UniPixel, clip: VideoInput) -> None:
    inputs = ModelInputs(torch.tensor([[5, 6, *[992] * 16]]), videos=(clip,))
    kinds = [
        type(AnswerStream(recorded_model, inputs, settings=GenerationSettings(cache_implementation=kind))._decoder)
        for kind in ("auto", "dynamic", "static")
    ]
    assert kinds == [DynamicCacheDecoder, DynamicCacheDecoder, StaticCacheDecoder]


@pytest.mark.parametrize(
    ("attention", "is_quantized", "message"),
    [("flash_attention_2", False, "the attention is flash_attention_2"), ("sdpa", True, "the weights are quantised")],
)
def test_static_cache_is_refused_where_it_cannot_work(
    recorded_model: UniPixel, clip: VideoInput, monkeypatch: pytest.MonkeyPatch, attention: str, is_quantized: bool,
    message: str,
) -> None:  # fmt: skip
    output = prefill(recorded_model, ModelInputs(torch.tensor([[5, 6, *[992] * 16]]), videos=(clip,)))
    monkeypatch.setattr(UniPixel, "attention", attention)
    monkeypatch.setattr(UniPixel, "is_quantized", is_quantized)
    state: dict[str, Any] = {"attention_mask": None, "next_positions": output.next_positions}
    with pytest.raises(ValueError, match=f"cache_implementation 'static' needs other settings: {message}"):
        open_decoder(recorded_model, output.cache, implementation="static", **state)
    assert isinstance(open_decoder(recorded_model, output.cache, **state), DynamicCacheDecoder)


def test_unknown_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="cache_implementation must be one of auto, dynamic, static, got 'paged'"):
        GenerationSettings(cache_implementation="paged")  # type: ignore[arg-type]


@pytest.mark.parametrize(("num_tokens", "length"), [(1, 64), (64, 64), (65, 128), (1234, 2048), (2048, 2048)])
def test_cache_length_is_the_next_power_of_two(num_tokens: int, length: int) -> None:
    assert cache_length(num_tokens) == length


@pytest.mark.gpu
def test_a_captured_step_gives_the_answers_of_the_growing_cache(
    clip: VideoInput, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model().to("cuda")
    expected, given = (_turns(model, clip, kind, device="cuda") for kind in ("dynamic", "static"))
    assert [answer.token_ids for answer in given] == [answer.token_ids for answer in expected]
    assert "without a CUDA graph" not in caplog.text


@pytest.mark.gpu
def test_a_step_that_cannot_be_captured_is_computed_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    values = torch.ones(3, device="cuda")

    def step() -> Tensor:
        return values * values.sum().item()

    run = capture_graph(step, device=values.device)
    assert run().tolist() == [3, 3, 3]
    assert "without a CUDA graph" in caplog.text
