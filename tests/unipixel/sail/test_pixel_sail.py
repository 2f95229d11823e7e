"""Pixel-SAIL around the recorded cases: batches, passes, strips, settings, and the start from a language model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.sail_model import CHECKPOINT, GOLDEN, recorded_image, recorded_prompts, recorded_sail
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from unipixel import (
    GenerationSettings,
    ImagePatches,
    ModelInputs,
    PatchStates,
    PixelSail,
    PixelSailConfig,
    SailProcessor,
    Turn,
    UniPixel,
    prefill,
)
from unipixel.processing.chat_template import BUNDLED_TOKENIZER
from unipixel.sail.sail_config import text_config
from unipixel.sail.upsampler import MaskHead


@pytest.fixture(scope="module")
def sail() -> PixelSail:
    return recorded_sail()[0]


@pytest.fixture(scope="module")
def processor() -> SailProcessor:
    return recorded_sail()[1]


def _conversations(processor: SailProcessor) -> list[ModelInputs]:
    """Samples of several sizes: two images with prompts, a narrow image, and text only."""
    narrow = np.random.default_rng(0).integers(0, 256, (90, 30, 3), dtype=np.uint8)
    segment = [Turn("Please segment the red square in this image.", "It is [SEG].")]
    describe = [Turn("What is <Prompt7>?", "<Prompt7>: a red square."), Turn("Where?", "[SEG] and [SEG].")]
    three = processor.image(recorded_image("case_region_three"), recorded_prompts("case_region_three"))
    return [
        processor.encode(segment, image=processor.image(recorded_image("case_refer"))).inputs,
        processor.encode(describe, image=three).inputs,
        processor.encode([Turn("Why?", "four.")]).inputs,
        processor.encode(segment, image=processor.image(narrow)).inputs,
    ]


@torch.no_grad()
def test_batch_of_several_images_equals_one_by_one(sail: PixelSail, processor: SailProcessor) -> None:
    parts = _conversations(processor)
    from unipixel.processing.processor import EncodedSample, stack_samples

    batch = stack_samples([EncodedSample(part, part.input_ids, ("",)) for part in parts], padding_id=0).inputs
    together = sail(batch)
    images = iter(together.patch_states)
    for row, part in enumerate(parts):
        alone = sail(part)
        length = part.input_ids.shape[1]
        torch.testing.assert_close(together.logits[row, :length], alone.logits[0], rtol=0, atol=1e-4)
        torch.testing.assert_close(together.position_ids[:, row, :length], alone.position_ids[:, 0])
        torch.testing.assert_close(together.seg_states[row], alone.seg_states[0], rtol=0, atol=1e-4)
        for own in alone.patch_states:
            batched = next(images)
            ours = sail.mask_logits(batched, sail.mask_tokens(together.seg_states[row]))
            theirs = sail.mask_logits(own, sail.mask_tokens(alone.seg_states[0]))
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_batch_generates_the_answers_of_one_by_one(sail: PixelSail, processor: SailProcessor) -> None:
    images = [recorded_image("case_refer"), recorded_image("case_several_objects")[:40]]
    question = Turn("Please segment the blue square in this image.")
    samples = [processor.encode([question], image=processor.image(image)) for image in images]
    settings = GenerationSettings(max_new_tokens=12)
    together = sail.generate(processor.stack(samples).inputs, settings=settings)
    for sample, answer in zip(samples, together, strict=True):
        alone = sail.generate(sample.inputs, settings=settings)[0]
        assert answer.token_ids == alone.token_ids
        torch.testing.assert_close(answer.mask_tokens, alone.mask_tokens, rtol=0, atol=1e-4)


@torch.no_grad()
def test_image_block_and_text_in_two_passes_equal_one_pass(sail: PixelSail, processor: SailProcessor) -> None:
    image = processor.image(recorded_image("case_refer"))
    whole = processor.encode([Turn("Why?", "It is [SEG].")], image=image).inputs
    block = processor.image_block(image).inputs
    count = block.input_ids.shape[1]
    first = prefill(sail, block)
    second = prefill(sail, ModelInputs(whole.input_ids[:, count:]), prompt_cache=first.prompt_cache)
    states = sail(whole).hidden_states[0]
    torch.testing.assert_close(second.hidden_states[0], states[count:], rtol=0, atol=1e-4)
    assert first.prompt_cache is not None
    assert isinstance(first.prompt_cache.video, PatchStates)
    torch.testing.assert_close(first.prompt_cache.video.states, states[1 : count - 1], rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("grid", [(1, 1), (1, 9), (7, 4), (64, 3)])
def test_strips_and_kept_features_give_the_logits_of_channels_per_pixel(
    grid: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three rows per strip at most.
    monkeypatch.setattr("unipixel.sail.upsampler._STRIP_ELEMENTS", 4 * 3 * 4 * grid[1] * 24)
    head = MaskHead(24, mask_channels=8, num_blocks=3)
    states, queries = torch.randn(*grid, 24), torch.randn(2, 8)
    expected = torch.einsum("hwc,kc->khw", head.mask_features(states), queries)
    assert expected.shape == (2, 8 * grid[0], 8 * grid[1])
    torch.testing.assert_close(head.mask_logits(states, queries), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(head.logits_of(head.pixel_features(states), queries), expected, rtol=0, atol=1e-5)


def test_mask_head_passes_gradients_through_strips() -> None:
    head = MaskHead(12, mask_channels=4, num_blocks=2)
    states = torch.randn(5, 3, 12, requires_grad=True)
    head.mask_logits(states, head.queries(torch.randn(1, 12))).sum().backward()
    assert states.grad is not None
    assert bool((states.grad.abs().sum(dim=-1) > 0).all())
    assert all(parameter.grad is not None for parameter in head.parameters())


@pytest.mark.parametrize(("num_blocks", "stride"), [(3, 2), (2, 4), (1, 8)])
def test_number_of_blocks_sets_the_mask_stride(num_blocks: int, stride: int, processor: SailProcessor) -> None:
    fields = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    config = PixelSailConfig.from_dict(fields | {"num_upsample_blocks": num_blocks})
    model = PixelSail(config).eval()
    assert config.mask_stride == stride
    image = processor.image(recorded_image("case_refer"))
    with torch.no_grad():
        output = model(processor.encode([Turn("What?", "[SEG]")], image=image).inputs)
        logits = model.mask_logits(output.patch_states[0], model.mask_tokens(output.seg_states[0]))
    assert logits.shape == (1, 80 // stride, 112 // stride)


def test_interleaved_rotary_layout_alternates_rows_and_columns() -> None:
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRotaryEmbedding

    sizes = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 8,
             "intermediate_size": 8, "num_hidden_layers": 1}  # fmt: skip
    positions = torch.tensor([[[5]], [[3]], [[2]]])
    frequencies = 10_000.0 ** -(torch.arange(0, 16, 2) / 16)
    expected = {
        "split": torch.cat([3 * frequencies[:4], 2 * frequencies[4:]]),
        "interleaved": frequencies * torch.tensor([3, 2] * 4),
    }
    for layout in ("split", "interleaved"):
        config = text_config(sizes, rope_theta=10_000, rotary_layout="split" if layout == "split" else "interleaved")
        cosine, _ = Qwen2_5_VLRotaryEmbedding(config)(torch.zeros(1), positions)
        torch.testing.assert_close(cosine[0, 0, :8], expected[layout].cos())


@torch.no_grad()
def test_prompts_of_the_eve_variant_work_at_inference(processor: SailProcessor) -> None:
    from parity.run_sail_case import SailCase

    case = SailCase(CHECKPOINT, GOLDEN / "case_eve")
    case._load()
    image = case.inputs["image"].numpy()
    prompts = recorded_prompts("case_eve")
    question = [Turn("What is <Prompt6>?")]
    answers = [
        case.model.generate(
            case.processor.encode(question, image=case.processor.image(image, shown)).inputs,
            settings=GenerationSettings(max_new_tokens=4),
        )[0]
        for shown in (prompts, [])
    ]
    # Drawn weights answer nonsense, but another one where the image shows prompts.
    assert answers[0].token_ids != answers[1].token_ids
    states = [answer.prompt_cache.video for answer in answers if answer.prompt_cache]
    assert all(isinstance(own, PatchStates) and own.states.shape == (5 * 7, 64) for own in states)


@pytest.mark.parametrize("is_tied", [True, False])
def test_from_base_keeps_the_language_model_and_adds_prompt_tokens(tmp_path: Path, is_tied: bool) -> None:
    base = _save_base(tmp_path / "base", is_tied=is_tied)
    model = PixelSail.from_base(tmp_path / "base", mask_channels=16, max_side=64)
    processor = SailProcessor.from_base(tmp_path / "base", model.config)
    vocabulary = processor.tokenizer.get_vocab()
    assert model.config.text.vocab_size == max(vocabulary.values()) + 1
    assert model.config.prompt_token_ids == tuple(vocabulary[f"<Prompt{number}>"] for number in range(15))
    # Without an image it is the language model that it started from.
    ids = processor.tokenizer("What moves?", return_tensors="pt").input_ids
    count = min(model.config.token_ids["<vision>"], base.config.vocab_size)
    with torch.no_grad():
        ours, theirs = model(ModelInputs(ids)).logits, base(ids).logits
    torch.testing.assert_close(ours[..., :count], theirs[..., :count], rtol=0, atol=1e-4)
    model.save_pretrained(tmp_path / "sail")
    processor.save_pretrained(tmp_path / "sail")
    image = SailProcessor.from_pretrained(tmp_path / "sail").image(np.zeros((64, 64, 3), dtype=np.uint8))
    again = PixelSail.from_pretrained(tmp_path / "sail")
    assert again.config.is_tied is is_tied
    assert "single_transformer.lm_head.weight" in load_file(tmp_path / "sail" / "model.safetensors")
    sample = processor.encode([Turn("Please segment it.", "[SEG]")], image=image)
    with torch.no_grad():
        torch.testing.assert_close(again(sample.inputs).logits, model(sample.inputs).logits)


def test_from_base_refuses_another_model(tmp_path: Path) -> None:
    _save_base(tmp_path, is_tied=True)
    fields = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(fields | {"model_type": "llama"}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"model_type 'llama'; PixelSail\.from_base requires one of \('qwen2',\)"):
        PixelSail.from_base(tmp_path)


def test_checkpoints_of_the_other_architecture_name_the_right_class(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"Pixel-SAIL checkpoint: load it with PixelSail\.from_pretrained"):
        UniPixel.from_pretrained(CHECKPOINT)
    with pytest.raises(ValueError, match=r"load a UniPixel checkpoint with UniPixel\.from_pretrained"):
        PixelSail.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_upsample_blocks": 5}, "5 upsampling blocks do not divide a patch of 16 pixels"),
        ({"rotary_layout": "mixed"}, "rotary_layout must be one of"),
        ({"auto_map": {"AutoModel": "x"}}, "requires remote code"),
        ({"token_ids": {"[SEG]": 3}}, "token_ids lacks"),
        ({"num_prompts": 16}, r"num_prompts = 16: it must be an integer in \[0, 15\]"),
        ({"hidden_size": 10**9}, "hidden_size = 1000000000: it must be an integer in"),
        ({"mask_channels": "many"}, "mask_channels = 'many': it must be an integer in"),
        ({"token_ids": ["[SEG]"]}, "give an object of tokens with their ids"),
        ({"image_mean": [1]}, r"image_mean = \[1\]: give three numbers"),
        ({"rope_theta": -1}, "rope_theta = -1: it must be a number above 0"),
        ({"hidden_size": None}, r"lacks \['hidden_size'\]"),
    ],
)
def test_bad_configuration_names_the_value(change: dict[str, object], message: str) -> None:
    fields = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match=message):
        PixelSailConfig.from_dict(fields | change)


def test_image_tokens_without_their_image_are_an_error(sail: PixelSail, processor: SailProcessor) -> None:
    inputs = _conversations(processor)[0]
    with pytest.raises(ValueError, match="image tokens for more images than the 0"):
        sail(dataclasses.replace(inputs, videos=()))
    image = inputs.videos[0]
    assert isinstance(image, ImagePatches)
    smaller = ImagePatches(image.patches[:28], (4, 7), image.prompt_ids[:28], image.image_size)
    with pytest.raises(ValueError, match="the image has 28 tokens, the text 35 image tokens"):
        sail(dataclasses.replace(inputs, videos=(smaller,)))


def test_models_refuse_the_inputs_of_the_other_architecture(
    sail: PixelSail, processor: SailProcessor, model: UniPixel
) -> None:
    image = processor.image(recorded_image("case_refer"))
    with pytest.raises(TypeError, match="UniPixel reads clips"):
        model.encode_videos([image])
    with pytest.raises(TypeError, match="Pixel-SAIL reads images"):
        sail.encode_videos([torch.zeros(1)])


def _save_base(folder: Path, *, is_tied: bool) -> Qwen2ForCausalLM:
    """Write a tiny Qwen2.5 whose embedding has more rows than its tokenizer."""
    from unipixel.processing.chat_template import load_tokenizer

    tokenizer = load_tokenizer(BUNDLED_TOKENIZER, added_tokens=())
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=is_tied, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    base = Qwen2ForCausalLM(config).eval()
    base.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return base
