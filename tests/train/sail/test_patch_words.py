"""Words of the patches of drawn images, their loss, and the initialisation of small models."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.sail_sizes import TINY_SAIL_SIZES

from unipixel.processing.chat_template import Turn
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.recipe_files import load_any_recipe
from unipixel.train.sail.drawn_images import DrawnImageSettings, draw_sail_sample
from unipixel.train.sail.sail_objective import SailObjective
from unipixel.train.sail.sail_recipe import SailLossWeights, SailRecipe
from unipixel.train.sail.sail_run import load_initial_sail
from unipixel.train.sail.sail_samples import NamedRegion, SailCollator, SailSample, encode_patch_words, encode_sail


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


def test_a_patch_has_the_words_of_the_object_that_covers_most_of_it(small: tuple[PixelSail, SailProcessor]) -> None:
    processor = small[1]
    regions = (
        region(slice(0, 12), slice(0, 20), "red", "circle"),  # the first patch, and 8 of 12 columns of the second
        region(slice(0, 12), slice(20, 24), "blue", "square"),  # the other 4 columns
        region(slice(24, 27), slice(36, 48), "blue", "square"),  # a quarter of the last patch
    )
    sample = SailSample(np.zeros((36, 48, 3), np.uint8), (Turn("?", "."),), regions=regions)
    words = encode_patch_words(sample, processor)
    red, circle = (processor.tokenizer.encode(text, add_special_tokens=False)[0] for text in (" red", " circle"))
    assert words.shape == (12, 2)
    assert words[:2].tolist() == [[red, circle], [red, circle]]
    assert (words[2:] == -100).all()


def test_words_of_several_tokens_are_left_out(small: tuple[PixelSail, SailProcessor]) -> None:
    sample = SailSample(
        np.zeros((36, 48, 3), np.uint8),
        (Turn("?", "."),),
        regions=(region(slice(0, 36), slice(0, 48), "xylophone", "red"),),
    )
    red = small[1].tokenizer.encode(" red", add_special_tokens=False)
    assert encode_patch_words(sample, small[1]).tolist() == [red] * 12


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
    examples = [encode_sail(sample, processor, has_patch_words=True) for sample in samples]
    batch = SailCollator(processor)(examples)["batch"]
    losses = {}
    with torch.no_grad():
        for weight in (0.0, 1.0):
            parts = SailObjective(model, weights=SailLossWeights(patch_words=weight))(batch)
            losses[weight] = float(parts["loss"])
        expected = []
        for example in examples:
            output = model(example.encoded.inputs)
            ids = example.encoded.inputs.input_ids[0]
            log_probabilities = F.log_softmax(output.logits[0][ids == model.config.image_token_id].float(), dim=-1)
            assert example.patch_words is not None
            own = [
                -float(log_probabilities[patch, word])
                for patch, words in enumerate(example.patch_words.tolist())
                for word in words
                if word >= 0
            ]
            expected.append(sum(own) / len(own) if own else 0.0)
    assert expected[3] == 0
    assert float(parts["patch_words"]) == pytest.approx(np.mean(expected), rel=1e-4)
    assert losses[1.0] - losses[0.0] == pytest.approx(np.mean(expected), rel=1e-3)


def test_words_of_patches_need_drawn_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[losses\] patch_words is 0\.5, but published sets have no words"):
        load_any_recipe("sail/0.5b", [f"data.root={tmp_path}", "losses.patch_words=0.5"])


def test_answers_of_a_new_small_model_depend_on_the_question(small: tuple[PixelSail, SailProcessor]) -> None:
    model, processor = small
    image = processor.image(np.full((60, 96, 3), 127, np.uint8), ())
    with torch.no_grad():
        red, blue, other = (
            model(processor.encode((Turn(f"Segment the {word} circle.", None),), image=image).inputs).logits[0, -1]
            for word in ("red", "blue", "red")
        )
    assert torch.equal(red, other)
    # With the standard deviation of 0.02 that large models have it is 0.04.
    assert float((red - blue).norm() / red.norm()) > 0.08
