"""The work of `ask` and `segment`: one clip, a folder of clips, or a file of questions, with one model."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unipixel.batch.clip_list import clips_of_folder
from unipixel.commands._options import check_model, describe_error, load_model, session_settings
from unipixel.commands._prompts import prompt_marks, read_prompts
from unipixel.commands._running.progress import ProgressDisplay
from unipixel.commands._running.results import ResultWriter, check_palette_ids, print_warnings, sequence_name
from unipixel.processing.prompt_checks import check_prompts
from unipixel.session.question_file import AskJob, InvalidJob, read_questions
from unipixel.video.open import open_video

# Sessions import torch and transformers, which takes seconds: clips and prompts are checked before.
if TYPE_CHECKING:
    from unipixel.session.session import Session
    from unipixel.session.settings import SessionSettings
    from unipixel.video.open import Video

Method = Literal["ask", "segment"]
"""The method of a session that gets the questions."""
_JOB_ERRORS = (ValueError, TypeError, OSError, LookupError)


def run_jobs(arguments: argparse.Namespace, method: Method) -> int:
    """Run the jobs of a command line, write the results, and return the exit code.

    Args:
        arguments: Options of the command.
        method: Gets the questions.

    Raises:
        ValueError: Bad input of a single job; errors of one of several jobs are reported in its result.
        OSError: Likewise.
    """
    jobs = list(read_jobs(arguments))
    first = jobs[0]
    if len(jobs) == 1 and isinstance(first, AskJob) and not first.name:
        check_palette_ids(arguments, first.prompts)
        with ProgressDisplay() as progress:
            answers = _JobRunner(arguments, method, progress).run(first, arguments.out)
        if not arguments.json:
            for answer in answers:
                print(answer)
            if arguments.out is not None:
                print(f"results in {arguments.out}", file=sys.stderr)
        return 0
    if arguments.out is None:
        raise ValueError(f"{len(jobs)} clips or questions need --out DIR, with a folder for each")
    return _run_batch(arguments, jobs, method)


def _run_batch(arguments: argparse.Namespace, jobs: list[AskJob | InvalidJob], method: Method) -> int:
    out: Path = arguments.out
    summary = out / "results.jsonl"
    if summary.exists() and not arguments.overwrite:
        raise FileExistsError(f"{summary} exists; give --overwrite to replace its results")
    num_failed = num_finished = 0
    with ProgressDisplay() as progress:
        runner = _JobRunner(arguments, method, progress)
        # Now, because its errors are not those of a clip.
        runner.load()
        out.mkdir(parents=True, exist_ok=True)
        try:
            with summary.open("w", encoding="utf-8") as file:
                for job in jobs:
                    entry = _run_job(job, runner, out)
                    num_failed += "error" in entry
                    num_finished += 1
                    # Flushed line by line, so that Ctrl-C leaves a valid file of the finished jobs.
                    file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                    file.flush()
                    text = entry.get("error") or " | ".join(entry["answers"])
                    print(f"{job.name}: {text}", file=sys.stderr if "error" in entry else sys.stdout)
        except KeyboardInterrupt:
            print(f"unipixel: {num_finished} of {len(jobs)} finished; their results are in {out}", file=sys.stderr)
            raise
    print(f"{len(jobs) - num_failed} answered, {num_failed} failed; results in {out}", file=sys.stderr)
    return 2 if num_failed == len(jobs) else 0


def _run_job(job: AskJob | InvalidJob, runner: _JobRunner, out: Path) -> dict[str, Any]:
    """Return the line of a job in the summary."""
    if isinstance(job, InvalidJob):
        return {"id": job.name, "error": job.error}
    try:
        return {"id": job.name, "answers": runner.run(job, out / job.name)}
    except _JOB_ERRORS as error:
        return {"id": job.name, "error": describe_error(error)}


class _JobRunner:
    """Runs jobs with one model, which is checked at the start and loaded when it is needed."""

    def __init__(self, arguments: argparse.Namespace, method: Method, progress: ProgressDisplay) -> None:
        check_model(arguments)
        self._arguments, self._method, self._progress = arguments, method, progress
        self._loaded: tuple[Any, Any, SessionSettings] | None = None

    def run(self, job: AskJob, out: Path | None) -> list[str]:
        """Ask the questions of a job, write its results, and return the answers."""
        check_palette_ids(self._arguments, job.prompts)
        with ResultWriter(self._arguments, out=out, davis_name=sequence_name(job.clip)) as writer:
            start = time.perf_counter()
            self._progress.start("open the video")
            video = open_video(job.clip, max_frames=self._arguments.max_frames)
            check_prompts(job.prompts, video.info)
            session = self._open_session(video)
            for object_id, prompts in job.prompts.items():
                session.prompt(object_id, *prompts)
            count_frame = self._progress.frame_counter(video.info.num_frames)
            ask = getattr(session, self._method)
            answers = []
            timings: dict[str, float] = {}
            for question in job.questions:
                self._progress.start("read the question")
                answer = ask(question, on_text=self._progress.count_text, on_frame=count_frame)
                answers.append(answer.text)
                for stage, seconds in answer.timings_seconds.items():
                    timings[stage] = timings.get(stage, 0.0) + seconds
            result = writer.start(
                session.objects,
                prompts=prompt_marks((key, prompt) for key, prompts in job.prompts.items() for prompt in prompts),
                model=str(self._arguments.model),
                question="\n".join(job.questions),
                answer="\n".join(answers),
            )
            writer.write_video(session.objects, self._progress)
            result.timings_seconds |= {**timings, "total": time.perf_counter() - start}
            print_warnings(result, name=f"{job.name}: " if job.name else "")
            if self._arguments.json and not job.name:
                print(result.to_json())
            return answers

    def load(self) -> tuple[Any, Any, SessionSettings]:
        """Return the model, its processor and the settings, which are loaded on first use."""
        if self._loaded is None:
            self._progress.start("load the model")
            settings = session_settings(self._arguments)
            self._loaded = (*load_model(self._arguments), settings)
        return self._loaded

    def _open_session(self, video: Video) -> Session:
        model, processor, settings = self.load()
        from unipixel.session.session import open_session

        return open_session(model, processor, video, settings=settings)


def read_jobs(arguments: argparse.Namespace) -> Iterator[AskJob | InvalidJob]:
    """Yield the jobs of a command line.

    Raises:
        ValueError: There is neither a question nor a file of questions, or both.
        OSError: The file of questions cannot be read.
    """
    if arguments.questions is not None:
        if arguments.video is not None or arguments.question is not None:
            raise ValueError("--questions contains clips and questions: leave VIDEO and the question out")
        yield from read_questions(arguments.questions)
        return
    if arguments.video is None or arguments.question is None:
        raise ValueError("give a VIDEO and a question, or --questions FILE.jsonl")
    prompts = read_prompts(arguments)
    # An empty path would be the current folder.
    if not arguments.video.strip():
        raise ValueError("VIDEO is empty: give a file, an image, a folder of frames or a folder of clips")
    clips = clips_of_folder(Path(arguments.video))
    if not clips:
        yield AskJob("", arguments.video, (arguments.question,), prompts)
    for clip in clips:
        yield AskJob(clip.stem, str(clip), (arguments.question,), prompts)
