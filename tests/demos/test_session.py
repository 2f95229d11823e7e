"""One visitor: clip, prompts, work as events, stopping it, and what is refused in plain words."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from demo_visitors import make_store, track, visitor_with_clip
from PIL import Image
from tiny_checkpoint import HEIGHT, NUM_FRAMES, WIDTH

from unipixel.demos.sessions.errors import (
    BusyError,
    NoVideoError,
    PromptError,
    QuestionError,
    UnknownObjectError,
    UnknownVisitorError,
    UploadError,
    VisitorError,
)
from unipixel.demos.sessions.events import Answered, Cancelled, FrameMasked, Started, TextWritten, Tracked, Waiting
from unipixel.demos.sessions.session_store import VisitorStore
from unipixel.demos.sessions.user_session import Turn, Visitor
from unipixel.session.callbacks import Progress
from unipixel.session.conversation import Dialogue, Reply

MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[8:24, 8:24] = True


@pytest.fixture
def store() -> Iterator[VisitorStore]:
    opened = make_store()
    yield opened
    opened.close_all()


@pytest.fixture
def visitor(store: VisitorStore, tmp_path: Path) -> Visitor:
    return visitor_with_clip(store, tmp_path)


class TestLoading:
    def test_clip_is_described_and_read(self, visitor: Visitor) -> None:
        info = visitor.info
        assert info is not None
        assert (info.width, info.height, info.num_frames, info.fps, info.is_image) == (WIDTH, HEIGHT, 6, 10.0, False)
        assert info.name == "clip-6.mp4"
        assert visitor.frame(5).shape == (HEIGHT, WIDTH, 3)

    def test_all_frames_in_order_are_those_read_one_by_one(self, store: VisitorStore, tmp_path: Path) -> None:
        visitor = visitor_with_clip(store, tmp_path, num_frames=37)
        assert np.array_equal(list(visitor.frames()), [visitor.frame(index) for index in range(37)])

    def test_frame_that_was_just_followed_is_shown_without_decoding_it_again(
        self, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frames = list(visitor.frames())
        shown: dict[int, np.ndarray] = {}
        visitor.point(1, 12, 16, 0)
        session = visitor._session
        assert session is not None
        with monkeypatch.context() as patch:
            patch.setattr(visitor, "_read", lambda _: pytest.fail("it was decoded again"))
            sink = visitor._frame_sink(session, lambda _: shown.update({len(shown): visitor.frame(len(shown))}))
            session.scene.track(Progress(on_frame=sink))
        assert np.array_equal(list(shown.values()), frames)
        track(visitor)
        assert visitor._fresh == ()

    def test_image_is_a_clip_of_one_frame(self, store: VisitorStore, tmp_path: Path) -> None:
        Image.fromarray(np.full((40, 56, 3), 90, np.uint8)).save(tmp_path / "still.png")
        visitor = store.open()
        info = visitor.load(tmp_path / "still.png")
        assert (info.is_image, info.num_frames, info.duration_seconds) == (True, 1, 0.0)
        visitor.mask(1, MASK)
        assert track(visitor)[-1] == Tracked((1,))

    def test_another_clip_replaces_the_first_with_its_files(self, visitor: Visitor, tmp_path: Path) -> None:
        visitor.mask(1, MASK)
        track(visitor)
        visitor.download("coco")
        before = {path.name for path in visitor.folder.iterdir()}
        visitor.load(tmp_path / "clip-6.mp4", is_trusted=True)
        assert visitor.objects() == []
        assert not any(name.startswith("upload-") or name == "results" for name in before & _names(visitor))

    def test_refused_upload_leaves_what_was_there(self, visitor: Visitor, tmp_path: Path) -> None:
        visitor.mask(1, MASK)
        files = _names(visitor)
        (tmp_path / "letter.mp4").write_text("no video", encoding="utf-8")
        with pytest.raises(UploadError, match="neither a video nor an image"):
            visitor.load(tmp_path / "letter.mp4")
        assert [item.id for item in visitor.objects()] == [1]
        assert _names(visitor) == files

    def test_nothing_works_without_a_clip(self, store: VisitorStore) -> None:
        visitor = store.open()
        assert visitor.info is None
        assert visitor.objects() == []
        assert visitor.history == []
        for action in (
            lambda: visitor.frame(0),
            lambda: visitor.point(1, 1, 1),
            lambda: visitor.ask("What?"),
            lambda: visitor.download("masks"),
            lambda: visitor.masks_at(0),
        ):
            with pytest.raises(NoVideoError, match="upload one"):
                action()


class TestWorking:
    def test_question_is_told_as_frames_text_and_an_answer(self, visitor: Visitor) -> None:
        visitor.point(1, 12, 12, 2)
        events = list(visitor.ask("What is [1]?"))
        assert isinstance(events[0], Started)
        frames = [event for event in events if isinstance(event, FrameMasked)]
        assert sorted(event.frame_index for event in frames) == list(range(NUM_FRAMES))
        assert [event.num_done for event in frames] == list(range(1, NUM_FRAMES + 1))
        pieces = [event for event in events if isinstance(event, TextWritten)]
        last = events[-1]
        assert isinstance(last, Answered)
        assert "".join(event.piece for event in pieces) == pieces[-1].text
        assert last.new_ids == (1,)
        assert visitor.history == [Turn("What is [1]?", last.text)]
        assert not visitor.is_busy

    def test_follow_up_goes_on_with_the_conversation(self, visitor: Visitor) -> None:
        list(visitor.ask("How many?"))
        list(visitor.ask("And why?"))
        assert [turn.question for turn in visitor.history] == ["How many?", "And why?"]

    def test_objects_of_an_answer_are_added_and_named(self, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
        reply = Reply("It is <|seg|>.", torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0)), 3, 9)
        monkeypatch.setattr(Dialogue, "ask", lambda self, turn, on_text=None: reply)
        last = list(visitor.segment("the red square"))[-1]
        assert isinstance(last, Answered)
        assert (last.text, last.named_ids, last.new_ids) == ("It is [1].", (1,), (1,))
        assert [(item.name, item.source) for item in visitor.objects()] == [("the red square", "language")]

    def test_masks_are_there_as_soon_as_their_frame_is_told(self, visitor: Visitor) -> None:
        visitor.mask(1, MASK)
        for event in visitor.track():
            if isinstance(event, FrameMasked):
                # Read by another thread than the one that works, perhaps while it works.
                known = visitor.objects()[0].num_known_frames
                assert known >= event.num_done
                assert visitor.masks_at(event.frame_index).keys() <= {1}
        assert visitor.masks_at(0)[1].shape == (HEIGHT, WIDTH)
        assert visitor.timeline() == {1: list(visitor.objects()[0].visible_frames)}

    def test_work_waits_in_line_and_tells_its_place(self, store: VisitorStore, visitor: Visitor) -> None:
        visitor.mask(1, MASK)
        with store._workshop.line.slot():
            events = visitor.track()
            assert next(events) == Waiting(1)
            assert store.num_waiting == 1
        assert isinstance(list(events)[-1], Tracked)

    def test_while_work_is_under_way_nothing_is_changed(self, store: VisitorStore, visitor: Visitor) -> None:
        visitor.mask(1, MASK)
        with store._workshop.line.slot():
            events = visitor.track()
            assert visitor.is_busy
            for action in (
                lambda: visitor.point(2, 1, 1),
                lambda: visitor.undo(),
                lambda: visitor.forget(1),
                lambda: visitor.ask("What?"),
                lambda: visitor.download("masks"),
                lambda: visitor.load("clip.mp4"),
            ):
                with pytest.raises(BusyError, match="work is under way"):
                    action()
            assert visitor.frame(0).shape == (HEIGHT, WIDTH, 3)
            assert [item.is_waiting for item in visitor.objects()] == [True]
        list(events)

    def test_error_of_the_work_is_raised_to_who_listens(
        self, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(self: Dialogue, turn: object, on_text: object = None) -> Reply:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr(Dialogue, "ask", fail)
        events = visitor.ask("What?")
        with pytest.raises(ZeroDivisionError):
            list(events)
        assert not visitor.is_busy

    def test_session_that_cannot_be_saved_leaves_nobody_waiting(
        self, store: VisitorStore, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError("no space left")

        with store._workshop.line.slot():
            events = visitor.ask("What?")
            next(events)
            visitor.leave()
            monkeypatch.setattr(Visitor, "_save", fail)
            with pytest.raises(UploadError, match="disk full"):
                list(events)
        assert visitor.is_awake
        assert not visitor.is_busy


class TestCancelling:
    def test_waiting_work_is_cancelled_at_once(self, store: VisitorStore, visitor: Visitor) -> None:
        visitor.mask(1, MASK)
        with store._workshop.line.slot():
            events = visitor.track()
            assert next(events) == Waiting(1)
            visitor.cancel()
            assert list(events) == [Cancelled("you stopped it")]
        assert visitor.objects()[0].is_waiting

    def test_work_stops_at_the_next_frame_and_is_taken_back(self, store: VisitorStore, tmp_path: Path) -> None:
        visitor = visitor_with_clip(store, tmp_path, num_frames=40)
        visitor.mask(1, MASK)
        told = []
        for event in visitor.track():
            told.append(event)
            if isinstance(event, FrameMasked):
                visitor.cancel()
        assert isinstance(told[-1], Cancelled)
        assert sum(isinstance(event, FrameMasked) for event in told) < 40
        assert visitor.masks_at(0) == {}
        assert visitor.objects()[0].is_waiting
        assert isinstance(track(visitor)[-1], Tracked)

    def test_closing_the_iterator_stops_the_work(self, store: VisitorStore, tmp_path: Path) -> None:
        visitor = visitor_with_clip(store, tmp_path, num_frames=40)
        events = visitor.ask("What is there?")
        assert isinstance(next(events), Started)
        events.close()  # type: ignore[attr-defined]
        _wait_until_idle(store, visitor)
        assert visitor.history == []

    def test_work_that_takes_too_long_ends(self, tmp_path: Path) -> None:
        store = make_store(max_work_seconds=1e-6)
        visitor = visitor_with_clip(store, tmp_path)
        last = list(visitor.ask("What?"))[-1]
        assert isinstance(last, Cancelled)
        assert "seconds that one visitor is given" in last.reason
        store.close_all()

    def test_closed_visitor_leaves_no_file(self, store: VisitorStore, visitor: Visitor) -> None:
        visitor.mask(1, MASK)
        with store._workshop.line.slot():
            events = visitor.track()
            next(events)
            store.close(visitor.key)
        assert isinstance(list(events)[-1], Cancelled)
        assert not visitor.folder.exists()
        with pytest.raises(UnknownVisitorError):
            visitor.frame(0)


class TestPointing:
    def test_undo_takes_back_the_last_prompt_and_its_masks(self, visitor: Visitor) -> None:
        visitor.mask(1, MASK)
        track(visitor)
        before = [visitor.masks_at(index) for index in range(NUM_FRAMES)]
        visitor.point(1, 50, 35, 3)
        track(visitor)
        assert visitor.undo() == 1
        after = [visitor.masks_at(index) for index in range(NUM_FRAMES)]
        assert [{key: mask.tobytes() for key, mask in frame.items()} for frame in before] == [
            {key: mask.tobytes() for key, mask in frame.items()} for frame in after
        ]
        assert visitor.undo() == 1
        assert visitor.objects() == []
        assert visitor.undo() is None

    def test_ids_of_new_objects_are_free_ones(self, visitor: Visitor) -> None:
        assert visitor.next_id() == 1
        visitor.box(1, (4, 4, 20, 20))
        visitor.box(2, (4, 4, 20, 20))
        visitor.forget(1)
        assert visitor.next_id() == 1

    def test_prompts_are_returned_for_drawing(self, visitor: Visitor) -> None:
        visitor.point(1, 5, 6, 2)
        visitor.box(2, (4, 4, 20, 20), 3)
        (mark,) = visitor.prompts_at(2)
        assert (mark.object_id, mark.point_xy) == (1, (5, 6))
        assert visitor.prompts_at(3)[0].box_xyxy == (4, 4, 20, 20)

    def test_object_is_renamed_and_named_back(self, visitor: Visitor) -> None:
        visitor.mask(1, MASK)
        visitor.rename(1, "  my   cup ")
        assert visitor.objects()[0].name == "my cup"
        visitor.rename(1, "")
        assert visitor.objects()[0].name == "object 1"

    @pytest.mark.parametrize("name", ["x" * 61, "a\x00b", "a\u202eb"])
    def test_name_that_does_not_fit_is_refused(self, visitor: Visitor, name: str) -> None:
        visitor.mask(1, MASK)
        with pytest.raises(VisitorError, match="at most 60 plain ones") as caught:
            visitor.rename(1, name)
        assert caught.value.field == "name"

    def test_forgotten_object_is_gone(self, visitor: Visitor) -> None:
        visitor.mask(1, MASK)
        track(visitor)
        visitor.forget(1)
        assert visitor.masks_at(0) == {}
        assert visitor.undo() is None
        with pytest.raises(UnknownObjectError, match="known are none"):
            visitor.forget(1)

    def test_thumbnail_shows_the_object(self, visitor: Visitor) -> None:
        visitor.mask(1, MASK)
        assert visitor.thumbnail(1) is None
        track(visitor)
        picture = visitor.thumbnail(1, size=32)
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
        self, visitor: Visitor, x: float, y: float, frame: int, message: str
    ) -> None:
        with pytest.raises(PromptError, match=message):
            visitor.point(1, x, y, frame)
        assert visitor.objects() == []

    @pytest.mark.parametrize("object_id", [0, -1, 10_000])
    def test_id_out_of_range_is_refused(self, visitor: Visitor, object_id: int) -> None:
        with pytest.raises(PromptError, match="numbered 1 to 9999"):
            visitor.point(object_id, 3, 3)

    def test_objects_and_prompts_are_bounded(self, tmp_path: Path) -> None:
        store = make_store(max_objects=2, max_prompts=2)
        visitor = visitor_with_clip(store, tmp_path)
        for object_id in (1, 2):
            visitor.point(object_id, 3, 3)
        with pytest.raises(PromptError, match="at most 2 are kept"):
            visitor.point(3, 3, 3)
        visitor.point(1, 4, 4)
        with pytest.raises(PromptError, match="has 2 clicks already"):
            visitor.point(1, 5, 5)
        store.close_all()

    @pytest.mark.parametrize("index", [-1, 6])
    def test_frame_off_the_clip_is_refused(self, visitor: Visitor, index: int) -> None:
        with pytest.raises(PromptError, match="numbered 0 to 5"):
            visitor.frame(index)


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
        self, visitor: Visitor, question: str, message: str
    ) -> None:
        with pytest.raises(QuestionError, match=message) as caught:
            visitor.ask(question)
        assert caught.value.field == "question"
        assert not visitor.is_busy

    def test_conversation_is_bounded(self, tmp_path: Path) -> None:
        store = make_store(max_turns=2)
        visitor = visitor_with_clip(store, tmp_path)
        sizes = []
        for number in range(6):
            list(visitor.ask(f"Number {number}?"))
            sizes.append(visitor.num_bytes)
        assert [turn.question for turn in visitor.history] == ["Number 4?", "Number 5?"]
        # The model's memory of the conversation as well: it begins anew after two turns.
        assert len(set(sizes[0::2])) == len(set(sizes[1::2])) == 1
        store.close_all()


def _names(visitor: Visitor) -> set[str]:
    return {path.name for path in visitor.folder.iterdir()}


def _wait_until_idle(store: VisitorStore, visitor: Visitor) -> None:
    with store._workshop.line.slot():
        pass
    for _ in range(200):
        if not visitor.is_busy:
            return
        time.sleep(0.01)
    raise AssertionError("the work does not end")
