"""Independent questions in one batch: the answers, masks and states of asking them one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.byte_model import byte_config
from helpers.moving_square import clip_frames
from helpers.sail_model import recorded_image, recorded_sail
from parity.weights import tiny_model

from unipixel.model.generation import GenerationSettings
from unipixel.output.result import Result
from unipixel.processing.chat_template import Turn
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt
from unipixel.session.callbacks import Callbacks, Cancelled
from unipixel.session.session import Session, open_session
from unipixel.session.settings import SessionSettings

QUESTIONS = ["What moves?", "How many objects are in this video, and where?", "Is [1] bright?", "Why?", "Where is [1]?"]


def _one_by_one(session: Session, questions: list[str]) -> list[Result]:
    """Ask each question from the present state of the conversation."""
    results = []
    for question in questions:
        before = session._open_conversation().snapshot()
        results.append(session.ask(question))
        session._open_conversation().restore(before)
        session._injected_version = 0
    return results


def _prompted(session: Session) -> Session:
    session.prompt(1, BoxPrompt((8, 8, 30, 30), 0))
    session.prompt(2, PointPrompt(40, 20, 3))
    session.objects.track()
    return session


def test_answers_are_those_of_asking_one_by_one(session: Session) -> None:
    _prompted(session)
    expected = [(item.text, item.num_read_tokens) for item in _one_by_one(session, QUESTIONS)]
    results = session.ask_each(QUESTIONS, batch_size=3)
    assert [(item.text, item.num_read_tokens) for item in results] == expected
    assert [item.question for item in results] == QUESTIONS
    assert len({text for text, _ in expected}) > 1


def test_questions_continue_the_conversation_and_do_not_change_it(session: Session) -> None:
    session.ask("What is this?")
    state = session._open_conversation().snapshot()
    expected = []
    for question in QUESTIONS[:2]:
        expected.append(session.ask(question).text)
        session._open_conversation().restore(state)
    assert [item.text for item in session.ask_each(QUESTIONS[:2])] == expected
    assert session._open_conversation().snapshot() is state
    _prompted(session)
    injected_version = session._injected_version
    session.ask_each(["Is [1] bright?"])
    # The memory of the objects is still to be injected by the next turn.
    assert session._injected_version == injected_version < session.bank.version


def test_masks_of_each_answer_are_those_of_asking_it_alone(session: Session) -> None:
    turns = [Turn(question) for question in QUESTIONS[:2]]
    replies = session._open_conversation().ask_each(turns)
    # A byte that the random weights generate is taken as the token of masks.
    byte = next(ord(character) for character in replies[1].text if character.isascii())
    model = tiny_model(byte_config(seg_token_id=byte))
    session = Session(model, session._processor, clip_frames(), settings=session.settings)
    together = session._open_conversation().ask_each(turns)
    for turn, reply in zip(turns, together, strict=True):
        (alone,) = session._open_conversation().ask_each([turn])
        assert alone.text == reply.text
        torch.testing.assert_close(reply.mask_tokens, alone.mask_tokens, rtol=0, atol=1e-4)
    assert len(together[1].mask_tokens)


def test_objects_of_an_answer_are_in_its_result_only(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer names the same id for another object."""
    conversation = session._open_conversation()
    shape = session._model.mask_token_shape
    tokens = torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0)) * 10
    plain = conversation.ask_each

    def ask_each(turns: list[Turn], **options: object) -> object:
        replies = plain(turns, **options)  # type: ignore[arg-type]
        return [replace(reply, text="[1] <|seg|>", mask_tokens=own) for reply, own in zip(replies, tokens, strict=True)]

    monkeypatch.setattr(conversation, "ask_each", ask_each)
    results = session.ask_each(QUESTIONS[:2])
    assert [item.new_ids for item in results] == [(1,), (1,)]
    assert session.bank.ids == ()
    for row, result in enumerate(results):
        alone = Session(session._model, session._processor, clip_frames(), settings=session.settings)
        alone._add_objects({1: tokens[row, 0]}, expression="", callbacks=Callbacks())
        expected = alone.result().objects[1]
        assert [frame.rle for frame in result.objects[1].frames] == [frame.rle for frame in expected.frames]


def test_pixel_sail_answers_independent_questions() -> None:
    questions = ["What is this?", "Please segment the red square in this image.", "Why?"]
    settings = SessionSettings(generation=GenerationSettings(max_new_tokens=8))
    image = np.asarray(recorded_image("case_refer"))
    results = open_session(*recorded_sail(), [image], settings=settings).ask_each(questions)
    alone = [open_session(*recorded_sail(), [image], settings=settings).ask(question) for question in questions]
    assert [item.text for item in results] == [item.text for item in alone]
    assert [sorted(item.objects) for item in results] == [sorted(item.objects) for item in alone]


def test_a_batch_can_be_cancelled(session: Session) -> None:
    with pytest.raises(Cancelled, match="the work was cancelled"):
        session.ask_each(QUESTIONS[:2], should_stop=lambda: True)


def test_bad_batches_are_refused(session: Session) -> None:
    with pytest.raises(TypeError, match="questions must be a list of texts, got one text"):
        session.ask_each("What moves?")
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        session.ask_each(["What moves?"], batch_size=0)
    with pytest.raises(ValueError, match="the question is empty"):
        session.ask_each(["What moves?", " "])
    assert session.ask_each([]) == []
