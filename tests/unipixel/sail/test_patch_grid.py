"""Prompts on the grid of patches: what they cover, and which are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.sail_model import GOLDEN, recorded_sail
from numpy.typing import NDArray

from unipixel import RegionPrompt, SailProcessor, Turn
from unipixel.sail.patch_grid import fit_long_side, mask_to_cells
from unipixel.sail.sail_processor import from_prompt_tokens, to_prompt_tokens

SIZE = (480, 640)


@pytest.fixture(scope="module")
def processor() -> SailProcessor:
    return recorded_sail()[1]


def _mask(top: int, left: int, bottom: int, right: int, *, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def _draw(processor: SailProcessor, *prompts: RegionPrompt, size: tuple[int, int] = SIZE) -> NDArray[np.int64]:
    image = processor.image(np.zeros((*size, 3), dtype=np.uint8), list(prompts))
    return np.asarray(image.prompt_ids.reshape(image.grid).numpy())


def test_prompt_covers_every_cell_that_it_touches(processor: SailProcessor) -> None:
    # One pixel into the third row and the fourth column of cells of 16 pixels.
    index = _draw(processor, RegionPrompt(5, _mask(16, 32, 33, 49)))
    expected = np.full((30, 40), -1)
    expected[1:3, 2:4] = 5
    np.testing.assert_array_equal(index, expected)


def test_smaller_prompt_stays_visible_inside_its_container_in_any_order(processor: SailProcessor) -> None:
    small, big = RegionPrompt(3, _mask(64, 64, 96, 96)), RegionPrompt(0, _mask(32, 32, 320, 320))
    for prompts in ((small, big), (big, small)):
        index = _draw(processor, *prompts)
        assert (index == 3).sum() == 4
        assert (index == 0).sum() == 18 * 18 - 4


def test_prompts_that_the_published_code_loses_are_those_that_are_refused(processor: SailProcessor) -> None:
    fields = json.loads((GOLDEN / "case_preprocess" / "case.json").read_text(encoding="utf-8"))
    recorded = fields["three_pixel_prompts_in_4000x3000"]["x_y_cells"]
    size = fit_long_side(3000, 4000, patch=16, max_side=1024)
    cells = [
        int(mask_to_cells(_mask(y, x, y + 3, x + 3, size=(3000, 4000)), size, patch=16).sum())
        for x, y, _ in recorded[:20]
    ]
    assert cells == [count for _, _, count in recorded[:20]]
    x, y, _ = next(entry for entry in recorded if entry[2] == 0)
    lost = RegionPrompt(4, _mask(y, x, y + 3, x + 3, size=(3000, 4000)))
    with pytest.raises(ValueError, match="mask of prompt 4 has 9 pixels and disappears when the image of 4000 x 3000"):
        _draw(processor, lost, size=(3000, 4000))


def test_prompt_that_others_cover_is_refused(processor: SailProcessor) -> None:
    prompts = [RegionPrompt(1, _mask(0, 0, 16, 16)), RegionPrompt(2, _mask(1, 1, 15, 15))]
    with pytest.raises(ValueError, match="prompt 1 has no cell of 16 x 16 pixels for itself"):
        _draw(processor, *prompts)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([RegionPrompt(15, _mask(0, 0, 99, 99))], "prompt id 15 is out of range: allowed are 0 to 14"),
        ([RegionPrompt(-1, _mask(0, 0, 99, 99))], "prompt id -1 is out of range"),
        ([RegionPrompt(0, _mask(0, 0, 99, 99))] * 16, "16 prompts were given for an image: at most 15"),
        ([RegionPrompt(2, _mask(0, 0, 99, 99))] * 2, "prompt id 2 is used twice"),
        ([RegionPrompt(0, np.ones((3, 4)))], r"prompt 0 has shape \(3, 4\), the image has \(H, W\) = \(480, 640\)"),
        ([RegionPrompt(0, np.zeros(SIZE))], "mask of prompt 0 is empty"),
    ],
)  # fmt: skip
def test_bad_prompt_names_the_value(prompts: list[RegionPrompt], message: str, processor: SailProcessor) -> None:
    with pytest.raises(ValueError, match=message):
        _draw(processor, *prompts)


def test_image_without_a_row_of_patches_is_refused(processor: SailProcessor) -> None:
    with pytest.raises(ValueError, match="an image of 2000 x 1 pixels is too narrow"):
        processor.image(np.zeros((1, 2000, 3), dtype=np.uint8))


def test_object_ids_are_rendered_as_prompt_tokens_and_back() -> None:
    assert to_prompt_tokens("Is [1] left of [14]?", num_prompts=15) == "Is <Prompt1> left of <Prompt14>?"
    assert from_prompt_tokens("<Prompt1>: a <p> cup </p> [SEG].") == "[1]: a  cup  <|seg|>."
    with pytest.raises(ValueError, match=r"names \[15\]: Pixel-SAIL has prompt ids 0 to 14"):
        to_prompt_tokens("What is [15]?", num_prompts=15)


def test_tokens_of_the_image_are_refused_in_text(processor: SailProcessor) -> None:
    with pytest.raises(ValueError, match=r"must not contain the tokens \['<vpatch>'\]"):
        processor.encode([Turn("What is <vpatch>?")])
    image = processor.image(np.zeros((75, 110, 3), dtype=np.uint8))
    with pytest.raises(ValueError, match=r"max_tokens is 20, the image alone has 35 tokens"):
        processor.encode([Turn("Why?", "four.")], image=image, max_tokens=20)
