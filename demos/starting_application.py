"""The application that `unipixel demo` serves: a page that says that the model is being loaded, and then the demo.

This module imports neither torch nor Gradio, so that the first page is there within a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, Protocol

# How long the end of the server waits for a demo that is being loaded, whose folder is removed then.
_MAX_LOADING_SECONDS = 10
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


class StartingApplication:
    """An ASGI application that shows a page while the demo is being loaded, and then is the demo.

    Attributes:
        stop: Stops the server, after loading has failed.
    """

    def __init__(
        self,
        load: Callable[[], RunningDemo],
        *,
        announce: Callable[[str], None],
        open_tunnel: Callable[[], str] | None = None,
    ) -> None:
        """Create the application; loading begins when the server starts.

        Args:
            load: See `serve`.
            announce: See `serve`.
            open_tunnel: Opens a public address and returns it, when the demo is loaded; None without one.
        """
        self.stop: Callable[[], None] = lambda: None
        self._load, self._announce, self._open_tunnel = load, announce, open_tunnel
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
        # Nobody reads the errors of this thread: every one is raised in the main thread, after the server has stopped.
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
            if self._open_tunnel is not None:
                address = await asyncio.to_thread(self._open_tunnel)
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
