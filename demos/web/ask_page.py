"""The page "Ask about a video": layout, and what happens when a visitor does something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from unipixel.demos.limits import Limits
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.errors import DemoError, QuestionError
from unipixel.demos.sessions.events import Event
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.web.brush_mask import read_brush_mask
from unipixel.demos.web.examples import EXAMPLES, DemoExample, example_file
from unipixel.demos.web.progress_reporter import ProgressReporter
from unipixel.demos.web.render import conversation_html, error_html
from unipixel.demos.web.views import view_of
from unipixel.demos.web.widgets import panel, script_widget, words

_NANO_NOTE = (
    '<p class="up-note"><b>The bundled model knows drawn shapes only.</b> It answers about the examples. On your own '
    "videos, click an object and choose <b>Follow</b>; for questions about anything, start a larger model: "
    "<code>unipixel demo --model PolyU-ChenLab/UniPixel-3B</code></p>"
)
Updates = dict[Any, Any]


class AskPage:
    """Components and events of the page; all state is in the visitors' sessions.

    Attributes:
        outputs: Components that may change.
    """

    def __init__(self, store: SessionStore, upload_receiver: UploadReceiver, *, limits: Limits, scratch: Path) -> None:
        """Keep what the events need.

        Args:
            store: The visitors.
            upload_receiver: Where uploads arrive.
            limits: What visitors are granted.
            scratch: A private folder for examples.
        """
        self._store, self._upload_receiver, self._limits, self._scratch = store, upload_receiver, limits, scratch
        self.outputs: list[Any] = []

    def build(self, key: gr.State, *, is_nano: bool) -> None:
        """Lay the page out and connect it; called within `gr.Blocks`.

        Args:
            key: Holds the visitor's key.
            is_nano: Whether the model knows drawn shapes only.
        """
        if is_nano:
            words(_NANO_NOTE)
        self._session_error = panel()
        with gr.Row(elem_classes="up-columns"):
            with gr.Column(scale=3, min_width=340):
                self._upload = script_widget("upload.js", classes="up-upload", label="Upload")
                with gr.Row(elem_classes="up-examples"):
                    words("<small>Try an example:</small>")
                    examples = [gr.Button(item.title, size="sm", elem_classes="up-example") for item in EXAMPLES]
                self._stage = script_widget("stage.js", classes="up-stage", label="Picture")
                self._timeline = panel()
                words("<h3>With masks</h3>", elem_classes="up-late")
                self._result = script_widget(
                    "result.js", classes="up-result", label="With masks", elem_classes="up-late"
                )
            with gr.Column(scale=2, min_width=320):
                words("<h3>Objects</h3>")
                self._objects = panel()
                self._object_error = panel()
                words("<h3>Conversation</h3>")
                self._conversation = panel(conversation_html([]), max_height=420)
                self._question = gr.Textbox(
                    label="Question",
                    placeholder="What is [1] doing?   or, to find:   the blue circle",
                    lines=1,
                    max_lines=4,
                    elem_id="up-question",
                )
                self._question_error = panel()
                with gr.Row(elem_classes="up-actions"):
                    ask = gr.Button("Ask", variant="primary", elem_id="up-ask", min_width=70)
                    find = gr.Button("Find", elem_id="up-find", min_width=70)
                    follow = gr.Button("Follow", elem_id="up-follow", min_width=70)
                    self._stop = gr.Button("Stop", elem_id="up-stop", min_width=70, interactive=False)
                words("<h3>Take it with you</h3>", elem_classes="up-last")
                self._downloads = panel(elem_classes="up-last")
        self.outputs = [
            self._upload, self._stage, self._result, self._objects, self._timeline, self._conversation,
            self._downloads, self._question_error, self._object_error, self._session_error, self._question, self._stop,
        ]  # fmt: skip
        self._places = {
            "conversation": self._conversation,
            "result": self._result,
            "question": self._question,
            "question_error": self._question_error,
            "stop": self._stop,
        }
        self._connect(key, examples, ask=ask, find=find, follow=follow)

    def _connect(self, key: gr.State, examples: list[gr.Button], *, ask: Any, find: Any, follow: Any) -> None:
        quiet: dict[str, Any] = {
            "outputs": self.outputs,
            "show_progress": "hidden",
            "api_visibility": "private",
            "concurrency_limit": None,
        }
        self._upload.uploaded(self._take_upload, [key], **quiet)
        self._stage.point(self._point, [key], **quiet)
        self._stage.box(self._box, [key], **quiet)
        self._stage.mask(self._mask, [key], **quiet)
        self._stage.undo(self._undo, [key], **quiet)
        self._objects.act(self._act, [key], **quiet)
        gr.on([ask.click, self._question.submit], self._ask, [key, self._question], **quiet)
        find.click(self._find, [key, self._question], **quiet)
        follow.click(self._follow, [key], **quiet)
        # Not queued: stopping must not wait for what it stops.
        self._stop.click(self._cancel, [key], None, queue=False, show_progress="hidden", api_visibility="private")
        for button, example in zip(examples, EXAMPLES, strict=True):
            button.click(self._run_example(example), [key], **quiet)

    def show(
        self, user_session: UserSession, *, errors: dict[str, str] | None = None, selected: int | None = None
    ) -> Updates:
        """Return every component as it should look now.

        Args:
            user_session: The session.
            errors: Messages by field.
            selected: Object that the next click belongs to.
        """
        view = view_of(user_session, limits=self._limits, errors=errors, selected=selected)
        return {
            self._upload: view.upload,
            self._stage: view.stage,
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

    def _change(self, key: str, act: Callable[[UserSession], int | None]) -> Updates:
        """Do something quick to a session, and show it or why it cannot be done."""
        user_session = None
        try:
            user_session = self._store.get(key)
            return self.show(user_session, selected=act(user_session))
        except DemoError as error:
            return self._refused(user_session, error)

    def _refused(self, user_session: UserSession | None, error: DemoError) -> Updates:
        """Show a session, and beside the field that caused it, why something cannot be done."""
        if user_session is None or user_session.is_closed:
            return {self._session_error: error_html(str(error))}
        if user_session.is_busy:  # what the work shows on the page stays
            return {self._session_error: error_html(str(error)), self._stop: gr.update(interactive=True)}
        return self.show(user_session, errors={error.field: str(error)})

    def _take_upload(self, key: str) -> Updates:
        def load(user_session: UserSession) -> int:
            with self._upload_receiver.taken(key) as received:
                user_session.load(received.path, name=received.name)
            return 0

        return self._change(key, load)

    def _point(self, key: str, event: gr.EventData) -> Updates:
        def point(user_session: UserSession) -> int:
            chosen = int(event.object_id) or user_session.next_id()
            user_session.point(chosen, event.x, event.y, int(event.frame), is_positive=bool(event.is_positive))
            return chosen

        return self._change(key, point)

    def _box(self, key: str, event: gr.EventData) -> Updates:
        def box(user_session: UserSession) -> int:
            chosen = int(event.object_id) or user_session.next_id()
            user_session.box(chosen, (event.left, event.top, event.right, event.bottom), int(event.frame))
            return chosen

        return self._change(key, box)

    def _mask(self, key: str, event: gr.EventData) -> Updates:
        def mask(user_session: UserSession) -> int:
            chosen = int(event.object_id) or user_session.next_id()
            info = user_session.info
            size = (info.width, info.height) if info else (0, 0)
            user_session.mask(chosen, read_brush_mask(event.png, size=size), int(event.frame))
            return chosen

        return self._change(key, mask)

    def _undo(self, key: str) -> Updates:
        return self._change(key, lambda user_session: user_session.undo())

    def _act(self, key: str, event: gr.EventData) -> Updates:
        def act(user_session: UserSession) -> None:
            if event.what == "rename":
                user_session.rename(int(event.object_id), str(event.name))
            else:
                user_session.forget(int(event.object_id))

        return self._change(key, act)

    def _cancel(self, key: str) -> None:
        self._store.get(key).cancel()

    def _ask(self, key: str, question: str) -> Iterator[Updates]:
        yield from self._work(key, lambda user_session: user_session.ask(question), question)

    def _find(self, key: str, question: str) -> Iterator[Updates]:
        yield from self._work(key, lambda user_session: user_session.segment(question), question)

    def _follow(self, key: str) -> Iterator[Updates]:
        def track(user_session: UserSession) -> Iterator[Event]:
            if not any(item.is_waiting for item in user_session.objects()):
                raise QuestionError("there is nothing new to follow: click an object in the picture first")
            return user_session.track()

        yield from self._work(key, track, None)

    def _run_example(self, example: DemoExample) -> Callable[[str], Iterator[Updates]]:
        def run(key: str) -> Iterator[Updates]:
            def load(user_session: UserSession) -> int:
                path = example_file(example, self._scratch)
                user_session.load(path, name=example.name, is_trusted=True)
                if example.point is not None:
                    user_session.point(1, *example.point)
                return 0

            is_loaded = False

            def load_first(user_session: UserSession) -> int:
                nonlocal is_loaded
                selected = load(user_session)
                is_loaded = True
                return selected

            yield self._change(key, load_first)
            if not is_loaded:
                return
            if example.verb == "ask":
                yield from self._work(key, lambda user_session: user_session.ask(example.question), example.question)
            else:
                yield from self._work(
                    key, lambda user_session: user_session.segment(example.question), example.question
                )

        return run

    def _work(
        self, key: str, begin: Callable[[UserSession], Iterator[Event]], question: str | None
    ) -> Iterator[Updates]:
        """Tell how a long piece of work goes, as it goes."""
        user_session = None
        try:
            user_session = self._store.get(key)
            reporter = ProgressReporter(user_session, question)
            for event in begin(user_session):
                if told := reporter.notify(event):
                    yield {self._places[place]: value for place, value in told.items()}
            yield {**self.show(user_session), **{self._places[place]: value for place, value in reporter.end().items()}}
        except DemoError as error:
            yield self._refused(user_session, error)
