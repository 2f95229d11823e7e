"""Rows of the benchmarks of video object segmentation."""

from __future__ import annotations

from functools import partial

from unipixel.train.evaluation.benchmarks.benchmark import Benchmark, BenchmarkSplit, published_figures
from unipixel.train.evaluation.readers.expressions import ExpressionLayout, read_expressions
from unipixel.train.evaluation.readers.groundmore import read_groundmore
from unipixel.train.evaluation.readers.label_sequences import read_reasonvos, read_sequences
from unipixel.train.evaluation.running.asking import ask_referring, ask_tracker
from unipixel.train.evaluation.running.submission import check_mask_archive, write_mask_archive
from unipixel.train.evaluation.scoring.davis_scores import score_ref_davis, score_sequences
from unipixel.train.evaluation.scoring.groundmore_scores import score_groundmore
from unipixel.train.evaluation.scoring.mask_scores import score_revos, score_tracks

_JF = "J (region), F (contour), J&F; mean over expressions"
_WORKERS = (
    "The figures are equal. The published script leaves an expression without prediction, with a missing frame or of "
    "another size out of the mean; here it counts 0 and is listed."
)
_BEST_KNOWN = "best known, November 2026"
_RELEASED = "README of the released weights"

_REVOS = ExpressionLayout(
    expressions="meta_expressions_{split}_.json",
    frames=("{video}", "JPEGImages/{video}"),
    masks="mask_dict.json",
    foreground="mask_dict_foreground.json",
    form=None,
)
_MEVIS = ExpressionLayout(
    expressions="{split}/meta_expressions.json",
    frames=("{split}/JPEGImages/{video}",),
    masks="{split}/mask_dict.json",
    unannotated_splits=("valid",),
)
_REF_YOUTUBE_VOS = ExpressionLayout(
    expressions="meta_expressions/{split}/meta_expressions.json", frames=("{split}/JPEGImages/{video}",)
)
_REF_DAVIS = ExpressionLayout(
    expressions="meta_expressions/{split}/meta_expressions.json",
    frames=("DAVIS/JPEGImages/480p/{video}",),
    masks="{split}/mask_dict.pkl",
    is_numbered=True,
    labels="DAVIS/Annotations_unsupervised/480p/{video}",
)
_REF_SAV = ExpressionLayout(
    expressions="{split}/meta_expressions_{split}.json",
    frames=("{split}/videos/{video}",),
    masks="{split}/mask_dict.json",
    form="description",
)

