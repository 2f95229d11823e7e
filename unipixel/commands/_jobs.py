"""The work of `ask` and `segment`: one clip, a folder of clips, or a file of questions, with one model."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.commands._options import load_model, session_settings
from unipixel.commands._prompts import prompt_marks, read_prompts
from unipixel.commands._results import ResultWriter
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.session.session import Session
from unipixel.video.images import read_mask
from unipixel.video.open import open_video

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.session.base_session import Answer

Ask = Callable[["Session", str], "Answer"]
_JOB_ERRORS = (ValueError, TypeError, OSError, LookupError)
_CLIP_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif"}
_SAFE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,127}")
_FIELDS = {"id", "clip", "question", "points", "boxes", "masks"}


@dataclass(frozen=True)
class AskJob:
    """One conversation about one clip.

    Attributes:
        name: Name of its result folder; empty for a single job.
        clip: File or folder.
        questions: Asked one after the other.
        prompts: By object id.
    """

    name: str
    clip: str
    questions: tuple[str, ...]
    prompts: dict[int, list[VisualPrompt]] = field(default_factory=dict)


@dataclass(frozen=True)
class InvalidJob:
    """A line of a file of questions that is not a job.

    Attributes:
        name: Name of the job.
        error: What is wrong.
    """

    name: str
    error: str


def run_jobs(arguments: argparse.Namespace, ask: Ask) -> int:
    """Run the jobs of a command line, write the results, and return the exit code.

    Args:
        arguments: Options of the command.
        ask: Puts a question to a session.

    Raises:
        ValueError: Bad input of a single job; errors of one of several jobs are reported in its result.
        OSError: Likewise.
    """
    jobs = list(read_jobs(arguments))
    first = jobs[0]
    if len(jobs) == 1 and isinstance(first, AskJob) and not first.name:
        answers = _JobRunner(arguments, ask).run(first, arguments.out)
        if not arguments.json:
            for answer in answers:
                print(answer.text)
            if arguments.out is not None:
                print(f"results in {arguments.out}", file=sys.stderr)
        return 0
    if arguments.out is None:
        raise ValueError(f"{len(jobs)} clips or questions need --out DIR, with a folder for each")
    return _run_batch(arguments, jobs, ask)


def _run_batch(arguments: argparse.Namespace, jobs: list[AskJob | InvalidJob], ask: Ask) -> int:
    out: Path = arguments.out
    summary = out / "results.jsonl"
    if summary.exists() and not arguments.overwrite:
        raise FileExistsError(f"{summary} exists; give --overwrite to replace its results")
    runner = _JobRunner(arguments, ask)
    out.mkdir(parents=True, exist_ok=True)
    num_failed = 0
    with summary.open("w", encoding="utf-8") as file:
        for job in jobs:
            entry: dict[str, Any] = {"id": job.name}
            if isinstance(job, InvalidJob):
                entry["error"] = job.error
            else:
                try:
                    entry["answers"] = [answer.text for answer in runner.run(job, out / job.name)]
                except _JOB_ERRORS as error:
                    entry["error"] = " ".join(str(error).split())
            num_failed += "error" in entry
            # Flushed line by line, so that Ctrl-C leaves a valid file of the finished jobs.
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            text = entry.get("error") or " | ".join(entry["answers"])
            print(f"{job.name}: {text}", file=sys.stderr if "error" in entry else sys.stdout)
    print(f"{len(jobs) - num_failed} answered, {num_failed} failed; results in {out}", file=sys.stderr)
    return 2 if num_failed == len(jobs) else 0


class _JobRunner:
    """Runs jobs with one model, which is loaded at the start."""

    def __init__(self, arguments: argparse.Namespace, ask: Ask) -> None:
        self._arguments, self._ask = arguments, ask
        self._settings = session_settings(arguments)
        self._model: UniPixel
        self._processor: Processor
        self._model, self._processor = load_model(arguments)

    def run(self, job: AskJob, out: Path | None) -> list[Answer]:
        """Ask the questions of a job and write its results."""
        with ResultWriter(self._arguments, out=out, davis_name=Path(job.clip).stem) as writer:
            start = time.perf_counter()
            video = open_video(job.clip, max_frames=self._arguments.max_frames)
            session = Session(self._model, self._processor, video, settings=self._settings)
            for object_id, prompts in job.prompts.items():
                session.prompt(object_id, *prompts)
            answers = [self._ask(session, question) for question in job.questions]
            timings: dict[str, float] = {}
            for answer in answers:
                for stage, seconds in answer.timings_seconds.items():
                    timings[stage] = timings.get(stage, 0.0) + seconds
            result = writer.start(
                session.objects,
                prompts=prompt_marks((key, prompt) for key, prompts in job.prompts.items() for prompt in prompts),
                model=str(self._arguments.model),
                question="\n".join(job.questions),
                answer="\n".join(answer.text for answer in answers),
            )
            if out is not None or self._arguments.json:
                writer.write_video(session.objects)
            result.timings_seconds |= {**timings, "total": time.perf_counter() - start}
            if self._arguments.json and not job.name:
                print(result.to_json())
            return answers


def read_jobs(arguments: argparse.Namespace) -> Iterator[AskJob | InvalidJob]:
    """Yield the jobs of a command line.

    Raises:
        ValueError: There is neither a question nor a file of questions, or both.
        OSError: The file of questions cannot be read.
    """
    if arguments.questions is not None:
        if arguments.video is not None or arguments.question is not None:
            raise ValueError("--questions contains clips and questions: leave VIDEO and the question out")
        yield from _read_file(arguments.questions)
        return
    if arguments.video is None or arguments.question is None:
        raise ValueError("give a VIDEO and a question, or --questions FILE.jsonl")
    prompts = read_prompts(arguments)
    clips = clips_of_folder(Path(arguments.video))
    if not clips:
        yield AskJob("", arguments.video, (arguments.question,), prompts)
    for clip in clips:
        yield AskJob(clip.stem, str(clip), (arguments.question,), prompts)


def clips_of_folder(folder: Path) -> list[Path]:
    """Return the clips in a folder; none for a file or a folder of frames."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _CLIP_SUFFIXES and file.is_file())


