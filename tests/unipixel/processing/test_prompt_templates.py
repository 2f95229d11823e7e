from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    ("form", "size"), [("query", 7), ("sentence", 5), ("explanatory", 5), ("question", 5), ("description", 5)]
)
def test_segmentation_pools_hold_the_fixed_question_and_distinct_wordings(form: t.SegmentationForm, size: int) -> None:
    generator = random.Random(0)
    drawn = {t.segmentation_question("cup", form=form, num_frames=4, generator=generator) for _ in range(300)}
    assert len(drawn) == len(t.SEGMENTATION_QUESTIONS[form]) == size
    assert t.segmentation_question("cup", form=form, num_frames=4) in drawn
    assert all("cup" in question for question in drawn)


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
    with pytest.raises(ValueError, match="nothing is left to segment"):
        t.segmentation_question(query, num_frames=1)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="form must be one of"):
        t.segmentation_question("dog", form="poem", num_frames=1)  # type: ignore[arg-type]


@given(st.sampled_from(["query", "sentence", "description"]), st.integers(0, 50))
def test_answers_hold_exactly_one_mask(form: t.SegmentationForm, seed: int) -> None:
    assert t.segmentation_answer(form=form, generator=random.Random(seed)).count("<|seg|>") == 1


def test_answers_of_several_objects_name_each_with_its_mask() -> None:
    assert "[3] <|seg|>, [5] <|seg|>" in t.segmentation_answer(object_ids=[3, 5])


def test_answers_with_words_follow_their_form() -> None:
    assert t.segmentation_answer(form="question", answer="The dog.") == "The dog <|seg|>."
    assert t.segmentation_answer(form="explanatory", answer="It barks.").endswith("<|seg|>. It barks.")
    with pytest.raises(ValueError, match="needs words"):
        t.segmentation_answer(form="question")


def test_no_target_answers_hold_no_mask() -> None:
    assert len(t.NO_TARGET_ANSWERS) == 5
    assert all("<|" not in answer for answer in t.NO_TARGET_ANSWERS)
    assert t.no_target_answer(num_frames=1) == "There is no such object in this image."


def test_mark_references_marks_first_mentions_in_text_order() -> None:
    text, order = t.mark_references("Does [2] hit [1]? When does [2] turn to [7]?", [1, 2, 5])
    assert text == "Does [2] <|ref|> hit [1] <|ref|>? When does [2] turn to [7]?"
    assert order == (2, 1)


def test_fixed_prefill_texts_are_the_published_ones() -> None:
    question = "What is [0] <|ref|> doing?\nOptions:\n(B) running"
    assert t.with_options("What is [0] <|ref|> doing?", ["running"], first_letter="B") == question
    assert t.prefill_question(question) == question + ". Please localize the relevant objects with IDs."
    assert t.prefill_answer([0, 4]) == "[0] <|seg|> [4] <|seg|>"
    assert len(set(t.PREFILL_QUESTIONS)) == 6


def test_fixed_choice_question_is_the_published_one() -> None:
    expected = "What  is it?\nOptions:\n(A) dog\n(B) cat\nPlease only give the best option."
    assert t.choice_question("What  is it?", ["dog", "(B) cat"], is_regional=True) == expected
    expected = "What is it?\nOptions:\n(A) Dog\n(B) Cat\nPlease only give the best option."
    assert t.choice_question("What  is\nit? ", ["dog", "cat"]) == expected
    with pytest.raises(ValueError, match="at least one option"):
        t.choice_question("What?", [])


def test_caption_pools_have_the_published_sizes() -> None:
    assert len(set(t.SHORT_CAPTION_QUESTIONS)) == 24
    assert len(set(t.DETAILED_CAPTION_QUESTIONS)) == 30
    assert all(question.count("<|ref|>") == 1 for question in t.SHORT_CAPTION_QUESTIONS)
    assert t.short_caption_question() in t.SHORT_CAPTION_QUESTIONS
    expected = "Please give a detailed description of the highlighted object [0] in the video."
    assert t.detailed_caption_question(0, num_frames=8) == expected


def test_other_fixed_texts_are_the_published_ones() -> None:
    assert t.short_answer_question("What? ") == "What? Please answer with a single word or phrase."
    subtitles = [(1.0, 2.5, "Hi")] * 101
    text = t.subtitles_text(12.5, subtitles)
    assert text.startswith("You are given a video with 12.5 seconds long.\nSubtitles:\n1.0s - 2.5s, Hi\n")
    assert text.count("Hi") == 100


def test_part_query_takes_either_order() -> None:
    assert t.part_query("dog", "leg") == "dog leg"
    generator = random.Random(0)
    assert {t.part_query("dog", "leg", generator=generator) for _ in range(20)} == {"dog leg", "leg of the dog"}
