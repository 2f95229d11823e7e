from __future__ import annotations

import functools
import io
import threading
import time
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_checkpoint import clip_frame, save_checkpoint, write_clip
from PIL import Image

from unipixel.demos.limits import Limits
from unipixel.demos.security.network_sources import SourceRules
from unipixel.demos.errors import BusyError, PromptError, QuestionError, SourceError, UnknownSessionError
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.video.frame import Frame

LIMITS = Limits(max_sessions=2, max_saved_sessions=4, max_objects=2, max_question_chars=50)


def jpeg(index: int = 0, size: tuple[int, int] = (56, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(clip_frame(index, size=size)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = save_checkpoint(tmp_path_factory.mktemp("tiny"))
    return UniPixel.from_pretrained(folder), Processor.from_pretrained(folder)


@pytest.fixture
def store(parts: tuple[Any, Any]) -> Iterator[LiveStore]:
    made = LiveStore(*parts, limits=LIMITS, generation=GenerationSettings(max_new_tokens=6))
    yield made
    made.close_all()


@pytest.fixture
def user_session(store: LiveStore) -> LiveUserSession:
    return store.open("key")


def wait_until(is_reached: Any) -> None:
    end = time.monotonic() + 20
    while not is_reached():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_pictures_are_followed_and_shown(user_session: LiveUserSession) -> None:
    assert user_session.show(jpeg())
    assert user_session.point(0, 12, 16) == 1
    for index in range(1, 4):
        assert user_session.show(jpeg(index))
    assert user_session.object_ids == [1]
    assert user_session.num_shown == 4
    assert user_session.picture is not None
    assert Image.open(io.BytesIO(user_session.picture)).size == (56, 40)


def test_picture_that_comes_while_the_model_works_is_dropped(user_session: LiveUserSession) -> None:
    user_session.show(jpeg())
    with user_session._lock:
        assert not user_session.show(jpeg(1))
    assert (user_session.num_shown, user_session.num_dropped) == (1, 1)


def test_answer_is_streamed_while_pictures_go_on(user_session: LiveUserSession) -> None:
    user_session.show(jpeg())
    user_session.point(0, 12, 16)
    answers = list(user_session.ask("What is [1] doing?"))
    assert answers
    assert user_session.show(jpeg(1))


@pytest.mark.parametrize(("question", "words"), [(" ", "empty"), ("Where is [4]?", r"\[4\]"), ("x" * 51, "at most 50")])
def test_bad_question_is_refused(user_session: LiveUserSession, question: str, words: str) -> None:
    user_session.show(jpeg())
    with pytest.raises(QuestionError, match=words):
        list(user_session.ask(question))


def test_nothing_can_be_done_before_the_first_picture(user_session: LiveUserSession) -> None:
    with pytest.raises(PromptError, match="start the camera first"):
        user_session.point(0, 1, 1)
    with pytest.raises(QuestionError, match="start the camera first"):
        list(user_session.ask("What?"))
    with pytest.raises(PromptError, match="no object 3"):
        user_session.forget(3)


def test_objects_are_bounded_and_forgotten(user_session: LiveUserSession) -> None:
    user_session.show(jpeg())
    assert [user_session.point(0, 12, 16), user_session.point(0, 40, 30)] == [1, 2]
    with pytest.raises(PromptError, match="at most 2"):
        user_session.point(0, 5, 5)
    user_session.forget(1)
    assert user_session.point(0, 12, 16) == 1


@pytest.mark.parametrize("data", [b"", b"no picture", jpeg()[:40], jpeg(size=(800, 40))])
def test_what_is_no_small_jpeg_is_refused(user_session: LiveUserSession, data: bytes) -> None:
    with pytest.raises(SourceError):
        user_session.show(data)


def test_picture_of_another_size_is_refused(user_session: LiveUserSession) -> None:
    user_session.show(jpeg())
    with pytest.raises(SourceError, match="another size"):
        user_session.show(jpeg(size=(64, 40)))


def test_source_is_watched_until_it_ends(user_session: LiveUserSession) -> None:
    closed = threading.Event()

    def frames() -> Iterator[Frame]:
        for index in range(5):
            yield Frame(index, index / 10, np.ascontiguousarray(clip_frame(index)))
            time.sleep(0.05)

    user_session.watch(frames(), close=closed.set)
    wait_until(lambda: user_session.error)
    assert user_session.error == "the source has ended"
    assert user_session.num_shown >= 1
    assert closed.wait(5)


def test_source_that_fails_is_told(user_session: LiveUserSession) -> None:
    def frames() -> Iterator[Frame]:
        yield Frame(0, 0.0, np.ascontiguousarray(clip_frame(0)))
        raise OSError("it broke off")

    user_session.watch(frames())
    wait_until(lambda: user_session.error)
    assert "broke off" in user_session.error


def test_allowed_network_source_is_watched(user_session: LiveUserSession, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.ts", num_frames=12)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/clip.ts"
        video = SourceRules([address], allows_private=True).open(address)
        user_session.watch(video, close=video.close)
        wait_until(lambda: user_session.error)
        server.shutdown()
    assert user_session.error == "the source has ended"
    assert user_session.num_shown >= 1
    assert user_session.picture is not None


def test_live_sessions_are_bounded_and_close(store: LiveStore) -> None:
    store.open("a")
    store.open("b")
    with pytest.raises(BusyError, match="too many cameras"):
        store.open("c")
    store.close("a")
    with pytest.raises(UnknownSessionError):
        store.get("a")
    store.open("c")


def test_idle_live_session_makes_room(store: LiveStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.open("a")
    store.open("b")
    monkeypatch.setattr("unipixel.demos.sessions.live_store._IDLE_SECONDS", -1.0)
    assert store.open("c").num_shown == 0


def test_memory_does_not_grow_with_the_stream(user_session: LiveUserSession) -> None:
    user_session.show(jpeg())
    user_session.point(0, 12, 16)
    sizes = []
    for index in range(1, 40):
        user_session.show(jpeg(index))
        sizes.append(user_session._session.objects.num_bytes)
    assert max(sizes[20:]) == sizes[20]


def test_picture_file_is_found(tmp_path: Path) -> None:
    from unipixel.demos.web.examples import EXAMPLES, example_file

    still = example_file(EXAMPLES[2], tmp_path)
    assert Image.open(still).size == (320, 240)
    assert example_file(EXAMPLES[0], tmp_path).suffix == ".mp4"
