"""Ids and functions in requests to Gradio, which logs an error with a traceback for one that it does not know."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse
from gradio.route_utils import FnIndexInferError

_RESULT_PATH = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/(?P<event_id>[^/]+)/?")


class QueueIds:
    """The ids that the queue of an application knows."""

    def __init__(self, blocks: Any) -> None:
        """Read the queue.

        Args:
            blocks: The Gradio application.
        """
        self._queue = blocks._queue

    def are_known(self, method: str, path: str, query: bytes) -> bool:
        """Return whether a request names no id of the queue, or a known one.

        Args:
            method: Method of the request.
            path: Path of the request.
            query: Query of the request.
        """
        queue = self._queue
        if method != "GET":
            return True
        if path.rstrip("/") == "/gradio_api/queue/data":
            values = parse_qs(query.decode("latin-1")).get("session_hash", [""])
            return values[0] in queue.pending_messages_per_session
        if found := _RESULT_PATH.fullmatch(path):
            event_id = found["event_id"]
            pending = queue.pending_event_ids_session
            return event_id in queue.event_ids_to_events or any(event_id in ids for ids in pending.values())
        return True


def refuse_unknown_functions(gradio_app: Any) -> None:
    """Let the application of Gradio answer 404 to calls of functions, by name or number, that it does not have."""

    async def refuse(*_: Any) -> JSONResponse:
        return JSONResponse({"error": "there is no such function: /gradio_api/info lists them"}, status_code=404)

    # Gradio looks a number, and the name of a function of its second API, up in dictionaries.
    for kind in (FnIndexInferError, KeyError):
        gradio_app.add_exception_handler(kind, refuse)
