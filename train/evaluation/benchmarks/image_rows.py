"""Rows of the benchmarks of images: referring segmentation, region captions and PerBench."""

from __future__ import annotations

from functools import partial

from unipixel.train.evaluation.answers.caption_scores import score_region_captions
from unipixel.train.evaluation.answers.perbench_scores import score_perbench
from unipixel.train.evaluation.benchmarks.benchmark import (
    PAPER,
    Benchmark,
    BenchmarkSplit,
    PublishedFigure,
    published_figures,
)
from unipixel.train.evaluation.readers.perbench_images import read_perbench
from unipixel.train.evaluation.readers.reason_seg_images import read_reason_seg
from unipixel.train.evaluation.readers.refer_images import read_refer
from unipixel.train.evaluation.readers.region_captions import read_region_captions
from unipixel.train.evaluation.running.asking import ask_referring
from unipixel.train.evaluation.running.asking_regions import ask_regions
from unipixel.train.evaluation.scoring.image_scores import score_grefcoco, score_images, score_reason_seg

_README = "README of the released weights"
_TUNED = "UniPixel paper, after fine-tuning"
_SAIL = "Pixel-SAIL, arXiv:2504.10465"
_BEST = "best known, November 2026"
_COCO_IMAGES = "images/mscoco/images/train2014/COCO_train2014_NUMBER.jpg"
_REFER_SOURCE = "https://github.com/lichengunc/refer (expressions), https://cocodataset.org (images of COCO 2014)"
_BOXES = (
    "Acc@0.5 compares the box of the mask. The published code removes parts below 10 pixels, so that a small object is "
    "never hit, and ends the box at the last pixel, one short of the annotated boxes. `honest` takes all pixels and "
    "the edge after the last one. cIoU and gIoU are the same."
)


def _figures(
    three: dict[str, float], seven: dict[str, float], released: dict[str, float], **best: float
) -> tuple[PublishedFigure, ...]:
    """Return the figures of UniPixel-3B, of UniPixel-7B in the paper and as released, and the best known."""
    return (
        *published_figures("UniPixel-3B", source=PAPER, **three),
        *published_figures("UniPixel-7B", source=PAPER, **seven),
        *published_figures("UniPixel-7B", source=_README, **released),
        *(figure for model, value in best.items() for figure in published_figures(model, source=_BEST, cIoU=value)),
    )


def _refer_split(
    name: str,
    dataset: str,
    partition: str,
    figures: tuple[PublishedFigure, ...],
    tuned: tuple[float, float] | None = None,
) -> BenchmarkSplit:
    """Return a split of the REFER format; `tuned` is cIoU of the 3B and the 7B model after fine-tuning."""
    if tuned is not None:
        figures += published_figures("UniPixel-3B", source=_TUNED, cIoU=tuned[0])
        figures += published_figures("UniPixel-7B", source=_TUNED, cIoU=tuned[1])
    tree = (f"{dataset}/refs({partition}).p", f"{dataset}/instances.json", _COCO_IMAGES)
    return BenchmarkSplit(name=name, tree=tree, published=figures)


def _refer_row(name: str, title: str, partition: str, splits: tuple[BenchmarkSplit, ...]) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        splits=splits,
        read=partial(read_refer, dataset=name, partition=partition),
        ask=ask_referring,
        score=score_images,
        protocols=("honest", "paper"),
        main_figure="cIoU",
        metric="cIoU, gIoU; Acc@0.5 of the masks' boxes",
        source=_REFER_SOURCE,
        licence="CC BY 4.0 (annotations of COCO), Apache-2.0 (REFER)",
        differences=_BOXES,
    )


def _grefcoco_split(name: str, three: float, tuned: float) -> BenchmarkSplit:
    return BenchmarkSplit(
        name=name,
        tree=(
            "grefcoco/grefs(unc).json or grefcoco/grefs(unc).p",
            "grefcoco/instances.json",
            "images/train2014/COCO_train2014_NUMBER.jpg",
        ),
        published=(
            *published_figures("Pixel-SAIL-3B", source=_SAIL, cIoU=three),
            *published_figures("Pixel-SAIL-3B", source=f"{_SAIL}, after fine-tuning", cIoU=tuned),
        ),
    )


