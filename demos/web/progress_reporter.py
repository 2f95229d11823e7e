"""Tells on the page how a long piece of work goes."""

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
from unipixel.demos.web.views import base_of, next_revision

# A page that changes more often than this looks no smoother, and costs the model its time.
_SHOW_SECONDS = 0.25


class ProgressReporter:
    """Turns the events of one piece of work into values for places on the page."""

    def __init__(self, user_session: UserSession, question: str | None) -> None:
        """Begin before the first event.

        Args:
            user_session: The session.
            question: What was asked; None where objects are followed only.
        """
        self._user_session, self._question = user_session, question
        self._turns = user_session.history
        self._names = {item.id: item.name for item in user_session.objects()}
        self._text, self._status, self._reason = "", "", ""
        self._shown_at = 0.0
        self._is_done = False

    def notify(self, event: Event) -> dict[str, Any]:
        """Return what changes by an event: places are conversation, result, question_error and stop."""
        told: dict[str, Any] = {}
        if isinstance(event, Answered | Tracked):
            self._is_done = True
            return told
        if isinstance(event, WorkCancelled):
            self._reason = f"Stopped: {event.reason}."
            return told
        if isinstance(event, Waiting):
            self._status = f"Waiting: number {event.place} in the queue."
            told["stop"] = gr.update(interactive=True)
        elif isinstance(event, Started):
            self._status = "Reading the video…" if self._question else "Following…"
            told |= {"question_error": "", "stop": gr.update(interactive=True)}
        elif isinstance(event, TextWritten):
            self._text, self._status = event.text, "…"
        elif isinstance(event, FrameMasked):
            self._status = f"Masks: {event.num_done} of {event.num_frames} frames"
            if time.monotonic() - self._shown_at < _SHOW_SECONDS and event.num_done < event.num_frames:
                return told
            self._shown_at = time.monotonic()
            told["result"] = self._masked(event)
        pending = None if self._question is None else (self._question, self._text)
        told["conversation"] = conversation_html(self._turns, names=self._names, pending=pending, status=self._status)
        return told

    def end(self) -> dict[str, Any]:
        """Return what differs, at the end, from how the session looks by itself."""
        if self._is_done:
            return {"question": ""} if self._question else {}
        return {"conversation": conversation_html(self._turns, names=self._names, status=self._reason)}

    def _masked(self, event: FrameMasked) -> dict[str, Any]:
        return {
            "kind": "working",
            "base": base_of(self._user_session.key),
            "revision": next_revision(),
            "frame": event.frame_index,
            "done": event.num_done,
            "total": event.num_frames,
            "words": self._status,
        }
