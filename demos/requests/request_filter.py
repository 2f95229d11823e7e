"""ASGI middleware before Gradio: hosts, log-in, limits of clients and of requests, an allow list of paths, headers.

Gradio serves files from a cache that all users share, accepts uploads without a session, fetches network addresses, and
offers tools for developers. The demo uses none of these: a path that is not listed here is answered with 404.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from unipixel.demos.requests.body_limits import BodyRules, RefusedBodyError, read_body
from unipixel.demos.requests.client_limits import ClientLimits
from unipixel.demos.requests.clients import address_of, client_of, set_user
from unipixel.demos.requests.hosts import host_name, is_allowed_host, is_same_origin
from unipixel.demos.requests.login import Login
from unipixel.demos.requests.queue_ids import QueueIds

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
    "info", "openapi.json", "startup-events", "heartbeat", "queue", "call", "run", "api", "cancel", "reset",
    "theme.css", "login_check", "user", "token", "app_id",
}  # fmt: skip
# What a browser needs for the form to log in.
_OPEN_PREFIXES = ("/static/", "/assets/", "/svelte/")
_OPEN_PATHS = {"/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/login", "/logout"}
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
    """ASGI middleware that refuses requests before the application sees them, and adds security headers."""

    def __init__(
        self,
        app: App,
        *,
        max_upload_bytes: int,
        max_requests_per_client: int = 64,
        hosts: Collection[str] | None = None,
        login: Login | None = None,
        queue_ids: QueueIds | None = None,
        body_rules: BodyRules | None = None,
    ) -> None:
        """Wrap an application.

        Args:
            app: The application.
            max_upload_bytes: Maximum size of an upload; other bodies have smaller, fixed limits.
            max_requests_per_client: Requests of one client at the same time.
            hosts: Host names of the server, without ports; None for any.
            login: Who may use the server; None for everybody.
            queue_ids: Ids of Gradio's queue; None if they are not checked.
            body_rules: Ceilings and time limits of bodies.
        """
        self._app, self.hosts, self._login = app, None if hosts is None else set(hosts), login
        self._rules = body_rules or BodyRules(max_upload_bytes=max_upload_bytes)
        self._queue_ids = queue_ids
        self._limits = ClientLimits(max_open=max_requests_per_client)

    def allow_host(self, address: str) -> None:
        """Accept requests under the host name of an address, such as that of a tunnel."""
        if self.hosts is not None:
            self.hosts.add(host_name(address.rpartition("//")[2].partition("/")[0]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        refusal = self._refusal(path, headers)
        if refusal is None and self._login is not None:
            refusal = self._check_login(self._login, path, headers, scope)
        if refusal is None and self._queue_ids is not None:
            is_known = self._queue_ids.are_known(scope["method"], path, scope.get("query_string", b""))
            refusal = None if is_known else (404, "this id is unknown to the queue")
        if refusal is not None:
            await _refuse(send, *refusal)
        else:
            await self._serve(path, headers, scope, receive, send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        if self.hosts is not None and not is_allowed_host(headers.get(b"host", b""), self.hosts):
            return 421, "this server does not have that host name: start it with --allow-host NAME"
        if not is_same_origin(headers):
            return 403, "requests from pages of another origin are refused"
        return None if is_served(path) else (404, "not found")

    def _check_login(
        self, login: Login, path: str, headers: dict[bytes, bytes], scope: Scope
    ) -> tuple[int, str] | None:
        """Store who sends a request; return why it is refused, if it is."""
        address, has_password = address_of(scope), login.has_password(headers)
        is_attempt = has_password or (path.rstrip("/") == "/login" and scope["method"] == "POST")
        if is_attempt and (seconds := self._limits.seconds_to_wait(address)):
            return 429, f"too many failed attempts to log in: wait {seconds:.0f} seconds"
        user = login.user_of(headers)
        if has_password:
            self._limits.count_attempt(address, has_succeeded=user is not None)
        if user is not None:
            set_user(scope, user)
            if has_password:
                others = [item for item in scope["headers"] if item[0] != b"cookie"]
                scope["headers"] = [*others, (b"cookie", login.grant(user).encode())]
        elif has_password or not (path in _OPEN_PATHS or path.startswith(_OPEN_PREFIXES)):
            return 401, "log in first"
        return None

    async def _serve(self, path: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive, send: Send) -> None:
        client, address = client_of(scope), address_of(scope)
        is_login = path.rstrip("/") == "/login" and scope["method"] == "POST"
        if (reason := self._limits.begin(client)) is not None:
            await _refuse(send, 429, reason)
            return
        try:
            checked = await read_body(path, headers, receive, self._rules)
            await self._app(scope, checked, self._with_headers(send, address if is_login else None))
        except RefusedBodyError as error:
            await _refuse(send, error.status, str(error))
        finally:
            self._limits.end(client)

    def _with_headers(self, send: Send, login_address: str | None) -> Send:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if login_address is not None:
                    self._limits.count_attempt(login_address, has_succeeded=message["status"] < 400)
                # Gradio allows pages of other ports of this machine to send cookies.
                headers = message.get("headers", [])
                kept = [item for item in headers if not item[0].lower().startswith(b"access-control-")]
                present = {name.lower() for name, _ in kept}
                added = [(name, value) for name, value in _HEADERS.items() if name not in present]
                message = {**message, "headers": [*kept, *added]}
            await send(message)

        return send_with_headers


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"error": reason, "field": "session"}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *_HEADERS.items(),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
