"""The page "Live": the webcam or a network source, with objects followed as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from unipixel.demos.security.network_sources import SourceRules
from unipixel.demos.sessions.errors import DemoError
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.demos.sessions.saved_session import SavedTurn
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.web.render import conversation_html, error_html, live_objects_html
from unipixel.demos.web.views import next_revision
from unipixel.demos.web.widgets import panel, script_widget, words

_MAX_TURNS = 20
_NO_TURNS = (
    '<div class="up-empty"><p><b>No questions yet.</b> Questions are answered from the last pictures, while the '
    "camera goes on.</p></div>"
)
Updates = dict[Any, Any]


class LivePage:
    """Components and events of the page."""

    def __init__(self, store: SessionStore, live: LiveStore, *, sources: SourceRules) -> None:
        """Keep what the events need.

        Args:
            store: The visitors, whose keys open live sessions.
            live: The live sessions.
            sources: Addresses that may be watched.
        """
        self._store, self._live, self._sources = store, live, sources

    def build(self, key: gr.State) -> None:
        """Lay the page out and connect it; called within `gr.Blocks`.

        Args:
            key: Holds the visitor's key.
        """
        self._turns = gr.State([])
        with gr.Row(elem_classes="up-columns"):
            with gr.Column(scale=3, min_width=340):
                self._view = script_widget("live.js", classes="up-live", label="Live picture")
                with gr.Row(visible=bool(self._sources.allowed)):
                    address = gr.Textbox(label="Network address", placeholder="rtsp://camera.example/stream", scale=4)
                    watch = gr.Button("Watch", scale=1, min_width=80)
                self._source_error = panel()
            with gr.Column(scale=2, min_width=320):
                words("<h3>Objects</h3>")
                self._objects = panel(live_objects_html([]))
                words("<h3>Conversation</h3>")
                self._conversation = panel(_NO_TURNS, max_height=420)
                self._question = gr.Textbox(
                    label="Question about what is seen", placeholder="What is [1] doing?", elem_id="up-live-question"
                )
                self._question_error = panel()
                ask = gr.Button("Ask", variant="primary", elem_id="up-live-ask")
        self._outputs = [
            self._view, self._source_error, self._objects, self._conversation, self._question, self._question_error,
        ]  # fmt: skip
        quiet: dict[str, Any] = {
            "outputs": self._outputs,
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        self._view.started(self._start, [key], **quiet)
        self._view.stopped(self._stop, [key], **quiet)
        self._view.point(self._point, [key], **quiet)
        self._objects.act(self._forget, [key], **quiet)
        watch.click(self._watch, [key, address], **quiet)
        asking = {**quiet, "outputs": [*self._outputs, self._turns]}
        gr.on([ask.click, self._question.submit], self._ask, [key, self._question, self._turns], **asking)

    def _show(self, key: str, user_session: LiveUserSession | None, *, running: str, errors: dict[str, str]) -> Updates:
        value = {
            "base": f"live/{key}",
            "running": running,
            "stamp": next_revision(),
            "error": errors.get("prompt", "")
            or errors.get("session", "")
            or (user_session.error if user_session else ""),
        }
        return {
            self._view: value,
            self._source_error: error_html(errors.get("source", "")),
            self._question_error: error_html(errors.get("question", "")),
            self._objects: live_objects_html(user_session.object_ids if user_session else []),
        }

    def _act(self, key: str, act: Callable[[LiveUserSession], object], *, running: str | None = None) -> Updates:
        """Do something to a live session, and show it or why it cannot be done."""
        user_session = None
        try:
            self._store.get(key)
            user_session = self._live.open(key)
            act(user_session)
        except DemoError as error:
            before = user_session.running if user_session else ""
            return self._show(key, user_session, running=before, errors={error.field: str(error)})
        if running is not None:
            user_session.running = running
        return self._show(key, user_session, running=user_session.running, errors={})

    def _start(self, key: str) -> Updates:
        return self._act(key, lambda user_session: user_session.stop(), running="camera")

    def _stop(self, key: str) -> Updates:
        updates = self._act(key, lambda user_session: user_session.stop(), running="")
        self._live.close(key)
        return updates

    def _point(self, key: str, event: gr.EventData) -> Updates:
        return self._act(key, lambda user_session: user_session.point(0, event.x, event.y))

    def _forget(self, key: str, event: gr.EventData) -> Updates:
        return self._act(key, lambda user_session: user_session.forget(int(event.object_id)))

    def _watch(self, key: str, address: str) -> Updates:
        def watch(user_session: LiveUserSession) -> None:
            video = self._sources.open(address)
            user_session.watch(video, close=video.close)

        return self._act(key, watch, running="source")

    def _ask(self, key: str, question: str, turns: list[tuple[str, str]]) -> Iterator[Updates]:
        told = [SavedTurn(*turn) for turn in turns]
        text = ""
        try:
            self._store.get(key)
            for text in self._live.open(key).ask(question):
                yield {self._conversation: conversation_html(told, pending=(question, text), status="…")}
        except DemoError as error:
            yield {
                self._question_error: error_html(str(error)),
                self._conversation: conversation_html(told),
            }
            return
        kept = [*turns, (question, text)][-_MAX_TURNS:]
        yield {
            self._turns: kept,
            self._question_error: "",
            self._question: "",
            self._conversation: conversation_html([SavedTurn(*turn) for turn in kept]),
            self._objects: live_objects_html(self._live.open(key).object_ids),
        }
