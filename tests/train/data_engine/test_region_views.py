"""Pictures of a region that models get, and replies that they give."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from unipixel.train.data_engine.engine_replies import (
    MalformedReplyError,
    caption_fault,
    parse_letter,
    parse_questions,
    without_reasoning,
)
from unipixel.train.data_engine.region_views import (
    OUTLINE_COLOURS,
    cropped_picture,
    outline_colour,
    outlined_picture,
)


def decoded(url: str) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))).astype(np.int64)


def ring_with_hole(size: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(rows, columns)
    return (radius > size / 8) & (radius < size / 4)


def test_outline_lies_outside_the_region_and_in_its_hole() -> None:
    mask = ring_with_hole(400)
    picture = decoded(outlined_picture(np.full((400, 400, 3), 90, np.uint8), mask, colour="cyan"))
    is_line = np.abs(picture - OUTLINE_COLOURS["cyan"]).sum(axis=2) < 150
    assert picture.shape == (400, 400, 3)
    assert is_line[200, 98:101].any()
    assert is_line[200, 200 - 49 : 200 - 46].any()
    # JPEG blurs by a pixel or two.
    assert (is_line & mask).sum() < 0.03 * is_line.sum()
    assert np.abs(picture[200, 125] - 90).max() < 12


def test_large_image_is_reduced_and_a_small_region_in_it_stays_visible() -> None:
    mask = np.zeros((1500, 3000), bool)
    mask[700, 1500] = True
    picture = decoded(outlined_picture(np.zeros((1500, 3000, 3), np.uint8), mask, colour="yellow"))
    assert picture.shape == (512, 1024, 3)
    assert (picture.sum(axis=2) > 300).any()


def test_crop_shows_the_region_with_a_margin_and_is_enlarged() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[40:60, 30:70] = True
    pixels[mask] = 200
    picture = decoded(cropped_picture(pixels, mask))
    # A margin of a quarter of the longer side: 60 x 40 pixels, enlarged to 224.
    assert picture.shape == (149, 224, 3)
    assert picture[74, 112].min() > 180
    assert picture[5, 5].max() < 20


def test_outline_has_the_colour_that_differs_most_from_the_image() -> None:
    mask = ring_with_hole(40)
    assert outline_colour(np.full((40, 40, 3), (255, 0, 0), np.uint8), mask) == "cyan"
    assert outline_colour(np.full((40, 40, 3), (0, 255, 255), np.uint8), mask) == "red"


@pytest.mark.parametrize(
    ("text", "letter"), [("B", "B"), (" (C).", "C"), ("The answer is D: a dog", "D"), ("X", "X"), ("**A**", "A")]
)
def test_letter_of_an_answer_is_found(text: str, letter: str) -> None:
    assert parse_letter(text) == letter


@pytest.mark.parametrize("text", ["", "none", "A or B", "ABCD"])
def test_answer_without_one_letter_is_malformed(text: str) -> None:
    with pytest.raises(MalformedReplyError, match="must be one letter"):
        parse_letter(text)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": "What?", "options": ["a", "b", "c"]}', "four different options"),
        ('{"question": "What?", "options": ["a", "A", "b", "c"]}', "four different options"),
        ('{"question": "What? A. a B. b", "options": ["a", "b", "c", "d"]}', "cannot be separated"),
        ('{"question": "What of [1]?", "options": ["a", "b", "c", "d"]}', "cannot be used"),
        ('{"question": "", "options": ["a", "b", "c", "d"]}', "cannot be used"),
        ('{"question": "What?", "options": 4}', "must be a list of texts"),
    ],
)
def test_question_that_a_reader_would_misread_is_malformed(row: str, message: str) -> None:
    with pytest.raises(MalformedReplyError, match=message):
        parse_questions('{"questions": [' + row + "]}", count=1)


def test_reasoning_before_a_reply_is_removed() -> None:
    assert without_reasoning("<think>A? No, {B}.</think>\n C") == "\n C"
    assert without_reasoning("C") == "C"


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        ("A red cup stands on the table.", None),
        ("A red cup <region1> stands on the table.", "token of the models"),
        ("The cropped cup stands on the table.", "mentions the marking"),
        ("A cup.", "has 2 words"),
        ("cup " * 301, "has 301 words"),
    ],
)
def test_fault_of_a_caption_is_named(caption: str, fault: str | None) -> None:
    found = caption_fault(caption)
    assert found is None if fault is None else fault in (found or "")
