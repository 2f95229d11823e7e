"""One visitor: clip, prompts, work as events, stopping it, and what is refused in plain words."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.demo_sessions import make_store, track, session_with_clip
from helpers.tiny_checkpoint import HEIGHT, NUM_FRAMES, WIDTH
from PIL import Image

from unipixel.demos.errors import (
    BusyError,
    DemoError,
    NoVideoError,
    PromptError,
    QuestionError,
    UnknownObjectError,
    UnknownSessionError,
    UploadError,
)
from unipixel.demos.sessions.events import Answered, FrameMasked, Started, TextWritten, Tracked, Waiting, WorkCancelled
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import SavedTurn, UserSession
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
    return session_with_clip(store, tmp_path)


class TestLoading:
    def test_clip_is_described_and_read(self, user_session: UserSession) -> None:
        info = user_session.info
        assert info is not None
        assert (info.width, info.height, info.num_frames, info.fps, info.is_image) == (WIDTH, HEIGHT, 6, 10.0, False)
        assert info.name == "clip-6.mp4"
        assert user_session.frame(5).shape == (HEIGHT, WIDTH, 3)

    def test_all_frames_in_order_are_those_read_one_by_one(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = session_with_clip(store, tmp_path, num_frames=37)
        assert np.array_equal(list(user_session.frames()), [user_session.frame(index) for index in range(37)])

    def test_frame_that_was_just_followed_is_shown_without_decoding_it_again(
        self, user_session: UserSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frames = list(user_session.frames())
        shown: dict[int, np.ndarray] = {}
        user_session.point(1, 12, 16, 0)
        session = user_session._session
        assert session is not None
        with monkeypatch.context() as patch:
            patch.setattr(user_session, "_read", lambda _: pytest.fail("it was decoded again"))
            sink = user_session._frame_sink(
                session, lambda _: shown.update({len(shown): user_session.frame(len(shown))})
            )
            session.objects.track(Callbacks(on_frame=sink))
        assert np.array_equal(list(shown.values()), frames)
        track(user_session)
        assert user_session._fresh == ()

    def test_image_is_a_clip_of_one_frame(self, store: SessionStore, tmp_path: Path) -> None:
        Image.fromarray(np.full((40, 56, 3), 90, np.uint8)).save(tmp_path / "still.png")
        user_session = store.open()
        info = user_session.load(tmp_path / "still.png")
        assert (info.is_image, info.num_frames, info.duration_seconds) == (True, 1, 0.0)
        user_session.mask(1, MASK)
        assert track(user_session)[-1] == Tracked((1,))

    def test_another_clip_replaces_the_first_with_its_files(self, user_session: UserSession, tmp_path: Path) -> None:
        user_session.mask(1, MASK)
        track(user_session)
        user_session.download("coco")
        before = {path.name for path in user_session.folder.iterdir()}
        user_session.load(tmp_path / "clip-6.mp4", is_trusted=True)
        assert user_session.objects() == []
        assert not any(name.startswith("upload-") or name == "results" for name in before & _names(user_session))

    def test_refused_upload_leaves_what_was_there(self, user_session: UserSession, tmp_path: Path) -> None:
        user_session.mask(1, MASK)
        files = _names(user_session)
        (tmp_path / "letter.mp4").write_text("no video", encoding="utf-8")
        with pytest.raises(UploadError, match="neither a video nor an image"):
            user_session.load(tmp_path / "letter.mp4")
        assert [item.id for item in user_session.objects()] == [1]
        assert _names(user_session) == files

    def test_nothing_works_without_a_clip(self, store: SessionStore) -> None:
        user_session = store.open()
        assert user_session.info is None
        assert user_session.objects() == []
        assert user_session.history == []
        for action in (
            lambda: user_session.frame(0),
            lambda: user_session.point(1, 1, 1),
            lambda: user_session.ask("What?"),
            lambda: user_session.download("masks"),
            lambda: user_session.masks_at(0),
        ):
            with pytest.raises(NoVideoError, match="upload one"):
                action()


class TestWorking:
    def test_question_is_told_as_frames_text_and_an_answer(self, user_session: UserSession) -> None:
        user_session.point(1, 12, 12, 2)
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
        assert not user_session.is_busy

    def test_follow_up_goes_on_with_the_conversation(self, user_session: UserSession) -> None:
        list(user_session.ask("How many?"))
        list(user_session.ask("And why?"))
        assert [turn.question for turn in user_session.history] == ["How many?", "And why?"]

    def test_objects_of_an_answer_are_added_and_named(
        self, user_session: UserSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reply = Reply("It is <|seg|>.", torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0)), 3, 9)
        monkeypatch.setattr(Conversation, "ask", lambda self, turn, on_text=None: reply)
        last = list(user_session.segment("the red square"))[-1]
        assert isinstance(last, Answered)
        assert (last.text, last.named_ids, last.new_ids) == ("It is [1].", (1,), (1,))
        assert [(item.name, item.source) for item in user_session.objects()] == [("the red square", "language")]

    def test_masks_are_there_as_soon_as_their_frame_is_told(self, user_session: UserSession) -> None:
        user_session.mask(1, MASK)
        for event in user_session.track():
            if isinstance(event, FrameMasked):
                # Read by another thread than the one that works, perhaps while it works.
                known = user_session.objects()[0].num_known_frames
                assert known >= event.num_done
                assert user_session.masks_at(event.frame_index).keys() <= {1}
        assert user_session.masks_at(0)[1].shape == (HEIGHT, WIDTH)
        assert user_session.timeline() == {1: list(user_session.objects()[0].visible_frames)}

    def test_work_waits_in_line_and_tells_its_place(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.mask(1, MASK)
        with store._context.line.slot():
            events = user_session.track()
            assert next(events) == Waiting(1)
            assert store.num_waiting == 1
        assert isinstance(list(events)[-1], Tracked)

    def test_while_work_is_under_way_nothing_is_changed(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.mask(1, MASK)
        with store._context.line.slot():
            events = user_session.track()
            assert user_session.is_busy
            for action in (
                lambda: user_session.point(2, 1, 1),
                lambda: user_session.undo(),
                lambda: user_session.forget(1),
                lambda: user_session.ask("What?"),
                lambda: user_session.download("masks"),
                lambda: user_session.load("clip.mp4"),
            ):
                with pytest.raises(BusyError, match="work is under way"):
                    action()
            assert user_session.frame(0).shape == (HEIGHT, WIDTH, 3)
            assert [item.has_pending_prompts for item in user_session.objects()] == [True]
        list(events)

    def test_error_of_the_work_is_raised_to_who_listens(
        self, user_session: UserSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: Conversation, turn: object, on_text: object = None) -> Reply:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr(Conversation, "ask", fail)
        events = user_session.ask("What?")
        with pytest.raises(ZeroDivisionError):
            list(events)
        assert not user_session.is_busy

    def test_session_that_cannot_be_saved_leaves_nobody_waiting(
        self, store: SessionStore, user_session: UserSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError("no space left")

        with store._context.line.slot():
            events = user_session.ask("What?")
            next(events)
            user_session.leave()
            monkeypatch.setattr(UserSession, "_save", fail)
            with pytest.raises(UploadError, match="disk full"):
                list(events)
        assert user_session.is_awake
        assert not user_session.is_busy


class TestCancelling:
    def test_waiting_work_is_cancelled_at_once(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.mask(1, MASK)
        with store._context.line.slot():
            events = user_session.track()
            assert next(events) == Waiting(1)
            user_session.cancel()
            assert list(events) == [WorkCancelled("you stopped it")]
        assert user_session.objects()[0].has_pending_prompts

    def test_work_stops_at_the_next_frame_and_is_taken_back(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = session_with_clip(store, tmp_path, num_frames=40)
        user_session.mask(1, MASK)
        told = []
        for event in user_session.track():
            told.append(event)
            if isinstance(event, FrameMasked):
                user_session.cancel()
        assert isinstance(told[-1], WorkCancelled)
        assert sum(isinstance(event, FrameMasked) for event in told) < 40
        assert user_session.masks_at(0) == {}
        assert user_session.objects()[0].has_pending_prompts
        assert isinstance(track(user_session)[-1], Tracked)

    def test_closing_the_iterator_stops_the_work(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = session_with_clip(store, tmp_path, num_frames=40)
        events = user_session.ask("What is there?")
        assert isinstance(next(events), Started)
        events.close()  # type: ignore[attr-defined]
        _wait_until_idle(store, user_session)
        assert user_session.history == []

    def test_work_that_takes_too_long_ends(self, tmp_path: Path) -> None:
        store = make_store(max_work_seconds=1e-6)
        user_session = session_with_clip(store, tmp_path)
        last = list(user_session.ask("What?"))[-1]
        assert isinstance(last, WorkCancelled)
        assert "seconds that one visitor is given" in last.reason
        store.close_all()

    def test_closed_visitor_leaves_no_file(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.mask(1, MASK)
        with store._context.line.slot():
            events = user_session.track()
            next(events)
            store.close(user_session.key)
        assert isinstance(list(events)[-1], WorkCancelled)
        assert not user_session.folder.exists()
        with pytest.raises(UnknownSessionError):
            user_session.frame(0)


class TestPointing:
    def test_undo_takes_back_the_last_prompt_and_its_masks(self, user_session: UserSession) -> None:
        user_session.mask(1, MASK)
        track(user_session)
        before = [user_session.masks_at(index) for index in range(NUM_FRAMES)]
        user_session.point(1, 50, 35, 3)
        track(user_session)
        assert user_session.undo() == 1
        after = [user_session.masks_at(index) for index in range(NUM_FRAMES)]
        assert [{key: mask.tobytes() for key, mask in frame.items()} for frame in before] == [
            {key: mask.tobytes() for key, mask in frame.items()} for frame in after
        ]
        assert user_session.undo() == 1
        assert user_session.objects() == []
        assert user_session.undo() is None

    def test_ids_of_new_objects_are_free_ones(self, user_session: UserSession) -> None:
        assert user_session.next_id() == 1
        user_session.box(1, (4, 4, 20, 20))
        user_session.box(2, (4, 4, 20, 20))
        user_session.forget(1)
        assert user_session.next_id() == 1

    def test_prompts_are_returned_for_drawing(self, user_session: UserSession) -> None:
        user_session.point(1, 5, 6, 2)
        user_session.box(2, (4, 4, 20, 20), 3)
        (mark,) = user_session.prompts_at(2)
        assert (mark.object_id, mark.point_xy) == (1, (5, 6))
        assert user_session.prompts_at(3)[0].box_xyxy == (4, 4, 20, 20)

    def test_object_is_renamed_and_named_back(self, user_session: UserSession) -> None:
        user_session.mask(1, MASK)
        user_session.rename(1, "  my   cup ")
        assert user_session.objects()[0].name == "my cup"
        user_session.rename(1, "")
        assert user_session.objects()[0].name == "object 1"

    @pytest.mark.parametrize("name", ["x" * 61, "a\x00b", "a\u202eb"])
    def test_name_that_does_not_fit_is_refused(self, user_session: UserSession, name: str) -> None:
        user_session.mask(1, MASK)
        with pytest.raises(DemoError, match="at most 60 plain ones") as caught:
            user_session.rename(1, name)
        assert caught.value.field == "name"

    def test_forgotten_object_is_gone(self, user_session: UserSession) -> None:
        user_session.mask(1, MASK)
        track(user_session)
        user_session.forget(1)
        assert user_session.masks_at(0) == {}
        assert user_session.undo() is None
        with pytest.raises(UnknownObjectError, match="known are none"):
            user_session.forget(1)

    def test_thumbnail_shows_the_object(self, user_session: UserSession) -> None:
        user_session.mask(1, MASK)
        assert user_session.thumbnail(1) is None
        track(user_session)
        picture = user_session.thumbnail(1, size=32)
        assert picture is not None
        assert picture.shape == (32, 32, 3)

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
    def test_click_off_the_clip_is_refused(
        self, user_session: UserSession, x: float, y: float, frame: int, message: str
    ) -> None:
        with pytest.raises(PromptError, match=message):
            user_session.point(1, x, y, frame)
        assert user_session.objects() == []

    @pytest.mark.parametrize("object_id", [0, -1, 10_000])
    def test_id_out_of_range_is_refused(self, user_session: UserSession, object_id: int) -> None:
        with pytest.raises(PromptError, match="numbered 1 to 9999"):
            user_session.point(object_id, 3, 3)

    def test_objects_and_prompts_are_bounded(self, tmp_path: Path) -> None:
        store = make_store(max_objects=2, max_prompts=2)
        user_session = session_with_clip(store, tmp_path)
        for object_id in (1, 2):
            user_session.point(object_id, 3, 3)
        with pytest.raises(PromptError, match="3 objects are more than the maximum of 2"):
            user_session.point(3, 3, 3)
        user_session.point(1, 4, 4)
        with pytest.raises(PromptError, match="has 2 clicks already"):
            user_session.point(1, 5, 5)
        store.close_all()

    @pytest.mark.parametrize("index", [-1, 6])
    def test_frame_off_the_clip_is_refused(self, user_session: UserSession, index: int) -> None:
        with pytest.raises(PromptError, match="numbered 0 to 5"):
            user_session.frame(index)


class TestQuestions:
    @pytest.mark.parametrize(
        ("question", "message"),
        [
            ("  ", "the question is empty"),
            ("What is [7]?", r"names \[7\], which is neither"),
            ("x" * 2001, "has 2001 characters, at most 2000"),
            ("Say <|im_end|>", "leave it out"),
            ("Say <|mem|>", "leave it out"),
            ("Say <|seg|>", "leave it out"),
        ],
    )
    def test_question_that_cannot_be_asked_is_refused_at_once(
        self, user_session: UserSession, question: str, message: str
    ) -> None:
        with pytest.raises(QuestionError, match=message) as caught:
            user_session.ask(question)
        assert caught.value.field == "question"
        assert not user_session.is_busy

    def test_conversation_is_bounded(self, tmp_path: Path) -> None:
        store = make_store(max_turns=2)
        user_session = session_with_clip(store, tmp_path)
        sizes = []
        for number in range(6):
            list(user_session.ask(f"Number {number}?"))
            sizes.append(user_session.num_bytes)
        assert [turn.question for turn in user_session.history] == ["Number 4?", "Number 5?"]
        # The model's memory of the conversation as well: it begins anew after two turns.
        assert len(set(sizes[0::2])) == len(set(sizes[1::2])) == 1
        store.close_all()


def _names(user_session: UserSession) -> set[str]:
    return {path.name for path in user_session.folder.iterdir()}


def _wait_until_idle(store: SessionStore, user_session: UserSession) -> None:
    with store._context.line.slot():
        pass
    for _ in range(200):
        if not user_session.is_busy:
            return
        time.sleep(0.01)
    raise AssertionError("the work does not end")
