"""Rows of the benchmarks of questions and descriptions of videos: VideoRefer-Bench, PixelQA and MVBench."""

from __future__ import annotations

from functools import partial

from unipixel.train.evaluation.answers.choice_scores import score_choices
from unipixel.train.evaluation.answers.description_scores import score_descriptions
from unipixel.train.evaluation.answers.judge_client import judge_predictions
from unipixel.train.evaluation.benchmarks.benchmark import (
    PAPER,
    AskSample,
    Benchmark,
    BenchmarkSplit,
    PublishedFigure,
    ScorePredictions,
    published_figures,
)
from unipixel.train.evaluation.readers.mvbench_questions import BOUNDED, WHOLE, read_mvbench
from unipixel.train.evaluation.readers.videorefer_bench import read_videorefer
from unipixel.train.evaluation.running.asking_pixelqa import ask_pixelqa, ask_pixelqa_forced, ask_set_of_mark
from unipixel.train.evaluation.running.asking_regions import BEST_OPTION, ask_choice, ask_regions
from unipixel.train.evaluation.scoring.pixelqa_scores import score_pixelqa

_README = "README of the released weights"
_BEST = "best known, November 2026"
_VIDEOS = ("videos/DAVIS/JPEGImages/480p/...", "videos/MeViS/valid_u/JPEGImages/...")
_Q_TREE = ("VideoRefer-Bench-Q.json", *_VIDEOS)
_VIDEOREFER = "https://huggingface.co/datasets/DAMO-NLP-SG/VideoRefer-Bench"
_LETTERS = (
    "The published code reads the first character of the first word, so that `Answer: B` selects A and `The answer is "
    "A` nothing. `honest` reads the option that the answer states, by letter or text."
)
_PIXELQA_DIFFERENCES = (
    "J and F of the published code are overlaps of whole volumes (F is Dice, not a contour measure), and an object "
    "that is nowhere and predicted nowhere has 0. `honest` computes J and F of DAVIS, frame by frame. " + _LETTERS
)
_PIXELQA_FIGURES = {
    ("UniPixel-3B", "point"): {"J": 57.3, "F": 64.4, "JF": 60.9, "accuracy": 71.1},
    ("UniPixel-3B", "box"): {"J": 57.8, "F": 64.7, "JF": 61.3, "accuracy": 70.3},
    ("UniPixel-3B", "mixed"): {"J": 57.2, "F": 64.1, "JF": 60.6, "accuracy": 70.8},
    ("UniPixel-7B", "point"): {"J": 56.9, "F": 64.5, "JF": 60.7, "accuracy": 71.5},
    ("UniPixel-7B", "box"): {"J": 58.1, "F": 64.9, "JF": 61.5, "accuracy": 70.5},
    ("UniPixel-7B", "mixed"): {"J": 57.5, "F": 64.7, "JF": 61.1, "accuracy": 71.0},
}


def _pixelqa_row(
    name: str,
    title: str,
    ask: AskSample,
    score: ScorePredictions,
    *,
    metric: str,
    published: tuple[PublishedFigure, ...],
    differences: str,
) -> Benchmark:
    is_masked = score is score_pixelqa
    return Benchmark(
        name=name,
        title=title,
        splits=(BenchmarkSplit(name="test", tree=_Q_TREE, published=published),),
        read=partial(read_videorefer, task="pixelqa"),
        ask=ask,
        score=score,
        protocols=("honest", "paper"),
        variants=("mixed", "point", "box"),
        main_figure="JF" if is_masked else "accuracy",
        metric=metric,
        source=_VIDEOREFER,
        licence="Apache-2.0",
        differences=differences,
    )


_TEACHER_FORCED = tuple(
    figure
    for (model, kind), values in _PIXELQA_FIGURES.items()
    for figure in published_figures(f"{model}, {kind}", source=f"{PAPER}, teacher-forced", **values)
)
_SET_OF_MARK = tuple(
    figure
    for kind, values in (("point", (60.8, 69.3)), ("box", (61.3, 69.0)), ("mixed", (60.9, 69.1)))
    for model, value in zip(("InternVL2-26B", "Qwen2-VL-72B"), values, strict=True)
    for figure in published_figures(f"{model}, {kind}", accuracy=value)
)

