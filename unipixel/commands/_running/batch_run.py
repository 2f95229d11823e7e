"""The work of `unipixel batch`: what is left to do, the model, the rows and the summary."""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.batch.clip_list import list_clips
from unipixel.batch.row_file import Row, RowFile
from unipixel.batch.row_table import write_table
from unipixel.commands._options import check_model, load_model, session_settings
from unipixel.commands._running.progress import ProgressDisplay
from unipixel.session.question_file import AskJob, InvalidJob, read_questions

if TYPE_CHECKING:
    from unipixel.batch.clip_rows import ClipAnswerer

# Options that change the rows; the device and --strict do not.
_OPTIONS = (
    "model", "dtype", "quantize", "segmenter", "language_masks", "postprocess", "frames", "anchor", "prefill",
    "max_new_tokens", "temperature", "seed", "max_frames",
)  # fmt: skip
_MAX_LISTED_ERRORS = 20

Work = dict[str, list[AskJob]]
"""The question sets to ask about each clip."""


def run_batch(arguments: argparse.Namespace) -> int:
    """Run the batch of a command line and return the exit code.

    Raises:
        ValueError: Bad input, other options in the folder, or an error of a clip with `--strict`.
        OSError: A file, the model or the output folder cannot be used.
    """
    if arguments.max_frames < 1:
        raise ValueError(f"--max-frames must be 1 or more, not {arguments.max_frames}")
    if arguments.cores < 1:
        raise ValueError(f"--cores must be 1 or more, not {arguments.cores}")
    if arguments.ray is not None and importlib.util.find_spec("ray") is None:
        raise ImportError("--ray needs Ray: install the extra `ray`")
    sets = read_question_sets(arguments.questions)
    clips = list_clips(arguments.inputs)
    check_model(arguments)
    options = {name: getattr(arguments, name) for name in _OPTIONS}
    options["questions"] = hashlib.sha256(arguments.questions.read_bytes()).hexdigest()
    with RowFile(arguments.out, options) as rows:
        work = remaining_work(clips, sets, rows.finished)
        num_rows = sum(map(len, work.values()))
        total = len(clips) * len(sets)
        if num_rows < total:
            print(f"unipixel: {total - num_rows} of {total} rows are there already", file=sys.stderr)
        try:
            with ProgressDisplay() as progress:
                if work:
                    progress.start("load the model")
                    _write_rows(rows, _answer(arguments, work), progress, num_rows, is_strict=arguments.strict)
        except KeyboardInterrupt:
            print(
                f"unipixel: {len(rows.finished)} rows are in {rows.path}; give the same command again to continue",
                file=sys.stderr,
            )
            raise
        table = write_table(arguments.out)
        num_failed = rows.num_failed
        written = f"{rows.path}{f' and {table}' if table else ''}"
        print(f"{len(rows.finished)} rows, {num_failed} with an error; in {written}", file=sys.stderr)
    return 0


def read_question_sets(file: Path) -> list[AskJob]:
    """Return the question sets of a file.

    Raises:
        ValueError: A line is not a question set, or there is none.
        OSError: The file cannot be read.
    """
    sets = []
    for job in read_questions(file, has_clips=False):
        if isinstance(job, InvalidJob):
            raise ValueError(job.error)
        sets.append(job)
    return sets


def remaining_work(clips: list[str], sets: list[AskJob], finished: set[tuple[str, str]]) -> Work:
    """Return the question sets without a row, by clip."""
    work = {clip: [job for job in sets if (clip, job.name) not in finished] for clip in clips}
    return {clip: jobs for clip, jobs in work.items() if jobs}


def build_answerer(arguments: argparse.Namespace) -> ClipAnswerer:
    """Load the model of a command line; on a Ray cluster, each worker calls this.

    Raises:
        OSError: The model cannot be found or read.
        ValueError: Its files are inconsistent, or a setting is out of range.
    """
    settings = session_settings(arguments)
    model, processor = load_model(arguments)
    from unipixel.batch.clip_rows import ClipAnswerer

    return ClipAnswerer(model, processor, settings=settings, name=str(arguments.model), max_frames=arguments.max_frames)


def _answer(arguments: argparse.Namespace, work: Work) -> Iterator[Row]:
    if arguments.ray is None:
        return build_answerer(arguments).answer(work.items())
    from unipixel.batch.ray_rows import answer_on_ray

    # The parser's function is not among what a worker needs.
    options = argparse.Namespace(**{name: value for name, value in vars(arguments).items() if name != "run"})
    build = functools.partial(build_answerer, options)
    return answer_on_ray(work, build, address=arguments.ray, cores=arguments.cores, max_frames=arguments.max_frames)


def _write_rows(rows: RowFile, answered: Any, progress: ProgressDisplay, num_rows: int, *, is_strict: bool) -> None:
    num_listed = 0
    for number, row in enumerate(answered):
        if number == 0:
            progress.start("answer", total=num_rows, unit="rows")
        rows.append(row)
        progress.advance()
        if row["error"] is None:
            continue
        message = f"{row['clip']} ({row['id']}): {row['error']}"
        if is_strict:
            raise ValueError(f"{message}; stopped because of --strict, {len(rows.finished)} rows are in {rows.path}")
        num_listed += 1
        if num_listed <= _MAX_LISTED_ERRORS:
            print(f"unipixel: {message}", file=sys.stderr)
        elif num_listed == _MAX_LISTED_ERRORS + 1:
            print("unipixel: further errors are in the rows", file=sys.stderr)
