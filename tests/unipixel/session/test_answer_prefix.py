"""Answers whose beginning is given, which the model continues."""

from __future__ import annotations

from unipixel.session.session import Session


def test_answer_starts_with_the_given_words(session: Session) -> None:
    answer = session.ask("Which one? (A) this (B) that", answer_prefix="The best option is (")
    assert answer.text.startswith("The best option is (")


def test_given_words_change_what_the_model_continues(session: Session) -> None:
    plain = session.ask("What moves?").text
    session.restart()
    assert session.ask("What moves?", answer_prefix="It is (").text.removeprefix("It is (") != plain