def _perbench_split(name: str, files: tuple[str, ...], figures: tuple[str, ...]) -> BenchmarkSplit:
    printed = {
        "Pixel-SAIL-3B": {"METEOR": 24.2, "accuracy": 74.0, "cIoU": 33.4, "gIoU": 23.5, "overall": 42.2},
        "Pixel-SAIL-0.5B": {"METEOR": 21.4, "accuracy": 69.0, "cIoU": 29.7, "gIoU": 19.8, "overall": 38.4},
        "Sa2VA-4B": {"METEOR": 19.2, "accuracy": 71.0, "cIoU": 31.9, "gIoU": 21.9, "overall": 39.0},
    }
    published = tuple(
        figure
        for model, values in printed.items()
        for figure in published_figures(model, source=_SAIL, **{key: values[key] for key in figures})
    )
    return BenchmarkSplit(name=name, tree=(*files, "images/NAME or NAME"), published=published)


_CAPTIONS, _MCQ, _VRES = "STBench_Detailed_Caption.json", "STBench_MCQ.json", "STBench_VRES.json"

IMAGE_ROWS = (
    _refer_row(
        "refcoco",
        "RefCOCO",
        "unc",
        (
            _refer_split(
                "val",
                "refcoco",
                "unc",
                _figures(
                    {"cIoU": 80.5, "acc@0.5": 91.8}, {"cIoU": 82.5, "acc@0.5": 93.5}, {"cIoU": 80.8}, **{"X-SAM": 85.1}
                ),
                (81.9, 83.1),
            ),
            _refer_split("testA", "refcoco", "unc", _figures({"cIoU": 82.6}, {"cIoU": 83.8}, {"cIoU": 83.0})),
            _refer_split("testB", "refcoco", "unc", _figures({"cIoU": 76.9}, {"cIoU": 79.8}, {"cIoU": 77.4})),
        ),
    ),
    _refer_row(
        "refcoco+",
        "RefCOCO+",
        "unc",
        (
            _refer_split(
                "val",
                "refcoco+",
                "unc",
                _figures(
                    {"cIoU": 74.3, "acc@0.5": 86.3},
                    {"cIoU": 76.5, "acc@0.5": 88.5},
                    {"cIoU": 75.3},
                    **{"Sa2VA-14B": 79.9},
                ),
                (75.3, 77.4),
            ),
            _refer_split("testA", "refcoco+", "unc", _figures({"cIoU": 78.9}, {"cIoU": 81.0}, {"cIoU": 80.1})),
            _refer_split("testB", "refcoco+", "unc", _figures({"cIoU": 68.4}, {"cIoU": 70.9}, {"cIoU": 70.0})),
        ),
    ),
    _refer_row(
        "refcocog",
        "RefCOCOg",
        "umd",
        (
            _refer_split(
                "val",
                "refcocog",
                "umd",
                _figures(
                    {"cIoU": 76.3, "acc@0.5": 88.0}, {"cIoU": 77.5, "acc@0.5": 89.4}, {"cIoU": 76.4}, **{"X-SAM": 83.8}
                ),
                (77.2, 78.1),
            ),
            _refer_split("test", "refcocog", "umd", _figures({"cIoU": 77.0}, {"cIoU": 78.4}, {"cIoU": 77.1})),
        ),
    ),
    Benchmark(
        name="grefcoco",
        title="gRefCOCO",
        splits=(
            _grefcoco_split("val", 67.7, 72.1),
            _grefcoco_split("testA", 74.6, 77.1),
            _grefcoco_split("testB", 67.1, 70.4),
        ),
        read=partial(read_refer, dataset="grefcoco", partition="unc", is_generalized=True),
        ask=ask_referring,
        score=score_grefcoco,
        main_figure="cIoU",
        metric="cIoU, gIoU, N-acc, T-acc, precision at IoU 0.7, 0.8 and 0.9",
        source="https://github.com/henghuiding/gRefCOCO (expressions), https://cocodataset.org (images of COCO 2014)",
        licence="CC BY 4.0 (annotations of COCO)",
        differences="An empty mask means that nothing matches, unless the prediction says otherwise in `no_target`; "
        "`no_label_from_empty_masks` then has the figures without that label. Masks are scored at the size of the "
        "image, in the published evaluation of ReLA at that of the network's input.",
    ),
    Benchmark(
        name="reasonseg",
        title="ReasonSeg",
        splits=(
            BenchmarkSplit(
                name="val",
                tree=("val/NAME.json", "val/NAME.jpg"),
                published=(
                    *published_figures("UniPixel-3B", gIoU=64.0, cIoU=56.2),
                    *published_figures("UniPixel-7B", gIoU=65.3, cIoU=58.0),
                    *published_figures("UniPixel-7B", source=_README, gIoU=60.5, cIoU=58.7),
                    *published_figures("SAM 3 agent, 72B", source=_BEST, gIoU=74.6),
                ),
            ),
            BenchmarkSplit(name="test", tree=("test/NAME.json", "test/NAME.jpg")),
        ),
        read=read_reason_seg,
        ask=ask_referring,
        score=score_reason_seg,
        main_figure="gIoU",
        metric="gIoU, cIoU; every text of an image is a sample",
        source="https://github.com/dvlab-research/LISA (Google Drive)",
        licence="see the data set's page",
        differences="The published figures count predicted pixels of a region labelled `ignore` as false positives: "
        "its code marks them with -1 in an image of bytes, where OpenCV stores 0. "
        "`without_ignored_pixels` has the figures without them. Labels are read as LISA does: any that contains "
        "`ignore`, in any case.",
    ),
    Benchmark(
        name="perbench",
        title="PerBench",
        splits=(
            _perbench_split("all", (_CAPTIONS, _MCQ, _VRES), ("METEOR", "accuracy", "cIoU", "gIoU", "overall")),
            _perbench_split("captions", (_CAPTIONS,), ("METEOR",)),
            _perbench_split("mcq", (_MCQ,), ("accuracy",)),
            _perbench_split("vres", (_VRES,), ("cIoU", "gIoU")),
        ),
        read=read_perbench,
        ask=partial(ask_regions, has_masks=True),
        score=score_perbench,
        protocols=("honest", "paper"),
        main_figure="overall",
        metric="METEOR (NLTK) and CIDEr; accuracy; cIoU and gIoU; overall",
        source="https://github.com/magic-research/Sa2VA (not published when this was written); images of SA-1B",
        licence="see the data set's page",
        differences="The published code exchanges caption and reference in METEOR, takes a choice for right if the "
        "right answer occurs anywhere in the text, and compares only the first mask with the first target, leaving out "
        "answers without a mask from cIoU. `honest` has the roles right, reads the option that is stated, and matches "
        "masks and targets one to one, with an empty mask for each that is alone. Where an answer has no mask, one is "
        "forced from Pixel-SAIL, as published, and from no other model. METEOR uses WordNet where its data "
        "are installed (`variants` says so).",
    ),
    Benchmark(
        name="refcocog-captions",
        title="RefCOCOg region captions",
        splits=(
            BenchmarkSplit(
                name="val",
                tree=(
                    "finetune_refcocog_val_captions.json",
                    "finetune_refcocog_val_with_mask.json",
                    _COCO_IMAGES,
                ),
                published=(
                    *published_figures("Pixel-SAIL-3B", source=_SAIL, METEOR=17.6),
                    *published_figures("Pixel-SAIL-0.5B", source=_SAIL, METEOR=16.0),
                    *published_figures("Sa2VA-4B", source=_SAIL, METEOR=17.3),
                ),
            ),
        ),
        read=read_region_captions,
        ask=ask_regions,
        score=score_region_captions,
        main_figure="METEOR",
        metric="Meteor 1.5 (Java) on Penn treebank tokens, CIDEr",
        source="https://github.com/ashkamath/mdetr (captions); masks as in the published code of Pixel-SAIL",
        licence="CC BY 4.0 (annotations of COCO)",
        differences="The published code leaves out objects without an answer, here they have an empty caption.",
    ),
)
