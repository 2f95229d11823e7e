"""The answer of a chat completion, whole or as chunks, in the form of OpenAI's API."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unipixel.demos.serving.chat_request import ChatRequest
from unipixel.output.result import Result


class StopTexts:
    """Ends a text before the first of some texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Start a text.

        Args:
            texts: The texts, none of them empty.
        """
        self._texts, self._text, self._num_sent = tuple(texts), "", 0

    def cut(self, text: str) -> str:
        """Return a whole text up to the first of the texts."""
        return text[: min((place for stop in self._texts if (place := text.find(stop)) >= 0), default=len(text))]

    def add(self, piece: str, *, is_last: bool = False) -> str:
        """Continue the text; return what can be sent of it: no part of one of the texts, which may be completed later.

        Args:
            piece: The continuation.
            is_last: Whether nothing follows.
        """
        self._text += piece
        end = len(self.cut(self._text))
        if end == len(self._text) and not is_last:
            end -= max((_overlap(self._text, stop) for stop in self._texts), default=0)
        piece = self._text[self._num_sent : end]
        self._num_sent = max(end, self._num_sent)
        return piece


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest beginning of `stop` with which a text ends."""
    return max((size for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)


@dataclass(frozen=True)
class ChatAnswer:
    """Renders the answer to one request.

    Attributes:
        request: The request.
        model_name: Name of the model.
        answer_id: Id of the answer, the same in all chunks.
        created: Time in seconds since 1970.
    """

    request: ChatRequest
    model_name: str
    answer_id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, result: Result) -> dict[str, Any]:
        """Return the whole answer."""
        content = StopTexts(self.request.generation.stop_strings).cut(result.text)
        message = {"role": "assistant", "content": content, "refusal": None, "unipixel": self._extension(result)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason(result)}
        return self._body("chat.completion", choices=[choice], usage=_usage(result))

    def first_chunk(self) -> dict[str, Any]:
        """Return the chunk that is sent before the text."""
        return self._chunk({"role": "assistant", "content": ""})

    def text_chunk(self, piece: str) -> dict[str, Any]:
        """Return the chunk of a piece of the text."""
        return self._chunk({"content": piece})

    def last_chunks(self, result: Result) -> list[dict[str, Any]]:
        """Return the chunk with the objects, and that with the number of tokens if the request wants it."""
        last = self._chunk({"unipixel": self._extension(result)}, finish_reason=self._finish_reason(result))
        if not self.request.includes_usage:
            return [last]
        return [last, self._body("chat.completion.chunk", choices=[], usage=_usage(result))]

    def _chunk(self, delta: dict[str, Any], *, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._body("chat.completion.chunk", choices=[choice])

    def _body(self, kind: str, **fields: Any) -> dict[str, Any]:
        return {"id": self.answer_id, "object": kind, "created": self.created, "model": self.model_name, **fields}

    def _extension(self, result: Result) -> dict[str, Any]:
        objects = result.to_dict()["objects"]
        if not self.request.returns_masks:
            objects = [{name: value for name, value in item.items() if name != "frames"} for item in objects]
        return {"objects": objects}

    def _finish_reason(self, result: Result) -> str:
        return "length" if result.num_generated_tokens >= self.request.generation.max_new_tokens else "stop"


def _usage(result: Result) -> dict[str, int]:
    read, generated = result.num_read_tokens, result.num_generated_tokens
    return {"prompt_tokens": read, "completion_tokens": generated, "total_tokens": read + generated}
