"""Client of endpoints with OpenAI's protocol of chat completions.

Nothing is sent unless an endpoint is configured. Requests that fail are repeated with growing delays; a redirect is
never followed, because it would send the key to another host.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from typing import IO, Any
from urllib.parse import urlsplit

from unipixel.train.endpoints.request_budget import BudgetSpentError, RequestBudget

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable with the key of the endpoint."""

_MAX_ATTEMPTS = 5
_MAX_REPLY_BYTES = 2**20
_MAX_DELAY_SECONDS = 60.0
_RETRIED_STATUS = (408, 409, 429)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Where and how a model is asked.

    Attributes:
        url: Base address of the endpoint, such as `https://api.openai.com/v1`.
        model: Name of the model there.
        key: Key of the endpoint; empty for none.
        first_delay_seconds: Delay before the second attempt, doubled before each further one.
        timeout_seconds: Longest time without a byte of the reply.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    first_delay_seconds: float = 1.0
    timeout_seconds: float = 120.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the address of an endpoint must start with http:// or https://, got {self.url!r}")
        if self.key and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError(f"the key would be sent unencrypted to {self.url}: use https, or give no key")
        if not self.model:
            raise ValueError("give the model of the endpoint, such as gpt-4o-mini")


@dataclass(frozen=True, kw_only=True)
class ChatReply:
    """A reply of a model.

    Attributes:
        text: The text.
        model: Name of the model as the endpoint states it; empty if it does not.
        is_cut: Whether the reply ended at the limit of its length.
        prompt_tokens: Tokens of the question; None if the endpoint does not count them.
        completion_tokens: Tokens of the reply.
        num_attempts: Requests that were sent.
    """

    text: str
    model: str = ""
    is_cut: bool = False
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    num_attempts: int = 1

    @property
    def num_tokens(self) -> int:
        """All tokens that the endpoint counted."""
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0)


class EndpointError(OSError):
    """An endpoint gave no usable reply.

    Attributes:
        status: Status of the last attempt; None if there was no reply.
        num_attempts: Requests that were sent.
    """

    def __init__(self, message: str, *, status: int | None, num_attempts: int) -> None:
        """Describe the failure."""
        super().__init__(message)
        self.status, self.num_attempts = status, num_attempts


def complete_chat(
    messages: Sequence[Mapping[str, Any]],
    *,
    endpoint: EndpointSettings,
    sampling: Mapping[str, Any],
    budget: RequestBudget | None = None,
) -> ChatReply:
    """Return the reply to a conversation; failed attempts are repeated up to four times.

    Args:
        messages: The conversation, in the form of the protocol.
        endpoint: The model.
        sampling: Further fields of the request, such as `temperature` and `max_tokens`.
        budget: Counts every attempt.

    Raises:
        EndpointError: There was no usable reply.
        BudgetSpentError: The budget allows no further attempt.
    """
    body = json.dumps({"model": endpoint.model, "messages": list(messages), **sampling}).encode("utf-8")
    budget = budget or RequestBudget()
    reason, status, requested_delay = "", None, 0.0
    for attempt, delay in enumerate(_delays(endpoint.first_delay_seconds), start=1):
        budget.pause(max(delay, requested_delay))
        try:
            budget.start()
        except BudgetSpentError as error:
            error.num_attempts = attempt - 1
            raise
        num_tokens = 0
        status, requested_delay = None, 0.0
        try:
            reply = _reply_of(_post(body, endpoint), num_attempts=attempt)
            num_tokens = reply.num_tokens
            return reply
        except urllib.error.HTTPError as error:
            with error:
                reason, status = f"status {error.code} ({error.reason})", error.code
                requested_delay = _retry_after(error.headers)
            if error.code not in _RETRIED_STATUS and error.code < 500:
                break
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except ValueError as error:
            reason = str(error)
        finally:
            budget.finish(num_tokens)
    raise EndpointError(
        f"the model {endpoint.model} at {endpoint.url} gave no usable reply: {reason}",
        status=status,
        num_attempts=attempt,
    )


def _delays(first: float) -> Iterator[float]:
    yield 0.0
    yield from (min(first * 2**attempt, _MAX_DELAY_SECONDS) for attempt in range(_MAX_ATTEMPTS - 1))


def _retry_after(headers: Message) -> float:
    """Return the delay in seconds that an endpoint asks for; a date is ignored."""
    text = str(headers.get("Retry-After", ""))
    return min(float(text), _MAX_DELAY_SECONDS) if text.isdecimal() else 0.0


def _post(body: bytes, endpoint: EndpointSettings) -> bytes:
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    address = endpoint.url.rstrip("/") + "/chat/completions"
    request = urllib.request.Request(address, data=body, headers=headers, method="POST")
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=endpoint.timeout_seconds) as response:
        content = bytes(response.read(_MAX_REPLY_BYTES + 1))
    if len(content) > _MAX_REPLY_BYTES:
        raise ValueError(f"a reply has at most {_MAX_REPLY_BYTES} bytes")
    return content


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the key to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Refuse the redirect; the caller gets its status as an error."""
        del req, fp, code, msg, headers, newurl


def _reply_of(content: bytes, *, num_attempts: int) -> ChatReply:
    """Return the content of a chat completion.

    Raises:
        ValueError: It has another form or is empty.
    """
    try:
        fields: Any = json.loads(content)
        choice = fields["choices"][0]
        text = choice["message"]["content"]
        usage = fields.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        reason, model = choice.get("finish_reason"), fields.get("model")
    except (ValueError, RecursionError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"the reply is no chat completion: {content[:80]!r}") from error
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the reply is empty")
    prompt_tokens, completion_tokens = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return ChatReply(
        text=text,
        model=model if isinstance(model, str) else "",
        is_cut=reason == "length",
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        num_attempts=num_attempts,
    )
