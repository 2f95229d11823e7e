"""Memory of a session store, without a web server, under eight concurrent sessions."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.demo_sessions import make_store, open_session_with_clip
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH

from unipixel.demos.sessions.events import Answered
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.worker_threads import THREAD_NAME
from unipixel.session.session import Session

NUM_SESSIONS = 8
# Memory that the C library and torch keep for each thread; it does not grow with the requests.
_SLACK_BYTES = 48 * 2**20
_NUM_WARMUP_ROUNDS = 1


def test_memory_is_constant_over_eight_requests(tmp_path: Path) -> None:
    _serve(tmp_path, num_requests=8)


@pytest.mark.slow
def test_memory_is_constant_over_two_hundred_requests(tmp_path: Path) -> None:
    _serve(tmp_path, num_requests=200)


def _serve(tmp_path: Path, *, num_requests: int) -> None:
    """Serve eight sessions at a time; half of them are closed, the others are evicted by later sessions."""
    store = make_store(
        tmp_path / "store",
        max_sessions=NUM_SESSIONS,
        max_saved_sessions=NUM_SESSIONS,
        max_workers=2,
        max_waiting=8,
        min_idle_seconds=1e-6,
    )
    expected = [_ask(open_session_with_clip(store, tmp_path), kind) for kind in range(2)]
    for _ in range(_NUM_WARMUP_ROUNDS):
        _round(store, tmp_path, expected)
    before = _resident_bytes()
    for _ in range(-(-num_requests // NUM_SESSIONS)):
        _round(store, tmp_path, expected)
    assert _resident_bytes() - before < _SLACK_BYTES
    # Sessions of a tiny model need little memory, so they and their threads are counted too.
    assert sum(type(thing) is Session for thing in gc.get_objects()) <= NUM_SESSIONS // 2
    assert not [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]
    assert store.num_known <= NUM_SESSIONS
    store.close_all()


def _round(store: SessionStore, tmp_path: Path, expected: list[tuple[str, bytes]]) -> None:
    user_sessions = [open_session_with_clip(store, tmp_path) for _ in range(NUM_SESSIONS)]
    outcomes: list[tuple[str, bytes] | None] = [None] * NUM_SESSIONS

    def ask(number: int) -> None:
        outcomes[number] = _ask(user_sessions[number], number % 2)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(NUM_SESSIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [expected[number % 2] for number in range(NUM_SESSIONS)]
    for user_session in user_sessions[: NUM_SESSIONS // 2]:
        store.close(user_session.key)


def _ask(user_session: UserSession, kind: int) -> tuple[str, bytes]:
    """Ask about an object of one of two kinds, and return the answer with the masks."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[8 + 8 * kind : 24 + 8 * kind, 8 + 20 * kind : 24 + 20 * kind] = True
    user_session.prompts.add_mask(1, mask)
    last = list(user_session.ask("What is [1]?" if kind else "Where does [1] go?"))[-1]
    assert isinstance(last, Answered)
    masks = [mask.tobytes() for index in range(NUM_FRAMES) for mask in user_session.masks_at(index).values()]
    return last.text, b"".join(masks)


def _resident_bytes() -> int:
    gc.collect()
    # Returns freed memory, which the arenas of threads keep otherwise, to the system.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
