"""A live session: immediate masks, questions at any time, bounded memory."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.processing.chat_template import Turn
from unipixel.processing.processor import Processor
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt
from unipixel.session.callbacks import TextCallback
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.live_session import LiveSession, LiveSettings
from unipixel.session.video_tracker import object_masks
from unipixel.tracking.tracker import StreamingTracker
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame
from unipixel.video.frame_buffer import FrameBuffer
from unipixel.video.latest_frame import LatestFrame

HEIGHT, WIDTH = 40, 56
SETTINGS = LiveSettings(num_frames=5, generation=GenerationSettings(max_new_tokens=4))
POINT, BOX = PointPrompt(10, 12), BoxPrompt((20, 8, 40, 30))


@pytest.fixture
def session(model: UniPixel, processor: Processor) -> LiveSession:
    return LiveSession(model, processor, settings=SETTINGS)


class TestTracking:
    def test_masks_are_those_of_the_streaming_tracker(self, session: LiveSession, model: UniPixel) -> None:
        tracker = StreamingTracker(model.sam2, memory_dtype=model.dtype)
        for index in range(8):
            ours, theirs = session.step(_frame(index)), object_masks(tracker.step(_frame(index).image))
            _assert_equal(ours, theirs)
            if index == 1:
                session.prompt(1, replace(POINT, frame_index=1))
                tracker.add_points(1, [(POINT.x, POINT.y)], [1])
            if index == 3:
                session.prompt(2, replace(BOX, frame_index=3))
                tracker.add_box(2, BOX.xyxy)
            if index == 4:
                session.prompt(1, PointPrompt(50, 30, 4, is_positive=False))
                tracker.add_points(1, [(50, 30)], [0], is_extending=True)
            if index == 5:
                session.forget(2)
                tracker.remove(2)
        assert list(ours) == [1]

    def test_prompt_answers_with_the_mask_on_the_newest_frame(self, session: LiveSession) -> None:
        session.step(_frame(0))
        mask = _square()
        shown = session.prompt(3, MaskPrompt(mask, 0))[3].mask
        assert (shown & mask).sum() / (shown | mask).sum() > 0.6
        assert session.bank[3].source == "mask"
        assert session.bank.mask_record(3, 0).mask((HEIGHT, WIDTH)).sum() == shown.sum()  # type: ignore[union-attr]

    def test_frames_given_as_arrays_are_copied_and_numbered(self, session: LiveSession) -> None:
        buffer = _frame(0).image.copy()
        session.step(buffer)
        buffer[:] = 0
        session.step(buffer, 0.5)
        frames = session.objects.buffer.frames
        assert [frame.index for frame in frames] == [0, 1]
        assert frames[0].image.max() > 0
        assert frames[1].timestamp_seconds == 0.5

    def test_memory_is_repeated_after_a_callback_cancelled_the_turn(
        self, session: LiveSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(_: str) -> None:
            raise OSError("gone")

        session.step(_frame(0))
        session.prompt(1, MaskPrompt(np.ones(_frame(0).image.shape[:2], dtype=bool), 0))
        with pytest.raises(OSError, match="gone"):
            session.ask("What is [1]?", on_text=fail)
        turns = _note_turns(monkeypatch)
        session.ask("What is [1]?")
        assert turns[0].memory is not None

    def test_memory_does_not_grow_with_the_stream(self, session: LiveSession) -> None:
        sizes = []
        for index in range(200):
            session.step(_frame(index))
            if index == 0:
                session.prompt(1, replace(POINT, frame_index=0))
            if index in (59, 199):
                held = [len(track._entries) for track in session.bank._mask_tracks.values()]
                sizes.append((session.objects.num_bytes, len(session.objects.buffer.frames), held))
        assert sizes[0] == sizes[1]
        assert sizes[1][1] == 5
        assert sizes[1][2] == [5]

    def test_masks_outside_the_window_are_spilled_where_a_folder_is_given(
        self, model: UniPixel, processor: Processor, tmp_path: Path
    ) -> None:
        session = LiveSession(model, processor, settings=replace(SETTINGS, spill_folder=tmp_path / "spilled"))
        shown = {}
        for index in range(12):
            shown[index] = session.step(_frame(index))
            if index == 0:
                shown[0] = session.prompt(1, MaskPrompt(_square(), 0))
        assert len(session.bank._mask_tracks[1]._entries) == 5
        for index, masks in shown.items():
            look = session.bank.mask_record(1, index)
            assert look is not None
            assert np.array_equal(look.mask((HEIGHT, WIDTH)), masks[1].mask)


class TestAsking:
    def test_question_includes_the_window_and_the_memory(
        self, session: LiveSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        turns = _note_turns(monkeypatch)
        for index in range(20):
            session.step(_frame(index))
            if index == 6:
                session.prompt(1, MaskPrompt(_square(), 6))
        # Random weights lose the object meanwhile: prompt it again.
        session.prompt(1, MaskPrompt(_square(), 19))
        answer = session.ask("What is [1]?")
        conversation = session._conversation
        assert conversation is not None
        assert conversation.layout.frame_indices == session.objects.buffer.indices
        assert conversation.layout.frame_indices[-1] == 19
        assert turns[0].memory is not None
        assert turns[0].memory.object_ids == (1,)
        assert set(answer.timings_seconds) == {"read_video", "answer", "segment"}

    def test_questions_between_two_frames_are_one_conversation(self, session: LiveSession) -> None:
        session.step(_frame(0))
        stages = [set(session.ask(question).timings_seconds) for question in ("How many?", "Why?")]
        session.step(_frame(1))
        stages.append(set(session.ask("And now?").timings_seconds))
        assert ["read_video" in own for own in stages] == [True, False, True]

    def test_seg_in_the_answer_adds_an_object_on_the_newest_frame(
        self, session: LiveSession, model: UniPixel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tokens = _visible_tokens(model)
        _reply(monkeypatch, Reply("[1] chases <|seg|> and [7] <|seg|>.", tokens.repeat(2, 1, 1), 3))
        for index in range(3):
            session.step(_frame(index))
        session.prompt(1, replace(BOX, frame_index=2))
        answer = session.ask("What does [1] chase?")
        assert answer.text == "[1] chases [2] and [7]."
        assert answer.new_ids == (2, 7)
        assert session.bank[2].source == "language"
        assert session.bank[2].anchor_frame == 2
        tracker = StreamingTracker(model.sam2, memory_dtype=model.dtype)
        tracker.step(_frame(2).image)
        _assert_equal({2: session.objects.masks[2]}, object_masks(tracker.add_tokens(2, tokens[0])))
        assert set(session.step(_frame(3))) == {1, 2, 7}

    def test_named_object_that_is_absent_is_searched_on_later_frames(
        self, session: LiveSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Presence is decided by a replacement: random weights segment something in every frame."""
        is_there = {0: False, 1: False, 2: True, 3: True}

        def decided(tracked: Any) -> dict[int, ObjectMask]:
            mask = np.full((HEIGHT, WIDTH), is_there[tracked.frame_index])
            return {key: ObjectMask(mask, 0.5, is_there[tracked.frame_index]) for key in tracked.object_ids}

        monkeypatch.setattr("unipixel.session.stream_objects.object_masks", decided)
        _reply(monkeypatch, Reply("It is <|seg|>.", torch.ones(1, 2, 32), 3))
        session.step(_frame(0))
        assert session.segment("the red cup").new_ids == (1,)
        seen = [session.step(_frame(index))[1].visible for index in (1, 2, 3)]
        assert seen == [False, True, True]
        assert session.objects.tracker.object_ids == (1,)
        assert session.bank[1].expression == "the red cup"

    def test_more_objects_than_the_limit_are_refused_together(
        self, model: UniPixel, processor: Processor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = LiveSession(model, processor, settings=replace(SETTINGS, max_objects=1))
        _reply(monkeypatch, Reply("<|seg|> <|seg|>", torch.ones(2, 2, 32), 3))
        session.step(_frame(0))
        with pytest.raises(ValueError, match="2 objects are more than the maximum of 1"):
            session.ask("What is there?")
        assert len(session.bank) == 0


class TestBadInput:
    @pytest.mark.parametrize(
        "act",
        [
            lambda session: session.ask("What?"),
            lambda session: session.segment("cup"),
            lambda session: session.prompt(1, POINT),
            lambda session: session.forget(1),
        ],
    )
    def test_question_before_the_first_frame_is_refused(
        self, session: LiveSession, act: Callable[[LiveSession], Any]
    ) -> None:
        with pytest.raises(RuntimeError, match=r"there was no frame yet: call step\(frame\) first"):
            act(session)

    @pytest.mark.parametrize(
        ("prompts", "message"),
        [
            ([PointPrompt(3, 3, 0)], "on frame 0: a stream accepts prompts on its latest frame, 1, only"),
            ([PointPrompt(56, 3, 1)], r"point \(56, 3\) is outside the frame of 56 x 40"),
            ([BoxPrompt((30, 8, 20, 30), 1)], "inverted"),
            ([MaskPrompt(np.zeros((HEIGHT, WIDTH), dtype=bool), 1)], "empty"),
            ([PointPrompt(3, 3, 1, is_positive=False)], "only negative points"),
            ([], "give at least one point, box or mask"),
        ],
    )
    def test_prompt_that_is_not_on_the_newest_frame_is_refused(
        self, session: LiveSession, prompts: Any, message: str
    ) -> None:
        session.step(_frame(0))
        session.step(_frame(1))
        with pytest.raises(ValueError, match=message):
            session.prompt(1, *prompts)
        assert len(session.bank) == 0
        assert session.step(_frame(2)) == {}

    def test_question_about_an_unknown_object_is_refused(self, session: LiveSession) -> None:
        session.step(_frame(0))
        with pytest.raises(ValueError, match=r"names \[4\], which is neither prompted nor in the object memory"):
            session.ask("Where is [4]?")
        with pytest.raises(KeyError, match="object 4 is not in the memory"):
            session.forget(4)

    def test_frame_of_another_size_is_refused(self, session: LiveSession) -> None:
        session.step(_frame(0))
        with pytest.raises(ValueError, match=r"frame 1 has \(H, W\) = \(10, 10\), earlier frames have \(40, 56\)"):
            session.step(np.zeros((10, 10, 3), dtype=np.uint8))

    @pytest.mark.parametrize("name", ["num_frames", "max_objects", "redetect_after"])
    def test_settings_out_of_range_are_refused(self, name: str) -> None:
        values: dict[str, Any] = {name: 0}
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            LiveSettings(**values)


class TestWindow:
    @pytest.mark.parametrize("capacity", [1, 2, 3, 8, 16])
    def test_window_contains_first_and_newest_frame_up_to_its_limit(self, capacity: int) -> None:
        window = FrameBuffer(capacity)
        for index in range(300):
            window.add(_frame(index))
            assert len(window.frames) == min(index + 1, capacity)
            assert window.indices[-1] == index
            assert window.indices[0] == (index if capacity == 1 else 0)

    def test_distances_of_a_steady_stream_stay_within_a_factor_of_two(self) -> None:
        window = FrameBuffer(16)
        for index in range(1500):
            window.add(_frame(index))
            gaps = [later - earlier for earlier, later in itertools.pairwise(window.indices[:-1])]
            assert not gaps or max(gaps) <= 2.2 * min(gaps) + 2

    def test_frames_are_spread_in_time_where_a_source_drops_some(self) -> None:
        window, seconds = FrameBuffer(8), 0.0
        # Thirty frames a second at first, then one.
        for index in range(400):
            window.add(_frame(index, seconds))
            seconds += 1 / 30 if index < 300 else 1.0
        times = [frame.timestamp_seconds for frame in window.frames]
        assert sum(time <= 10 for time in times) <= 3

    def test_index_that_does_not_rise_is_refused(self) -> None:
        window = FrameBuffer(3)
        window.add(_frame(4))
        with pytest.raises(ValueError, match="frame 4 came after frame 4"):
            window.add(_frame(4))


class TestNewestFrames:
    def test_frames_that_arrive_in_between_are_dropped(self) -> None:
        source = _Paced(6)
        seen = []
        with LatestFrame(source) as newest:
            for frame in newest:
                seen.append(frame.index)
                # Two more arrive while this one is processed.
                source.let(2)
        assert seen[0] == 0
        assert seen[-1] == 5
        assert len(seen) + newest.num_dropped == 6
        assert newest.num_dropped >= 2

    def test_error_of_the_source_is_raised_in_the_consumer(self) -> None:
        def broken() -> Iterator[Frame]:
            yield _frame(0)
            raise OSError("the camera is gone")

        with LatestFrame(broken()) as newest, pytest.raises(OSError, match="the camera is gone"):
            list(newest)

    def test_reader_stops_when_frames_are_no_longer_consumed(self) -> None:
        newest = LatestFrame(_frame(index) for index in itertools.count())
        assert next(iter(newest)).index >= 0
        assert newest.close(timeout_seconds=10)


class _Paced:
    """Yields its first frame, then as many as it is allowed to, each after the last was taken or replaced."""

    def __init__(self, num_frames: int) -> None:
        self._num_frames, self._allowed = num_frames, 1
        self._handed = 0
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._num_frames):
            with self._changed:
                self._changed.wait_for(functools.partial(self._is_allowed, index))
            yield _frame(index)
            with self._changed:
                self._handed = index + 1
                self._changed.notify_all()

    def _is_allowed(self, index: int) -> bool:
        return index < self._allowed

    def let(self, count: int) -> None:
        with self._changed:
            self._allowed = min(self._allowed + count, self._num_frames)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._handed >= self._allowed)


