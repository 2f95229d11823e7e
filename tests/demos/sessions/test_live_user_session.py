"""Live sessions: frames of a camera or of a network source."""

from __future__ import annotations

import functools
import io
import itertools
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.byte_model import byte_config
from helpers.moving_square import clip_frame, write_clip
from helpers.tracker_reference import tiny_segmenter
from PIL import Image

from unipixel.demos.errors import (
    BusyError,
    PromptError,
    QuestionError,
    QuotaError,
    SourceError,
    UnknownSessionError,
)
from unipixel.demos.limits import Limits
from unipixel.demos.security.network_sources import SourceRules
from unipixel.demos.sessions.live_store import MAX_IDLE_SECONDS, LiveStore
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.demos.worker_threads import THREAD_NAME
from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.session.settings import SessionSettings
from unipixel.tracking.tracker import StreamingTracker
from unipixel.video.frame import Frame

SHORT = SessionSettings(generation=GenerationSettings(max_new_tokens=6))
LIMITS = Limits(max_sessions=2, max_saved_sessions=4, max_objects=2, max_question_chars=50)


def jpeg(index: int = 0, size: tuple[int, int] = (56, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(clip_frame(index, size=size)).save(buffer, "JPEG")
    return buffer.getvalue()


class Clock:
    """A clock that advances by a constant at every reading."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.now = seconds, 0.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock(0.1)


@pytest.fixture
def store(model: UniPixel, processor: Processor, clock: Clock) -> Iterator[LiveStore]:
    made = LiveStore(model, processor, limits=LIMITS, settings=SHORT, clock=clock)
    yield made
    made.close_all()


@pytest.fixture
def user_session(store: LiveStore) -> LiveUserSession:
    return store.open("key")


def wait_until(is_reached: Any) -> None:
    while not is_reached():
        time.sleep(0.02)


def test_objects_are_tracked_and_drawn(user_session: LiveUserSession) -> None:
    assert user_session.add_frame(jpeg())
    assert user_session.add_point(0, 12, 16) == 1
    for index in range(1, 4):
        assert user_session.add_frame(jpeg(index))
    assert user_session.object_ids == [1]
    assert user_session.num_frames == 4
    assert user_session.latest_jpeg is not None
    assert Image.open(io.BytesIO(user_session.latest_jpeg)).size == (56, 40)


def test_frame_that_arrives_while_the_model_works_is_dropped(user_session: LiveUserSession) -> None:
    user_session.add_frame(jpeg())
    with user_session._lock:
        assert not user_session.add_frame(jpeg(1))
    assert (user_session.num_frames, user_session.num_dropped) == (1, 1)


def test_answer_is_streamed_and_frames_continue(user_session: LiveUserSession) -> None:
    user_session.add_frame(jpeg())
    user_session.add_point(0, 12, 16)
    answers = list(user_session.ask("What is [1] doing?"))
    assert answers
    assert user_session.add_frame(jpeg(1))


@pytest.mark.parametrize(
    ("question", "words"), [(" ", "empty"), ("Where is [4]?", r"\[4\]"), ("x" * 51, "the maximum is 50")]
)
def test_invalid_question_is_refused(user_session: LiveUserSession, question: str, words: str) -> None:
    user_session.add_frame(jpeg())
    with pytest.raises(QuestionError, match=words):
        list(user_session.ask(question))


def test_actions_before_the_first_frame_are_refused(user_session: LiveUserSession) -> None:
    with pytest.raises(PromptError, match="start the camera first"):
        user_session.add_point(0, 1, 1)
    with pytest.raises(QuestionError, match="start the camera first"):
        list(user_session.ask("What?"))
    with pytest.raises(PromptError, match="no object 3"):
        user_session.forget(3)


def test_objects_are_bounded_and_removed(user_session: LiveUserSession) -> None:
    user_session.add_frame(jpeg())
    assert [user_session.add_point(0, 12, 16), user_session.add_point(0, 40, 30)] == [1, 2]
    with pytest.raises(PromptError, match="maximum of 2 objects"):
        user_session.add_point(0, 5, 5)
    user_session.forget(1)
    assert user_session.add_point(0, 12, 16) == 1


@pytest.mark.parametrize("data", [b"", b"no image", jpeg()[:40], jpeg(size=(800, 40))])
def test_frame_that_is_not_a_small_jpeg_is_refused(user_session: LiveUserSession, data: bytes) -> None:
    with pytest.raises(SourceError, match=r"JPEG|640 pixels"):
        user_session.add_frame(data)


def test_frame_of_another_size_is_refused(user_session: LiveUserSession) -> None:
    user_session.add_frame(jpeg())
    with pytest.raises(SourceError, match="another size"):
        user_session.add_frame(jpeg(size=(64, 40)))


def test_source_is_watched_until_it_ends(user_session: LiveUserSession) -> None:
    closed = threading.Event()

    def frames() -> Iterator[Frame]:
        for index in range(5):
            yield Frame(index, index / 10, np.ascontiguousarray(clip_frame(index)))

    user_session.watch(frames(), on_end=closed.set)
    wait_until(lambda: user_session.error)
    assert user_session.error == "the source has ended"
    assert user_session.num_frames >= 1
    assert closed.wait(60)


def test_error_of_a_source_is_reported(user_session: LiveUserSession) -> None:
    def frames() -> Iterator[Frame]:
        yield Frame(0, 0.0, np.ascontiguousarray(clip_frame(0)))
        raise OSError("connection lost")

    user_session.watch(frames())
    wait_until(lambda: user_session.error)
    assert "connection lost" in user_session.error


def test_allowed_network_source_is_watched(user_session: LiveUserSession, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.ts", num_frames=12)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/clip.ts"
        video = SourceRules([address], allows_private=True).open(address)
        user_session.watch(video, on_end=video.close)
        wait_until(lambda: user_session.error)
        server.shutdown()
    assert user_session.error == "the source has ended"
    assert user_session.num_frames >= 1
    assert user_session.latest_jpeg is not None


def test_chosen_segmenter_tracks_and_the_model_answers(model: UniPixel, processor: Processor) -> None:
    chosen = tiny_segmenter(config=byte_config(image_size=96).segmenter)
    settings = SessionSettings(segmenter=chosen, generation=GenerationSettings(max_new_tokens=6))
    store = LiveStore(model, processor, limits=LIMITS, settings=settings)
    user_session, alone = store.open("key"), StreamingTracker(chosen, memory_dtype=torch.float32)
    for index in range(3):
        image = np.asarray(Image.open(io.BytesIO(jpeg(index))))
        user_session.add_frame(jpeg(index))
        expected = alone.step(image)
        if index == 0:
            user_session.add_point(0, 12, 16)
            expected = alone.add_points(1, [(12, 16)], [1])
        mask = user_session._session.objects.masks[1].mask
        assert np.array_equal(mask, expected.mask_of(1).numpy())
    assert list(user_session.ask("What is [1] doing?"))
    store.close_all()


def test_one_client_has_two_live_sessions_at_most(model: UniPixel, processor: Processor) -> None:
    store = LiveStore(model, processor, limits=Limits(max_sessions=4, max_live_sessions_per_client=2), settings=SHORT)
    first = store.open("a", client="one")
    store.open("b", client="one")
    with pytest.raises(QuotaError, match="2 live sessions of yours are open"):
        store.open("c", client="one")
    assert store.open("a", client="one") is first
    store.open("c", client="other")
    store.close("a")
    store.open("d", client="one")
    store.close_all()


def test_answer_ends_when_the_live_session_is_stopped(model: UniPixel, processor: Processor) -> None:
    settings = SessionSettings(generation=GenerationSettings(max_new_tokens=4000))
    store = LiveStore(model, processor, limits=LIMITS, settings=settings)
    user_session = store.open("key")
    user_session.add_frame(jpeg())
    answer = user_session.ask("What is this?")
    next(answer)
    store.close_all()
    with pytest.raises(QuestionError, match="the live session was stopped"):
        list(answer)
    assert not [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def test_live_sessions_are_bounded_and_close(store: LiveStore) -> None:
    store.open("a")
    store.open("b")
    with pytest.raises(BusyError, match="maximum of live sessions"):
        store.open("c")
    store.close("a")
    with pytest.raises(UnknownSessionError, match="unknown or has expired"):
        store.get("a")
    store.open("c")


def test_idle_live_session_is_removed_for_another(store: LiveStore, clock: Clock) -> None:
    store.open("a")
    store.open("b")
    clock.now += 2 * MAX_IDLE_SECONDS
    assert store.open("c").num_frames == 0


def test_source_that_nobody_watches_any_more_is_closed(store: LiveStore, clock: Clock) -> None:
    user_session, closed = store.open("key"), threading.Event()

    def frames() -> Iterator[Frame]:
        for index in itertools.count():
            yield Frame(index, index / 10, np.ascontiguousarray(clip_frame(index)))
            time.sleep(0.01)

    user_session.watch(frames(), on_end=closed.set)
    wait_until(lambda: user_session.num_frames > 1)
    store.sweep()
    assert store.get("key") is user_session
    clock.now += 2 * MAX_IDLE_SECONDS
    wait_until(lambda: user_session.num_frames > 3)
    store.sweep()
    with pytest.raises(UnknownSessionError, match="unknown or has expired"):
        store.get("key")
    assert closed.wait(60)


def test_memory_is_constant_over_the_stream(user_session: LiveUserSession) -> None:
    user_session.add_frame(jpeg())
    user_session.add_point(0, 12, 16)
    sizes = []
    for index in range(1, 60):
        user_session.add_frame(jpeg(index))
        sizes.append(user_session._session.objects.num_bytes)
    # The frame buffer is full after 40 frames of the fixture's clock.
    assert max(sizes[40:]) == sizes[40]


def test_example_files_exist(tmp_path: Path) -> None:
    from unipixel.demos.web.examples import EXAMPLES, example_file

    image = example_file(EXAMPLES[2], tmp_path)
    assert Image.open(image).size == (320, 240)
    assert example_file(EXAMPLES[0], tmp_path).suffix == ".mp4"
