"""A session: pre-filling, memory, an append-only conversation, corrections."""

# mypy: disable-error-code="union-attr, operator, arg-type"

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, clip_frames
from torch import Tensor

from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.output.result import Result
from unipixel.processing.chat_template import Turn
from unipixel.processing.image_processing import FrameBudget
from unipixel.processing.processor import Processor
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt
from unipixel.session import session as agent
from unipixel.session.callbacks import FrameCallback, TextCallback
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.prefilling import accepted_ids, agrees_with_prompt
from unipixel.session.session import Session
from unipixel.session.settings import SessionSettings
from unipixel.session.video_tracker import VideoTracker
from unipixel.tracking.types import FrameMasks

SETTINGS = SessionSettings(num_frames=4, generation=GenerationSettings(max_new_tokens=5))
POINT, BOX = PointPrompt(10, 12, 2), BoxPrompt((20, 8, 40, 30), 0)


class TestAsking:
    def test_prompted_objects_are_prefilled_tracked_and_stored(self, session: Session) -> None:
        session.prompt(1, POINT)
        session.prompt(2, BOX)
        answer = session.ask("What is [1] doing to [2]?")
        assert answer.prefilled_ids == (1, 2)
        assert set(answer.new_ids) >= {1, 2}
        assert [session.bank[key].source for key in (1, 2)] == ["point", "box"]
        assert [session.bank[key].anchor_frame for key in (1, 2)] == [2, 0]
        for object_id in (1, 2):
            assert [index for index, _ in session.bank.mask_records(object_id)] == list(range(NUM_FRAMES))

    def test_number_of_frames_is_that_of_the_budget_unless_set(self, model: UniPixel, processor: Processor) -> None:
        few = Processor(model.config, processor.tokenizer, budget=FrameBudget(3, 4, 4))
        default, configured = (
            Session(model, few, clip_frames(), settings=replace(SETTINGS, num_frames=count)) for count in (None, 5)
        )
        assert default._open_conversation().layout.frame_indices == (0, 2, 5)
        assert configured._open_conversation().layout.num_frames == 5

    def test_objects_that_the_model_omits_are_forced(self, session: Session) -> None:
        # Random weights generate no ids.
        session.prompt(1, POINT)
        session.prompt(2, BOX)
        answer = session.ask("Does [2] touch [1]?")
        assert answer.generated_ids == ()
        assert answer.prefilled_ids == (2, 1)
        assert {1, 2} <= set(session.bank.ids)

    def test_forced_tokens_are_those_of_the_text_read_at_once(self, model: UniPixel, processor: Processor) -> None:
        """Reference: the whole exchange with its `<|seg|>` tokens in one forward pass."""
        clip = processor.clip(clip_frames()[:4])
        conversation = Conversation(model, processor, clip)
        conversation._settings = GenerationSettings(max_new_tokens=1)
        filled = conversation.prefill("Is [1] near [2]?", {1: replace(POINT, frame_index=1), 2: BOX})
        assert filled.generated_ids == ()
        assert filled.tokens[1].shape == (model.config.num_mask_tokens, model.config.segmenter.embed_dim)
        assert not torch.allclose(filled.tokens[1], filled.tokens[2])

    def test_conversation_contains_questions_and_answers_and_no_prefilling(
        self, session: Session, processor: Processor
    ) -> None:
        session.prompt(1, POINT)
        session.ask("Where is [1]?")
        second = session.ask("Why?")
        prompt_cache = session._conversation._state.prompt_cache
        # The text of a training sample, without the tokens of the answers.
        layout = session._conversation.layout
        masks = session.bank.masks_on(layout.frame_indices, object_ids=[1])
        memory = processor.memory([1], masks, layout) if masks.any() else None
        first_turn = processor.encode([Turn("Where is [1]?", memory=memory)], clip=session._conversation._clip)
        later = processor.encode_later_turn(Turn("Why?"), layout=layout, has_ended=False)
        num_answer_tokens = 5
        expected = first_turn.inputs.input_ids.shape[1] + num_answer_tokens + later.inputs.input_ids.shape[1]
        assert prompt_cache.num_tokens + len(prompt_cache.pending_ids) == expected + num_answer_tokens
        assert second.num_read_tokens == later.inputs.input_ids.shape[1] + 1

    def test_forward_tracking_encodes_each_frame_once(self, session: Session) -> None:
        session.prompt(1, BOX)
        session.prompt(2, replace(POINT, frame_index=0))
        session.ask("Is [1] left of [2]?")
        assert session.num_encoded_frames == NUM_FRAMES

    def test_a_short_clip_is_encoded_once_for_all_turns(self, session: Session) -> None:
        session.prompt(1, POINT)
        session.ask("What is [1]?")
        session.prompt(2, BOX)
        session.ask("And [2]?")
        session.prompt(1, PointPrompt(50, 35, 3))
        session.objects.track()
        assert session.num_encoded_frames == NUM_FRAMES

    def test_object_that_the_question_does_not_name_is_tracked_from_its_prompt(self, session: Session) -> None:
        session.prompt(1, BOX)
        session.prompt(7, POINT)
        answer = session.ask("What is [1]?")
        assert answer.prefilled_ids == (1,)
        assert 7 in session.bank
        by_tracker = Session(session._model, session._processor, clip_frames(), settings=SETTINGS)
        by_tracker.prompt(7, POINT)
        by_tracker.objects.track()
        _assert_same_masks(session, by_tracker, 7)

    def test_mask_prompt_needs_no_prefilling(self, session: Session) -> None:
        mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
        mask[10:20, 10:30] = True
        session.prompt(3, MaskPrompt(mask, 1))
        answer = session.ask("What is [3]?")
        assert answer.prefilled_ids == ()
        assert session.bank[3].source == "mask"
        # SAM's mask has 16 pixels for 56: only the border of the mask may change.
        returned = session.bank.mask_record(3, 1).mask((HEIGHT, WIDTH))
        assert (returned & mask).sum() / (returned | mask).sum() > 0.6

    def test_plain_question_needs_no_object(self, session: Session) -> None:
        answer = session.ask("How many objects are there?")
        assert session.num_encoded_frames == 0
        assert answer.prefilled_ids == ()

    def test_seg_in_the_answer_adds_an_object_with_a_new_id(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session.prompt(1, BOX)
        tokens = torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(0))
        reply = Reply("[1] chases <|seg|> and [4] <|seg|>.", tokens, 3)
        monkeypatch.setattr(Conversation, "ask", lambda self, turn, on_text=None: reply)
        answer = session.ask("What does [1] chase?")
        assert answer.text == "[1] chases [2] and [4]."
        assert session.bank[2].source == "language"
        assert set(session.bank.ids) == {1, 2, 4}

    def test_object_that_a_text_found_is_named_by_that_text(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reply = Reply("It is <|seg|>.", torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0)), 3)
        monkeypatch.setattr(Conversation, "ask", lambda self, turn, on_text=None: reply)
        answer = session.segment(" the red cup ")
        assert answer.question == "Please segment the red cup in this video."
        assert session.bank[1].expression == "the red cup"

    def test_image_is_a_video_of_one_frame(self, model: UniPixel, processor: Processor) -> None:
        session = Session(model, processor, clip_frames()[:1], settings=SETTINGS)
        session.prompt(1, BOX)
        session.ask("What is [1]?")
        assert [index for index, _ in session.bank.mask_records(1)] == [0]

    def test_text_is_reported_while_it_is_generated(self, session: Session) -> None:
        pieces: list[str] = []
        answer = session.ask("How many?", on_text=pieces.append)
        assert "".join(pieces) == answer.text
        assert len(pieces) >= answer.num_generated_tokens == 5


