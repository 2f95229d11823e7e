"""Serves the demo with uvicorn: at once a page that says that the model is being loaded, then the demo.

This module imports neither torch nor Gradio, so that the first page is there within a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from unipixel.demos.starting_application import RunningDemo, StartingApplication

# How long the headers of a request may take.
_HEADER_SECONDS = 10.0
_MAX_CONNECTIONS = 1024


def check_port(host: str, port: int) -> None:
    """Check that the server can listen on a port, before the model is loaded.

    Raises:
        OSError: The port is in use or not permitted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise OSError(f"cannot listen on {host}, port {port}: {error.strerror or error}; choose --port") from error


def serve(
    load: Callable[[], RunningDemo], *, host: str, port: int, announce: Callable[[str], None], is_shared: bool = False
) -> None:
    """Serve until Ctrl-C or a signal to terminate, then close the demo.

    Args:
        load: Loads the model and builds the demo; called in a thread.
        host: Address to listen on.
        port: Port to listen on.
        announce: Called with a message that contains the address, when the server listens and when the model is loaded.
        is_shared: Whether to open a public address with Gradio's tunnel.

    Raises:
        OSError: The tunnel cannot be opened, or the model cannot be read.
        ValueError: The model is invalid.
    """
    open_public = functools.partial(open_tunnel, port) if is_shared else None
    application = StartingApplication(load, announce=announce, open_tunnel=open_public)
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        http=TimedProtocol,
        log_level="warning",
        timeout_graceful_shutdown=2,
        limit_concurrency=_MAX_CONNECTIONS,
        # Paths contain the keys of sessions, which must not be logged.
        access_log=False,
    )
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    server = DemoServer(config, on_start=lambda: announce(f"The demo is at {address} and is loading the model"))
    application.stop = lambda: setattr(server, "should_exit", True)
    with terminating_signals(), contextlib.closing(application):
        server.run()
    application.raise_failure()


@contextlib.contextmanager
def terminating_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `SystemExit` for the block, so that the demo is closed.

    The server stops at both and raises the signal again when it has stopped.
    """

    def terminate(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, terminate) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class TimedProtocol(H11Protocol):
    """HTTP that closes a connection whose request headers do not arrive in time."""

    _header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start the time limit of the first request."""
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Receive a part; the time limit ends with the headers."""
        if self.cycle is not None and self.cycle.response_complete and self._header_timer is None:
            self._start_timer()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the time limit."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        self._header_timer = self.loop.call_later(_HEADER_SECONDS, self._close_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _close_slow(self) -> None:
        self._header_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class DemoServer(uvicorn.Server):
    """A server that calls a function when it listens, and that ends without errors in the log.

    Pages keep connections open; that these are closed when the server ends is not an error.
    """

    def __init__(self, config: uvicorn.Config, *, on_start: Callable[[], None] = lambda: None) -> None:
        """Create a server.

        Args:
            config: Application, address and limits.
            on_start: Called when it listens.
        """
        super().__init__(config)
        self._on_start = on_start

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit` is set, or until a signal."""
        log = logging.getLogger("uvicorn.error")
        log.addFilter(self._is_logged)
        try:
            super().run(sockets)
        finally:
            log.removeFilter(self._is_logged)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End the server at SIGHUP as uvicorn does at SIGTERM, and raise the signal again when it has ended."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        captured: list[int] = []

        def end(number: int, _: FrameType | None) -> None:
            captured.append(number)
            self.should_exit = True

        before = signal.signal(signal.SIGHUP, end)
        try:
            with super().capture_signals():
                yield
        finally:
            signal.signal(signal.SIGHUP, before)
        if captured:
            signal.raise_signal(signal.SIGHUP)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call the function."""
        await super().startup(sockets)
        if self.started:
            self._on_start()

    def _is_logged(self, _: logging.LogRecord) -> bool:
        return not self.should_exit


def open_tunnel(port: int) -> str:
    """Open Gradio's tunnel to a port of this machine, and return its public address.

    Raises:
        OSError: The servers of Gradio cannot be reached.
    """
    from gradio import networking

    try:
        return str(networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None))
    except (RuntimeError, ValueError, AttributeError) as error:
        raise OSError(f"cannot open a public address: {error}") from error
