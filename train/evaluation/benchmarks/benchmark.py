"""What a row of the table of benchmarks consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
from unipixel.train.evaluation.scoring.scores import ScoreProtocol, Scores

if TYPE_CHECKING:
    from unipixel.train.evaluation.answers.judge_client import JudgeSettings
    from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile
    from unipixel.train.evaluation.running.sample_context import SampleContext

PAPER = "arXiv:2509.18094"
"""The paper of UniPixel."""

Unit = Literal["fraction", "marks"]


class ReadSamples(Protocol):
    """Reads the samples of a split in the order of the annotation file, without decoding media or masks."""

    def __call__(self, data_dir: Path, *, split: str, variant: str) -> Sequence[BenchmarkSample]:
        """Read the samples.

        Raises:
            OSError: A file is missing; the message shows the tree that was expected.
            ValueError: An annotation has another form; the message names the file and the field.
        """


class ScorePredictions(Protocol):
    """Computes the figures of a split; a pure function of samples and predictions."""

    def __call__(
        self, samples: Sequence[BenchmarkSample], predictions: PredictionFile, *, protocol: ScoreProtocol
    ) -> Scores:
        """Score predictions; a sample that failed counts 0 and is listed."""


AskSample: TypeAlias = "Callable[[SampleContext], Prediction]"
WriteSubmission: TypeAlias = "Callable[[Sequence[BenchmarkSample], PredictionFile, Path], Mapping[str, str]]"
JudgePredictions: TypeAlias = "Callable[[Sequence[BenchmarkSample], Path, JudgeSettings], None]"
CheckSubmission: TypeAlias = "Callable[[Path, Sequence[BenchmarkSample] | None], list[str]]"


@dataclass(frozen=True)
class PublishedFigure:
    """A figure that somebody published.

    Attributes:
        figure: Name of the figure, as in `Scores.figures`.
        value: Its value in the unit of the benchmark: a fraction of 1, or marks.
        model: The model, such as `UniPixel-3B`.
        source: Where it was published.
    """

    figure: str
    value: float
    model: str
    source: str


def published_figures(model: str, *, source: str = PAPER, **percentages: float) -> tuple[PublishedFigure, ...]:
    """Return published figures that are given in per cent, as publications print them."""
    return tuple(PublishedFigure(name, value / 100, model, source) for name, value in percentages.items())


@dataclass(frozen=True, kw_only=True)
class BenchmarkSplit:
    """One split of a benchmark.

    Attributes:
        name: Its name, as in `--split`.
        tree: The files that are expected under the data folder, one line each.
        has_truth: False where only a server has the truth.
        published: Published figures.
    """

    name: str
    tree: tuple[str, ...]
    has_truth: bool = True
    published: tuple[PublishedFigure, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A row of the table of benchmarks.

    Attributes:
        name: Its name on the command line.
        title: Its name in the literature.
        splits: The splits; the first is the default.
        read: Reads the samples.
        ask: Asks a model about one sample.
        score: Computes the figures.
        protocols: The protocols whose figures differ; `honest` alone where the published code has no quirk.
        variants: Ways to pose the same samples, such as `point`, `box` and `mixed`; the first is the default.
        submission: Writes the archive that a server takes, and returns the reasons of samples that failed by name; None
            where there is no server.
        check: Returns what is wrong with such an archive, one line each; without samples, the layout alone.
        judge: Asks a judge about the answers in a predictions file and stores its replies there; None where no judge is
            needed.
        main_figure: The figure that the paper prints first.
        metric: What is measured, in a few words.
        unit: Unit of the figures.
        source: Where the data come from.
        licence: Their licence.
        differences: What differs between the protocols `paper` and `honest`, and why.
        token_budget: Visual tokens per frame pair (minimum, maximum) of the published evaluation, where they differ
            from those of the checkpoint.
    """

    name: str
    title: str
    splits: tuple[BenchmarkSplit, ...]
    read: ReadSamples
    ask: AskSample
    score: ScorePredictions
    protocols: tuple[ScoreProtocol, ...] = ("honest",)
    variants: tuple[str, ...] = ("",)
    submission: WriteSubmission | None = None
    check: CheckSubmission | None = None
    judge: JudgePredictions | None = None
    main_figure: str
    metric: str
    unit: Unit = "fraction"
    source: str
    licence: str
    differences: str = ""
    token_budget: tuple[int, int] | None = None

    def split(self, name: str | None) -> BenchmarkSplit:
        """Return a split by name; the first for None.

        Raises:
            ValueError: There is no such split.
        """
        names = [split.name for split in self.splits]
        if name is None:
            return self.splits[0]
        if name not in names:
            raise ValueError(f"{self.name} has no split {name!r}: allowed are {', '.join(names)}")
        return self.splits[names.index(name)]

    def variant(self, name: str | None) -> str:
        """Return a variant by name; the first for None.

        Raises:
            ValueError: There is no such variant.
        """
        if name is None:
            return self.variants[0]
        if name not in self.variants or not name:
            allowed = ", ".join(self.variants) if self.variants != ("",) else "none"
            raise ValueError(f"{self.name} has no variant {name!r}: allowed are {allowed}")
        return name
