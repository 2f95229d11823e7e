"""A limit of the requests and tokens that a run spends on an endpoint."""

from __future__ import annotations

import threading


class BudgetSpentError(Exception):
    """The budget allows no further request, or the run was stopped.

    Attributes:
        num_attempts: Attempts at the request that failed before.
    """

    def __init__(self, message: str) -> None:
        """Describe which limit was reached."""
        super().__init__(message)
        self.num_attempts = 0


class RequestBudget:
    """Counts requests and tokens of all threads, and allows no request beyond a limit.

    The tokens of a request are known after its reply. While it runs, as many are reserved for it as the most expensive
    request so far has taken, so that the limit holds as long as requests are about equally long.
    """

    def __init__(
        self,
        *,
        max_requests: int | None = None,
        max_tokens: int | None = None,
        spent_requests: int = 0,
        spent_tokens: int = 0,
        expected_tokens: int = 0,
    ) -> None:
        """Start to count.

        Args:
            max_requests: Most requests, failed ones included; None for any number.
            max_tokens: Most tokens of questions and replies together; None for any number.
            spent_requests: Requests of earlier runs, which count too.
            spent_tokens: Their tokens.
            expected_tokens: Reserved for a request before any has been answered.

        Raises:
            ValueError: A limit is below 1.
        """
        for name, limit in (("requests", max_requests), ("tokens", max_tokens)):
            if limit is not None and limit < 1:
                raise ValueError(f"the budget must be at least 1 of {name}, got {limit}")
        self.max_requests, self.max_tokens = max_requests, max_tokens
        self.requests, self.tokens = spent_requests, spent_tokens
        self._largest = expected_tokens
        self._num_running = 0
        self._stopped = threading.Event()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Count a request that is about to be sent; each is followed by `finish`.

        Raises:
            BudgetSpentError: It would exceed the budget, or `stop` was called.
        """
        with self._lock:
            if self._stopped.is_set():
                raise BudgetSpentError("the run was stopped")
            if self.max_requests is not None and self.requests >= self.max_requests:
                raise BudgetSpentError(f"the budget of {self.max_requests} requests is spent")
            reserved = (self._num_running + 1) * self._largest
            if self.max_tokens is not None and self.tokens + reserved > self.max_tokens:
                raise BudgetSpentError(
                    f"the budget of {self.max_tokens} tokens is spent: {self.tokens} were used, and a request takes up "
                    f"to {self._largest}"
                )
            self.requests += 1
            self._num_running += 1

    def finish(self, tokens: int) -> None:
        """Count the tokens of a request that has ended, 0 if it failed."""
        with self._lock:
            self._num_running -= 1
            self.tokens += tokens
            self._largest = max(self._largest, tokens)

    def stop(self) -> None:
        """Allow no further request, and end all pauses."""
        self._stopped.set()

    def pause(self, seconds: float) -> None:
        """Wait before a request is repeated, until `stop` is called at most."""
        if seconds > 0:
            self._stopped.wait(seconds)