QUESTION_ROWS = (
    Benchmark(
        name="videorefer-bench-q",
        title="VideoRefer-Bench-Q",
        splits=(
            BenchmarkSplit(
                name="test",
                tree=_Q_TREE,
                published=(
                    *published_figures("UniPixel-3B, multi", accuracy=72.8),
                    *published_figures("UniPixel-3B, single", accuracy=72.2),
                    *published_figures("UniPixel-7B, multi", accuracy=76.3),
                    *published_figures("UniPixel-7B, single", accuracy=73.8),
                    *published_figures("UniPixel-7B, multi", source=_README, accuracy=74.1),
                    *published_figures("UniPixel-7B, single", source=_README, accuracy=73.4),
                    *published_figures("VideoRefer-VideoLLaMA3-7B", source=_BEST, accuracy=80.1),
                ),
            ),
        ),
        read=partial(read_videorefer, task="questions"),
        ask=partial(ask_regions, prefix=BEST_OPTION),
        score=partial(score_choices, kind="type", second="videorefer_repository"),
        protocols=("honest", "paper"),
        variants=("multi", "single"),
        main_figure="accuracy",
        metric="accuracy, also by kind of question",
        source=_VIDEOREFER,
        licence="Apache-2.0",
        differences=f"{_LETTERS} `videorefer_repository` has the figures by the rule of the data set's own code.",
        token_budget=(100, 144),
    ),
    Benchmark(
        name="videorefer-bench-d",
        title="VideoRefer-Bench-D",
        splits=(
            BenchmarkSplit(
                name="test",
                tree=("VideoRefer-Bench-D.json", "videos/Panda-70M-part/NAME.mp4"),
                published=(
                    PublishedFigure("average", 3.44, "UniPixel-3B, multi", PAPER),
                    PublishedFigure("average", 3.42, "UniPixel-3B, single", PAPER),
                    PublishedFigure("average", 3.48, "UniPixel-7B, multi", PAPER),
                    PublishedFigure("average", 3.47, "UniPixel-7B, single", PAPER),
                    PublishedFigure("average", 3.36, "UniPixel-7B, multi", _README),
                    PublishedFigure("average", 3.37, "UniPixel-7B, single", _README),
                    PublishedFigure("average", 3.70, "PixelRefer-7B", _BEST),
                ),
            ),
        ),
        read=partial(read_videorefer, task="descriptions"),
        ask=ask_regions,
        score=score_descriptions,
        judge=judge_predictions,
        protocols=("honest", "paper"),
        variants=("multi", "single"),
        main_figure="average",
        metric="four marks of 0 to 5 by a judge, and their average",
        unit="marks",
        source=_VIDEOREFER,
        licence="Apache-2.0",
        differences="A judge is asked only if one is configured; its replies are stored with the predictions. The "
        "published script leaves a mark that is not written as `N. NAME: MARK` out of the mean of its dimension; "
        "`honest` reads other usual forms too, and a mark that is missing counts 0. Marks of different judges must not "
        "be compared: the paper names GPT-4o, its script GPT-4o mini.",
    ),
    _pixelqa_row(
        "pixelqa",
        "PixelQA",
        ask_pixelqa,
        score_pixelqa,
        metric="J, F, J&F of the objects' masks, and accuracy; the model pre-fills the masks itself",
        published=(),
        differences=f"{_PIXELQA_DIFFERENCES} The published figures are teacher-forced (`pixelqa-forced`), so that none "
        "is comparable here.",
    ),
    _pixelqa_row(
        "pixelqa-forced",
        "PixelQA, teacher-forced",
        ask_pixelqa_forced,
        score_pixelqa,
        metric="as PixelQA, but the objects' ids are given, as in the published evaluation",
        published=_TEACHER_FORCED,
        differences=f"{_PIXELQA_DIFFERENCES} The draw of points and boxes in `mixed` is seeded.",
    ),
    _pixelqa_row(
        "pixelqa-set-of-mark",
        "PixelQA, set-of-mark baseline",
        ask_set_of_mark,
        partial(score_choices, kind="type", second="videorefer_repository"),
        metric="accuracy; points and boxes are drawn into the frames with their ids",
        published=_SET_OF_MARK,
        differences=f"{_LETTERS} How the paper draws its marks is not published.",
    ),
    Benchmark(
        name="mvbench",
        title="MVBench",
        splits=(
            BenchmarkSplit(
                name="test",
                tree=("json/TASK.json", "video/FOLDER/NAME.mp4", "video/tvqa/frames_fps3_hq/NAME/00001.jpg"),
                published=(
                    *published_figures("UniPixel-3B", accuracy=62.5),
                    *published_figures("UniPixel-7B", source=_README, accuracy=64.3),
                ),
            ),
        ),
        read=read_mvbench,
        ask=ask_choice,
        score=partial(score_choices, kind="task", second="mvbench_repository"),
        protocols=("honest", "paper"),
        variants=(WHOLE, BOUNDED),
        main_figure="accuracy",
        metric="accuracy over all questions, also by task",
        source="https://huggingface.co/datasets/OpenGVLab/MVBench",
        licence="MIT (annotations); videos under their own terms",
        differences=f"{_LETTERS} The published reader ignores `start` and `end` and so does the variant `{WHOLE}`; "
        f"`{BOUNDED}` shows only that part. `mvbench_repository` has the figures by the rule of the data set's own "
        "code, with an empty answer counted as wrong. The positions of frames in time are those of a fixed rate; the "
        "published code passes the true one to the language model.",
    ),
)
