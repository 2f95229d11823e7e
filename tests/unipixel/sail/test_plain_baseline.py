"""The plain baseline of the Pixel-SAIL paper: no upsampler, and prompts as pooled patch embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.sail_model import CHECKPOINT, recorded_image, recorded_prompts, recorded_sail

from unipixel import (
    ImagePatches,
    MaskPrompt,
    ModelInputs,
    PixelSail,
    PixelSailConfig,
    SailProcessor,
    Turn,
    open_session,
)
from unipixel.checkpoints.files import read_json
from unipixel.model.generation import GenerationSettings
from unipixel.sail.sail_conversation import SailConversation

PLAIN: dict[str, Any] = {"num_upsample_blocks": 0, "prompt_encoding": "pooling"}
TURNS = [Turn("What is <Prompt7>?", "<Prompt7>: a red square, [SEG].")]


def new_sail(**settings: Any) -> tuple[PixelSail, SailProcessor]:
    """Return a model with the sizes of the recorded one, other settings and new weights."""
    config = PixelSailConfig.from_dict(read_json(CHECKPOINT / "config.json") | settings)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = PixelSail(config).eval()
        # Large enough that the parts of an embedding differ by more than rounding.
        for parameter in model.parameters():
            if parameter.ndim == 2:
                torch.nn.init.normal_(parameter, std=0.2)
    return model, SailProcessor(config, SailProcessor.from_pretrained(CHECKPOINT).tokenizer)


def inputs_of(processor: SailProcessor) -> ModelInputs:
    image = processor.image(recorded_image("case_region_three"), recorded_prompts("case_region_three"))
    return processor.encode(TURNS, image=image).inputs


def image_of(inputs: ModelInputs) -> ImagePatches:
    (image,) = inputs.videos
    assert isinstance(image, ImagePatches)
    return image


def pixel_weight(model: PixelSail) -> torch.nn.Parameter:
    return model.get_parameter("single_transformer.model.vis_embed.weight")


@torch.no_grad()
def test_mask_without_upsampler_is_the_dot_product_of_states() -> None:
    model, processor = new_sail(num_upsample_blocks=0)
    output = model(inputs_of(processor))
    patches = output.patch_states[0]
    queries = model.mask_tokens(output.seg_states[0])
    expected = (patches.states @ output.seg_states[0].T).T.view(1, *patches.grid)
    torch.testing.assert_close(model.mask_logits(patches, queries), expected)
    torch.testing.assert_close(
        model.segment(patches, queries), F.interpolate(expected[None], size=patches.image_size, mode="bilinear")[0]
    )
    torch.testing.assert_close(model.mask_logits(patches, queries, features=model.pixel_features(patches)), expected)
    assert queries.shape[1:] == model.mask_token_shape == (1, model.config.width)
    assert model.num_feature_bytes(patches) == patches.num_bytes
    assert model.config.mask_stride == model.config.patch_size


@torch.no_grad()
def test_pooled_prompt_is_the_mean_of_its_patch_embeddings_after_the_image() -> None:
    model, processor = new_sail(prompt_encoding="pooling")
    inputs = inputs_of(processor)
    image = image_of(inputs)
    numbers = sorted({int(prompt.prompt_id) for prompt in recorded_prompts("case_region_three")})
    embedded = model.embed(inputs, model.encode_videos(inputs.videos)).embeds[0]
    ids = inputs.input_ids[0].tolist()
    table = model.get_parameter("single_transformer.model.embed_tokens.weight")
    patches = image.patches @ pixel_weight(model).T + table[model.config.image_token_id]
    # <vision>, the patches, </vision>.
    start = 2 + len(patches)
    torch.testing.assert_close(embedded[1 : start - 1], patches)
    for index, number in enumerate(numbers):
        token = model.config.prompt_token_ids[number]
        assert ids[start + index] == token
        pooled = patches[image.prompt_ids == number].mean(dim=0)
        torch.testing.assert_close(embedded[start + index], table[token] + pooled)
    # The names in questions and answers are those of the vocabulary.
    named = ids.index(model.config.prompt_token_ids[7], start + len(numbers))
    torch.testing.assert_close(embedded[named], table[ids[named]])


def test_gradients_reach_patches_through_a_pooled_prompt() -> None:
    model, processor = new_sail(**PLAIN)
    inputs = inputs_of(processor)
    embedded = model.embed(inputs, model.encode_videos(inputs.videos)).embeds
    embedded[0, 2 + len(image_of(inputs).patches)].sum().backward()
    gradient = pixel_weight(model).grad
    assert gradient is not None
    assert bool(gradient.any())


def test_plain_checkpoint_has_no_tensors_of_the_parts_that_it_lacks(tmp_path: Path) -> None:
    model, processor = new_sail(**PLAIN)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = PixelSail.from_pretrained(tmp_path)
    assert loaded.config.prompt_encoding == "pooling"
    assert loaded.config.num_upsample_blocks == 0
    extra = set(recorded_sail()[0].state_dict()) - set(loaded.state_dict())
    assert {name.split(".")[0] for name in extra if "vp_embed" not in name} == {"mask_head"}
    assert "single_transformer.model.vp_embed.weight" in extra
    with torch.no_grad():
        assert torch.equal(loaded(inputs_of(processor)).logits, model(inputs_of(processor)).logits)


def test_conversation_of_the_plain_model_equals_one_pass() -> None:
    model, processor = new_sail(**PLAIN)
    prompts = recorded_prompts("case_region_three")
    image = recorded_image("case_region_three")
    conversation = SailConversation(model, processor, image, settings=GenerationSettings(max_new_tokens=4))
    forced = conversation.ask(Turn("Where is <Prompt7>?", answer_prefix="It is [SEG]."), prompts)
    turn = Turn("Where is <Prompt7>?", "It is [SEG].")
    sample = processor.encode([turn], image=processor.image(image, prompts))
    with torch.no_grad():
        output = model(sample.inputs)
        expected = model.segment(output.patch_states[0], model.mask_tokens(output.seg_states[0]))
    assert forced.num_masks == 1
    if len(forced.mask_tokens):
        torch.testing.assert_close(forced.mask_tokens, expected, rtol=1e-4, atol=1e-4)
    else:
        assert not bool((expected > 0).any())


def test_session_of_the_plain_model_draws_prompts_anew() -> None:
    model, processor = new_sail(**PLAIN)
    image = np.asarray(recorded_image("case_region_three"))
    session = open_session(model, processor, image)
    mask = np.zeros(image.shape[:2], np.bool_)
    mask[20:50, 30:70] = True
    session.prompt(3, MaskPrompt(mask))
    assert session.ask("What is [3]?").answer is not None
    assert session.ask("Where is it?").answer is not None


def test_text_without_the_tokens_of_its_prompts_is_refused() -> None:
    (injected, injecting), (pooled, _) = new_sail(), new_sail(**PLAIN)
    inputs = inputs_of(injecting)
    with pytest.raises(ValueError, match=r"the text lacks the tokens of the prompts \[.*7.*\] after the image"):
        pooled(inputs)
    assert injected.config.prompt_encoding == "injection"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt_encoding": "mean"}, r"prompt_encoding must be one of \('injection', 'pooling'\), got 'mean'"),
        ({"decoder": "eve", "prompt_encoding": "pooling"}, "eve has no prompt_encoding pooling: set injection"),
        ({"num_upsample_blocks": -1}, r"num_upsample_blocks = -1: it must be an integer in \[0, 6\]"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelSailConfig.from_dict(read_json(CHECKPOINT / "config.json") | settings)
