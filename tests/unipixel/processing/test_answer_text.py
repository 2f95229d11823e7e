"""The displayed form of an answer while it is generated."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from unipixel.processing.answer_parser import parse_answer
from unipixel.processing.answer_text import AnswerText, displayed_start

answers = st.lists(
    st.sampled_from(
        [
            "[3]",
            "[",
            "12",
            "]",
            " ",
            "\n",
            "<|seg|>",
            "<|mem|>",
            "<|se",
            "g|>",
            "<|",
            "|>",
            "<",
            "a",
            "é",
            "[1] <|seg|>",
        ]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=500)
@given(answers, st.sets(st.integers(0, 4)))
@example("<|a<|mem|>b|> [1<|mem|>]", {1})
def test_no_displayed_text_is_taken_back(text: str, taken: set[int]) -> None:
    whole = parse_answer(text, taken_ids=taken).display
    for end in range(len(text) + 1):
        assert whole.startswith(displayed_start(text[:end]))


@given(answers)
def test_pieces_together_are_the_displayed_answer(text: str) -> None:
    pieces: list[str] = []
    answer = AnswerText(pieces.append)
    for character in text:
        answer.write(character)
    answer.finish(parse_answer(text).display)
    assert "".join(pieces) == parse_answer(text).display


def test_each_word_is_passed_on_when_the_next_token_shows_that_it_is_complete() -> None:
    pieces: list[str] = []
    answer = AnswerText(pieces.append, prefix="Yes:")
    for piece in ("", " [", "1", "2", "]", " <|seg|>", " is", " <|seg|>", ", a", " cup."):
        answer.write(piece)
    assert pieces == ["Yes:", "", "", "", " [12]", "", " is", "", "", ""]
    answer.finish(parse_answer("Yes: [12] <|seg|> is <|seg|>, a cup.").display)
    assert pieces[-1] == " [1], a cup."