def _frame(index: int, seconds: float | None = None) -> Frame:
    """A bright square that moves over a dark background."""
    image = np.full((HEIGHT, WIDTH, 3), 30, dtype=np.uint8)
    left = 4 + 2 * (index % 16)
    image[8:24, left : left + 16] = (200, 60, 40)
    return Frame(index, index / 10 if seconds is None else seconds, image)


def _square() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[8:24, 4:36] = True
    return mask


def _visible_tokens(model: UniPixel) -> torch.Tensor:
    """Tokens (1, 2, 32) for which the random decoder predicts a non-empty mask."""
    for seed in range(100):
        tokens = torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(seed))
        tracker = StreamingTracker(model.sam2, memory_dtype=model.dtype)
        tracker.step(_frame(2).image)
        if object_masks(tracker.add_tokens(1, tokens[0]))[1].visible:
            return tokens
    raise RuntimeError("no such tokens among 100 draws")


def _note_turns(monkeypatch: pytest.MonkeyPatch) -> list[Turn]:
    turns: list[Turn] = []
    ask = Conversation.ask

    def noted(conversation: Conversation, turn: Turn, *, on_text: TextCallback | None = None) -> Reply:
        turns.append(turn)
        return ask(conversation, turn, on_text=on_text)

    monkeypatch.setattr(Conversation, "ask", noted)
    return turns


def _reply(monkeypatch: pytest.MonkeyPatch, reply: Reply) -> None:
    monkeypatch.setattr(Conversation, "ask", lambda self, turn, on_text=None: reply)


def _assert_equal(ours: dict[int, ObjectMask], theirs: dict[int, ObjectMask]) -> None:
    assert list(ours) == list(theirs)
    for object_id, item in ours.items():
        assert np.array_equal(item.mask, theirs[object_id].mask)
        assert (item.score, item.visible) == (theirs[object_id].score, theirs[object_id].visible)
