"""The gallery of a run: its best, worst and random samples on one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from unipixel.train.evaluation.benchmarks.benchmark import Benchmark
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
from unipixel.train.evaluation.reporting.html_page import html_page
from unipixel.train.evaluation.reporting.sample_pictures import FramePicture, picture_frames
from unipixel.train.evaluation.reporting.sample_selection import RankedSample, select_samples
from unipixel.train.evaluation.running.predictions import Prediction, PredictionFile
from unipixel.train.evaluation.scoring.scores import Scores
from unipixel.video.decord_frames import Decoder

_TITLES = {"worst": "Worst samples", "best": "Best samples", "random": "Random samples"}


def gallery_page(
    benchmark: Benchmark,
    samples: Sequence[BenchmarkSample],
    predictions: PredictionFile,
    scores: Scores,
    *,
    split: str,
    variant: str = "",
    count: int,
    decoder: Decoder = "auto",
) -> str:
    """Return the page as HTML.

    Args:
        benchmark: The benchmark.
        samples: Its samples.
        predictions: The predictions.
        scores: Their scores.
        split: Name of the split.
        variant: Variant, or an empty text.
        count: Samples of each group.
        decoder: Decoder of video files.

    Raises:
        ValueError: The count is below 1.
    """
    by_name = {sample.name: sample for sample in samples}
    groups = select_samples(list(by_name), scores, count=count)
    title = " ".join(part for part in (benchmark.title, split, variant) if part)
    factor, unit = (100, "per cent") if benchmark.unit == "fraction" else (1, "marks")
    figures = ", ".join(f"{name} {factor * value:.2f}" for name, value in scores.figures.items())
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{len(samples)} samples, {len(scores.failed)} failed. {escape(figures)} ({unit}).</p>',
    ]
    for group, items in groups.items():
        parts.append(f"<h2>{_TITLES[group]}</h2>")
        for item in items:
            sample = by_name[item.name]
            parts.append(_section(sample, predictions.get(item.name), item, scores, factor=factor, decoder=decoder))
    return html_page(title, "\n".join(parts))


def _section(
    sample: BenchmarkSample,
    prediction: Prediction | None,
    item: RankedSample,
    scores: Scores,
    *,
    factor: int,
    decoder: Decoder,
) -> str:
    quality = "" if item.quality is None else f" — {factor * item.quality:.1f}"
    parts = [f"<h3>{escape(sample.name)}{quality}</h3>", f'<p class="text">{escape(sample.question)}</p>']
    if prediction is not None and prediction.text is not None:
        parts.append(f'<p class="text"><span class="soft">answer:</span> {escape(prediction.text)}</p>')
    try:
        answer = sample.truth().answer if sample.truth is not None else None
        if answer is not None:
            parts.append(f'<p class="text"><span class="soft">truth:</span> {escape(answer)}</p>')
        pictures = picture_frames(sample, prediction, decoder=decoder)
    except (OSError, ValueError) as error:
        parts.append(f'<p class="wrong">The frames cannot be shown: {escape(str(error))}</p>')
        pictures = []
    if item.name in scores.failed:
        parts.append(f'<p class="wrong">failed: {escape(scores.failed[item.name])}</p>')
    parts.append(_frames(pictures))
    return f'<section class="sample">{"".join(parts)}</section>'


def _frames(pictures: Sequence[FramePicture]) -> str:
    rows = []
    predicted = [_figure(picture.name, picture.predicted, "prediction") for picture in pictures]
    if predicted:
        rows.append(f'<div class="frames">{"".join(predicted)}</div>')
    truths = [_figure(picture.name, picture.truth, "truth") for picture in pictures if picture.truth is not None]
    if truths:
        rows.append(f'<div class="frames">{"".join(truths)}</div>')
    return "".join(rows)


def _figure(name: str, url: str, kind: str) -> str:
    caption = f"{kind}, {escape(name)}"
    return f'<figure><img src="{url}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
