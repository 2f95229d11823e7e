"""ASGI middleware before Gradio: an allow list of paths, a limit on the size of requests, and security headers.

Gradio serves files from a cache that all users share, fetches network addresses, and offers tools for developers. The
demo uses none of these: a path that is not listed here is answered with 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_PREFIXES = ("/static/", "/assets/", "/svelte/", "/session/", "/live/", "/gradio_api/mcp/")
_PATHS = {
    "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/login", "/logout",
    "/login_check", "/gradio_api", "/gradio_api/mcp", "/monitoring/summary",
}  # fmt: skip
_GRADIO_API = {
    "info", "openapi.json", "startup-events", "heartbeat", "queue", "upload", "upload_progress", "call", "run", "api",
    "cancel", "reset", "theme.css", "login_check", "user", "token", "app_id",
}  # fmt: skip
_MAX_BODY_BYTES = 4 * 2**20
_HEADERS = {
    b"content-security-policy": b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; "
    b"connect-src 'self'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    b"frame-ancestors 'self'",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"permissions-policy": b"camera=(self), microphone=(), geolocation=()",
    b"cross-origin-resource-policy": b"same-origin",
}


def is_served(path: str) -> bool:
    """Return whether a path is on the allow list.

    Args:
        path: The path as the server decoded it, without the query.
    """
    if "\\" in path or "\0" in path or "%" in path or any(part in ("..", ".") for part in path.split("/")):
        return False
    if (path.rstrip("/") or "/") in _PATHS or path.startswith(_PREFIXES):
        return True
    parts = path.split("/")
    return len(parts) > 2 and parts[1] == "gradio_api" and parts[2] in _GRADIO_API


class RequestFilter:
    """ASGI middleware that refuses unlisted paths and large requests, and adds security headers."""

    def __init__(self, app: App, *, max_upload_bytes: int) -> None:
        """Wrap an application.

        Args:
            app: The application.
            max_upload_bytes: Maximum size of an upload; other bodies have a smaller, fixed limit.
        """
        self._app, self._max_upload_bytes = app, max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if not is_served(path):
            await _refuse(send, 404, b"Not found.")
            return
        is_upload = path.endswith("/upload")
        # A multipart upload is a little larger than its file.
        ceiling = self._max_upload_bytes + 2**16 if is_upload else _MAX_BODY_BYTES
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > ceiling:
            await _refuse(send, 413, b'{"error": "The request is too large for this server."}')
            return
        await self._app(scope, _limited(receive, ceiling), _with_headers(send))


def _limited(receive: Receive, ceiling: int) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        # A body that exceeds the limit without declaring its size looks like a client that disconnected.
        return message if received <= ceiling else {"type": "http.disconnect"}

    return limited


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message.get("headers", [])}
            added = [(name, value) for name, value in _HEADERS.items() if name not in present]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return send_with_headers


async def _refuse(send: Send, status: int, body: bytes) -> None:
    kind = b"application/json" if body.startswith(b"{") else b"text/plain"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *_HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
