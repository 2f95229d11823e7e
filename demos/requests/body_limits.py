"""Ceilings, time limits and checks of the bodies of requests, before Gradio and FastAPI see them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool

from unipixel.demos.errors import DemoError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

_UPLOAD_PATH = re.compile(r"/session/[^/]+/upload")
# These contain a mask or a frame of a camera.
_PICTURE_PATH = re.compile(
    r"/session/[^/]+/mask|/live/[^/]+/frame"
    r"|/gradio_api/(queue/join|mcp(/.*)?|(call|run|api)/(v2/)?(draw_mask|live_frame)/?)"
)
# A JSON body above this size is checked outside the event loop.
_MAX_CHECKED_HERE = 2**13


class RefusedBodyError(DemoError):
    """A body that is too large, too slow or incomplete."""

    def __init__(self, status: int, message: str) -> None:
        """Create the error.

        Args:
            status: Status of the response.
            message: See `DemoError`.
        """
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class BodyRules:
    """Limits of bodies.

    Attributes:
        max_upload_bytes: Size of an upload.
        max_picture_bytes: Size of a body with a mask or a frame of a camera.
        max_bytes: Size of any other body.
        max_values: Numbers, strings, lists and objects of a JSON body.
        idle_seconds: How long the next part of a body may take.
        total_seconds: How long a body that is not an upload may take.
        min_upload_rate: Bytes per second of an upload after `total_seconds`.
    """

    max_upload_bytes: int
    max_picture_bytes: int = 2**20
    max_bytes: int = 2**16
    max_values: int = 4096
    idle_seconds: float = 15.0
    total_seconds: float = 30.0
    min_upload_rate: float = 2**14


async def read_body(path: str, headers: Mapping[bytes, bytes], receive: Receive, rules: BodyRules) -> Receive:
    """Read and check a body, or watch that of an upload while the application reads it.

    Args:
        path: Path of the request.
        headers: Headers by name in lower case.
        receive: Receives the messages of the request.
        rules: The limits.

    Returns:
        What the application receives.

    Raises:
        RefusedBodyError: The body is too large, too slow, or contains too many values.
    """
    is_upload = _UPLOAD_PATH.fullmatch(path) is not None
    is_picture = _PICTURE_PATH.fullmatch(path) is not None
    ceiling = rules.max_upload_bytes if is_upload else rules.max_picture_bytes if is_picture else rules.max_bytes
    declared = headers.get(b"content-length", b"0")
    if not declared.isdigit() or int(declared) > ceiling:
        raise RefusedBodyError(413, f"the request is too large: at most {ceiling} bytes are accepted here")
    if is_upload:
        return _watched(receive, ceiling, rules)
    body = bytearray()
    deadline = asyncio.get_running_loop().time() + rules.total_seconds
    while True:
        message = await _receive(receive, min(rules.idle_seconds, deadline - asyncio.get_running_loop().time()))
        body += message.get("body", b"")
        if len(body) > ceiling:
            raise RefusedBodyError(413, f"the request is too large: at most {ceiling} bytes are accepted here")
        if not message.get("more_body", False):
            break
    if headers.get(b"content-type", b"").startswith(b"application/json") and len(body) > 1024:
        arguments = (bytes(body), rules.max_values)
        is_short = len(body) <= _MAX_CHECKED_HERE
        is_accepted = check_values(*arguments) if is_short else await run_in_threadpool(check_values, *arguments)
        if not is_accepted:
            raise RefusedBodyError(413, f"the request has too many values: at most {rules.max_values} are accepted")
    return _replayed(bytes(body), receive)


def check_values(body: bytes, max_values: int) -> bool:
    """Return whether a JSON body has at most so many values; a malformed one is left to the application."""
    try:
        pending, count = [json.loads(body)], 0
    except (ValueError, RecursionError):
        return True
    while pending:
        value = pending.pop()
        count += 1
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        if count + len(pending) > max_values:
            return False
    return True


async def _receive(receive: Receive, seconds: float) -> Message:
    try:
        message = await asyncio.wait_for(receive(), max(0.0, seconds))
    except asyncio.TimeoutError as error:
        raise RefusedBodyError(408, "the request took too long") from error
    if message["type"] == "http.disconnect":
        raise RefusedBodyError(400, "the connection was closed")
    return message


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a function that first returns the body, then what else is received: the end of the connection."""
    is_sent = False

    async def replayed() -> Message:
        nonlocal is_sent
        if is_sent:
            return await receive()
        is_sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _watched(receive: Receive, ceiling: int, rules: BodyRules) -> Receive:
    """Return a function that receives an upload, which must neither be too large nor too slow."""
    loop = asyncio.get_running_loop()
    begin, received, is_complete = loop.time(), 0, False

    async def watched() -> Message:
        nonlocal received, is_complete
        if is_complete:
            return await receive()
        message = await _receive(receive, rules.idle_seconds)
        received += len(message.get("body", b""))
        is_complete = not message.get("more_body", False)
        seconds = loop.time() - begin
        if received > ceiling:
            raise RefusedBodyError(413, f"the file is too large: at most {ceiling} bytes are accepted")
        if seconds > rules.total_seconds and received < (seconds - rules.total_seconds) * rules.min_upload_rate:
            raise RefusedBodyError(408, "the upload is too slow")
        return message

    return watched
