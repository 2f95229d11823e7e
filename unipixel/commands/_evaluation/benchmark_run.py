"""`unipixel eval NAME`: lists, scores, or runs and scores benchmarks."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from unipixel.commands._evaluation.evaluation_targets import EvaluationTarget, read_targets
from unipixel.commands._evaluation.figure_table import print_scores, scores_of
from unipixel.commands._evaluation.listing import print_samples
from unipixel.commands._evaluation.model_run import run_targets

if TYPE_CHECKING:
    from unipixel.train.evaluation.running.predictions import PredictionFile
    from unipixel.train.evaluation.running.run_folder import RunFolder
    from unipixel.train.evaluation.scoring.scores import ScoreProtocol, Scores

FAILED = 1
GALLERY_FILE = "gallery.html"
_MAX_PROCESSES = 16


def evaluate_benchmarks(arguments: argparse.Namespace) -> int:
    """Do what the options ask for; the status is 1 if a sample failed and `--strict` is given.

    Raises:
        ValueError: An argument is out of range, or data, predictions or a run folder do not fit.
        OSError: Data, predictions or the model cannot be found or read.
    """
    from unipixel.train.evaluation.running.predictions import PredictionFile
    from unipixel.train.evaluation.running.runner import SampleFailedError
    from unipixel.train.evaluation.scoring.scores import scoring_processes

    targets = list(read_targets(arguments))
    if arguments.list:
        for target in targets:
            print_samples(target.samples, as_json=bool(arguments.json))
        return 0
    if len(targets) > 1 and (arguments.predictions or arguments.submission):
        raise ValueError("--predictions and --submission take one benchmark")
    cores = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1, _MAX_PROCESSES)
    with scoring_processes(cores if arguments.processes is None else arguments.processes):
        if arguments.predictions is not None:
            return _finish(targets[0], PredictionFile(arguments.predictions), arguments)
        try:
            runs = run_targets(targets, arguments)
            return max((_finish(target, found, arguments, folder) for target, folder, found in runs), default=0)
        except SampleFailedError as error:
            print(f"unipixel: {error}", file=sys.stderr)
            return FAILED


def _finish(
    target: EvaluationTarget,
    predictions: PredictionFile,
    arguments: argparse.Namespace,
    folder: RunFolder | None = None,
) -> int:
    """Judge, write the submission, score and print, as far as it is asked for; of a run, store the scores too."""
    predictions = _judge(target, predictions, arguments)
    failed = _write_submission(target, predictions, arguments) if arguments.submission is not None else {}
    _report_unknown(target, predictions)
    if target.benchmark.split(target.split).has_truth:
        shown, scores = _score(target, predictions, arguments, folder)
        failed = dict(scores[shown[0]].failed)
        if not (arguments.strict and failed):
            shown_scores: dict[str, Scores] = {protocol: scores[protocol] for protocol in shown}
            print_scores(target.benchmark, target.split, target.variant, shown_scores, as_json=bool(arguments.json))
        if arguments.gallery is not None:
            _write_gallery(target, predictions, scores[shown[0]], arguments)
    elif arguments.submission is None and folder is not None:
        print(f"unipixel: wrote {predictions.path}; add --submission ZIP for the server", file=sys.stderr)
    elif arguments.submission is None:
        raise ValueError(
            f"only a server has the truth of {target.benchmark.name} {target.split}: give --submission ZIP to write "
            "the archive that it takes"
        )
    if arguments.strict and failed:
        name = next(iter(failed))
        print(f"unipixel: sample {name} failed: {failed[name]} (--strict)", file=sys.stderr)
        return FAILED
    return 0


def _write_gallery(
    target: EvaluationTarget, predictions: PredictionFile, scores: Scores, arguments: argparse.Namespace
) -> None:
    from unipixel.commands._evaluation.run_report import write_page
    from unipixel.train.evaluation.reporting.gallery_page import gallery_page

    path = predictions.path.with_name(GALLERY_FILE)
    page = gallery_page(
        target.benchmark,
        target.samples,
        predictions,
        scores,
        split=target.split,
        variant=target.variant,
        count=arguments.gallery,
        decoder=arguments.decoder or "auto",
    )
    write_page(path, page)
    print(f"unipixel: wrote {path}", file=sys.stderr)


def _report_unknown(target: EvaluationTarget, predictions: PredictionFile) -> None:
    if unknown := set(predictions.names) - {sample.name for sample in target.samples}:
        print(
            f"unipixel: {predictions.path}: {len(unknown)} prediction(s) for no sample of {target.benchmark.name} "
            f"{target.split}, such as {min(unknown)}, were ignored",
            file=sys.stderr,
        )


def _judge(target: EvaluationTarget, predictions: PredictionFile, arguments: argparse.Namespace) -> PredictionFile:
    """Ask the judge that is configured for the replies that predictions do not have, and read them again."""
    if arguments.judge_url is None and arguments.judge_model is None and arguments.judge_prompt is None:
        return predictions
    from unipixel.train.endpoints.chat_completions import KEY_VARIABLE
    from unipixel.train.evaluation.answers.judge_client import JUDGE_PROMPT, JudgeSettings
    from unipixel.train.evaluation.running.predictions import PredictionFile

    if target.benchmark.judge is None:
        raise ValueError(
            f"{target.benchmark.name} needs no judge: leave --judge-url, --judge-model, --judge-prompt out"
        )
    if arguments.judge_url is None or arguments.judge_model is None:
        raise ValueError("a judge needs both --judge-url and --judge-model")
    prompt = JUDGE_PROMPT if arguments.judge_prompt is None else arguments.judge_prompt.read_text(encoding="utf-8")
    key = os.environ.get(KEY_VARIABLE, "")
    settings = JudgeSettings(url=arguments.judge_url, model=arguments.judge_model, key=key, prompt=prompt)
    target.benchmark.judge(target.samples, predictions.path, settings)
    return PredictionFile(predictions.path)


def _score(
    target: EvaluationTarget,
    predictions: PredictionFile,
    arguments: argparse.Namespace,
    folder: RunFolder | None,
) -> tuple[list[ScoreProtocol], dict[str, Scores]]:
    """Return the protocols to print, the one asked for or in a table all that differ, and the scores by protocol."""
    benchmark = target.benchmark
    shown = list(benchmark.protocols)
    if arguments.protocol is not None or arguments.json:
        shown = [arguments.protocol or benchmark.protocols[0]]
    wanted = dict.fromkeys([*shown, *(benchmark.protocols if folder is not None else ())])
    scores: dict[str, Scores] = {
        protocol: benchmark.score(target.samples, predictions, protocol=protocol) for protocol in wanted
    }
    if folder is not None:
        stored = {
            protocol: scores_of(benchmark, target.split, target.variant, protocol, scores[protocol])
            for protocol in benchmark.protocols
        }
        folder.write_scores({"model": str(arguments.model), "protocols": stored})
    return shown, scores


def _write_submission(
    target: EvaluationTarget, predictions: PredictionFile, arguments: argparse.Namespace
) -> dict[str, str]:
    write = target.benchmark.submission
    if write is None:
        raise ValueError(f"{target.benchmark.name} has no server: leave --submission out")
    failed = dict(write(target.samples, predictions, arguments.submission))
    print(f"unipixel: wrote {arguments.submission}", file=sys.stderr)
    if failed:
        name = next(iter(failed))
        print(
            f"unipixel: {len(failed)} sample(s) failed and have empty masks in {arguments.submission}, the first is "
            f"{name}: {failed[name]}",
            file=sys.stderr,
        )
    return failed
