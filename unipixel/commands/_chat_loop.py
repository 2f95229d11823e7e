"""The conversation of `unipixel chat`."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unipixel.commands._options import PROMPT_FORMS, load_model, session_settings
from unipixel.commands._prompts import marks, parse_prompt, read_prompts
from unipixel.commands._results import ResultWriter
from unipixel.processing.clip_layout import recall_prompt
from unipixel.session.session import Session
from unipixel.video.open import open_video

if TYPE_CHECKING:
    from unipixel.output.overlay import PromptMark
    from unipixel.session.base_session import Answer
    from unipixel.session.callbacks import TextCallback

_ERRORS = (ValueError, TypeError, OSError, LookupError)
_SHOWN_PROMPT = "> "

HELP = f"""\
QUESTION                        ask; [ID] names an object
/segment TEXT                   find what a text means
/point {PROMPT_FORMS["point"]:24} click on an object
/not-point {PROMPT_FORMS["not-point"]:20} click beside it
/box {PROMPT_FORMS["box"]:26} put a box around it
/mask {PROMPT_FORMS["mask"]:25} give its mask
/objects                        list the objects
/forget ID                      forget one
/save DIR                       write result.json, overlay and masks
/help                           this list
/quit                           end"""


class Chat:
    """A session that is driven by lines of text."""

    def __init__(self, arguments: argparse.Namespace, session: Session) -> None:
        """Start a conversation.

        Args:
            arguments: Options of the command.
            session: About a video.
        """
        self._arguments, self._session = arguments, session
        self._turns: list[tuple[str, str]] = []
        self._timings: dict[str, float] = {}
        self._started = time.perf_counter()
        self._commands: dict[str, Callable[[str], None]] = {
            "segment": self._segment,
            **{kind: self._prompter(kind) for kind in PROMPT_FORMS},
            "objects": self._list_objects,
            "forget": self._forget,
            "save": self._save,
            "help": lambda _: print(HELP),
        }

    @classmethod
    def open(cls, arguments: argparse.Namespace) -> Chat:
        """Open the video and load the model.

        Raises:
            ValueError: An option is out of range, or a prompt is not on the video.
            OSError: The video or the model cannot be used.
        """
        prompts, settings = read_prompts(arguments), session_settings(arguments)
        video = open_video(arguments.video, max_frames=arguments.max_frames)
        session = Session(*load_model(arguments), video, settings=settings)
        for object_id, own in prompts.items():
            session.prompt(object_id, *own)
        return cls(arguments, session)

    def run(self) -> None:
        """Read lines until /quit or the end of the input; an error is one line, and the next line is read."""
        for line in _lines():
            if line == "/quit":
                return
            try:
                self.take(line)
            except _ERRORS as error:
                text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
                print(f"unipixel: {' '.join(text.split())}", file=sys.stderr, flush=True)

    def take(self, line: str) -> None:
        """Do what a line says.

        Raises:
            ValueError: It cannot be done as it is written.
            LookupError: It names an unknown object.
            OSError: A file cannot be read or written.
        """
        if not line.startswith("/"):
            self._answer(line, self._session.ask)
            return
        name, _, rest = line[1:].partition(" ")
        if name not in self._commands:
            raise ValueError(f"/{name} is unknown: allowed are /{', /'.join(self._commands)} and /quit")
        self._commands[name](rest.strip())

    def _segment(self, text: str) -> None:
        self._answer(text, self._session.segment)

    def _answer(self, text: str, ask: Callable[..., Answer]) -> None:
        """Put a question, and print the answer: as it is written on a terminal, else whole."""
        echo = _Echo() if sys.stdout.isatty() else None
        sink: TextCallback | None = echo.write if echo else None
        try:
            answer = ask(text, on_text=sink)
        finally:
            if echo is not None:
                echo.end_line()
        self._turns.append((text, answer.text))
        for stage, seconds in answer.timings_seconds.items():
            self._timings[stage] = self._timings.get(stage, 0.0) + seconds
        # Ids of new objects are known at the end only.
        if echo is None or echo.text.strip() != answer.text:
            print(answer.text, flush=True)

    def _prompter(self, kind: str) -> Callable[[str], None]:
        def prompt(text: str) -> None:
            object_id, given = parse_prompt(kind, text, sign="/")
            self._session.prompt(object_id, given)

        return prompt

    def _list_objects(self, _: str) -> None:
        scene = self._session.objects
        if not scene.known_ids:
            print("no objects yet")
        for object_id in sorted(scene.known_ids):
            if object_id not in scene.bank:
                print(f"[{object_id}] waits for the next question")
                continue
            record = scene.bank[object_id]
            looks = [look.is_visible for _, look in scene.bank.mask_records(object_id)]
            name = f' "{record.expression}"' if record.expression else ""
            waits = ", corrected at the next question" if object_id in scene.pending_prompts else ""
            print(f"[{object_id}] {record.source}{name}: visible in {sum(looks)} of {len(looks)} frames{waits}")

    def _forget(self, text: str) -> None:
        if not text.isdecimal():
            raise ValueError(f"/forget {text!r} names no object: give an id, as in /forget 1")
        self._session.forget(int(text))

    def _save(self, text: str) -> None:
        if not text:
            raise ValueError("/save needs a folder, as in /save result")
        scene = self._session.objects
        with ResultWriter(self._arguments, out=Path(text), davis_name=Path(self._arguments.video).stem) as writer:
            scene.track()
            result = writer.start(
                scene,
                prompts=self._marks(),
                model=str(self._arguments.model),
                question="\n".join(question for question, _ in self._turns) or None,
                answer="\n".join(answer for _, answer in self._turns) or None,
            )
            writer.write_video(scene)
            result.timings_seconds |= {**self._timings, "total": time.perf_counter() - self._started}
        print(f"results in {text}", file=sys.stderr)

    def _marks(self) -> list[PromptMark]:
        bank = self._session.bank
        return marks(
            (object_id, recall_prompt(record, frame_size=bank.frame_size))
            for object_id in bank.ids
            for record in bank[object_id].prompts
        )


class _Echo:
    """Shows an answer on a terminal while it is written."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, piece: str) -> None:
        self.text += piece
        print(piece, end="", flush=True)

    def end_line(self) -> None:
        if self.text:
            print(flush=True)


def _lines() -> Iterator[str]:
    """Yield the lines of stdin that are not blank; a prompt is shown on a terminal only."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        # A stray byte must not end the conversation.
        sys.stdin.reconfigure(errors="replace")
    shown = _SHOWN_PROMPT if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(shown).strip()
        except EOFError:
            return
        if line:
            yield line
