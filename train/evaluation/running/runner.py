"""Runs a model on the samples of a benchmark; a killed run continues where it was."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from unipixel.processing.image_processing import FrameBudget
from unipixel.sail.sail_processor import SailProcessor
from unipixel.session.session import Session, open_session
from unipixel.session.settings import SessionSettings
from unipixel.train.evaluation.benchmarks.benchmark import Benchmark
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
from unipixel.train.evaluation.running.clip_frames import FrameLoader
from unipixel.train.evaluation.running.predictions import Prediction, PredictionWriter
from unipixel.train.evaluation.running.run_folder import RunFolder
from unipixel.train.evaluation.running.sample_context import SampleContext
from unipixel.train.evaluation.running.shards import Shard
from unipixel.video.decord_frames import Decoder
from unipixel.video.open import Video

# What bad data, or a sample that is too large for the device, raises; anything else is a defect and ends the run.
_SAMPLE_ERRORS = (OSError, ValueError, RuntimeError, MemoryError)


class SampleFailedError(RuntimeError):
    """A sample failed in a run that must stop at the first such sample."""


@dataclass(frozen=True)
class RunProgress:
    """Progress of one process.

    Attributes:
        num_finished: Samples that have finished, those of an earlier run included.
        num_samples: All samples of this process.
        num_failed: Those that failed.
        seconds: Duration of this run.
        num_now: Samples that have finished in this run.
    """

    num_finished: int
    num_samples: int
    num_failed: int
    seconds: float
    num_now: int

    @property
    def samples_per_second(self) -> float | None:
        """Rate of this run; None before the first sample has finished."""
        return self.num_now / self.seconds if self.num_now and self.seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Expected duration of the rest; None if the rate is unknown."""
        rate = self.samples_per_second
        return None if rate is None else (self.num_samples - self.num_finished) / rate


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Settings of a run.

    Attributes:
        variant: Variant of the benchmark.
        session: Settings of the sessions.
        decoder: Decoder of video files.
        is_strict: Whether the run stops at the first sample that fails.
        is_retried: Whether samples that failed in an earlier run are asked again.
        has_published_wording: See `SampleContext`.
    """

    variant: str
    session: SessionSettings
    decoder: Decoder
    is_strict: bool
    is_retried: bool = False
    has_published_wording: bool = True


def run_benchmark(
    benchmark: Benchmark,
    samples: Sequence[BenchmarkSample],
    *,
    folder: RunFolder,
    shard: Shard,
    load_model: Callable[[], tuple[Any, Any]],
    settings: RunSettings,
    report: Callable[[RunProgress], None],
) -> None:
    """Ask a model about the samples of one process that have no prediction yet.

    Args:
        benchmark: The benchmark.
        samples: All samples of the split.
        folder: Receives the predictions, one line as each sample finishes.
        shard: Which of the samples.
        load_model: Called once, if there is anything to ask; returns a model and its processor.
        settings: Settings of the run.
        report: Called before the first sample and after each.

    Raises:
        SampleFailedError: A sample failed and the run is strict; it has no line in the file.
    """
    finished = folder.finished()
    if settings.is_retried:
        finished = {name: has_failed for name, has_failed in finished.items() if not has_failed}
    selected = shard.select(samples)
    pending = [sample for sample in selected if sample.name not in finished]
    done = [finished[sample.name] for sample in selected if sample.name in finished]
    progress = RunProgress(len(done), len(selected), sum(done), 0.0, 0)
    report(progress)
    if not pending:
        return
    start = time.monotonic()
    model, processor = load_model()
    asker = _Asker(benchmark, model, _with_budget(benchmark, processor), settings=settings)
    groups = [list(members) for _, members in groupby(pending, key=lambda sample: sample.media)]
    with (
        folder.writer(shard) as writer,
        FrameLoader([group[0].media for group in groups], decoder=settings.decoder) as loader,
    ):
        for position, group in enumerate(groups):
            asker.start_clip(lambda position=position: loader.get(position))  # type: ignore[misc]
            for sample in group:
                has_failed = _ask_and_write(asker, sample, writer, is_strict=settings.is_strict)
                progress = replace(
                    progress,
                    num_finished=progress.num_finished + 1,
                    num_failed=progress.num_failed + has_failed,
                    seconds=time.monotonic() - start,
                    num_now=progress.num_now + 1,
                )
                report(progress)


def _with_budget(benchmark: Benchmark, processor: Any) -> Any:
    """Return a processor with the visual tokens of the published evaluation of a benchmark."""
    if isinstance(processor, SailProcessor):
        return processor
    if benchmark.token_budget is None or processor.budget != FrameBudget():
        # The budget of a checkpoint that states one is part of how it was trained.
        return processor
    minimum, maximum = benchmark.token_budget
    changed = copy.copy(processor)
    changed.budget = replace(processor.budget, min_tokens=minimum, max_tokens=maximum)
    return changed


def _ask_and_write(asker: _Asker, sample: BenchmarkSample, writer: PredictionWriter, *, is_strict: bool) -> bool:
    """Ask about a sample, write its line, and return whether it failed."""
    try:
        prediction = asker.ask(sample)
    except _SAMPLE_ERRORS as error:
        reason = f"{type(error).__name__}: {error}"
        if is_strict:
            raise SampleFailedError(f"sample {sample.name} failed: {reason}") from error
        asker.forget_session()
        prediction = Prediction(sample=sample.name, error=reason)
    writer.append(prediction)
    return prediction.error is not None


class _Asker:
    """Asks about the samples of a clip; those without prompts share a session, which encodes the frames once."""

    def __init__(self, benchmark: Benchmark, model: Any, processor: Any, *, settings: RunSettings) -> None:
        self._benchmark, self._model, self._processor, self._settings = benchmark, model, processor, settings
        self._get_video: Callable[[], Video] | None = None
        self._shared: Session | None = None

    def start_clip(self, get_video: Callable[[], Video]) -> None:
        """Go on to another clip, whose frames the function returns."""
        self._get_video, self._shared = get_video, None

    def forget_session(self) -> None:
        """Release the shared session, whose state is unknown after an error."""
        self._shared = None

    def ask(self, sample: BenchmarkSample) -> Prediction:
        """Return the answer.

        Raises:
            OSError: The sample's data cannot be read.
            ValueError: The sample cannot be asked.
        """
        if sample.problem is not None:
            raise OSError(sample.problem)
        return self._benchmark.ask(
            SampleContext(
                sample=sample,
                variant=self._settings.variant,
                model=self._model,
                processor=self._processor,
                settings=self._settings.session,
                has_published_wording=self._settings.has_published_wording,
                session=self._open,
                clip_session=self._reuse,
            )
        )

    def _open(self) -> Session:
        if self._get_video is None:
            raise RuntimeError("no clip was started: call start_clip first")
        return open_session(self._model, self._processor, self._get_video(), settings=self._settings.session)

    def _reuse(self) -> Session:
        """Return the session of the clip without its objects and conversation."""
        if self._shared is None:
            self._shared = self._open()
        for object_id in tuple(self._shared.bank.ids):
            self._shared.forget(object_id)
        self._shared.restart()
        return self._shared
