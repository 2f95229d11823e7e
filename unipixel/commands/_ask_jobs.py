"""Runs the jobs of `ask` and `segment` with one model."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.commands._jobs import AskJob, read_jobs
from unipixel.commands._options import load_model, session_settings

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.session.base_session import Answer
    from unipixel.session.session import Session

Question = Callable[["Session", str], "Answer"]
_JOB_ERRORS = (ValueError, TypeError, OSError, LookupError)


def run_jobs(arguments: argparse.Namespace, ask: Question) -> int:
    """Ask what a command line asks, write the results, and return the exit code.

    Args:
        arguments: Options of the command.
        ask: How a question is put to a session.

    Raises:
        ValueError: Bad input, where there is only one job; of several, the others go on.
        OSError: Likewise.
    """
    jobs = list(read_jobs(arguments))
    settings = session_settings(arguments)
    first = jobs[0]
    if len(jobs) == 1 and isinstance(first, AskJob) and not first.name:
        model, processor = load_model(arguments)
        _print_answers(_run_job(arguments, first, model, processor, settings, ask, arguments.out), arguments)
        return 0
    if arguments.out is None:
        raise ValueError(f"{len(jobs)} clips or questions need --out DIR, where each gets a folder")
    return _run_batch(arguments, jobs, settings, ask)


def _run_batch(arguments: argparse.Namespace, jobs: list[Any], settings: Any, ask: Question) -> int:
    out: Path = arguments.out
    summary = out / "results.jsonl"
    if summary.exists() and not arguments.overwrite:
        raise FileExistsError(f"{summary} exists; give --overwrite to replace its results")
    model, processor = load_model(arguments)
    out.mkdir(parents=True, exist_ok=True)
    num_failed = 0
    with summary.open("w", encoding="utf-8") as file:
        for job in jobs:
            if isinstance(job, tuple):
                name, entry = job[0], {"id": job[0], "error": job[1]}
            else:
                name = job.name
                try:
                    answers = _run_job(arguments, job, model, processor, settings, ask, out / name)
                    entry = {"id": name, "answers": [answer.text for answer in answers]}
                except _JOB_ERRORS as error:
                    entry = {"id": name, "error": " ".join(str(error).split())}
            num_failed += "error" in entry
            # Flushed line by line: Ctrl-C leaves what was finished, valid.
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            said = entry.get("error") or " | ".join(entry["answers"])
            print(f"{name}: {said}", file=sys.stderr if "error" in entry else sys.stdout)
    print(f"{len(jobs) - num_failed} answered, {num_failed} failed; results in {out}", file=sys.stderr)
    return 2 if num_failed == len(jobs) else 0


def _run_job(
    arguments: argparse.Namespace,
    job: AskJob,
    model: UniPixel,
    processor: Processor,
    settings: Any,
    ask: Question,
    out: Path | None,
) -> list[Answer]:
    from unipixel.commands._prompts import marks
    from unipixel.commands._results import ResultWriter
    from unipixel.session.session import Session
    from unipixel.video.open import open_video

    with ResultWriter(arguments, out=out, davis_name=Path(job.clip).stem) as writer:
        started = time.perf_counter()
        video = open_video(job.clip, max_frames=arguments.max_frames)
        session = Session(model, processor, video, settings=settings)
        for object_id, prompts in job.prompts.items():
            session.prompt(object_id, *prompts)
        answers = [ask(session, question) for question in job.questions]
        timings: dict[str, float] = {}
        for answer in answers:
            for stage, seconds in answer.timings_seconds.items():
                timings[stage] = timings.get(stage, 0.0) + seconds
        drawn = marks((object_id, prompt) for object_id, prompts in job.prompts.items() for prompt in prompts)
        result = writer.start(
            session.objects,
            prompts=drawn,
            model=str(arguments.model),
            question="\n".join(job.questions),
            answer="\n".join(answer.text for answer in answers),
        )
        if out is not None or arguments.json:
            writer.write_video(session.objects)
        result.timings_seconds |= {**timings, "total": time.perf_counter() - started}
        if arguments.json and not job.name:
            print(result.to_json())
        return answers


def _print_answers(answers: list[Answer], arguments: argparse.Namespace) -> None:
    if arguments.json:
        return
    for answer in answers:
        print(answer.text)
    if arguments.out is not None:
        print(f"results in {arguments.out}", file=sys.stderr)
