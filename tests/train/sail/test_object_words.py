"""Words of the objects of drawn images, and their loss."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.sail_sizes import TINY_SAIL_SIZES

from unipixel.processing.chat_template import Turn
from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.recipe_files import load_any_recipe
from unipixel.train.sail.drawn_images import DrawnImageSettings, draw_sail_sample
from unipixel.train.sail.sail_objective import SailObjective
from unipixel.train.sail.sail_recipe import SailLossWeights, SailRecipe
from unipixel.train.sail.sail_run import load_initial_sail
from unipixel.train.sail.sail_samples import NamedRegion, SailCollator, SailSample, encode_sail


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[PixelSail, SailProcessor]:
    file = tmp_path_factory.mktemp("sail") / "sizes.toml"
    file.write_text(
        TINY_SAIL_SIZES.replace("size = 400", "size = 900").replace("num_samples = 20", "num_samples = 200")
    )
    recipe = load_any_recipe("sail/nano", [f'model.sizes="{file}"'])
    assert isinstance(recipe, SailRecipe)
    torch.manual_seed(0)
    return load_initial_sail(recipe)


def region(rows: slice, columns: slice, *words: str) -> NamedRegion:
    mask = np.zeros((36, 48), np.bool_)
    mask[rows, columns] = True
    return NamedRegion(mask, words)


def patch_words(sample: SailSample, processor: SailProcessor) -> torch.Tensor:
    example = encode_sail(sample, processor, has_object_words=True)
    assert example.object_words is not None
    return example.object_words[example.encoded.inputs.input_ids[0] == processor.config.image_token_id]


def test_a_patch_has_the_words_of_the_object_that_covers_most_of_it(small: tuple[PixelSail, SailProcessor]) -> None:
    processor = small[1]
    regions = (
        region(slice(0, 12), slice(0, 20), "red", "circle"),  # the first patch, and 8 of 12 columns of the second
        region(slice(0, 12), slice(20, 24), "blue", "square"),  # the other 4 columns
        region(slice(24, 27), slice(36, 48), "blue", "square"),  # a quarter of the last patch
    )
    sample = SailSample(np.zeros((36, 48, 3), np.uint8), (Turn("?", "."),), regions=regions)
    words = patch_words(sample, processor)
    red, circle = (processor.tokenizer.encode(text, add_special_tokens=False)[0] for text in (" red", " circle"))
    assert words.shape == (12, 2)
    assert words[:2].tolist() == [[red, circle], [red, circle]]
    assert (words[2:] == -100).all()


def test_the_prompt_of_a_question_has_the_words_of_its_object_and_that_of_an_answer_has_none(
    small: tuple[PixelSail, SailProcessor],
) -> None:
    processor = small[1]
    regions = (
        replace(region(slice(0, 12), slice(0, 12), "red", "circle"), prompt_id=4),
        replace(region(slice(24, 36), slice(24, 36), "blue", "square"), prompt_id=7),
    )
    sample = SailSample(
        np.zeros((36, 48, 3), np.uint8),
        (Turn("What is <Prompt7>, beside <Prompt4> and <Prompt2>?", "<Prompt7>: a blue square."), Turn("?", ".")),
        prompts=tuple(RegionPrompt(own.prompt_id or 0, own.mask) for own in regions),
        regions=regions,
    )
    encoded = encode_sail(sample, processor, has_object_words=True)
    assert encoded.object_words is not None
    ids = encoded.encoded.inputs.input_ids[0]
    tokens = processor.tokenizer.convert_ids_to_tokens(ids.tolist())
    named = [
        (token, words.tolist())
        for token, words in zip(tokens, encoded.object_words, strict=True)
        if token != "<vpatch>" and ((words >= 0).any() or token.startswith("<Prompt"))
    ]
    red, circle, blue, square = (
        processor.tokenizer.encode(f" {word}", add_special_tokens=False)[0]
        for word in ("red", "circle", "blue", "square")
    )
    assert named == [
        ("<Prompt7>", [blue, square]),
        ("<Prompt4>", [red, circle]),
        ("<Prompt2>", [-100, -100]),
        ("<Prompt7>", [-100, -100]),
    ]


def test_words_of_several_tokens_are_left_out(small: tuple[PixelSail, SailProcessor]) -> None:
    sample = SailSample(
        np.zeros((36, 48, 3), np.uint8),
        (Turn("?", "."),),
        regions=(region(slice(0, 36), slice(0, 48), "xylophone", "red"),),
    )
    red = small[1].tokenizer.encode(" red", add_special_tokens=False)
    assert patch_words(sample, small[1]).tolist() == [red] * 12


def test_every_visible_object_of_a_drawn_image_has_its_colour_and_shape() -> None:
    sample = draw_sail_sample([5, 1], DrawnImageSettings(((96, 132),), 1, {"attribute": 1.0}))
    assert sample.image is not None
    assert len(sample.regions) > 1
    for own in sample.regions:
        colour, shape = own.words[:2]
        pixels = sample.image[own.mask].astype(float)
        if colour in ("red", "green", "blue"):
            assert pixels.mean(axis=0).argmax() == ("red", "green", "blue").index(colour)
        assert shape in ("circle", "square", "triangle", "star", "ring", "cross", "heart", "crescent")


def test_the_loss_of_words_is_the_mean_over_samples_of_their_cross_entropy(
    small: tuple[PixelSail, SailProcessor],
) -> None:
    model, processor = small
    settings = DrawnImageSettings(((60, 96), (96, 60)), 2, {"region": 0.5, "attribute": 0.5})
    samples = [draw_sail_sample([5, number], settings, processor=processor) for number in range(3)]
    samples.append(replace(samples[0], regions=()))
    examples = [encode_sail(sample, processor, has_object_words=True) for sample in samples]
    batch = SailCollator(processor)(examples)["batch"]
    losses = {}
    with torch.no_grad():
        for weight in (0.0, 1.0):
            parts = SailObjective(model, weights=SailLossWeights(object_words=weight))(batch)
            losses[weight] = float(parts["loss"])
        expected: dict[str, list[float]] = {"patch_words": [], "prompt_words": []}
        for example in examples:
            output = model(example.encoded.inputs)
            log_probabilities = F.log_softmax(output.logits[0].float(), dim=-1)
            ids = example.encoded.inputs.input_ids[0].tolist()
            assert example.object_words is not None
            own: dict[str, list[float]] = {"patch_words": [], "prompt_words": []}
            for token, words in enumerate(example.object_words.tolist()):
                name = "patch_words" if ids[token] == model.config.image_token_id else "prompt_words"
                own[name] += [-float(log_probabilities[token, word]) for word in words if word >= 0]
            for name, values in own.items():
                expected[name].append(sum(values) / len(values) if values else 0.0)
    assert expected["patch_words"][3] == expected["prompt_words"][3] == 0
    assert any(expected["prompt_words"])
    for name, values in expected.items():
        assert float(parts[name]) == pytest.approx(np.mean(values), rel=1e-4)
    added = np.mean(expected["patch_words"]) + np.mean(expected["prompt_words"])
    assert losses[1.0] - losses[0.0] == pytest.approx(added, rel=1e-3)


def test_words_of_objects_need_drawn_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[losses\] object_words is 0\.5, but published sets have no words"):
        load_any_recipe("sail/0.5b", [f"data.root={tmp_path}", "losses.object_words=0.5"])
