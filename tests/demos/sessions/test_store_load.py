"""A store under load, without a web server: eight at once, again and again, and memory stays flat."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.demo_sessions import make_store, session_with_clip
from helpers.tiny_checkpoint import HEIGHT, NUM_FRAMES, WIDTH

from unipixel.demos.sessions.events import Answered
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.session.session import Session

NUM_VISITORS = 8
# What the C library and torch keep for each thread that ever worked; it does not grow with the requests.
_SLACK_BYTES = 48 * 2**20
_NUM_WARM_ROUNDS = 2


def test_memory_stays_flat_over_twenty_requests(tmp_path: Path) -> None:
    _serve(tmp_path, num_requests=20)


@pytest.mark.slow
def test_memory_stays_flat_over_two_hundred_requests(tmp_path: Path) -> None:
    _serve(tmp_path, num_requests=200)


def _serve(tmp_path: Path, *, num_requests: int) -> None:
    """Let visitors come, eight at a time, ask, and go; some close their tab, some are swept out by others."""
    store = make_store(
        tmp_path / "store", max_sessions=NUM_VISITORS, max_saved_sessions=NUM_VISITORS, max_workers=2, max_waiting=8
    )
    expected = [_visit(session_with_clip(store, tmp_path), kind) for kind in range(2)]
    for _ in range(_NUM_WARM_ROUNDS):
        _round(store, tmp_path, expected)
    before = _resident_bytes()
    for _ in range(-(-num_requests // NUM_VISITORS)):
        _round(store, tmp_path, expected)
    assert _resident_bytes() - before < _SLACK_BYTES
    # A tiny model's sessions weigh little, so they are counted too, with the threads that served them.
    assert sum(type(thing) is Session for thing in gc.get_objects()) <= NUM_VISITORS // 2
    assert not [thread for thread in threading.enumerate() if thread.name == "unipixel-visitor"]
    assert store.num_known <= NUM_VISITORS
    store.close_all()


def _round(store: SessionStore, tmp_path: Path, expected: list[tuple[str, bytes]]) -> None:
    user_sessions = [session_with_clip(store, tmp_path) for _ in range(NUM_VISITORS)]
    outcomes: list[tuple[str, bytes] | None] = [None] * NUM_VISITORS

    def visit(number: int) -> None:
        outcomes[number] = _visit(user_sessions[number], number % 2)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(NUM_VISITORS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [expected[number % 2] for number in range(NUM_VISITORS)]
    for user_session in user_sessions[: NUM_VISITORS // 2]:
        store.close(user_session.key)


def _visit(user_session: UserSession, kind: int) -> tuple[str, bytes]:
    """Ask about an object of one of two kinds, and return the answer with the masks."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[8 + 8 * kind : 24 + 8 * kind, 8 + 20 * kind : 24 + 20 * kind] = True
    user_session.mask(1, mask)
    last = list(user_session.ask("What is [1]?" if kind else "Where does [1] go?"))[-1]
    assert isinstance(last, Answered)
    masks = [mask.tobytes() for index in range(NUM_FRAMES) for mask in user_session.masks_at(index).values()]
    return last.text, b"".join(masks)


def _resident_bytes() -> int:
    gc.collect()
    # What was freed goes back to the system, where the C library can be asked to: arenas of threads hold it else.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
