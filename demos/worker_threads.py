"""The threads that work for sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

THREAD_NAME = "unipixel-session"
MAX_JOIN_SECONDS = 10.0
"""How long the end of a server waits for threads, which stop at the next token or frame."""


class WorkerThreads:
    """Threads that use the model; the process must not end before they do, since torch would abort it."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()

    def start(self, target: Callable[[], None]) -> None:
        """Start a thread.

        Raises:
            RuntimeError: The operating system allows no further thread.
        """
        thread = threading.Thread(target=target, name=THREAD_NAME, daemon=True)
        thread.start()
        with self._lock:
            self._threads = {each for each in self._threads if each.is_alive()} | {thread}

    def join(self, *, max_seconds: float = MAX_JOIN_SECONDS) -> None:
        """Wait until the threads have ended, which were requested to stop before."""
        deadline = time.monotonic() + max_seconds
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
