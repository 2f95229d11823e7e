from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unipixel.processing.answer_parser import ObjectSegment, TextSegment, parse_answer, strip_tokens
from unipixel.processing.prompt_templates import prefill_answer

pieces = st.lists(
    st.sampled_from(
        ["[3]", " ", "<|seg|>", "[12]", "<|mem|>", "<|im_end|>", "a", "<|se", "g|>", "<|", "|>", "[", "\n", "é"]
    )
).map("".join)


def test_parse_answer_pairs_ids_with_masks() -> None:
    answer = parse_answer("[3] <|seg|> [1]<|seg|>")
    assert [(segment.object_id, segment.mask_index, segment.is_new) for segment in answer.objects] == [
        (3, 0, False),
        (1, 1, False),
    ]
    assert answer.display == "[3] [1]"


def test_parse_answer_gives_new_ids_to_masks_without_one() -> None:
    answer = parse_answer("It is <|seg|>, beside [2] and <|seg|>.<|im_end|>", taken_ids=[1])
    assert answer.display == "It is [3], beside [2] and [4]."
    assert [(segment.object_id, segment.mask_index, segment.is_new) for segment in answer.objects] == [
        (3, 0, True),
        (2, None, False),
        (4, 1, True),
    ]
    assert [segment.object_id for segment in answer.masks] == [3, 4]


def test_parse_answer_starts_new_ids_at_the_given_id() -> None:
    assert parse_answer("<|seg|>", next_id=7).display == "[7]"


def test_parse_answer_of_a_second_mask_after_an_id_is_a_new_object() -> None:
    assert [segment.object_id for segment in parse_answer("[1] <|seg|> <|seg|>").masks] == [1, 2]


def test_parse_answer_of_plain_text_has_no_objects() -> None:
    answer = parse_answer(" There is none in [2024a]. \n")
    assert answer.segments == (TextSegment("There is none in [2024a].", (0, 25)),)


@given(st.lists(st.integers(0, 9999), min_size=1, max_size=6, unique=True))
def test_parse_answer_inverts_the_prefill_answer(ids: list[int]) -> None:
    answer = parse_answer(prefill_answer(ids))
    assert [segment.object_id for segment in answer.masks] == ids
    assert not any(segment.is_new for segment in answer.masks)


@settings(max_examples=300)
@given(pieces)
def test_display_has_no_special_token_and_spans_fit(text: str) -> None:
    answer = parse_answer(text)
    assert not re.search(r"<\|[a-z_]+\|>", answer.display)
    for segment in answer.segments:
        start, end = segment.span
        shown = segment.text if isinstance(segment, TextSegment) else f"[{segment.object_id}]"
        assert answer.display[start:end] == shown
    assert [segment.mask_index for segment in answer.masks] == list(range(text.count("<|seg|>")))
    new = [segment.object_id for segment in answer.objects if segment.is_new]
    assert len(set(new)) == len(new)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a<|mem|>b", "ab"), ("<|se<|mem|>g|>", ""), ("a < b | c > d", "a < b | c > d"), ("<|no such|>", "<|no such|>")],
)
def test_strip_tokens_leaves_the_text(text: str, expected: str) -> None:
    assert strip_tokens(text) == expected


def test_segments_keep_words_and_objects_in_order() -> None:
    kinds = [type(segment) for segment in parse_answer("a [1] <|seg|> b").segments]
    assert kinds == [TextSegment, ObjectSegment, TextSegment]
