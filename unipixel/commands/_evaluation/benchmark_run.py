"""`unipixel eval NAME`: lists, scores, or runs and scores benchmarks."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.commands._evaluation.argument_groups import ACTIONS
from unipixel.commands._evaluation.figure_table import print_scores, scores_of
from unipixel.commands._evaluation.listing import print_samples
from unipixel.commands._evaluation.run_display import RunDisplay
from unipixel.commands._options import choose_device, describe_unknown

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.session.settings import SessionSettings
    from unipixel.train.evaluation.benchmarks.benchmark import Benchmark
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import PredictionFile
    from unipixel.train.evaluation.running.shards import Shard
    from unipixel.train.evaluation.scoring.scores import Scores

FAILED = 1


@dataclass(frozen=True)
class _Target:
    """One benchmark of a command line.

    Attributes:
        benchmark: The benchmark.
        split: Name of the split.
        variant: Variant, or an empty text.
        samples: Its samples.
    """

    benchmark: Benchmark
    split: str
    variant: str
    samples: Sequence[BenchmarkSample]

    @property
    def folder_name(self) -> str:
        """Name of the folder of a run of several benchmarks."""
        return "-".join(part for part in (self.benchmark.name, self.split, self.variant) if part)


def evaluate_benchmarks(arguments: argparse.Namespace) -> int:
    """Do what the options ask for; the status is 1 if a sample failed and `--strict` is given.

    Raises:
        ValueError: An argument is out of range, or data, predictions or a run folder do not fit.
        OSError: Data, predictions or the model cannot be found or read.
    """
    from unipixel.train.evaluation.running.runner import SampleFailedError

    benchmarks = [find(text.partition(":")[0]) for text in arguments.action.split(",")]
    if arguments.data is None:
        raise ValueError("give the folder of the data as --data; `unipixel eval list` shows what it must contain")
    targets = list(_read_targets(arguments, benchmarks))
    if arguments.list:
        for target in targets:
            print_samples(target.samples, as_json=bool(arguments.json))
        return 0
    if len(targets) > 1 and (arguments.predictions or arguments.submission):
        raise ValueError("--predictions and --submission take one benchmark")
    if arguments.predictions is not None:
        from unipixel.train.evaluation.running.predictions import PredictionFile

        predictions = _judge(targets[0], PredictionFile(arguments.predictions), arguments)
        return _finish(targets[0], predictions, arguments)
    try:
        return max(_run(targets, arguments))
    except SampleFailedError as error:
        print(f"unipixel: {error}", file=sys.stderr)
        return FAILED


def find(name: str) -> Benchmark:
    """Return a benchmark by name.

    Raises:
        ValueError: There is no such benchmark.
    """
    from unipixel.train.evaluation.benchmarks.table import BENCHMARKS

    if name not in BENCHMARKS:
        raise ValueError(describe_unknown("benchmark", name, [*BENCHMARKS, *ACTIONS]))
    return BENCHMARKS[name]


def _read_targets(arguments: argparse.Namespace, benchmarks: Sequence[Benchmark]) -> Iterator[_Target]:
    names = arguments.action.split(",")
    if len(names) > 1 and (arguments.split or arguments.variant):
        raise ValueError("--split and --variant take one benchmark; of several, give the split as NAME:SPLIT")
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit must be at least 1, got {arguments.limit}")
    for text, benchmark in zip(names, benchmarks, strict=True):
        split = benchmark.split(text.partition(":")[2] or arguments.split).name
        variant = benchmark.variant(arguments.variant)
        # Several benchmarks share a data folder, or have one each within it.
        folders = [arguments.data / benchmark.name, arguments.data] if len(names) > 1 else [arguments.data]
        samples = _read_first(benchmark, folders, split=split, variant=variant)
        yield _Target(benchmark, split, variant, samples[: arguments.limit])


def _read_first(
    benchmark: Benchmark, folders: Sequence[Path], *, split: str, variant: str
) -> Sequence[BenchmarkSample]:
    """Read the samples from the first folder that has the files of the benchmark."""
    from unipixel.train.evaluation.benchmarks.annotation_files import read_split

    for folder in folders[:-1]:
        try:
            return read_split(benchmark, folder, split=split, variant=variant)
        except FileNotFoundError:  # noqa: PERF203 - the next folder may have them
            continue
    return read_split(benchmark, folders[-1], split=split, variant=variant)


def _finish(target: _Target, predictions: PredictionFile, arguments: argparse.Namespace) -> int:
    """Write the submission if one is asked for, then score and print."""
    failed = _write_submission(target, predictions, arguments) if arguments.submission is not None else {}
    unknown = set(predictions.names) - {sample.name for sample in target.samples}
    if unknown:
        print(
            f"unipixel: {predictions.path}: {len(unknown)} prediction(s) for no sample of {target.benchmark.name} "
            f"{target.split}, such as {min(unknown)}, were ignored",
            file=sys.stderr,
        )
    if target.benchmark.split(target.split).has_truth:
        scores = _score(target, predictions, arguments)
        failed = dict(scores[next(iter(scores))].failed)
        if not (arguments.strict and failed):
            print_scores(target.benchmark, target.split, target.variant, scores, as_json=bool(arguments.json))
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


def _judge(target: _Target, predictions: PredictionFile, arguments: argparse.Namespace) -> PredictionFile:
    """Ask the judge that is configured for the replies that predictions do not have, and read them again."""
    if arguments.judge_url is None and arguments.judge_model is None and arguments.judge_prompt is None:
        return predictions
    from unipixel.train.evaluation.answers.judge_client import JUDGE_PROMPT, KEY_VARIABLE, JudgeSettings
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


def _score(target: _Target, predictions: PredictionFile, arguments: argparse.Namespace) -> dict[str, Scores]:
    """Return the scores by protocol: the one that was asked for, or in a table all that differ."""
    protocols = target.benchmark.protocols
    if arguments.protocol is not None or arguments.json:
        protocols = (arguments.protocol or protocols[0],)
    return {protocol: target.benchmark.score(target.samples, predictions, protocol=protocol) for protocol in protocols}


def _write_submission(target: _Target, predictions: PredictionFile, arguments: argparse.Namespace) -> dict[str, str]:
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


def _run(targets: Sequence[_Target], arguments: argparse.Namespace) -> Iterator[int]:
    """Run each benchmark with one loaded model, and yield its status."""
    from unipixel.train.evaluation.running.run_folder import RunFolder
    from unipixel.train.evaluation.running.runner import RunSettings, run_benchmark
    from unipixel.train.evaluation.running.shards import Shard

    if arguments.model is None or arguments.out is None:
        raise ValueError("give --model and --out to run a model, or --predictions to score")
    shard = Shard.of_environment(os.environ)
    session = _session_settings(arguments)
    load_model = _model_loader(arguments, shard)
    folders = [
        RunFolder(
            arguments.out / target.folder_name if len(targets) > 1 else arguments.out,
            _description(target, arguments, session),
        )
        for target in targets
    ]
    for target, folder in zip(targets, folders, strict=True):
        settings = RunSettings(
            variant=target.variant,
            session=session,
            decoder=arguments.decoder or "auto",
            is_strict=bool(arguments.strict),
            has_published_wording=arguments.wording != "session",
        )
        with RunDisplay(f"{target.benchmark.name} {target.split}", shard) as display:
            run_benchmark(
                target.benchmark,
                target.samples,
                folder=folder,
                shard=shard,
                load_model=load_model,
                settings=settings,
                report=display.show,
            )
        predictions = folder.merge([sample.name for sample in target.samples])
        if predictions is None:
            print(f"unipixel: process {shard.index} of {shard.count} has finished its samples", file=sys.stderr)
            yield 0
            continue
        predictions = _judge(target, predictions, arguments)
        if target.benchmark.split(target.split).has_truth:
            scores = {
                protocol: target.benchmark.score(target.samples, predictions, protocol=protocol)
                for protocol in target.benchmark.protocols
            }
            folder.write_scores(
                {
                    "model": str(arguments.model),
                    "protocols": {
                        protocol: scores_of(target.benchmark, target.split, target.variant, protocol, result)
                        for protocol, result in scores.items()
                    },
                }
            )
        elif arguments.submission is None:
            print(f"unipixel: wrote {predictions.path}; add --submission ZIP for the server", file=sys.stderr)
            yield 0
            continue
        yield _finish(target, predictions, arguments)


def _session_settings(arguments: argparse.Namespace) -> SessionSettings:
    from unipixel.model.generation import GenerationSettings
    from unipixel.session.settings import SessionSettings

    return SessionSettings(
        num_frames=arguments.language_frames,
        anchor=arguments.anchor or "auto",
        prefill=arguments.prefill or "model",
        is_postprocessed=bool(arguments.postprocess),
        generation=GenerationSettings(max_new_tokens=arguments.max_new_tokens or 512),
    )


def _model_loader(arguments: argparse.Namespace, shard: Shard) -> Callable[[], tuple[UniPixel, Processor]]:
    """Return a function that loads the model when it is first called."""

    @cache
    def load() -> tuple[UniPixel, Processor]:
        import torch

        from unipixel.model.unipixel import UniPixel
        from unipixel.processing.processor import Processor

        device = choose_device(arguments.device or "auto")
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", shard.local_index)
        name = arguments.dtype or "auto"
        dtype: Any = name if name == "auto" else getattr(torch, name)
        model = UniPixel.from_pretrained(arguments.model, dtype=dtype, device=device)
        return model, Processor.from_pretrained(arguments.model)

    return load


def _description(target: _Target, arguments: argparse.Namespace, session: SessionSettings) -> dict[str, Any]:
    """Return what must be equal for a run to be continued."""
    model = Path(arguments.model)
    return {
        "benchmark": target.benchmark.name,
        "split": target.split,
        "variant": target.variant,
        "model": str(model.resolve()) if model.exists() else str(arguments.model),
        "dtype": arguments.dtype or "auto",
        "language_frames": session.num_frames,
        "anchor": session.anchor,
        "prefill": session.prefill,
        "postprocess": session.is_postprocessed,
        "max_new_tokens": session.generation.max_new_tokens,
        "wording": arguments.wording or "published",
    }
