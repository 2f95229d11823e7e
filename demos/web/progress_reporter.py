"""Shows the progress of work on the page."""

from __future__ import annotations

import time
from typing import Any

import gradio as gr

from unipixel.demos.sessions.events import (
    Answered,
    Event,
    FrameMasked,
    Started,
    TextWritten,
    Tracked,
    Waiting,
    WorkCancelled,
)
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.web.render import conversation_html
from unipixel.demos.web.views import next_revision, session_path

# More frequent updates are not visible, and take CPU time from the model.
_MIN_SECONDS_BETWEEN_FRAMES = 0.25


class ProgressReporter:
    """Converts the events of one piece of work to values of components."""

    def __init__(self, user_session: UserSession, question: str | None) -> None:
        """Create a reporter before the first event.

        Args:
            user_session: The session.
            question: The question; None when objects are tracked only.
        """
        self._user_session, self._question = user_session, question
        self._turns = user_session.history
        self._names = {item.id: item.name for item in user_session.objects()}
        self._text, self._status, self._cancel_message = "", "", ""
        self._last_frame_at = 0.0
        self._is_done = False

    def notify(self, event: Event) -> dict[str, Any]:
        """Return the values that an event changes, by component: conversation, result, question_error and stop."""
        values: dict[str, Any] = {}
        if isinstance(event, Answered | Tracked):
            self._is_done = True
            return values
        if isinstance(event, WorkCancelled):
            self._cancel_message = f"Stopped: {event.reason}."
            return values
        if isinstance(event, Waiting):
            self._status = f"Waiting: number {event.position} in the queue."
            values["stop"] = gr.update(interactive=True)
        elif isinstance(event, Started):
            self._status = "Reading the video…" if self._question else "Tracking…"
            values |= {"question_error": "", "stop": gr.update(interactive=True)}
        elif isinstance(event, TextWritten):
            self._text, self._status = event.text, "…"
        elif isinstance(event, FrameMasked):
            self._status = f"Masks: {event.num_done} of {event.num_frames} frames"
            now = time.monotonic()
            if now - self._last_frame_at < _MIN_SECONDS_BETWEEN_FRAMES and event.num_done < event.num_frames:
                return values
            self._last_frame_at = now
            values["result"] = self._result(event)
        pending = None if self._question is None else (self._question, self._text)
        values["conversation"] = conversation_html(self._turns, names=self._names, pending=pending, status=self._status)
        return values

    def end(self) -> dict[str, Any]:
        """Return the values that differ from the idle view of the session after the last event."""
        if self._is_done:
            return {"question": ""} if self._question else {}
        return {"conversation": conversation_html(self._turns, names=self._names, status=self._cancel_message)}

    def _result(self, event: FrameMasked) -> dict[str, Any]:
        return {
            "kind": "working",
            "base": session_path(self._user_session.key),
            "revision": next_revision(),
            "frame": event.frame_index,
            "done": event.num_done,
            "total": event.num_frames,
            "status": self._status,
        }