VIDEO_ROWS = (
    Benchmark(
        name="revos",
        title="ReVOS",
        splits=(
            BenchmarkSplit(
                name="valid",
                tree=(
                    "meta_expressions_valid_.json",
                    "mask_dict.json",
                    "mask_dict_foreground.json",
                    "VIDEO/FRAME.jpg or JPEGImages/VIDEO/FRAME.jpg",
                ),
                published=(
                    *published_figures("UniPixel-3B", J=59.7, F=64.4, JF=62.1, referring_JF=64.5, reasoning_JF=59.6),
                    *published_figures("UniPixel-3B", R=19.0),
                    *published_figures("UniPixel-7B", J=61.9, F=66.1, JF=64.0, referring_JF=66.4, reasoning_JF=61.8),
                    *published_figures("UniPixel-7B", R=19.1),
                    *published_figures("UniPixel-7B", source=_RELEASED, J=61.7, F=65.7, JF=63.7),
                    *published_figures("VIRST", source=_BEST_KNOWN, JF=68.4),
                    *published_figures("RGA3", source=_BEST_KNOWN, R=28.6),
                ),
            ),
        ),
        read=partial(read_expressions, layout=_REVOS),
        ask=ask_referring,
        score=score_revos,
        protocols=("honest", "paper"),
        main_figure="JF",
        metric="J, F, J&F, accuracy A, robustness R; mean of the referring and the reasoning mean",
        source="https://github.com/cilinyan/ReVOS-api (OneDrive or Baidu)",
        licence="CC BY-NC-SA 4.0",
        differences="The published script compares masks of 0 and 255 with annotations of 0 and 1 and adds bytes that "
        "overflow: a false positive weighs 255 in R, and no pixel of an object agrees in A. It also rounds each "
        "expression's percentages to two decimals. `honest` computes R and A as they are defined.",
    ),
    Benchmark(
        name="mevis",
        title="MeViS",
        splits=(
            BenchmarkSplit(
                name="valid_u",
                tree=(
                    "valid_u/meta_expressions.json",
                    "valid_u/mask_dict.json",
                    "valid_u/JPEGImages/VIDEO/FRAME.jpg",
                ),
                published=(
                    *published_figures("UniPixel-3B", JF=59.7),
                    *published_figures("UniPixel-7B", JF=59.9),
                    *published_figures("UFVideo-7B", source=_BEST_KNOWN, JF=62.8),
                ),
            ),
            BenchmarkSplit(
                name="valid",
                tree=("valid/meta_expressions.json", "valid/JPEGImages/VIDEO/FRAME.jpg"),
                has_truth=False,
                published=(
                    *published_figures("UniPixel-3B", JF=53.1),
                    *published_figures("UniPixel-7B", JF=54.7),
                    *published_figures("UniPixel-7B", source=_RELEASED, JF=55.8),
                    *published_figures("AgentRVOS + GPT-5", source=_BEST_KNOWN, JF=73.1),
                    *published_figures("VIRST", source=_BEST_KNOWN, JF=62.9),
                ),
            ),
        ),
        read=partial(read_expressions, layout=_MEVIS),
        ask=ask_referring,
        score=score_tracks,
        submission=write_mask_archive,
        check=check_mask_archive,
        main_figure="JF",
        metric=_JF,
        source="https://henghuiding.com/MeViS (server on CodaLab, competition 15094)",
        licence="CC BY-NC-SA 4.0",
        differences=_WORKERS,
    ),
    Benchmark(
        name="ref-youtube-vos",
        title="Ref-YouTube-VOS",
        splits=(
            BenchmarkSplit(
                name="valid",
                tree=("meta_expressions/valid/meta_expressions.json", "valid/JPEGImages/VIDEO/FRAME.jpg"),
                has_truth=False,
                published=(
                    *published_figures("UniPixel-3B", JF=70.5),
                    *published_figures("UniPixel-7B", JF=72.1),
                    *published_figures("UniPixel-7B", source=_RELEASED, JF=71.0),
                    *published_figures("VIRST", source=_BEST_KNOWN, JF=74.2),
                ),
            ),
        ),
        read=partial(read_expressions, layout=_REF_YOUTUBE_VOS),
        ask=ask_referring,
        score=score_tracks,
        submission=write_mask_archive,
        check=check_mask_archive,
        main_figure="JF",
        metric=_JF,
        source="https://youtube-vos.org (registration)",
        licence="research, terms of YouTube-VOS",
        differences="The official file of this split also lists the videos of the test split; the server scores the "
        "202 others.",
    ),
    Benchmark(
        name="ref-davis17",
        title="Ref-DAVIS17",
        splits=(
            BenchmarkSplit(
                name="valid",
                tree=(
                    "meta_expressions/valid/meta_expressions.json",
                    "valid/mask_dict.pkl",
                    "DAVIS/JPEGImages/480p/VIDEO/FRAME.jpg",
                    "DAVIS/Annotations_unsupervised/480p/VIDEO/FRAME.png (protocol of DAVIS)",
                ),
                published=(
                    *published_figures("UniPixel-3B", JF=74.2),
                    *published_figures("UniPixel-7B", JF=75.7),
                    *published_figures("UniPixel-7B", source=_RELEASED, JF=76.4),
                    *published_figures("VideoSEG-O3-2B", source=_BEST_KNOWN, JF=80.0),
                ),
            ),
        ),
        read=partial(read_expressions, layout=_REF_DAVIS),
        ask=ask_referring,
        score=score_ref_davis,
        main_figure="JF",
        metric=f"{_JF}; beside it, as davis_protocol, the unsupervised evaluation of each annotator",
        source="https://davischallenge.org and the expressions of Khoreva et al. (arXiv:1803.08006)",
        licence="CC BY-NC 4.0",
        differences=_WORKERS,
    ),
    Benchmark(
        name="ref-sav",
        title="Ref-SAV",
        splits=(
            BenchmarkSplit(
                name="valid",
                tree=("valid/meta_expressions_valid.json", "valid/mask_dict.json", "valid/videos/VIDEO/FRAME.jpg"),
                published=(
                    *published_figures("UniPixel-3B", JF=67.2),
                    *published_figures("UniPixel-7B", JF=72.8),
                    *published_figures("UniPixel-7B", source=_RELEASED, JF=69.0),
                    *published_figures("MomentSeg-7B", source=_BEST_KNOWN, JF=80.8),
                ),
            ),
        ),
        read=partial(read_expressions, layout=_REF_SAV),
        ask=ask_referring,
        score=score_tracks,
        main_figure="JF",
        metric=_JF,
        source="https://huggingface.co/datasets/PolyU-ChenLab/UniPixel-SFT-1M (SA-V, expressions of Sa2VA)",
        licence="CC BY 4.0 (SA-V)",
        differences=_WORKERS,
    ),
    Benchmark(
        name="groundmore",
        title="GroundMoRe",
        splits=(
            BenchmarkSplit(
                name="test",
                tree=("test_v2.json", "annotations/CLIP/images/FRAME.jpg", "annotations/CLIP/masks/FRAME.png"),
                published=(
                    *published_figures("UniPixel-3B", JF=37.4),
                    *published_figures("UniPixel-7B", JF=47.6),
                    *published_figures("UniPixel-7B", source=_RELEASED, JF=37.8),
                    *published_figures("VideoSEG-O3-4B", source="best known, zero-shot, November 2026", JF=31.9),
                ),
            ),
        ),
        read=read_groundmore,
        ask=ask_referring,
        score=score_groundmore,
        protocols=("honest", "paper"),
        main_figure="JF",
        metric="J, F, J&F; mean over questions, and by type of question",
        source="https://groundmore.github.io",
        licence="terms of the data set's page",
        differences="The published script derives the file name of a frame from its position, so that in clips whose "
        "frames are numbered otherwise it compares other frames or none; several objects, or a clip without folder, "
        "end it without a figure. `honest` uses the frames' own names and the union of several objects.",
    ),
    Benchmark(
        name="reasonvos",
        title="ReasonVOS",
        splits=(
            BenchmarkSplit(
                name="test",
                tree=(
                    "meta_expressions.json",
                    "JPEGImages/VIDEO/FRAME.jpg",
                    "Annotations/SOURCE_VIDEO_OBJECT/FRAME.png",
                ),
                published=(
                    *published_figures("AgentRVOS + GPT-5", source=_BEST_KNOWN, JF=75.5),
                    *published_figures("VideoSEG-O3-4B", source=_BEST_KNOWN, JF=62.9),
                ),
            ),
        ),
        read=read_reasonvos,
        ask=ask_referring,
        score=score_tracks,
        main_figure="JF",
        metric=_JF,
        source="https://github.com/showlab/VideoLISA (Google Drive)",
        licence="non-commercial research",
        differences="The figures are equal. The published script leaves a sample without prediction out of the mean.",
    ),
    *(
        Benchmark(
            name=f"davis{year}",
            title=f"DAVIS 20{year} semi-supervised",
            splits=(
                BenchmarkSplit(
                    name="val",
                    tree=(
                        tree,
                        "JPEGImages/480p/SEQUENCE/FRAME.jpg",
                        "Annotations/480p/SEQUENCE/FRAME.png",
                    ),
                ),
            ),
            read=partial(read_sequences, lists=lists, is_binary=is_binary),
            ask=ask_tracker,
            score=score_sequences,
            main_figure="JF",
            metric="mean, recall and decay of J and F over objects; J&F. The tracker alone, from the first masks",
            source="https://davischallenge.org",
            licence="CC BY-NC 4.0",
        )
        for year, tree, lists, is_binary in (
            (17, "ImageSets/2017/val.txt", ("2017/{split}.txt",), False),
            (16, "ImageSets/2016/val.txt or ImageSets/480p/val.txt", ("2016/{split}.txt", "480p/{split}.txt"), True),
        )
    ),
)
