from __future__ import annotations

import random
from typing import get_args

import numpy as np
import pytest

from unipixel.processing import prompt_templates as t


@pytest.mark.parametrize(
    ("form", "query", "num_frames", "expected"),
    [
        ("query", "The dog.", 1, "Please segment the dog in this image."),
        ("query", "A dog on the left", 8, "Please segment the dog on the left in this video."),
        ("sentence", "Who jumps?", 8, "Who jumps? Please provide the segmentation mask."),
        ("explanatory", "Who jumps?", 8, "Who jumps? Please provide the segmentation mask and explain why."),
        ("question", "Who jumps", 8, "Who jumps? Please answer the question and provide the segmentation mask."),
        ("description", "A red cup.", 8, "Please segment the object according to the description: A red cup."),
    ],
)
def test_fixed_segmentation_questions_are_the_published_ones(
    form: t.SegmentationForm, query: str, num_frames: int, expected: str
) -> None:
    assert t.segmentation_question(query, form=form, num_frames=num_frames) == expected


@pytest.mark.parametrize(
    ("form", "size"), [("query", 10), ("sentence", 5), ("explanatory", 5), ("question", 5), ("description", 5)]
)
def test_segmentation_pools_contain_the_fixed_question_and_distinct_wordings(
    form: t.SegmentationForm, size: int
) -> None:
    generator = random.Random(0)
    questions = {t.segmentation_question("cup", form=form, num_frames=4, generator=generator) for _ in range(300)}
    assert len(questions) == len(t.SEGMENTATION_QUESTIONS[form]) == size
    assert t.segmentation_question("cup", form=form, num_frames=4) in questions
    assert all("cup" in question for question in questions)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("The a dog.", "dog"), ("An apple", "apple"), ("the the dog", "the dog"), ("..Red cup..", "red cup"),
        ("a the dog", "the dog"), ("theatre", "theatre"), ("the {dog}", "{dog}"),
    ],
)  # fmt: skip
def test_normalize_query_drops_stops_capitals_and_articles_once(query: str, expected: str) -> None:
    assert t.normalize_query(query) == expected


def test_a_query_with_braces_is_left_alone() -> None:
    assert t.segmentation_question("{scene} {0}", num_frames=2) == "Please segment the {scene} {0} in this video."
    assert t.prefill_question("What is {x}?").startswith("What is {x}?")


@pytest.mark.parametrize("query", ["", " . "])
def test_an_empty_query_is_refused(query: str) -> None:
    with pytest.raises(ValueError, match="is empty"):
        t.segmentation_question(query, num_frames=1)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="form must be one of"):
        t.segmentation_question("dog", form="poem", num_frames=1)  # type: ignore[arg-type]


def test_a_query_with_a_quantifier_has_no_article() -> None:
    assert t.segmentation_question("All dogs.", num_frames=2) == "Please segment all dogs in this video."


def test_a_published_query_keeps_its_article_before_a_quantifier() -> None:
    published = t.segmentation_question("All dogs.", num_frames=2, is_published=True)
    assert published == "Please segment the all dogs in this video."


def test_segmentation_answers_have_one_mask_per_object() -> None:
    assert t.segmentation_answer(0, num_frames=1) == "There is no such object in the image."
    assert t.segmentation_answer(1, num_frames=8) == "It is <|seg|>."
    assert t.segmentation_answer(3, num_frames=8) == "They are <|seg|>, <|seg|> and <|seg|>."


def test_mark_references_marks_first_mentions_in_text_order() -> None:
    text, order = t.mark_references("Does [2] hit [1]? When does [2] turn to [7]?", [1, 2, 5])
    assert text == "Does [2] <|ref|> hit [1] <|ref|>? When does [2] turn to [7]?"
    assert order == (2, 1)


def test_fixed_prefill_texts_are_the_published_ones() -> None:
    question = "What is [0] <|ref|> doing?\nOptions:\n(B) running"
    assert t.prefill_question(question) == question + ". Please localize the relevant objects with IDs."
    assert t.prefill_answer([0, 4]) == "[0] <|seg|> [4] <|seg|>"
    assert len(set(t.PREFILL_QUESTIONS)) == 6


def test_fixed_choice_question_is_the_published_one() -> None:
    expected = "What  is it?\nOptions:\n(A) dog\n(B) cat\nPlease only give the best option."
    assert t.choice_question("What  is it?", ["dog", "cat"]) == expected
    with pytest.raises(ValueError, match="at least one option"):
        t.choice_question("What?", [])


def test_other_fixed_questions_are_the_published_ones() -> None:
    assert t.short_answer_question("What? ") == "What? Please answer with a single word or phrase."
    expected = "Please give a detailed description of the highlighted object [0] in the video."
    assert t.caption_question("[0]", num_frames=8) == expected


def test_region_questions_name_all_regions_or_some_in_their_order() -> None:
    assert t.regions_question([]) == "Please describe the highlighted regions, one line each."
    assert t.regions_question(["[3]", "[1]"], attribute="colour") == "What are the colours of [3] and [1]?"
    assert t.regions_question(["[3]", "[1]"], attribute="end") == "Where are [3] and [1] at the end?"
    assert t.regions_answer([("[3]", "red"), ("[1]", "blue")]) == "[3]: red\n[1]: blue"


def test_every_region_attribute_has_questions() -> None:
    assert set(t.REGION_QUESTIONS) == set(get_args(t.RegionAttribute))


@pytest.mark.parametrize("generator", [random.Random(0), np.random.default_rng(0)])
def test_both_kinds_of_generator_draw_templates(generator: t.TemplateGenerator) -> None:
    questions = {t.caption_question("[1]", num_frames=1, generator=generator) for _ in range(200)}
    assert len(questions) == len(t.CAPTION_QUESTIONS)
