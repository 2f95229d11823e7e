"""The server: a page while the model is loaded, slow headers, failures, and the end by a signal."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from unipixel.demos import server as server_module
from unipixel.demos.server import DemoServer, TimedProtocol, check_port, terminating_signals
from unipixel.demos.starting_application import StartingApplication


class FakeDemo:
    """An application that records its start and its end."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.application = self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self.events.append("begin")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.events.append("end")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the demo"})

    def close(self) -> None:
        self.events.append("close")


@contextmanager
def running(application: StartingApplication) -> Iterator[int]:
    config = uvicorn.Config(application, port=0, http=TimedProtocol, log_level="error")
    server = DemoServer(config)
    application.stop = lambda: setattr(server, "should_exit", True)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def connected() -> Iterator[socket.socket]:
    with (
        running(StartingApplication(FakeDemo, announce=lambda _: None)) as port,
        socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
    ):
        yield connection


def test_page_says_that_the_model_is_loaded_until_it_is() -> None:
    demo, may_load = FakeDemo(), threading.Event()
    messages: list[str] = []

    def load() -> FakeDemo:
        may_load.wait()
        return demo

    application = StartingApplication(load, announce=messages.append)
    with running(application) as port:
        address = f"http://127.0.0.1:{port}/"
        answer = httpx.get(f"{address}any/path")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "Loading the model" in answer.text
        may_load.set()
        while (answer := httpx.get(address)).status_code == 503:
            pass
        assert answer.text == "the demo"
    application.close()
    assert demo.events == ["begin", "end", "close"]
    assert messages == ["The model is loaded"]


def test_failure_to_load_ends_the_server_and_is_raised() -> None:
    def load() -> FakeDemo:
        raise OSError("model.safetensors is damaged")

    application = StartingApplication(load, announce=lambda _: None)
    server = DemoServer(uvicorn.Config(application, port=0, log_level="error"))
    application.stop = lambda: setattr(server, "should_exit", True)
    server.run()
    with pytest.raises(OSError, match=r"model\.safetensors is damaged"):
        application.raise_failure()


def test_demo_that_is_loaded_after_the_end_is_closed() -> None:
    demo, may_load = FakeDemo(), threading.Event()

    def load() -> FakeDemo:
        may_load.wait()
        return demo

    application = StartingApplication(load, announce=lambda _: None)
    with running(application):
        pass
    threading.Timer(0.1, may_load.set).start()
    application.close()
    while not demo.events:
        pass
    assert demo.events == ["close"]


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_connection_without_complete_headers_is_closed(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(server_module, "_HEADER_SECONDS", 0.2)
    with connected() as connection:
        connection.sendall(sent)
        assert connection.recv(1) == b""


def test_second_request_of_a_connection_has_the_same_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_HEADER_SECONDS", 0.2)
    with connected() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(2**16).startswith(b"HTTP/1.1 ")
        connection.sendall(b"GET / HTTP/1.1\r\n")
        while connection.recv(2**16):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_block_and_the_handler_is_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit, match=str(128 + number)), terminating_signals():
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


def test_port_in_use_is_refused() -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1, port .*; choose --port"):
            check_port("127.0.0.1", occupied.getsockname()[1])
