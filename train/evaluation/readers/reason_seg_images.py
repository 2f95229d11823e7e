"""Reader of ReasonSeg: one JSON file of labelled polygons and questions beside each image.

A sample is a pair of an image and one of its texts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from unipixel.processing.prompt_templates import SegmentationForm, segmentation_question
from unipixel.train.datasets.label_polygons import IGNORED, TARGET, draw_label_polygons
from unipixel.train.evaluation.benchmarks.annotation_files import field_of, first_existing
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia, SampleTruth


def read_reason_seg(data_dir: Path, *, split: str, variant: str) -> Sequence[BenchmarkSample]:
    """Read the questions of a split.

    Args:
        data_dir: Folder with SPLIT/NAME.json and NAME.jpg, or with ReasonSeg/ above them.
        split: Name of the split.
        variant: Not used.

    Raises:
        OSError: The folder is missing.
        ValueError: An annotation has another form.
    """
    del variant
    folder = first_existing(data_dir / split, data_dir / "ReasonSeg" / split)
    return [sample for path in sorted(folder.glob("*.json")) for sample in _image_samples(path)]


def read_label_file(path: Path) -> Any:
    """Read a JSON file in UTF-8 or, as some of the published ones are, in Windows-1252.

    Raises:
        OSError: It cannot be read.
        ValueError: It is not JSON in either encoding.
    """
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        # Five bytes have no character in Windows-1252; the published reader would stop at them.
        text = content.decode("cp1252", errors="replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error})") from error


def _image_samples(path: Path) -> list[BenchmarkSample]:
    content = read_label_file(path)
    given = field_of(content, "text", (str, list), location=str(path))
    texts = [given] if isinstance(given, str) else given
    is_sentence = field_of(content, "is_sentence", bool, location=str(path))
    shapes = field_of(content, "shapes", list, location=str(path))
    form: SegmentationForm = "sentence" if is_sentence else "query"
    image = path.with_suffix(".jpg")
    samples = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{path}: `text` is a list of texts, got {text!r:.80}")
        samples.append(
            BenchmarkSample(
                name=f"{path.stem}/{index}",
                question=segmentation_question(text, form=form, num_frames=1, is_published=True),
                frames=(path.stem,),
                language_frames=(0,),
                media=SampleMedia(paths=(image,)),
                truth=partial(_truth, shapes, image=image, location=str(path)),
                fields={"type": form, "query": text, "media": "image"},
            )
        )
    return samples


def _truth(shapes: Sequence[Any], *, image: Path, location: str) -> SampleTruth:
    with Image.open(image, formats=("JPEG", "PNG")) as opened:
        size = (opened.height, opened.width)
    labels = draw_label_polygons(shapes, size=size, location=location)
    return SampleTruth(masks=(labels == TARGET)[None, None], ignored=(labels == IGNORED)[None])
