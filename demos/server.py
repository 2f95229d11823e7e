"""Serves the demo with uvicorn: at once a page that says that the model is being loaded, then the demo.

This module imports neither torch nor Gradio, so that the first page is there within a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping
from types import FrameType
from typing import Any, Protocol

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

# How long the headers of a request may take.
_MAX_LOADING_SECONDS = 60
_HEADER_SECONDS = 10.0
_MAX_CONNECTIONS = 1024
_LOADING_PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="refresh" content="1"><title>UniPixel</title>
<style>:root{color-scheme:light dark}body{font:1.1rem system-ui,sans-serif;display:grid;place-items:center;
min-height:90vh;margin:0}</style></head>
<body><main role="status"><h1>UniPixel</h1>
<p>Loading the model&hellip; This page opens by itself.</p></main></body></html>
"""


class RunningDemo(Protocol):
    """What is served: an ASGI application that is closed at the end."""

    application: Any

    def close(self) -> None:
        """End all sessions and remove temporary files."""


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
    application = StartingApplication(load, announce=announce, share_port=port if is_shared else None)
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
    server = _AnnouncingServer(config, lambda: announce(f"The demo is at {address} and is loading the model"))
    application.stop = lambda: setattr(server, "should_exit", True)
    with terminating_signals(), contextlib.closing(application):
        server.run()
    application.raise_failure()


@contextlib.contextmanager
def terminating_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `SystemExit` for the block, so that the demo is closed.

    uvicorn stops at SIGTERM and raises the signal again when it has stopped.
    """

    def terminate(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, terminate) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StartingApplication:
    """An ASGI application that shows a page while the demo is being loaded, and then is the demo.

    Attributes:
        stop: Stops the server, after loading has failed.
    """

    def __init__(
        self, load: Callable[[], RunningDemo], *, announce: Callable[[str], None], share_port: int | None = None
    ) -> None:
        """Create the application; loading begins when the server starts.

        Args:
            load: See `serve`.
            announce: See `serve`.
            share_port: Port for Gradio's tunnel; None without a public address.
        """
        self.stop: Callable[[], None] = lambda: None
        self._load, self._announce, self._share_port = load, announce, share_port
        self._demo: RunningDemo | None = None
        self._failure: BaseException | None = None
        self._is_ready = False
        self._is_closed = False
        self._lock = threading.Lock()
        self._lifespan: _Lifespan | None = None
        self._loading: threading.Thread | None = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle one request, or the start and the end of the server."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif self._is_ready and self._demo is not None:
            await self._demo.application(scope, receive, send)
        elif scope["type"] == "http":
            headers = [
                (b"content-type", b"text/html; charset=utf-8"),
                (b"content-length", str(len(_LOADING_PAGE)).encode()),
                (b"cache-control", b"no-store"),
                (b"retry-after", b"1"),
            ]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else _LOADING_PAGE})

    def close(self) -> None:
        """Close the demo, or discard it as soon as it is loaded."""
        with self._lock:
            self._is_closed = True
            demo, self._demo = self._demo, None
        if demo is not None:
            demo.close()
        # A demo that is still being loaded has a folder already, which is removed when it is closed.
        if self._loading is not None:
            self._loading.join(timeout=_MAX_LOADING_SECONDS)

    def raise_failure(self) -> None:
        """Raise the error that ended the loading, if there was one."""
        if self._failure is not None:
            raise self._failure

    async def _run_lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        loop = asyncio.get_running_loop()
        loaded = asyncio.Event()
        self._loading = threading.Thread(target=self._load_demo, args=(loop, loaded), name="unipixel-load", daemon=True)
        self._loading.start()
        begin = asyncio.create_task(self._begin(loaded))
        await receive()
        begin.cancel()
        if self._lifespan is not None:
            await self._lifespan.end()
        await send({"type": "lifespan.shutdown.complete"})

    def _load_demo(self, loop: asyncio.AbstractEventLoop, loaded: asyncio.Event) -> None:
        try:
            demo = self._load()
        # The error is raised in the main thread, after the server has stopped.
        except BaseException as error:  # noqa: BLE001
            self._failure = error
            self.stop()
            return
        with self._lock:
            is_closed = self._is_closed
            if not is_closed:
                self._demo = demo
        if is_closed:
            demo.close()
            return
        with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
            loop.call_soon_threadsafe(loaded.set)

    async def _begin(self, loaded: asyncio.Event) -> None:
        """Start the demo when it is loaded."""
        await loaded.wait()
        demo = self._demo
        if demo is None:
            return
        self._lifespan = _Lifespan(demo.application)
        try:
            await self._lifespan.begin()
            if self._share_port is not None:
                address = await asyncio.to_thread(open_tunnel, self._share_port)
                demo.application.allow_host(address)
                self._announce(f"The public address is {address}")
        except (OSError, RuntimeError) as error:
            self._failure = error
            self.stop()
            return
        self._is_ready = True
        self._announce("The model is loaded")


class _Lifespan:
    """Sends the start and the end of the server to an ASGI application that was built after the start."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._received: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self._task = asyncio.create_task(
            self._application({"type": "lifespan", "asgi": {"version": "3.0"}}, self._received.get, self._sent.put)
        )
        await self._received.put({"type": "lifespan.startup"})
        message = await self._sent.get()
        if message["type"] != "lifespan.startup.complete":
            raise RuntimeError(f"the demo did not start: {message.get('message', '')}")

    async def end(self) -> None:
        if self._task is not None:
            await self._received.put({"type": "lifespan.shutdown"})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._task, timeout=5)


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


class _AnnouncingServer(uvicorn.Server):
    """Calls a function when it listens."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start
        # Pages keep connections open; closing them at shutdown is not an error.
        logging.getLogger("uvicorn.error").addFilter(lambda _: not self.should_exit)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call the function."""
        await super().startup(sockets)
        if self.started:
            self._on_start()


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
