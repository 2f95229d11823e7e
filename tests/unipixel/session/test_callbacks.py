"""Callbacks, cancelling, undoing and continuing a session."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, clip_frames

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt
from unipixel.session.callbacks import Callbacks, Cancelled
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.session import Session
from unipixel.session.settings import SessionSettings
from unipixel.session.video_tracker import TrackedVideoFrame

SETTINGS = SessionSettings(num_frames=4, generation=GenerationSettings(max_new_tokens=5))
POINT, BOX = PointPrompt(10, 12, 2), BoxPrompt((20, 8, 40, 30), 0)
MASK = MaskPrompt(np.tri(HEIGHT, WIDTH, dtype=bool), 0)


class TestCallbacks:
    def test_every_frame_is_reported_when_it_is_in_memory(self, session: Session) -> None:
        reported: list[int] = []

        def note(followed: TrackedVideoFrame) -> None:
            reported.append(followed.frame.index)
            assert all(session.bank.mask_record(key, followed.frame.index) is not None for key in followed.objects)

        session.prompt(1, BOX)
        session.ask("What is [1]?", on_frame=note)
        assert reported[:NUM_FRAMES] == list(range(NUM_FRAMES))

    def test_objects_of_the_answer_are_reported_too(self, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
        _answer_with_mask(monkeypatch)
        reported: list[tuple[int, ...]] = []
        session.ask("Who?", on_frame=lambda followed: reported.append(tuple(followed.objects)))
        assert len(reported) >= NUM_FRAMES
        assert set(reported) == {(1,)}


class TestCancelling:
    @pytest.mark.parametrize("num_calls", [0, 1, 3, 8, 14])
    def test_cancelled_question_leaves_the_conversation_unchanged(
        self, model: UniPixel, processor: Processor, num_calls: int
    ) -> None:
        stopped, untouched = (Session(model, processor, clip_frames(), settings=SETTINGS) for _ in range(2))
        for each in (stopped, untouched):
            each.ask("How many?")
        stopped.prompt(1, BOX)
        with pytest.raises(Cancelled, match="was cancelled"):
            stopped.ask("What is [1]?", should_stop=_after(num_calls))
        untouched.prompt(1, BOX)
        again, first = stopped.ask("What is [1]?"), untouched.ask("What is [1]?")
        assert again.text == first.text
        masks = [each.bank.masks_on(range(NUM_FRAMES), object_ids=[1]) for each in (stopped, untouched)]
        assert np.array_equal(masks[0], masks[1])

    def test_cancelled_tracking_leaves_the_prompts_pending(self, session: Session) -> None:
        session.prompt(1, BOX)
        session.objects.track()
        before = session.bank.masks_on(range(NUM_FRAMES))
        session.prompt(1, PointPrompt(50, 35, 3))
        session.prompt(2, POINT)
        with pytest.raises(Cancelled, match="was cancelled"):
            session.objects.track(Callbacks(should_stop=_after(2)))
        assert sorted(session.objects.pending_prompts) == [1, 2]
        assert session.bank.ids == (1,)
        assert np.array_equal(session.bank.masks_on(range(NUM_FRAMES)), before)

    def test_question_cancelled_during_tracking_is_not_in_the_conversation(
        self, session: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _answer_with_mask(monkeypatch)
        with pytest.raises(Cancelled, match="was cancelled"):
            session.ask("Who?", should_stop=_after(3))
        assert len(session.bank) == 0

    def test_error_of_a_callback_undoes_the_turn(self, session: Session) -> None:
        session.prompt(1, MASK)

        def fail(_: str) -> None:
            raise OSError("gone")

        with pytest.raises(OSError, match="gone"):
            session.ask("What is [1]?", on_text=fail)
        # The model has not been given the memory, so the next turn must contain it.
        assert session._injection() is not None


class TestRestoring:
    def test_correction_is_undone_with_its_masks(self, session: Session) -> None:
        session.prompt(1, BOX)
        session.prompt(2, POINT)
        session.objects.track()
        before, kept = session.bank.masks_on(range(NUM_FRAMES)), session.objects.snapshot_object(1)
        session.prompt(1, PointPrompt(50, 35, 3))
        session.objects.track()
        version = session.bank.version
        session.objects.restore_object(kept)
        assert np.array_equal(session.bank.masks_on(range(NUM_FRAMES)), before)
        assert len(session.bank[1].prompts) == 1
        changes = session.bank.changes_since(version)
        assert (changes.added, changes.changed) == ((), (1,))

    def test_new_object_is_undone(self, session: Session) -> None:
        kept = session.objects.snapshot_object(1)
        session.prompt(1, BOX)
        session.objects.track()
        session.objects.restore_object(kept)
        assert session.objects.known_ids == set()
        assert session.bank.changes_since(0).forgotten == (1,)

    def test_pending_prompt_is_undone(self, session: Session) -> None:
        session.prompt(1, BOX)
        kept = session.objects.snapshot_object(1)
        session.prompt(1, PointPrompt(30, 20, 0))
        session.objects.restore_object(kept)
        assert session.objects.pending_prompts == {1: [BOX]}


class TestContinuing:
    def test_saved_memory_is_continued(
        self, session: Session, model: UniPixel, processor: Processor, tmp_path: Path
    ) -> None:
        session.prompt(1, MASK)
        session.ask("What is [1]?")
        session.bank.save(tmp_path)
        later = Session(model, processor, clip_frames(), settings=SETTINGS, bank=ObjectMemoryBank.load(tmp_path))
        assert np.array_equal(later.bank.masks_on(range(NUM_FRAMES)), session.bank.masks_on(range(NUM_FRAMES)))
        assert later._injection() is not None
        later.ask("And now, [1]?")
        later.prompt(1, PointPrompt(3, 30, 0, is_positive=False))
        later.objects.track()
        assert len(later.bank[1].prompts) == 2
        assert len(list(later.bank.mask_records(1))) == NUM_FRAMES

    def test_memory_of_another_video_is_refused(self, model: UniPixel, processor: Processor) -> None:
        long = Session(model, processor, clip_frames(), settings=SETTINGS)
        long.prompt(1, BOX)
        long.objects.track()
        with pytest.raises(ValueError, match="belongs to a video of at least 6 frames"):
            Session(model, processor, clip_frames()[:3], settings=SETTINGS, bank=long.bank)
        with pytest.raises(ValueError, match=r"\(H, W\) = \(9, 9\)"):
            Session(model, processor, clip_frames(), settings=SETTINGS, bank=ObjectMemoryBank((9, 9)))

    def test_memory_of_too_many_objects_is_refused(self, model: UniPixel, processor: Processor) -> None:
        bank = ObjectMemoryBank((HEIGHT, WIDTH))
        bank.add(source="point")
        bank.add(source="point")
        with pytest.raises(ValueError, match="2 objects are more than the maximum of 1"):
            Session(model, processor, clip_frames(), settings=replace(SETTINGS, max_objects=1), bank=bank)

    def test_restarted_conversation_is_answered_like_a_new_one(
        self, session: Session, model: UniPixel, processor: Processor
    ) -> None:
        session.prompt(1, MASK)
        first = session.ask("What is [1]?")
        session.ask("And why?")
        session.restart()
        again = session.ask("What is [1]?")
        assert (again.text, again.num_read_tokens) == (first.text, first.num_read_tokens)

    @pytest.mark.parametrize("frame_index", range(NUM_FRAMES))
    def test_object_that_was_tracked_before_the_first_question_is_in_its_memory(
        self, session: Session, frame_index: int
    ) -> None:
        session.prompt(1, replace(MASK, frame_index=frame_index))
        session.objects.track()
        session.ask("What is [1]?")
        assert session._conversation is not None
        assert frame_index in session._conversation.layout.frame_indices


class TestMemory:
    def test_used_memory_is_counted_and_bounded(self, model: UniPixel, processor: Processor) -> None:
        free = Session(model, processor, clip_frames(), settings=SETTINGS)
        tight = Session(model, processor, clip_frames(), settings=replace(SETTINGS, max_feature_bytes=1))
        for each in (free, tight):
            assert each.num_bytes == 0
            each.prompt(1, BOX)
            each.objects.track()
        # One frame is always kept.
        assert free.num_bytes == NUM_FRAMES * tight.num_bytes > 0
        before = free.num_bytes
        free.ask("What is [1]?")
        assert free.num_bytes > before


def _after(num_calls: int) -> _Countdown:
    return _Countdown(num_calls)


class _Countdown:
    """Return a function that returns True after some calls."""

    def __init__(self, num_calls: int) -> None:
        self._left = num_calls

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0


def _answer_with_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    reply = Reply("It is <|seg|>.", torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0)), 3)
    monkeypatch.setattr(Conversation, "ask", lambda self, turn, on_text=None: reply)
