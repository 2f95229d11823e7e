"""`unipixel chat`: a conversation about a video, with object memory."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.commands._options import (
    PROMPT_FORMS,
    add_language_options,
    add_model_options,
    add_prompt_options,
    add_result_options,
    check_model,
    describe_error,
    describe_unknown,
    load_model,
    session_settings,
)

if TYPE_CHECKING:
    from unipixel.output.overlay import PromptMark
    from unipixel.output.result import Result
    from unipixel.session.callbacks import TextCallback
    from unipixel.session.session import Session

_ERRORS = (ValueError, TypeError, OSError, LookupError)
_INPUT_PROMPT = "> "

HELP = f"""\
QUESTION                        ask; [ID] names an object
/segment TEXT                   segment what a text describes
/point {PROMPT_FORMS["point"]:24} click on an object
/not-point {PROMPT_FORMS["not-point"]:20} click outside it
/box {PROMPT_FORMS["box"]:26} draw a box around it
/mask {PROMPT_FORMS["mask"]:25} give its mask
/objects                        list the objects
/forget ID                      remove one
/save DIR                       write result.json, overlay and masks
/help                           show this list
/quit                           end"""


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel chat`."""
    parser = subparsers.add_parser(
        "chat",
        help="a conversation about a video; reads lines from stdin",
        description="Reads lines from stdin: questions, in which [ID] names an object, and commands such as "
        "/point 1:640,360@12; /help lists them. /save writes the same results as `unipixel ask --out`.",
    )
    parser.add_argument("video", metavar="VIDEO", help="file, image, or folder of frames")
    add_prompt_options(parser)
    add_language_options(parser)
    add_model_options(parser)
    group = parser.add_argument_group("output of /save")
    add_result_options(group)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run a conversation until /quit or the end of the input.

    Raises:
        ValueError: Bad input on the command line; errors of the conversation are printed there.
        OSError: The video or the model cannot be used.
    """
    Chat.open(arguments).run()
    return 0


class Chat:
    """A session that is controlled by lines of text."""

    def __init__(self, arguments: argparse.Namespace, session: Session) -> None:
        """Start a conversation.

        Args:
            arguments: Options of the command.
            session: Session about a video.
        """
        self._arguments, self._session = arguments, session
        self._turns: list[tuple[str, str]] = []
        self._timings: dict[str, float] = {}
        self._start = time.perf_counter()
        self._commands: dict[str, Callable[[str], None]] = {
            "segment": self._segment,
            **{kind: self._prompt_command(kind) for kind in PROMPT_FORMS},
            "objects": self._list_objects,
            "forget": self._forget,
            "save": self._save,
            "help": lambda _: print(HELP),
        }

    @classmethod
    def open(cls, arguments: argparse.Namespace) -> Chat:
        """Open the video and load the model.

        Raises:
            ValueError: An option is out of range, or a prompt is outside the video.
            OSError: The video or the model cannot be used.
        """
        from unipixel.commands._prompts import read_prompts
        from unipixel.processing.prompt_checks import check_prompts
        from unipixel.video.open import open_video

        prompts = read_prompts(arguments)
        video = open_video(arguments.video, max_frames=arguments.max_frames)
        check_prompts(prompts, video.info)
        check_model(arguments)
        # Imported after the checks, because torch and transformers take seconds.
        from unipixel.session.session import open_session

        settings = session_settings(arguments)
        session = open_session(*load_model(arguments), video, settings=settings)
        for object_id, object_prompts in prompts.items():
            session.prompt(object_id, *object_prompts)
        return cls(arguments, session)

    def run(self) -> None:
        """Process lines until /quit or the end of the input; an error is printed on one line."""
        for line in _lines():
            if line == "/quit":
                return
            try:
                self.process(line)
            except _ERRORS as error:
                print(f"unipixel: {describe_error(error)}", file=sys.stderr, flush=True)

    def process(self, line: str) -> None:
        """Answer a question, or run a command.

        Raises:
            ValueError: The line is invalid.
            LookupError: It names an unknown object.
            OSError: A file cannot be read or written.
        """
        if not line.startswith("/"):
            self._answer(line, self._session.ask)
            return
        name, _, rest = line[1:].partition(" ")
        if name not in self._commands:
            raise ValueError(describe_unknown("command", f"/{name}", [*(f"/{key}" for key in self._commands), "/quit"]))
        self._commands[name](rest.strip())

    def _segment(self, text: str) -> None:
        self._answer(text, self._session.segment)

    def _answer(self, text: str, ask: Callable[..., Result]) -> None:
        """Ask, and print the answer: on a terminal piece by piece, else at the end."""
        echo = _Echo() if sys.stdout.isatty() else None
        on_text: TextCallback | None = echo.write if echo else None
        try:
            answer = ask(text, on_text=on_text)
        finally:
            if echo is not None:
                echo.end_line()
        self._turns.append((text, answer.text))
        for stage, seconds in answer.timings_seconds.items():
            self._timings[stage] = self._timings.get(stage, 0.0) + seconds
        # Pixel-SAIL may answer twice when it segments; the second answer is the valid one.
        if echo is None or echo.text.strip() != answer.text:
            print(answer.text, flush=True)

    def _prompt_command(self, kind: str) -> Callable[[str], None]:
        def prompt(text: str) -> None:
            from unipixel.commands._prompts import parse_prompt

            object_id, visual_prompt = parse_prompt(kind, text, sign="/")
            self._session.prompt(object_id, visual_prompt)

        return prompt

    def _list_objects(self, _: str) -> None:
        objects = self._session.objects
        if not objects.known_ids:
            print("no objects yet")
        for object_id in sorted(objects.known_ids):
            if object_id not in objects.bank:
                print(f"[{object_id}] is segmented at the next question")
                continue
            record = objects.bank[object_id]
            visible = [mask_record.is_visible for _, mask_record in objects.bank.mask_records(object_id)]
            name = f' "{record.expression}"' if record.expression else ""
            pending = ", corrected at the next question" if object_id in objects.pending_prompts else ""
            print(f"[{object_id}] {record.source}{name}: visible in {sum(visible)} of {len(visible)} frames{pending}")

    def _forget(self, text: str) -> None:
        if not text.isdecimal():
            raise ValueError(f"/forget {text!r} names no object: give an id, as in /forget 1")
        self._session.forget(int(text))

    def _save(self, text: str) -> None:
        from unipixel.commands._running.progress import ProgressDisplay
        from unipixel.commands._running.results import (
            ResultWriter,
            check_palette_ids,
            print_warnings,
            sequence_name,
        )

        if not text:
            raise ValueError("/save needs a folder, as in /save result")
        objects = self._session.objects
        check_palette_ids(self._arguments, objects.known_ids)
        name = sequence_name(self._arguments.video)
        with ProgressDisplay() as progress, ResultWriter(self._arguments, out=Path(text), davis_name=name) as writer:
            progress.start("track")
            objects.track()
            result = writer.start(
                objects,
                prompts=self._marks(),
                model=str(self._arguments.model),
                question="\n".join(question for question, _ in self._turns) or None,
                answer="\n".join(answer for _, answer in self._turns) or None,
            )
            writer.write_video(objects, progress)
            print_warnings(result)
            result.timings_seconds |= {**self._timings, "total": time.perf_counter() - self._start}
        print(f"results in {text}", file=sys.stderr)

    def _marks(self) -> list[PromptMark]:
        from unipixel.commands._prompts import prompt_marks
        from unipixel.processing.clip_layout import recall_prompt

        bank = self._session.bank
        return prompt_marks(
            (object_id, recall_prompt(record, frame_size=bank.frame_size))
            for object_id in bank.ids
            for record in bank[object_id].prompts
        )


class _Echo:
    """Prints an answer on a terminal piece by piece."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, piece: str) -> None:
        self.text += piece
        print(piece, end="", flush=True)

    def end_line(self) -> None:
        if self.text:
            print(flush=True)


def _lines() -> Iterator[str]:
    """Yield the lines of stdin that are not blank; a terminal shows an input prompt."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        # An invalid byte must not end the conversation.
        sys.stdin.reconfigure(errors="replace")
    input_prompt = _INPUT_PROMPT if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(input_prompt).strip()
        except EOFError:
            return
        if line:
            yield line
