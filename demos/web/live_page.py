"""The page "Live": tracking and questions on a webcam or a network source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from unipixel.demos.errors import DemoError
from unipixel.demos.security.network_sources import SourceRules
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.demos.sessions.saved_session import SavedTurn
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.web.render import conversation_html, error_html, live_objects_html
from unipixel.demos.web.views import next_revision
from unipixel.demos.web.widgets import panel, script_widget, static_html

_MAX_TURNS = 20
_NO_TURNS = (
    '<div class="up-empty"><p><b>No questions yet.</b> Questions are answered from the latest frames while the '
    "camera runs.</p></div>"
)
Updates = dict[Any, Any]


class LivePage:
    """Components and events of the page."""

    def __init__(self, store: SessionStore, live: LiveStore, *, sources: SourceRules) -> None:
        """Create the page.

        Args:
            store: The sessions, whose keys open live sessions.
            live: The live sessions.
            sources: Network sources that may be watched.
        """
        self._store, self._live, self._sources = store, live, sources

    def build(self, key: gr.State) -> None:
        """Create the components and connect their events; called within `gr.Blocks`.

        Args:
            key: Contains the session's key.
        """
        self._turns = gr.State([])
        with gr.Row(elem_classes="up-columns"):
            with gr.Column(scale=3, min_width=340):
                self._view = script_widget("live.js", classes="up-live", label="Live video")
                with gr.Row(visible=bool(self._sources.allowed)):
                    address = gr.Textbox(label="Network address", placeholder="rtsp://camera.example/stream", scale=4)
                    watch = gr.Button("Watch", scale=1, min_width=80)
                self._source_error = panel()
            with gr.Column(scale=2, min_width=320):
                static_html("<h3>Objects</h3>")
                self._objects = panel(live_objects_html([]))
                static_html("<h3>Conversation</h3>")
                self._conversation = panel(_NO_TURNS, max_height=420)
                self._question = gr.Textbox(
                    label="Question about the live video", placeholder="What is [1] doing?", elem_id="up-live-question"
                )
                self._question_error = panel()
                ask = gr.Button("Ask", variant="primary", elem_id="up-live-ask")
        self._outputs = [
            self._view, self._source_error, self._objects, self._conversation, self._question, self._question_error,
        ]  # fmt: skip
        options: dict[str, Any] = {
            "outputs": self._outputs,
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        self._view.started(self._start, [key], **options)
        self._view.stopped(self._stop, [key], **options)
        self._view.point(self._add_point, [key], **options)
        self._objects.act(self._forget, [key], **options)
        watch.click(self._watch, [key, address], **options)
        ask_options = {**options, "outputs": [*self._outputs, self._turns]}
        gr.on([ask.click, self._question.submit], self._ask, [key, self._question, self._turns], **ask_options)

    def _show(self, key: str, user_session: LiveUserSession | None, *, mode: str, errors: dict[str, str]) -> Updates:
        source_error = user_session.error if user_session else ""
        value = {
            "base": f"live/{key}",
            "mode": mode,
            "revision": next_revision(),
            "error": errors.get("prompt", "") or errors.get("session", "") or source_error,
        }
        return {
            self._view: value,
            self._source_error: error_html(errors.get("source", "")),
            self._question_error: error_html(errors.get("question", "")),
            self._objects: live_objects_html(user_session.object_ids if user_session else []),
        }

    def _change(self, key: str, change: Callable[[LiveUserSession], object], *, mode: str | None = None) -> Updates:
        """Change a live session, and return its view or the error."""
        user_session = None
        try:
            self._store.get(key)
            user_session = self._live.open(key)
            change(user_session)
        except DemoError as error:
            before = user_session.mode if user_session else ""
            return self._show(key, user_session, mode=before, errors={error.field: str(error)})
        if mode is not None:
            user_session.mode = mode
        return self._show(key, user_session, mode=user_session.mode, errors={})

    def _start(self, key: str) -> Updates:
        return self._change(key, lambda user_session: user_session.reset(), mode="camera")

    def _stop(self, key: str) -> Updates:
        updates = self._change(key, lambda user_session: user_session.reset(), mode="")
        self._live.close(key)
        return updates

    def _add_point(self, key: str, event: gr.EventData) -> Updates:
        return self._change(key, lambda user_session: user_session.add_point(0, event.x, event.y))

    def _forget(self, key: str, event: gr.EventData) -> Updates:
        return self._change(key, lambda user_session: user_session.forget(int(event.object_id)))

    def _watch(self, key: str, address: str) -> Updates:
        def watch(user_session: LiveUserSession) -> None:
            video = self._sources.open(address)
            user_session.watch(video, on_end=video.close)

        return self._change(key, watch, mode="source")

    def _ask(self, key: str, question: str, turns: list[tuple[str, str]]) -> Iterator[Updates]:
        history = [SavedTurn(*turn) for turn in turns]
        text = ""
        try:
            self._store.get(key)
            for text in self._live.open(key).ask(question):
                yield {self._conversation: conversation_html(history, pending=(question, text), status="…")}
        except DemoError as error:
            yield {
                self._question_error: error_html(str(error)),
                self._conversation: conversation_html(history),
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