class TestCorrecting:
    def test_correction_tracks_the_object_again(self, session: Session) -> None:
        session.prompt(1, BOX)
        session.objects.track()
        before = session.bank.masks_on(range(NUM_FRAMES), object_ids=[1])
        session.prompt(1, PointPrompt(50, 35, 3), PointPrompt(12, 12, 3, is_positive=False))
        session.objects.track()
        after = session.bank.masks_on(range(NUM_FRAMES), object_ids=[1])
        assert len(session.bank[1].prompts) == 3
        assert (before != after).any()

    def test_negative_click_alone_corrects_a_known_mask(self, session: Session) -> None:
        session.prompt(1, BOX)
        session.objects.track()
        session.prompt(1, PointPrompt(30, 20, 0, is_positive=False))
        session.objects.track()
        assert session.bank[1].prompts[1].is_positive is False

    def test_changed_object_opens_the_next_turn(self, session: Session) -> None:
        session.prompt(1, MaskPrompt(np.tri(HEIGHT, WIDTH, dtype=bool), 0))
        session.ask("What is [1]?")
        assert session._injection() is None
        session.prompt(1, MaskPrompt(np.ones((HEIGHT, WIDTH), dtype=bool), 0))
        session.objects.track()
        memory = session._injection()
        assert memory is not None
        assert memory.is_update

    def test_first_memory_introduces_the_frames_whenever_it_comes(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As in training: an update is what follows a memory, not what follows a turn."""
        turns: list[Turn] = []
        monkeypatch.setattr(Conversation, "ask", _noted(Conversation.ask, turns))
        session.ask("How many objects are there?")
        mask = np.ones((HEIGHT, WIDTH), dtype=bool)
        session.prompt(1, MaskPrompt(mask, 0))
        session.ask("What is [1]?")
        session.prompt(2, MaskPrompt(mask, 0))
        session.ask("What is [2]?")
        assert turns[0].memory is None
        assert [turn.memory.is_update for turn in turns[1:]] == [False, True]

    def test_removed_object_is_not_in_the_memory(self, session: Session) -> None:
        session.prompt(1, BOX)
        session.objects.track()
        session.forget(1)
        with pytest.raises(ValueError, match=r"names \[1\], which is neither prompted nor in the object memory"):
            session.ask("What is [1]?")


class TestPrefilledMasks:
    """A mask of the language model is used if it agrees with the prompt; otherwise the prompt is segmented."""

    def test_mask_that_misses_the_prompt_is_replaced(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agent, "accepted_ids", lambda *_: ())
        _ask_about_both(session)
        by_tracker = Session(
            session._model, session._processor, clip_frames(), settings=replace(SETTINGS, prefill="tracker")
        )
        _ask_about_both(by_tracker)
        for object_id in (1, 2):
            _assert_same_masks(session, by_tracker, object_id)
        assert [session.bank[key].anchor_frame for key in (1, 2)] == [2, 0]

    def test_masks_of_the_model_are_used_without_a_check_where_asked(
        self, model: UniPixel, processor: Processor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = Session(model, processor, clip_frames(), settings=replace(SETTINGS, prefill="model-only"))
        assert _ask_about_both(session).accepted_ids == (1, 2)
        monkeypatch.setattr(agent, "accepted_ids", lambda *_: (1, 2))
        checked = Session(model, processor, clip_frames(), settings=SETTINGS)
        _ask_about_both(checked)
        for object_id in (1, 2):
            _assert_same_masks(session, checked, object_id)

    def test_each_object_has_its_own_prefilling_and_all_are_tracked_together(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent, "accepted_ids", lambda *_: (1,))
        seen: list[int] = []
        answer = _ask_about_both(session, on_frame=lambda followed: seen.append(followed.frame.index))
        assert answer.accepted_ids == (1,)
        assert seen == [0, 1, 2, 3, 4, 5, 1, 0]  # forwards from the box on frame 0, backwards from the point on frame 2
        others = []
        for fitting in ((), (1, 2)):
            monkeypatch.setattr(agent, "accepted_ids", lambda *_, fitting=fitting: fitting)
            others.append(Session(session._model, session._processor, clip_frames(), settings=SETTINGS))
            _ask_about_both(others[-1])
        _assert_same_masks(session, others[1], 1)
        _assert_same_masks(session, others[0], 2)

    @pytest.mark.parametrize(
        ("logit", "iou", "is_fitting"), [(2.0, 0.9, True), (2.0, 0.4, False), (-2.0, 0.9, False), (0.1, 0.9, False)]
    )
    def test_decoder_confidence_must_exceed_one_half(self, logit: float, iou: float, is_fitting: bool) -> None:
        follower: Any = _Follower(logit, iou)
        assert accepted_ids(follower, {1: torch.zeros(2, 4)}, {1: PointPrompt(1, 1)}) == ((1,) if is_fitting else ())

    @pytest.mark.parametrize(
        ("prompt", "is_held"),
        [
            (PointPrompt(4.9, 3.0), True),
            (PointPrompt(6.0, 3.0), False),
            (BoxPrompt((2, 3, 6, 7)), True),
            (BoxPrompt((2, 3, 6, 11)), True),  # half as high again below: IoU 16 / 32
            (BoxPrompt((2, 3, 6, 12)), False),
            (BoxPrompt((7, 8, 9, 10)), False),
        ],
    )
    def test_mask_agrees_with_a_point_on_it_and_a_box_that_it_fills(
        self, prompt: PointPrompt | BoxPrompt, is_held: bool
    ) -> None:
        mask = np.zeros((12, 10), dtype=bool)
        mask[3:7, 2:6] = True
        assert agrees_with_prompt(mask, prompt) is is_held
        assert not agrees_with_prompt(np.zeros_like(mask), prompt)


class TestAnchors:
    def test_best_anchor_is_used_where_asked(
        self, model: UniPixel, processor: Processor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(agent, "accepted_ids", lambda *_: (1,))
        session = Session(model, processor, clip_frames(), settings=replace(SETTINGS, anchor="first"))
        session.prompt(1, POINT)
        session.ask("What is [1]?")
        assert session.bank[1].anchor_frame == 0

    @pytest.mark.parametrize(("logit", "iou", "anchor"), [(3.0, 0.9, 0), (-3.0, 0.9, 4), (3.0, 0.2, 4)])
    def test_auto_uses_the_best_anchor_where_frame_0_has_no_confident_mask(
        self, session: Session, monkeypatch: pytest.MonkeyPatch, logit: float, iou: float, anchor: int
    ) -> None:
        first = FrameMasks(0, torch.zeros(1, 8, 8), torch.tensor([logit]), torch.tensor([iou]))
        monkeypatch.setattr(VideoTracker, "segment_frame", lambda *_: first)
        monkeypatch.setattr(VideoTracker, "select_anchor_frames", lambda _, tokens: dict.fromkeys(tokens, 4))
        reply = Reply("It is <|seg|>.", torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0)), 3)
        monkeypatch.setattr(Conversation, "ask", lambda self, turn, on_text=None: reply)
        session.segment("the red cup")
        assert session.bank[1].anchor_frame == anchor

    def test_tracker_prefill_uses_the_prompt_alone(self, model: UniPixel, processor: Processor) -> None:
        session = Session(model, processor, clip_frames(), settings=replace(SETTINGS, prefill="tracker"))
        session.prompt(1, POINT)
        answer = session.ask("What is [1]?")
        assert answer.prefilled_ids == ()
        assert session.bank[1].anchor_frame == 2


class TestThreads:
    def test_sessions_share_a_model_from_several_threads(self, model: UniPixel, processor: Processor) -> None:
        def talk() -> list[str]:
            session = Session(model, processor, clip_frames(), settings=SETTINGS)
            session.prompt(1, POINT)
            return [session.ask("What is [1]?").text, session.ask("And where?").text]

        alone = talk()
        together: list[list[str]] = []
        threads = [threading.Thread(target=lambda: together.append(talk())) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert together == [alone] * 3


class TestBadInput:
    @pytest.mark.parametrize("token", ["<|seg|>", "<|mem|>", "<|ref|>", "<|im_end|>", "<|image_pad|>"])
    def test_special_tokens_in_a_question_are_refused(self, session: Session, token: str) -> None:
        with pytest.raises(ValueError, match=r"contains the special token <\|"):
            session.ask(f"Segment the dog {token}.")

    def test_empty_question_is_refused(self, session: Session) -> None:
        with pytest.raises(ValueError, match="the question is empty"):
            session.ask("  ")

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            (PointPrompt(56, 3, 0), r"point \(56, 3\) is outside the frame of 56 x 40"),
            (PointPrompt(3, 3, 6), "frame"),
            (BoxPrompt((30, 8, 20, 30), 0), "inverted"),
            (MaskPrompt(np.zeros((HEIGHT, WIDTH), dtype=bool), 0), "empty"),
            (MaskPrompt(np.ones((3, 3), dtype=bool), 0), "shape"),
            (PointPrompt(3, 3, 0, is_positive=False), "only negative points"),
        ],
    )
    def test_prompt_that_is_not_on_the_video_is_refused(self, session: Session, prompt: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            session.prompt(1, prompt)

    def test_too_many_objects_are_refused(self, model: UniPixel, processor: Processor) -> None:
        session = Session(model, processor, clip_frames(), settings=replace(SETTINGS, max_objects=1))
        session.prompt(1, BOX)
        with pytest.raises(ValueError, match="2 objects are more than the maximum of 1"):
            session.prompt(2, POINT)

    @pytest.mark.parametrize(("field", "value"), [("anchor", "last"), ("prefill", "none"), ("num_frames", 0)])
    def test_settings_out_of_range_are_refused(self, field: str, value: object) -> None:
        with pytest.raises(ValueError, match=f"{field} must be .* got {value!r}"):
            replace(SETTINGS, **{field: value})


class _Follower:
    """Predicts a square on every frame of 8 x 8 pixels, from pixel 0 to 4."""

    size = (8, 8)

    def __init__(self, logit: float, iou: float) -> None:
        logits = torch.full((1, 8, 8), -5.0)
        logits[:, :4, :4] = 5.0
        self._masks = FrameMasks(0, logits, torch.tensor([logit]), torch.tensor([iou]))

    def segment_frame(self, tokens: Mapping[int, Tensor], frame_index: int) -> FrameMasks:
        return self._masks


def _ask_about_both(session: Session, on_frame: FrameCallback | None = None) -> Result:
    session.prompt(1, POINT)
    session.prompt(2, BOX)
    return session.ask("Is [1] near [2]?", on_frame=on_frame)


def _noted(ask: Callable[..., Reply], turns: list[Turn]) -> Callable[..., Reply]:
    def noted(conversation: Conversation, turn: Turn, *, on_text: TextCallback | None = None) -> Reply:
        turns.append(turn)
        return ask(conversation, turn, on_text=on_text)

    return noted


def _assert_same_masks(one: Session, other: Session, object_id: int) -> None:
    ours = one.bank.masks_on(range(NUM_FRAMES), object_ids=[object_id])
    theirs = other.bank.masks_on(range(NUM_FRAMES), object_ids=[object_id])
    assert np.array_equal(ours, theirs)
