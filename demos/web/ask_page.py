"""The page "Ask about a video": layout, and what happens when a visitor does something."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from unipixel.demos.limits import Limits
from unipixel.demos.security.upload_receiver import Reception
from unipixel.demos.sessions.errors import QuestionError, VisitorError
from unipixel.demos.sessions.events import Event
from unipixel.demos.sessions.session_store import VisitorStore
from unipixel.demos.sessions.user_session import Visitor
from unipixel.demos.web.brush_mask import read_painted
from unipixel.demos.web.examples import EXAMPLES, Example, example_file
from unipixel.demos.web.progress_reporter import Narration
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

    def __init__(self, store: VisitorStore, reception: Reception, *, limits: Limits, scratch: Path) -> None:
        """Keep what the events need.

        Args:
            store: The visitors.
            reception: Where uploads arrive.
            limits: What visitors are granted.
            scratch: A private folder for examples.
        """
        self._store, self._reception, self._limits, self._scratch = store, reception, limits, scratch
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

    def show(self, visitor: Visitor, *, errors: dict[str, str] | None = None, selected: int | None = None) -> Updates:
        """Return every component as it should look now.

        Args:
            visitor: The session.
            errors: Messages by field.
            selected: Object that the next click belongs to.
        """
        view = view_of(visitor, limits=self._limits, errors=errors, selected=selected)
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

    def _change(self, key: str, act: Callable[[Visitor], int | None]) -> Updates:
        """Do something quick to a session, and show it or why it cannot be done."""
        visitor = None
        try:
            visitor = self._store.get(key)
            return self.show(visitor, selected=act(visitor))
        except VisitorError as error:
            return self._refused(visitor, error)

    def _refused(self, visitor: Visitor | None, error: VisitorError) -> Updates:
        """Show a session, and beside the field that caused it, why something cannot be done."""
        if visitor is None or visitor.is_closed:
            return {self._session_error: error_html(str(error))}
        if visitor.is_busy:  # what the work shows on the page stays
            return {self._session_error: error_html(str(error)), self._stop: gr.update(interactive=True)}
        return self.show(visitor, errors={error.field: str(error)})

    def _take_upload(self, key: str) -> Updates:
        def load(visitor: Visitor) -> int:
            with self._reception.taken(key) as received:
                visitor.load(received.path, name=received.name)
            return 0

        return self._change(key, load)

    def _point(self, key: str, event: gr.EventData) -> Updates:
        def point(visitor: Visitor) -> int:
            chosen = int(event.object_id) or visitor.next_id()
            visitor.point(chosen, event.x, event.y, int(event.frame), is_positive=bool(event.is_positive))
            return chosen

        return self._change(key, point)

    def _box(self, key: str, event: gr.EventData) -> Updates:
        def box(visitor: Visitor) -> int:
            chosen = int(event.object_id) or visitor.next_id()
            visitor.box(chosen, (event.left, event.top, event.right, event.bottom), int(event.frame))
            return chosen

        return self._change(key, box)

    def _mask(self, key: str, event: gr.EventData) -> Updates:
        def mask(visitor: Visitor) -> int:
            chosen = int(event.object_id) or visitor.next_id()
            info = visitor.info
            size = (info.width, info.height) if info else (0, 0)
            visitor.mask(chosen, read_painted(event.png, size=size), int(event.frame))
            return chosen

        return self._change(key, mask)

    def _undo(self, key: str) -> Updates:
        return self._change(key, lambda visitor: visitor.undo())

    def _act(self, key: str, event: gr.EventData) -> Updates:
        def act(visitor: Visitor) -> None:
            if event.what == "rename":
                visitor.rename(int(event.object_id), str(event.name))
            else:
                visitor.forget(int(event.object_id))

        return self._change(key, act)

    def _cancel(self, key: str) -> None:
        self._store.get(key).cancel()

    def _ask(self, key: str, question: str) -> Iterator[Updates]:
        yield from self._work(key, lambda visitor: visitor.ask(question), question)

    def _find(self, key: str, question: str) -> Iterator[Updates]:
        yield from self._work(key, lambda visitor: visitor.segment(question), question)

    def _follow(self, key: str) -> Iterator[Updates]:
        def track(visitor: Visitor) -> Iterator[Event]:
            if not any(item.is_waiting for item in visitor.objects()):
                raise QuestionError("there is nothing new to follow: click an object in the picture first")
            return visitor.track()

        yield from self._work(key, track, None)

    def _run_example(self, example: Example) -> Callable[[str], Iterator[Updates]]:
        def run(key: str) -> Iterator[Updates]:
            def load(visitor: Visitor) -> int:
                path = example_file(example, self._scratch)
                visitor.load(path, name=example.name, is_trusted=True)
                if example.point is not None:
                    visitor.point(1, *example.point)
                return 0

            is_loaded = False

            def load_first(visitor: Visitor) -> int:
                nonlocal is_loaded
                selected = load(visitor)
                is_loaded = True
                return selected

            yield self._change(key, load_first)
            if not is_loaded:
                return
            if example.verb == "ask":
                yield from self._work(key, lambda visitor: visitor.ask(example.question), example.question)
            else:
                yield from self._work(key, lambda visitor: visitor.segment(example.question), example.question)

        return run

    def _work(self, key: str, begin: Callable[[Visitor], Iterator[Event]], question: str | None) -> Iterator[Updates]:
        """Tell how a long piece of work goes, as it goes."""
        visitor = None
        try:
            visitor = self._store.get(key)
            narration = Narration(visitor, question)
            for event in begin(visitor):
                if told := narration.tell(event):
                    yield {self._places[place]: value for place, value in told.items()}
            yield {**self.show(visitor), **{self._places[place]: value for place, value in narration.end().items()}}
        except VisitorError as error:
            yield self._refused(visitor, error)
