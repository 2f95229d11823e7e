"""A server with OpenAI's protocol of chat completions, whose replies a test decides."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CUT = object()
"""Content of a reply whose connection ends in the middle."""


class StubEndpoint:
    """Answers requests by a function and keeps what was sent.

    Attributes:
        url: Its base address.
        requests: Path, headers and body of each request.
    """

    def __init__(self, answer: Callable[[dict[str, Any]], tuple[int, Any]]) -> None:
        """Start it.

        Args:
            answer: Returns status and content for the body of a request: an object of JSON, bytes, or `CUT`. It is
                called by one thread at a time.
        """
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.answer = answer
        lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    stub.requests.append((self.path, dict(self.headers), body))
                    status, content = stub.answer(body)
                is_cut = content is CUT
                sent = content if isinstance(content, bytes) else json.dumps({} if is_cut else content).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.send_header("Content-Length", str(len(sent) + 100 * is_cut))
                self.end_headers()
                self.wfile.write(sent)
                if is_cut:
                    self.wfile.flush()
                    self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def listed_replies(replies: list[tuple[int, Any]]) -> Callable[[dict[str, Any]], tuple[int, Any]]:
    """Return a function that gives the replies in order, the last one again and again."""
    remaining = list(replies)
    return lambda body: remaining[0] if len(remaining) == 1 else remaining.pop(0)


def completion(text: Any, *, tokens: tuple[int, int] | None = None, **fields: Any) -> dict[str, Any]:
    """Return a chat completion with a text, and with the counts of tokens where they are given."""
    usage = {"usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1]}} if tokens else {}
    choice = {"message": {"role": "assistant", "content": text}, **fields}
    return {"choices": [choice], "model": "stub-1", **usage}
