"""The live sessions of a server: bounded in number and age."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from unipixel.demos.limits import Limits
from unipixel.demos.sessions.errors import BusyError, UnknownSessionError
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.model.generation import GenerationSettings
from unipixel.session.live_session import LiveSession, LiveSettings

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor

_IDLE_SECONDS = 120.0


class LiveStore:
    """The live sessions of a server; none of which is kept for long when unused."""

    def __init__(
        self,
        model: UniPixel,
        processor: Processor,
        *,
        limits: Limits,
        generation: GenerationSettings | None = None,
    ) -> None:
        """Open without sessions.

        Args:
            model: The model.
            processor: Prepares its inputs.
            limits: What visitors are granted.
            generation: How answers are written.
        """
        self._model, self._processor, self._limits = model, processor, limits
        self._generation = generation or GenerationSettings()
        self._visitors: dict[str, LiveUserSession] = {}
        self._lock = threading.Lock()

    def open(self, key: str) -> LiveUserSession:
        """Return the live session of a key that was checked; a new one where there is none.

        Raises:
            BusyError: There are too many.
        """
        with self._lock:
            self._sweep()
            if key not in self._visitors:
                if len(self._visitors) >= self._limits.max_sessions:
                    raise BusyError("too many cameras are followed already: try again in a few minutes")
                self._visitors[key] = LiveUserSession(
                    self._new_session,
                    max_objects=self._limits.max_objects,
                    max_question_chars=self._limits.max_question_chars,
                )
            return self._visitors[key]

    def get(self, key: str) -> LiveUserSession:
        """Return a live session.

        Raises:
            UnknownSessionError: There is none of this key.
        """
        with self._lock:
            if key not in self._visitors:
                raise UnknownSessionError
            self._visitors[key].last_used = time.monotonic()
            return self._visitors[key]

    def close(self, key: str) -> None:
        """Remove a live session, if there is one."""
        with self._lock:
            user_session = self._visitors.pop(key, None)
        if user_session is not None:
            user_session.stop()

    def close_all(self) -> None:
        """Remove all of them."""
        for key in list(self._visitors):
            self.close(key)

    def _new_session(self) -> LiveSession:
        settings = LiveSettings(max_objects=self._limits.max_objects, generation=self._generation)
        return LiveSession(self._model, self._processor, settings=settings)

    def _sweep(self) -> None:
        now = time.monotonic()
        for key, user_session in list(self._visitors.items()):
            if now - user_session.last_used > _IDLE_SECONDS:
                del self._visitors[key]
                user_session.stop()
