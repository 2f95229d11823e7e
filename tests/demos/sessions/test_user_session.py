"""A user session: video, prompts, work as events, cancellation, and refused requests."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.demo_sessions import make_store, open_session_with_clip, track
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH
from PIL import Image

from unipixel.demos.errors import (
    BusyError,
    DemoError,
    NoVideoError,
    PromptError,
    QuestionError,
    StorageError,
    UnknownObjectError,
    UnknownSessionError,
    UploadError,
)
from unipixel.demos.export.downloads import DownloadRequest
from unipixel.demos.sessions.events import Answered, FrameMasked, Started, TextWritten, Tracked, Waiting, WorkCancelled
from unipixel.demos.sessions.frame_sink import FrameSink
from unipixel.demos.sessions.loaded_session import LoadedSession
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.storage.saved_session import SavedTurn
from unipixel.processing.visual_prompts import MaskPrompt
from unipixel.session.callbacks import Callbacks
from unipixel.session.conversation import Conversation, Reply

MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[8:24, 8:24] = True


@pytest.fixture
def store() -> Iterator[SessionStore]:
    opened = make_store()
    yield opened
    opened.close_all()


@pytest.fixture
def user_session(store: SessionStore, tmp_path: Path) -> UserSession:
    return open_session_with_clip(store, tmp_path)


class TestLoad:
    def test_video_is_described_and_read(self, user_session: UserSession) -> None:
        info = user_session.info
        assert info is not None
        assert (info.width, info.height, info.num_frames, info.fps, info.is_image) == (WIDTH, HEIGHT, 6, 10.0, False)
        assert info.name == "clip-6.mp4"
        assert user_session.frame(5).shape == (HEIGHT, WIDTH, 3)

    def test_all_frames_equal_those_read_one_by_one(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = open_session_with_clip(store, tmp_path, num_frames=37)
        assert np.array_equal(list(user_session.frames()), [user_session.frame(index) for index in range(37)])

    def test_recently_tracked_frame_is_returned_without_decoding(
        self, user_session: UserSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frames = list(user_session.frames())
        shown: dict[int, np.ndarray] = {}
        user_session.prompts.add_point(1, 12, 16, 0)
        loaded = user_session.lifecycle.loaded()
        with monkeypatch.context() as patch:
            patch.setattr(user_session, "_read", lambda _: pytest.fail("decoded again"))
            sink = FrameSink(
                loaded, lambda _: shown.update({len(shown): user_session.frame(len(shown))}), num_frames=NUM_FRAMES
            )
            loaded.session.objects.track(Callbacks(on_frame=sink))
        assert np.array_equal(list(shown.values()), frames)
        user_session.prompts.add_point(1, 14, 16, 0)
        track(user_session)
        assert loaded.recent_frames == ()

    def test_image_is_a_video_of_one_frame(self, store: SessionStore, tmp_path: Path) -> None:
        Image.fromarray(np.full((40, 56, 3), 90, np.uint8)).save(tmp_path / "still.png")
        user_session = store.open()
        info = user_session.load(tmp_path / "still.png")
        assert (info.is_image, info.num_frames, info.duration_seconds) == (True, 1, 0.0)
        user_session.prompts.add_mask(1, MASK)
        assert track(user_session)[-1] == Tracked((1,))

    def test_another_video_replaces_the_first_with_its_files(self, user_session: UserSession, tmp_path: Path) -> None:
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        user_session.download(DownloadRequest("coco"))
        before = {path.name for path in user_session.lifecycle.folder.iterdir()}
        user_session.load(tmp_path / "clip-6.mp4", is_trusted=True)
        assert user_session.objects() == []
        assert not any(name.startswith("upload-") or name == "results" for name in before & _names(user_session))

    def test_refused_upload_leaves_the_session_unchanged(self, user_session: UserSession, tmp_path: Path) -> None:
        user_session.prompts.add_mask(1, MASK)
        files = _names(user_session)
        (tmp_path / "letter.mp4").write_text("no video", encoding="utf-8")
        with pytest.raises(UploadError, match="neither a video nor an image"):
            user_session.load(tmp_path / "letter.mp4")
        assert [item.id for item in user_session.objects()] == [1]
        assert _names(user_session) == files

    def test_actions_without_a_video_are_refused(self, store: SessionStore) -> None:
        user_session = store.open()
        assert user_session.info is None
        assert user_session.objects() == []
        assert user_session.history == []
        for action in (
            lambda: user_session.frame(0),
            lambda: user_session.prompts.add_point(1, 1, 1),
            lambda: user_session.ask("What?"),
            lambda: user_session.download(DownloadRequest("masks")),
            lambda: user_session.masks_at(0),
        ):
            with pytest.raises(NoVideoError, match="upload one"):
                action()


class TestWork:
    def test_question_emits_frames_text_and_an_answer(self, user_session: UserSession) -> None:
        user_session.prompts.add_point(1, 12, 12, 2)
        events = list(user_session.ask("What is [1]?"))
        assert isinstance(events[0], Started)
        frames = [event for event in events if isinstance(event, FrameMasked)]
        assert sorted(event.frame_index for event in frames) == list(range(NUM_FRAMES))
        assert [event.num_done for event in frames] == list(range(1, NUM_FRAMES + 1))
        pieces = [event for event in events if isinstance(event, TextWritten)]
        last = events[-1]
        assert isinstance(last, Answered)
        assert "".join(event.piece for event in pieces) == pieces[-1].text
        assert last.new_ids == (1,)
        assert user_session.history == [SavedTurn("What is [1]?", last.text)]
        assert not user_session.lifecycle.is_busy

    def test_follow_up_continues_the_conversation(self, user_session: UserSession) -> None:
        list(user_session.ask("How many?"))
        list(user_session.ask("And why?"))
        assert [turn.question for turn in user_session.history] == ["How many?", "And why?"]

    def test_objects_of_an_answer_are_added_and_named(
        self, user_session: UserSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reply = Reply("It is <|seg|>.", torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0)), 3)
        monkeypatch.setattr(Conversation, "ask", lambda self, turn, on_text=None: reply)
        last = list(user_session.segment("the red square"))[-1]
        assert isinstance(last, Answered)
        assert (last.text, last.named_ids, last.new_ids) == ("It is [1].", (1,), (1,))
        assert [(item.name, item.source) for item in user_session.objects()] == [("the red square", "language")]

    def test_masks_are_available_with_the_event_of_their_frame(self, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        for event in user_session.track():
            if isinstance(event, FrameMasked):
                # Read in another thread than the working one.
                known = user_session.objects()[0].known_frames
                assert len(known) >= event.num_done
                assert user_session.masks_at(event.frame_index).keys() <= {1}
        assert user_session.masks_at(0)[1].shape == (HEIGHT, WIDTH)

    def test_queued_work_reports_its_position(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        with store._context.queue.slot():
            events = user_session.track()
            assert next(events) == Waiting(1)
            assert store.num_waiting == 1
        assert isinstance(list(events)[-1], Tracked)

    def test_changes_during_work_are_refused(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        with store._context.queue.slot():
            events = user_session.track()
            assert user_session.lifecycle.is_busy
            for action in (
                lambda: user_session.prompts.add_point(2, 1, 1),
                lambda: user_session.prompts.undo(),
                lambda: user_session.prompts.forget(1),
                lambda: user_session.ask("What?"),
                lambda: user_session.download(DownloadRequest("session")),
                lambda: user_session.load("clip.mp4"),
            ):
                with pytest.raises(BusyError, match="work is in progress"):
                    action()
            assert user_session.frame(0).shape == (HEIGHT, WIDTH, 3)
            assert [item.has_pending_prompts for item in user_session.objects()] == [True]
        list(events)

    def test_unexpected_error_is_logged_and_its_text_is_not_shown(
        self, user_session: UserSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(self: Conversation, turn: object, on_text: object = None) -> Reply:
            raise ZeroDivisionError("an internal error")

        monkeypatch.setattr(Conversation, "ask", fail)
        events = user_session.ask("What?")
        with pytest.raises(DemoError, match="an unexpected error occurred: try again"):
            list(events)
        assert "ZeroDivisionError: an internal error" in caplog.text
        assert not user_session.lifecycle.is_busy

    def test_session_that_cannot_be_saved_still_ends_its_events(
        self, store: SessionStore, user_session: UserSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError("no space left")

        with store._context.queue.slot():
            events = user_session.ask("What?")
            next(events)
            user_session.lifecycle.cancel_and_offload()
            monkeypatch.setattr(LoadedSession, "save", fail)
            with pytest.raises(StorageError, match="cannot save the change, its disk may be full"):
                list(events)
        # What is on disk is loaded when it is needed again.
        assert not user_session.lifecycle.is_loaded
        assert user_session.history == []
        assert not user_session.lifecycle.is_busy


class TestCancel:
    def test_waiting_work_is_cancelled_at_once(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        with store._context.queue.slot():
            events = user_session.track()
            assert next(events) == Waiting(1)
            user_session.lifecycle.cancel()
            assert list(events) == [WorkCancelled("cancelled by the user")]
        assert user_session.objects()[0].has_pending_prompts

    def test_cancelled_tracking_keeps_its_finished_frames(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = open_session_with_clip(store, tmp_path, num_frames=40)
        user_session.prompts.add_mask(1, MASK)
        events = []
        for event in user_session.track():
            events.append(event)
            if isinstance(event, FrameMasked):
                user_session.lifecycle.cancel()
        assert isinstance(events[-1], WorkCancelled)
        done = [event.frame_index for event in events if isinstance(event, FrameMasked)]
        assert 0 < len(done) < 40
        (item,) = user_session.objects()
        assert item.known_frames == tuple(done)
        assert not item.has_pending_prompts

    def test_cancelled_question_changes_nothing(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = open_session_with_clip(store, tmp_path, num_frames=40)
        user_session.prompts.add_mask(1, MASK)
        for event in user_session.ask("What is [1]?"):
            if isinstance(event, FrameMasked):
                user_session.lifecycle.cancel()
        (item,) = user_session.objects()
        assert (item.known_frames, item.has_pending_prompts) == ((0,), True)
        assert user_session.history == []

    def test_closing_the_events_of_tracking_does_not_stop_it(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = open_session_with_clip(store, tmp_path, num_frames=12)
        user_session.prompts.add_mask(1, MASK)
        user_session.track().close()
        _wait_until_idle(store, user_session)
        assert len(user_session.objects()[0].known_frames) == 12

    def test_closing_the_iterator_stops_the_work(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = open_session_with_clip(store, tmp_path, num_frames=40)
        events = user_session.ask("What is there?")
        assert isinstance(next(events), Started)
        events.close()
        _wait_until_idle(store, user_session)
        assert user_session.history == []

    def test_work_that_exceeds_the_time_limit_is_cancelled(self, tmp_path: Path) -> None:
        store = make_store(max_work_seconds=1e-6)
        user_session = open_session_with_clip(store, tmp_path)
        last = list(user_session.ask("What?"))[-1]
        assert isinstance(last, WorkCancelled)
        assert "exceeded the time limit" in last.reason
        store.close_all()

    def test_closed_session_leaves_no_files(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        with store._context.queue.slot():
            events = user_session.track()
            next(events)
            store.close(user_session.key)
        assert isinstance(list(events)[-1], WorkCancelled)
        assert not user_session.lifecycle.folder.exists()
        with pytest.raises(UnknownSessionError, match="unknown or has expired"):
            user_session.frame(0)


class TestPromptEditing:
    def test_undo_restores_the_masks_before_the_last_prompt(self, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        before = [user_session.masks_at(index) for index in range(NUM_FRAMES)]
        user_session.prompts.add_point(1, 50, 35, 3)
        track(user_session)
        assert _undone(user_session) == 1
        after = [user_session.masks_at(index) for index in range(NUM_FRAMES)]
        assert [{key: mask.tobytes() for key, mask in frame.items()} for frame in before] == [
            {key: mask.tobytes() for key, mask in frame.items()} for frame in after
        ]
        assert _undone(user_session) == 1
        assert user_session.objects() == []
        assert user_session.prompts.undo() is None

    def test_new_object_gets_the_lowest_free_id(self, user_session: UserSession) -> None:
        assert [user_session.prompts.add_box(0, (4, 4, 20, 20)) for _ in range(2)] == [1, 2]
        user_session.prompts.forget(1)
        assert user_session.prompts.add_box(0, (4, 4, 20, 20)) == 1

    def test_prompts_are_returned_for_drawing(self, user_session: UserSession) -> None:
        user_session.prompts.add_point(1, 5, 6, 2)
        user_session.prompts.add_box(2, (4, 4, 20, 20), 3)
        (mark,) = user_session.prompts_at(2)
        assert (mark.object_id, mark.point_xy) == (1, (5, 6))
        assert user_session.prompts_at(3)[0].box_xyxy == (4, 4, 20, 20)

    def test_empty_name_restores_the_default(self, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        user_session.prompts.rename(1, "  my   cup ")
        assert user_session.objects()[0].name == "my cup"
        user_session.prompts.rename(1, "")
        assert user_session.objects()[0].name == "object 1"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("x" * 61, "61 characters, the maximum is 60"),
            ("a\x00b", r"control character U\+0000"),
            ("a\u202eb", r"U\+202E"),
        ],
    )
    def test_invalid_name_is_refused(self, user_session: UserSession, name: str, message: str) -> None:
        user_session.prompts.add_mask(1, MASK)
        with pytest.raises(DemoError, match=message) as caught:
            user_session.prompts.rename(1, name)
        assert caught.value.field == "name"

    def test_removed_object_has_no_masks(self, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        user_session.prompts.forget(1)
        assert user_session.masks_at(0) == {}
        with pytest.raises(UnknownObjectError, match="known objects: none"):
            user_session.prompts.forget(1)

    def test_removal_is_undone_and_redone_without_touching_other_objects(self, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        user_session.prompts.add_box(2, (4, 4, 20, 20))
        track(user_session)
        user_session.prompts.rename(1, "cup")
        before = _frames_by_object(user_session)
        user_session.prompts.forget(1)
        assert _undone(user_session) == 1
        assert _frames_by_object(user_session) == before
        assert [item.name for item in user_session.objects()] == ["cup", "object 2"]
        redone = user_session.prompts.redo()
        assert redone is not None
        assert (redone.object_id, [item.id for item in user_session.objects()]) == (1, [2])
        assert user_session.prompts.redo() is None
        # Back over the removal, the name and the box.
        assert [_undone(user_session) for _ in range(3)] == [1, 1, 2]
        assert [item.id for item in user_session.objects()] == [1]

    def test_a_new_change_ends_redo(self, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        user_session.prompts.undo()
        user_session.prompts.add_mask(2, MASK)
        assert user_session.prompts.redo() is None

    def test_click_returns_with_the_mask_of_its_frame_only(self, user_session: UserSession) -> None:
        edit = user_session.prompts.add(0, [MaskPrompt(MASK, 3)])
        assert (edit.object_id, edit.frames) == (1, (3,))
        shown = user_session.masks_at(3)[1]
        # Masks pass through the tracker's lower resolution.
        assert (shown & MASK).sum() > 0.8 * (shown | MASK).sum()
        assert [user_session.masks_at(index) for index in (0, 2, 4)] == [{}, {}, {}]
        assert user_session.lifecycle.loaded().session.bank.ids == ()

    def test_correction_keeps_the_masks_of_other_frames_until_they_are_tracked(self, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        before = _frames_by_object(user_session)[1]
        user_session.prompts.add_point(1, 50, 35, 3)
        after = _frames_by_object(user_session)[1]
        assert {index: counts for index, counts in after.items() if index != 3} == {
            index: counts for index, counts in before.items() if index != 3
        }

    def test_later_mask_or_box_replaces_prompts_and_clicks_correct_a_mask(self, user_session: UserSession) -> None:
        prompts = user_session.prompts
        prompts.add_box(1, (4, 4, 20, 20))
        prompts.add_box(1, (6, 6, 24, 24))
        assert _kinds(user_session) == ["box"]
        prompts.add_point(1, 12, 12)
        prompts.add_mask(1, MASK)
        assert _kinds(user_session) == ["mask"]
        prompts.add_point(1, 20, 20)
        prompts.add_point(1, 2, 2, is_positive=False)
        assert _kinds(user_session) == ["mask", "point", "point"]
        clicked = user_session.masks_at(0)
        track(user_session)
        assert {key: mask.tobytes() for key, mask in user_session.masks_at(0).items()} == {
            key: mask.tobytes() for key, mask in clicked.items()
        }

    def test_refused_prompt_leaves_the_object_unchanged(self, user_session: UserSession) -> None:
        user_session.prompts.add_point(1, 12, 12)
        before = _frames_by_object(user_session)
        with pytest.raises(PromptError, match="only negative points"):
            user_session.prompts.add_point(1, 5, 5, 2, is_positive=False)
        assert _frames_by_object(user_session) == before
        assert _kinds(user_session) == ["point"]

    def test_thumbnail_shows_the_object(self, user_session: UserSession) -> None:
        user_session.prompts.add_mask(1, MASK)
        image = user_session.thumbnail(1, size=32)
        assert image is not None
        assert image.shape == (32, 32, 3)

    @pytest.mark.parametrize(
        ("x", "y", "frame", "message"),
        [
            (99, 3, 0, "outside the frame"),
            (-1, 3, 0, "outside the frame"),
            (math.nan, 3, 0, "outside the frame"),
            (math.inf, 3, 0, "outside the frame"),
            (3, 3, 99, "frame"),
            (3, 3, -1, "frame"),
        ],
    )
    def test_click_outside_the_video_is_refused(
        self, user_session: UserSession, x: float, y: float, frame: int, message: str
    ) -> None:
        with pytest.raises(PromptError, match=message):
            user_session.prompts.add_point(1, x, y, frame)
        assert user_session.objects() == []

    @pytest.mark.parametrize("object_id", [-1, 10_000])
    def test_id_out_of_range_is_refused(self, user_session: UserSession, object_id: int) -> None:
        with pytest.raises(PromptError, match="range from 1 to 9999"):
            user_session.prompts.add_point(object_id, 3, 3)

    def test_objects_and_prompts_are_bounded(self, tmp_path: Path) -> None:
        store = make_store(max_objects=2, max_prompts=2)
        user_session = open_session_with_clip(store, tmp_path)
        for object_id in (1, 2):
            user_session.prompts.add_point(object_id, 3, 3)
        with pytest.raises(PromptError, match="3 objects are more than the maximum of 2"):
            user_session.prompts.add_point(3, 3, 3)
        user_session.prompts.add_point(1, 4, 4)
        with pytest.raises(PromptError, match="would have more than 2 prompts"):
            user_session.prompts.add_point(1, 5, 5)
        store.close_all()

    @pytest.mark.parametrize("index", [-1, 6])
    def test_frame_outside_the_video_is_refused(self, user_session: UserSession, index: int) -> None:
        with pytest.raises(PromptError, match="range from 0 to 5"):
            user_session.frame(index)


class TestQuestions:
    @pytest.mark.parametrize(
        ("question", "message"),
        [
            ("  ", "the question is empty"),
            ("What is [7]?", r"names \[7\], which is neither"),
            ("x" * 2001, "has 2001 characters, the maximum is 2000"),
            ("Say <|im_end|>", "special token"),
            ("Say <|mem|>", "special token"),
            ("Say <|seg|>", "special token"),
            ("a\x00b", r"control character U\+0000"),
            ("a\u2066b", r"control character U\+2066"),
            ("a\u200fb", r"control character U\+200F"),
        ],
    )
    def test_invalid_question_is_refused_immediately(
        self, user_session: UserSession, question: str, message: str
    ) -> None:
        with pytest.raises(QuestionError, match=message) as caught:
            user_session.ask(question)
        assert caught.value.field == "question"
        assert not user_session.lifecycle.is_busy

    def test_conversation_is_bounded(self, tmp_path: Path) -> None:
        store = make_store(max_turns=2)
        user_session = open_session_with_clip(store, tmp_path)
        sizes = []
        for number in range(6):
            list(user_session.ask(f"Number {number}?"))
            sizes.append(user_session.lifecycle.num_bytes)
        assert [turn.question for turn in user_session.history] == ["Number 4?", "Number 5?"]
        # The model starts a new conversation after two turns, which bounds its memory too.
        assert len(set(sizes[0::2])) == len(set(sizes[1::2])) == 1
        store.close_all()


def _undone(user_session: UserSession) -> int:
    edit = user_session.prompts.undo()
    assert edit is not None
    return edit.object_id


def _frames_by_object(user_session: UserSession) -> dict[int, dict[int, str | None]]:
    snapshot = user_session.lifecycle.loaded().snapshot
    return {
        key: {index: record.counts for index, record in snapshot.records_of(key).items()} for key in snapshot.object_ids
    }


def _kinds(user_session: UserSession) -> list[str]:
    return [prompt.kind for prompt in user_session.objects()[0].prompts]


def _names(user_session: UserSession) -> set[str]:
    return {path.name for path in user_session.lifecycle.folder.iterdir()}


def _wait_until_idle(store: SessionStore, user_session: UserSession) -> None:
    with store._context.queue.slot():
        pass
    while user_session.lifecycle.is_busy:
        time.sleep(0.01)
