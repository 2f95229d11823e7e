"""Reader of RefCOCOg region captions, as Pixel-SAIL evaluates them without fine-tuning.

Two COCO files of MDETR: captions, and one image entry per object whose annotation has the same id and the mask. A
sample is an object with all its captions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from unipixel.processing.visual_prompts import MaskPrompt, VisualPrompt
from unipixel.train.evaluation.benchmarks.annotation_files import field_of, first_existing, read_json
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia, SampleTruth
from unipixel.train.evaluation.readers.perbench_images import CAPTION_QUESTION
from unipixel.train.evaluation.readers.refer_images import IMAGE_FOLDERS
from unipixel.train.evaluation.readers.segmentations import decode_segmentation

CAPTION_FILE = "finetune_refcocog_{split}_captions.json"
MASK_FILE = "finetune_refcocog_{split}_with_mask.json"


def read_region_captions(data_dir: Path, *, split: str, variant: str) -> Sequence[BenchmarkSample]:
    """Read the objects of a split.

    Args:
        data_dir: Folder with the two files and images/.
        split: Name of the split, as in the files' names.
        variant: Not used.

    Raises:
        OSError: A file is missing.
        ValueError: An annotation has another form.
    """
    del variant
    references = _references(data_dir / CAPTION_FILE.format(split=split))
    path = data_dir / MASK_FILE.format(split=split)
    content = read_json(path)
    folder = first_existing(*(data_dir / name for name in IMAGE_FOLDERS))
    images = {}
    for entry in field_of(content, "images", list, location=str(path)):
        images[field_of(entry, "id", int, location=f"{path}, images")] = entry
    samples = []
    for number, annotation in enumerate(field_of(content, "annotations", list, location=str(path))):
        location = f"{path}, annotation {number}"
        key = field_of(annotation, "image_id", int, location=location)
        if key not in images or key not in references:
            raise ValueError(f"{location}: object {key} has no image or no caption")
        name = field_of(images[key], "file_name", str, location=location)
        if Path(name).name != name:
            raise ValueError(f"{location}: `file_name` must be a plain file name, got {name!r:.80}")
        size = [field_of(images[key], side, int, location=location) for side in ("height", "width")]
        image = folder / name
        samples.append(
            BenchmarkSample(
                name=str(key),
                question=CAPTION_QUESTION,
                frames=(image.stem,),
                language_frames=(0,),
                media=SampleMedia(paths=(image,)),
                prompts=partial(_prompts, annotation.get("segmentation"), (size[0], size[1]), location),
                truth=partial(SampleTruth, answer=references[key][0], fields={"references": references[key]}),
                fields={"prompt_ids": [0]},
            )
        )
    return samples


def _references(path: Path) -> dict[int, list[str]]:
    references: dict[int, list[str]] = defaultdict(list)
    for number, entry in enumerate(field_of(read_json(path), "annotations", list, location=str(path))):
        location = f"{path}, annotation {number}"
        key = field_of(entry, "image_id", int, location=location)
        references[key].append(field_of(entry, "caption", str, location=location))
    return dict(references)


def _prompts(segmentation: Any, size: tuple[int, int], location: str) -> dict[int, tuple[VisualPrompt, ...]]:
    mask = decode_segmentation(segmentation, size=size, location=location)
    if not mask.any():
        raise ValueError(f"{location}: the mask is empty")
    return {0: (MaskPrompt(mask, 0),)}
