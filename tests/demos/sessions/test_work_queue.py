"""The queue for the model: bounded, in order, with positions."""

from __future__ import annotations

import threading
import time

import pytest

from unipixel.demos.errors import BusyError
from unipixel.demos.sessions.work_queue import WorkQueue


def test_positions_are_reported_as_the_queue_advances() -> None:
    work_queue = WorkQueue(num_slots=1, max_waiting=4)
    positions: dict[str, list[int]] = {"a": [], "b": []}
    order: list[str] = []

    def wait(name: str) -> None:
        with work_queue.slot(on_position=positions[name].append):
            order.append(name)

    with work_queue.slot():
        threads = []
        for count, name in enumerate("ab", start=1):
            threads.append(threading.Thread(target=wait, args=(name,)))
            threads[-1].start()
            _wait_until(lambda count=count: work_queue.num_waiting == count)
    for thread in threads:
        thread.join()
    assert order == ["a", "b"]
    assert positions["a"] == [1]
    assert positions["b"][0] == 2
    assert work_queue.num_waiting == 0


def test_several_slots_work_at_once() -> None:
    work_queue = WorkQueue(num_slots=2, max_waiting=1)
    with work_queue.slot() as one, work_queue.slot() as other:
        assert (one, other) == (True, True)


def test_full_queue_is_refused() -> None:
    work_queue = WorkQueue(num_slots=1, max_waiting=1)
    stop = threading.Event()

    def wait() -> None:
        with work_queue.slot(should_stop=stop.is_set):
            pass

    with work_queue.slot():
        waiting = threading.Thread(target=wait)
        waiting.start()
        _wait_until(lambda: work_queue.num_waiting == 1)
        with pytest.raises(BusyError, match="queue of 1 is full"), work_queue.slot():
            pass
        stop.set()
        waiting.join()
    assert work_queue.num_waiting == 0


def test_cancelled_waiting_gets_no_slot_and_blocks_no_other() -> None:
    work_queue = WorkQueue(num_slots=1, max_waiting=2)
    with work_queue.slot(), work_queue.slot(should_stop=lambda: True) as has_slot:
        assert not has_slot
    with work_queue.slot() as has_slot:
        assert has_slot


def test_slot_is_released_after_an_error() -> None:
    work_queue = WorkQueue(num_slots=1, max_waiting=1)
    with pytest.raises(ZeroDivisionError, match="internal error"), work_queue.slot():
        raise ZeroDivisionError("an internal error")
    with work_queue.slot() as has_slot:
        assert has_slot


def _wait_until(is_done: object) -> None:
    assert callable(is_done)
    while not is_done():
        time.sleep(0.01)
