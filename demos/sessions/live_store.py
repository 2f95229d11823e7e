"""The live sessions of a server, bounded in number and age."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from unipixel.demos.errors import BusyError, QuotaError, UnknownSessionError
from unipixel.demos.limits import Limits
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.demos.worker_threads import WorkerThreads
from unipixel.session.live_session import LiveSession, LiveSettings
from unipixel.session.settings import SessionSettings

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor

MAX_IDLE_SECONDS = 120.0
"""How long an unused live session is kept."""


class LiveStore:
    """Opens live sessions and finds them by the keys of the user sessions; nothing of them is saved."""

    def __init__(
        self,
        model: UniPixel,
        processor: Processor,
        *,
        limits: Limits,
        settings: SessionSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty store.

        Args:
            model: The model that all sessions share.
            processor: Prepares the model's inputs.
            limits: Limits of the sessions.
            settings: Settings of a session, of which those that apply to a stream are used: its segmenter, what
                decodes the masks of answers, post-processing, and how answers are generated.
            clock: Returns the current time in seconds, which never decreases.
        """
        self._model, self._processor, self._limits, self._clock = model, processor, limits, clock
        settings = settings or SessionSettings()
        self._settings = LiveSettings(
            max_objects=limits.max_objects,
            memory_dtype=settings.memory_dtype,
            is_postprocessed=settings.is_postprocessed,
            segmenter=settings.segmenter,
            language_masks=settings.language_masks,
            generation=settings.generation,
        )
        self._threads = WorkerThreads()
        self._sessions: dict[str, LiveUserSession] = {}
        self._clients: dict[str, str] = {}
        self._lock = threading.Lock()

    def open(self, key: str, *, client: str = "") -> LiveUserSession:
        """Return the live session of a key, a new one if there is none; the caller has checked the key.

        Args:
            key: Key of the user session.
            client: Who opened the user session.

        Raises:
            BusyError: There are too many live sessions.
            QuotaError: The client has too many.
        """
        self.sweep()
        with self._lock:
            if key not in self._sessions:
                if len(self._sessions) >= self._limits.max_sessions:
                    raise BusyError("the server has its maximum of live sessions: try again in a few minutes")
                own, maximum = list(self._clients.values()).count(client), self._limits.max_live_sessions_per_client
                if own >= maximum:
                    raise QuotaError(f"{own} live sessions of yours are open, the maximum: stop one")
                self._clients[key] = client
                self._sessions[key] = LiveUserSession(
                    self._new_session,
                    threads=self._threads,
                    max_objects=self._limits.max_objects,
                    max_question_chars=self._limits.max_question_chars,
                    clock=self._clock,
                )
            self._sessions[key].last_used = self._clock()
            return self._sessions[key]

    def get(self, key: str) -> LiveUserSession:
        """Return the live session of a key.

        Raises:
            UnknownSessionError: The key has no live session.
        """
        with self._lock:
            if key not in self._sessions:
                raise UnknownSessionError
            self._sessions[key].last_used = self._clock()
            return self._sessions[key]

    def close(self, key: str) -> None:
        """Remove the live session of a key, if there is one."""
        with self._lock:
            session = self._sessions.pop(key, None)
            self._clients.pop(key, None)
        if session is not None:
            session.reset()

    def sweep(self) -> None:
        """Remove the live sessions that no page and no client uses any more."""
        now = self._clock()
        with self._lock:
            idle = [key for key, session in self._sessions.items() if now - session.last_used > MAX_IDLE_SECONDS]
        for key in idle:
            self.close(key)

    def close_all(self) -> None:
        """Remove all live sessions, and wait for their threads."""
        for key in list(self._sessions):
            self.close(key)
        self._threads.join()

    def _new_session(self) -> LiveSession:
        return LiveSession(self._model, self._processor, settings=self._settings)
