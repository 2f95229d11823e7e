"""The live sessions of a server, bounded in number and age."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from unipixel.demos.errors import BusyError, UnknownSessionError
from unipixel.demos.limits import Limits
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.model.generation import GenerationSettings
from unipixel.session.live_session import LiveSession, LiveSettings

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
        generation: GenerationSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty store.

        Args:
            model: The model that all sessions share.
            processor: Prepares the model's inputs.
            limits: Limits of the sessions.
            generation: How answers are generated.
            clock: Returns the current time in seconds, which never decreases.
        """
        self._model, self._processor, self._limits, self._clock = model, processor, limits, clock
        self._generation = generation or GenerationSettings()
        self._sessions: dict[str, LiveUserSession] = {}
        self._lock = threading.Lock()

    def open(self, key: str) -> LiveUserSession:
        """Return the live session of a key, a new one if there is none; the caller has checked the key.

        Raises:
            BusyError: There are too many live sessions.
        """
        with self._lock:
            self._sweep()
            if key not in self._sessions:
                if len(self._sessions) >= self._limits.max_sessions:
                    raise BusyError("the server has its maximum of live sessions: try again in a few minutes")
                self._sessions[key] = LiveUserSession(
                    self._new_session,
                    max_objects=self._limits.max_objects,
                    max_question_chars=self._limits.max_question_chars,
                    clock=self._clock,
                )
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
        if session is not None:
            session.reset()

    def close_all(self) -> None:
        """Remove all live sessions."""
        for key in list(self._sessions):
            self.close(key)

    def _new_session(self) -> LiveSession:
        settings = LiveSettings(max_objects=self._limits.max_objects, generation=self._generation)
        return LiveSession(self._model, self._processor, settings=settings)

    def _sweep(self) -> None:
        now = self._clock()
        for key, session in list(self._sessions.items()):
            if now - session.last_used > MAX_IDLE_SECONDS:
                del self._sessions[key]
                session.reset()
