"""The queue for the model: bounded, in order, with positions."""

from __future__ import annotations

import threading
import time

import pytest

from unipixel.demos.errors import QuotaError, ServerFullError
from unipixel.demos.sessions import work_queue as queue_module
from unipixel.demos.sessions.work_queue import InteractiveAccess, WorkQueue


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
        assert one
        assert other


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
        with pytest.raises(ServerFullError, match="queue of 1 is full"), work_queue.slot():
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


def test_clients_take_turns() -> None:
    work_queue = WorkQueue(num_slots=1, max_waiting=8)
    order: list[str] = []

    def wait(client: str) -> None:
        with work_queue.slot(client=client):
            order.append(client)

    with work_queue.slot(client="busy"):
        threads = []
        for count, client in enumerate(["busy", "busy", "busy", "other", "third", "other"], start=1):
            threads.append(threading.Thread(target=wait, args=(client,)))
            threads[-1].start()
            _wait_until(lambda count=count: work_queue.num_waiting == count)
    for thread in threads:
        thread.join()
    assert order == ["other", "third", "busy", "other", "busy", "busy"]


def test_one_client_cannot_fill_the_queue() -> None:
    work_queue = WorkQueue(num_slots=1, max_waiting=4, max_waiting_per_client=1)
    stop = threading.Event()

    def wait() -> None:
        with work_queue.slot(client="busy", should_stop=stop.is_set):
            pass

    with work_queue.slot(client="busy"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        _wait_until(lambda: work_queue.num_waiting == 1)
        with pytest.raises(QuotaError, match="1 requests of yours wait"), work_queue.slot(client="busy"):
            pass
        with work_queue.slot(client="other", should_stop=lambda: True) as slot:
            assert not slot
        stop.set()
        waiting.join()


def test_long_work_lets_another_client_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "_TURN_SECONDS", 0.0)
    work_queue = WorkQueue(num_slots=1, max_waiting=4)
    order: list[str] = []

    def wait() -> None:
        with work_queue.slot(client="other"):
            order.append("other")

    with work_queue.slot(client="busy") as slot:
        waiting = threading.Thread(target=wait)
        waiting.start()
        _wait_until(lambda: work_queue.num_waiting == 1)
        slot.share()
        order.append("busy")
        assert slot
        slot.share()
    waiting.join()
    assert order == ["other", "busy"]


def test_long_work_that_is_stopped_while_it_waits_has_lost_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "_TURN_SECONDS", 0.0)
    work_queue = WorkQueue(num_slots=1, max_waiting=4)
    begun, end = threading.Event(), threading.Event()

    def wait() -> None:
        with work_queue.slot(client="other"):
            begun.set()
            end.wait()

    with work_queue.slot(client="busy") as slot:
        waiting = threading.Thread(target=wait)
        waiting.start()
        _wait_until(lambda: work_queue.num_waiting == 1)
        slot.share(should_stop=begun.is_set)
        assert not slot
        end.set()
        waiting.join()
    with work_queue.slot() as again:
        assert again


def test_long_work_gives_way_to_a_click_for_a_limited_time() -> None:
    access = InteractiveAccess(max_waiting=2, max_waiting_per_client=2, max_pause_seconds=60)
    begun, end, order = threading.Event(), threading.Event(), []

    def click() -> None:
        with access("someone"):
            begun.set()
            end.wait()
            order.append("click")

    thread = threading.Thread(target=click)
    thread.start()
    begun.wait()
    _with_pause(access, 0.01).give_way()
    order.append("step")
    end.set()
    _with_pause(access, 60).give_way()
    order.append("step")
    thread.join()
    assert order == ["step", "click", "step"]


def _with_pause(access: InteractiveAccess, seconds: float) -> InteractiveAccess:
    access._max_pause_seconds = seconds
    return access


def _wait_until(is_done: object) -> None:
    assert callable(is_done)
    while not is_done():
        time.sleep(0.01)
