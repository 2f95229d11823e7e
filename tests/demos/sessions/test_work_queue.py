"""The line before the model: bounded, in order, and everybody knows his place."""

from __future__ import annotations

import threading
import time

import pytest

from unipixel.demos.sessions.errors import BusyError
from unipixel.demos.sessions.work_queue import WorkQueue


def test_places_are_told_as_the_line_moves() -> None:
    line = WorkQueue(num_slots=1, max_waiting=4)
    places: dict[str, list[int]] = {"a": [], "b": []}
    order: list[str] = []

    def wait(name: str) -> None:
        with line.slot(on_place=places[name].append):
            order.append(name)

    with line.slot():
        threads = []
        for count, name in enumerate("ab", start=1):
            threads.append(threading.Thread(target=wait, args=(name,)))
            threads[-1].start()
            _until(lambda count=count: line.num_waiting == count)
    for thread in threads:
        thread.join()
    assert order == ["a", "b"]
    assert places["a"] == [1]
    assert places["b"][0] == 2
    assert line.num_waiting == 0


def test_several_slots_work_at_once() -> None:
    line = WorkQueue(num_slots=2, max_waiting=1)
    with line.slot() as one, line.slot() as other:
        assert (one, other) == (True, True)


def test_full_line_is_refused_in_plain_words() -> None:
    line = WorkQueue(num_slots=1, max_waiting=1)
    stop = threading.Event()

    def wait() -> None:
        with line.slot(should_stop=stop.is_set):
            pass

    with line.slot():
        waiting = threading.Thread(target=wait)
        waiting.start()
        _until(lambda: line.num_waiting == 1)
        with pytest.raises(BusyError, match="1 others wait already"), line.slot():
            pass
        stop.set()
        waiting.join()
    assert line.num_waiting == 0


def test_who_stops_waiting_gets_no_slot_and_blocks_nobody() -> None:
    line = WorkQueue(num_slots=1, max_waiting=2)
    with line.slot(), line.slot(should_stop=lambda: True) as has_slot:
        assert not has_slot
    with line.slot() as has_slot:
        assert has_slot


def test_slot_is_given_back_after_an_error() -> None:
    line = WorkQueue(num_slots=1, max_waiting=1)
    with pytest.raises(ZeroDivisionError), line.slot():
        raise ZeroDivisionError
    with line.slot() as has_slot:
        assert has_slot


def _until(is_done: object) -> None:
    assert callable(is_done)
    for _ in range(500):
        if is_done():
            return
        time.sleep(0.01)
    raise AssertionError("it does not happen")