def _read_file(file: Path) -> Iterator[AskJob | InvalidJob]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{file} contains no question")
    names: set[str] = set()
    for number, line in enumerate(lines, start=1):
        name = f"line-{number}"
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise ValueError("it is not a JSON object")
            name = _check_name(fields.get("id", name), names)
            yield _read_job(name, fields, file.parent)
        except (ValueError, OSError, TypeError, KeyError) as error:
            yield InvalidJob(name, f"{file.name}, line {number}: {error}")


def _check_name(value: Any, names: set[str]) -> str:
    name = str(value)
    if not _SAFE_NAME.fullmatch(name):
        raise ValueError(f"id {name!r} is not a valid folder name: letters, digits, '.', '_' and '-' are allowed")
    if name in names:
        raise ValueError(f"id {name!r} is used twice")
    names.add(name)
    return name


def _read_job(name: str, fields: dict[str, Any], root: Path) -> AskJob:
    if unknown := sorted(set(fields) - _FIELDS):
        raise ValueError(f"unknown fields {unknown}: allowed are {sorted(_FIELDS)}")
    if missing := [key for key in ("clip", "question") if not fields.get(key)]:
        raise ValueError(f"fields {missing} are missing")
    questions = fields["question"]
    prompts: dict[int, list[VisualPrompt]] = {}
    for key, entry in fields.get("masks", {}).items():
        path, frame = entry
        prompts.setdefault(int(key), []).append(MaskPrompt(read_mask(root / path), int(frame)))
    for key, entry in fields.get("boxes", {}).items():
        left, top, right, bottom, frame = entry
        prompts.setdefault(int(key), []).append(BoxPrompt((left, top, right, bottom), int(frame)))
    for key, entries in fields.get("points", {}).items():
        for x, y, frame in entries:
            prompts.setdefault(int(key), []).append(PointPrompt(x, y, int(frame)))
    question_list = tuple(questions) if isinstance(questions, list) else (questions,)
    return AskJob(name, str(root / fields["clip"]), question_list, prompts)
