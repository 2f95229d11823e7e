"""Limits of single clients: requests at the same time, requests per second, attempts to log in."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MAX_CLIENTS = 10_000


@dataclass
class _Usage:
    num_open: int = 0
    tokens: float = 0.0
    refilled_at: float = 0.0
    num_failures: int = 0
    blocked_until: float = 0.0


class ClientLimits:
    """Counts the requests of every client; used in the event loop only."""

    def __init__(
        self,
        *,
        max_open: int,
        max_per_second: float = 100.0,
        max_burst: int = 300,
        num_free_attempts: int = 5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count nothing yet.

        Args:
            max_open: Requests of a client at the same time.
            max_per_second: Requests of a client in the long run.
            max_burst: Requests of a client at once after a pause.
            num_free_attempts: Failed attempts to log in, after which every further one doubles the time to wait.
            clock: Returns the current time in seconds, which never decreases.
        """
        self._max_open, self._rate, self._burst = max_open, max_per_second, max_burst
        self._num_free_attempts, self._clock = num_free_attempts, clock
        self._usage: OrderedDict[str, _Usage] = OrderedDict()

    def begin(self, client: str) -> str | None:
        """Count a request; return why it is refused, or None if it may be served and must be ended."""
        usage, now = self._of(client), self._clock()
        usage.tokens = min(self._burst, usage.tokens + (now - usage.refilled_at) * self._rate)
        usage.refilled_at = now
        if usage.num_open >= self._max_open:
            return f"{usage.num_open} requests of yours are open, the maximum: wait for one to end"
        if usage.tokens < 1:
            return f"you send more than {self._rate:g} requests per second: wait a moment"
        usage.tokens -= 1
        usage.num_open += 1
        return None

    def end(self, client: str) -> None:
        """Count the end of a request."""
        self._of(client).num_open -= 1

    def seconds_to_wait(self, client: str) -> float:
        """Return how long a client must wait before the next attempt to log in."""
        return max(0.0, self._of(client).blocked_until - self._clock())

    def count_attempt(self, client: str, *, has_succeeded: bool) -> None:
        """Count an attempt to log in."""
        usage = self._of(client)
        if has_succeeded:
            usage.num_failures = 0
            return
        usage.num_failures += 1
        excess = usage.num_failures - self._num_free_attempts
        if excess >= 0:
            usage.blocked_until = self._clock() + min(900.0, 2.0 ** min(excess, 20))

    def _of(self, client: str) -> _Usage:
        usage = self._usage.get(client)
        if usage is None:
            usage = self._usage[client] = _Usage(tokens=float(self._burst), refilled_at=self._clock())
            self._forget_idle()
        self._usage.move_to_end(client)
        return usage

    def _forget_idle(self) -> None:
        now = self._clock()
        for client in list(self._usage)[: max(0, len(self._usage) - _MAX_CLIENTS)]:
            usage = self._usage[client]
            if not usage.num_open and usage.blocked_until < now:
                del self._usage[client]
