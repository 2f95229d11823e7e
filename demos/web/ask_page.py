"""The page "Ask about a video": components and events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from unipixel.demos.errors import DemoError, QuestionError
from unipixel.demos.limits import Limits
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.events import Event
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.web.brush_mask import read_brush_mask
from unipixel.demos.web.examples import EXAMPLES, DemoExample, example_file
from unipixel.demos.web.progress_reporter import ProgressReporter
from unipixel.demos.web.render import conversation_html, error_html
from unipixel.demos.web.views import session_view
from unipixel.demos.web.widgets import panel, script_widget, static_html

_NANO_NOTE = (
    '<p class="up-note"><b>The bundled model was trained on synthetic shapes only.</b> It can answer the examples. On '
    "your own videos, click an object and choose <b>Track</b>; for questions about real videos, start a larger model: "
    "<code>unipixel demo --model PolyU-ChenLab/UniPixel-3B</code></p>"
)
Updates = dict[Any, Any]


class AskPage:
    """Components and events of the page; all state is in the user sessions.

    Attributes:
        outputs: Components that may change.
    """

    def __init__(self, store: SessionStore, upload_receiver: UploadReceiver, *, limits: Limits, scratch: Path) -> None:
        """Create the page.

        Args:
            store: The sessions.
            upload_receiver: Receives uploads.
            limits: Limits of the sessions.
            scratch: A private folder for examples.
        """
        self._store, self._upload_receiver, self._limits, self._scratch = store, upload_receiver, limits, scratch
        self.outputs: list[Any] = []

    def build(self, key: gr.State, *, is_nano: bool) -> None:
        """Create the components and connect their events; called within `gr.Blocks`.

        Args:
            key: Contains the session's key.
            is_nano: Whether the model is the bundled one, which was trained on synthetic shapes only.
        """
        if is_nano:
            static_html(_NANO_NOTE)
        self._session_error = panel()
        with gr.Row(elem_classes="up-columns"):
            with gr.Column(scale=3, min_width=340):
                self._upload = script_widget("upload.js", classes="up-upload", label="Upload")
                with gr.Row(elem_classes="up-examples"):
                    static_html("<small>Try an example:</small>")
                    examples = [gr.Button(item.title, size="sm", elem_classes="up-example") for item in EXAMPLES]
                self._editor = script_widget("editor.js", classes="up-editor", label="Frame")
                self._timeline = panel()
                static_html("<h3>Result</h3>", elem_classes="up-order-2")
                self._result = script_widget(
                    "result.js", classes="up-result", label="Result", elem_classes="up-order-2"
                )
            with gr.Column(scale=2, min_width=320):
                static_html("<h3>Objects</h3>")
                self._objects = panel()
                self._object_error = panel()
                static_html("<h3>Conversation</h3>")
                self._conversation = panel(conversation_html([]), max_height=420)
                self._question = gr.Textbox(
                    label="Question or phrase",
                    placeholder="Ask: What is [1] doing?   Segment: the blue circle",
                    lines=1,
                    max_lines=4,
                    elem_id="up-question",
                )
                self._question_error = panel()
                with gr.Row(elem_classes="up-actions"):
                    ask = gr.Button("Ask", variant="primary", elem_id="up-ask", min_width=70)
                    segment = gr.Button("Segment", elem_id="up-segment", min_width=70)
                    track = gr.Button("Track", elem_id="up-track", min_width=70)
                    self._stop = gr.Button("Stop", elem_id="up-stop", min_width=70, interactive=False)
                static_html("<h3>Downloads</h3>", elem_classes="up-order-3")
                self._downloads = panel(elem_classes="up-order-3")
        self.outputs = [
            self._upload, self._editor, self._result, self._objects, self._timeline, self._conversation,
            self._downloads, self._question_error, self._object_error, self._session_error, self._question, self._stop,
        ]  # fmt: skip
        self._progress_components = {
            "conversation": self._conversation,
            "result": self._result,
            "question": self._question,
            "question_error": self._question_error,
            "stop": self._stop,
        }
        self._connect(key, examples, ask=ask, segment=segment, track=track)

    def _connect(self, key: gr.State, examples: list[gr.Button], *, ask: Any, segment: Any, track: Any) -> None:
        options: dict[str, Any] = {
            "outputs": self.outputs,
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        self._upload.uploaded(self._load_upload, [key], **options)
        self._editor.point(self._add_point, [key], **options)
        self._editor.box(self._add_box, [key], **options)
        self._editor.mask(self._add_mask, [key], **options)
        self._editor.undo(self._undo, [key], **options)
        self._objects.act(self._edit_object, [key], **options)
        gr.on([ask.click, self._question.submit], self._ask, [key, self._question], **options)
        segment.click(self._segment, [key, self._question], **options)
        track.click(self._track, [key], **options)
        # Not queued: it must not wait for the work that it stops.
        self._stop.click(self._cancel, [key], None, queue=False, show_progress="hidden", api_visibility="private")
        for button, example in zip(examples, EXAMPLES, strict=True):
            button.click(self._run_example(example), [key], **options)

    def show(
        self, user_session: UserSession, *, errors: dict[str, str] | None = None, selected: int | None = None
    ) -> Updates:
        """Return the values of all components for a session.

        Args:
            user_session: The session.
            errors: Messages by the field of `DemoError`.
            selected: Object that the next click is added to; None for no change.
        """
        view = session_view(user_session, limits=self._limits, errors=errors, selected=selected)
        return {
            self._upload: view.upload,
            self._editor: view.editor,
            self._result: view.result,
            self._objects: view.objects,
            self._timeline: view.timeline,
            self._conversation: view.conversation,
            self._downloads: view.downloads,
            self._question_error: view.errors["question"],
            self._object_error: view.errors["object"],
            self._session_error: view.errors["session"],
            self._stop: gr.update(interactive=False),
        }

    def _change(self, key: str, change: Callable[[UserSession], int | None]) -> Updates:
        """Change a session, and return its view or the error; the change returns the selected object."""
        user_session = None
        try:
            user_session = self._store.get(key)
            return self.show(user_session, selected=change(user_session))
        except DemoError as error:
            return self._show_error(user_session, error)

    def _show_error(self, user_session: UserSession | None, error: DemoError) -> Updates:
        """Show an error beside the field that caused it."""
        if user_session is None or user_session.lifecycle.is_closed:
            return {self._session_error: error_html(str(error))}
        if user_session.lifecycle.is_busy:  # keep the progress on the page
            return {self._session_error: error_html(str(error)), self._stop: gr.update(interactive=True)}
        return self.show(user_session, errors={error.field: str(error)})

    def _load_upload(self, key: str) -> Updates:
        def load(user_session: UserSession) -> int:
            with self._upload_receiver.taken(key) as received:
                user_session.load(received.path, name=received.name)
            return 0

        return self._change(key, load)

    def _add_point(self, key: str, event: gr.EventData) -> Updates:
        def add(user_session: UserSession) -> int:
            return user_session.prompts.add_point(
                int(event.object_id), event.x, event.y, int(event.frame), is_positive=bool(event.is_positive)
            )

        return self._change(key, add)

    def _add_box(self, key: str, event: gr.EventData) -> Updates:
        def add(user_session: UserSession) -> int:
            box = (event.left, event.top, event.right, event.bottom)
            return user_session.prompts.add_box(int(event.object_id), box, int(event.frame))

        return self._change(key, add)

    def _add_mask(self, key: str, event: gr.EventData) -> Updates:
        def add(user_session: UserSession) -> int:
            info = user_session.lifecycle.loaded().info
            mask = read_brush_mask(event.png, size=(info.width, info.height))
            return user_session.prompts.add_mask(int(event.object_id), mask, int(event.frame))

        return self._change(key, add)

    def _undo(self, key: str) -> Updates:
        return self._change(key, lambda user_session: user_session.prompts.undo())

    def _edit_object(self, key: str, event: gr.EventData) -> Updates:
        def edit(user_session: UserSession) -> None:
            if event.action == "rename":
                user_session.prompts.rename(int(event.object_id), str(event.name))
            else:
                user_session.prompts.forget(int(event.object_id))

        return self._change(key, edit)

    def _cancel(self, key: str) -> None:
        self._store.get(key).lifecycle.cancel()

    def _ask(self, key: str, question: str) -> Iterator[Updates]:
        yield from self._work(key, lambda user_session: user_session.ask(question), question)

    def _segment(self, key: str, query: str) -> Iterator[Updates]:
        yield from self._work(key, lambda user_session: user_session.segment(query), query)

    def _track(self, key: str) -> Iterator[Updates]:
        def track(user_session: UserSession) -> Iterator[Event]:
            if not any(item.has_pending_prompts for item in user_session.objects()):
                raise QuestionError("there is no new object to track: click one in the frame first")
            return user_session.track()

        yield from self._work(key, track, None)

    def _run_example(self, example: DemoExample) -> Callable[[str], Iterator[Updates]]:
        def run(key: str) -> Iterator[Updates]:
            is_loaded = False

            def load(user_session: UserSession) -> int:
                nonlocal is_loaded
                user_session.load(example_file(example, self._scratch), name=example.name, is_trusted=True)
                if example.point is not None:
                    user_session.prompts.add_point(1, *example.point)
                is_loaded = True
                return 0

            yield self._change(key, load)
            if is_loaded:
                work = self._ask if example.method == "ask" else self._segment
                yield from work(key, example.text)

        return run

    def _work(
        self, key: str, begin: Callable[[UserSession], Iterator[Event]], question: str | None
    ) -> Iterator[Updates]:
        """Run a long piece of work, and yield its progress and the final view."""
        user_session = None
        try:
            user_session = self._store.get(key)
            reporter = ProgressReporter(user_session, question)
            for event in begin(user_session):
                if values := reporter.notify(event):
                    yield self._progress_updates(values)
            yield {**self.show(user_session), **self._progress_updates(reporter.end())}
        except DemoError as error:
            yield self._show_error(user_session, error)

    def _progress_updates(self, values: dict[str, Any]) -> Updates:
        return {self._progress_components[name]: value for name, value in values.items()}
