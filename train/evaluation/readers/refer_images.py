"""Reader of the REFER format: RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO.

`refs(...)` lists expressions with the ids of the annotations they name, `instances.json` is a COCO annotation file.
A sample is one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unipixel.memory.rle import MAX_MASK_PIXELS
from unipixel.processing.prompt_templates import segmentation_question
from unipixel.train.datasets.plain_pickle import read_plain_pickle
from unipixel.train.evaluation.benchmarks.annotation_files import field_of, first_existing, read_json
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia, SampleTruth
from unipixel.train.evaluation.readers.segmentations import decode_segmentation

IMAGE_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "images/mscoco/train2014")


def read_refer(
    data_dir: Path, *, split: str, variant: str, dataset: str, partition: str, is_generalized: bool = False
) -> Sequence[BenchmarkSample]:
    """Read the sentences of a split.

    Args:
        data_dir: Folder with DATASET/ and images/.
        split: Name of the split, such as `testA`.
        variant: Not used.
        dataset: Folder of the annotations, such as `refcoco`.
        partition: Partition in the file's name, such as `unc`.
        is_generalized: Whether an expression names several objects or none (gRefCOCO).

    Raises:
        OSError: A file is missing.
        ValueError: An annotation has another form.
    """
    del variant
    folder = data_dir / dataset
    stem = f"grefs({partition})" if is_generalized else f"refs({partition})"
    path = first_existing(folder / f"{stem}.json", folder / f"{stem}.p") if is_generalized else folder / f"{stem}.p"
    references = read_json(path) if path.suffix == ".json" else read_plain_pickle(path)
    if not isinstance(references, list):
        raise ValueError(f"{path}: expected a list of expressions, got {type(references).__name__}")
    instances = _Instances(folder / "instances.json", first_existing(*(data_dir / name for name in IMAGE_FOLDERS)))
    samples: list[BenchmarkSample] = []
    for number, reference in enumerate(references):
        location = f"{path}, entry {number}"
        if _is_in_split(split, field_of(reference, "split", str, location=location)):
            samples.extend(_sentences(reference, instances, is_generalized=is_generalized, location=location))
    return samples


def _is_in_split(split: str, given: str) -> bool:
    """Return whether an entry belongs to a split: of `testA` and `testB` the letter counts, as in REFER."""
    return split[-1] in given if split in ("testA", "testB") else given == split


class _Instances:
    """The images and annotations of `instances.json`, by id."""

    def __init__(self, path: Path, image_folder: Path) -> None:
        self.path, self._image_folder = path, image_folder
        content = read_json(path)
        entries = {name: field_of(content, name, list, location=str(path)) for name in ("images", "annotations")}
        self._images = {field_of(entry, "id", int, location=f"{path}, images"): entry for entry in entries["images"]}
        self.annotations = {
            field_of(entry, "id", int, location=f"{path}, annotations"): entry for entry in entries["annotations"]
        }

    def image(self, image_id: int, *, location: str) -> tuple[Path, tuple[int, int]]:
        """Return the file of an image and its (H, W).

        Raises:
            ValueError: There is no such image, or a field is missing.
        """
        if image_id not in self._images:
            raise ValueError(f"{location}: image {image_id} is not in {self.path}")
        entry, described = self._images[image_id], f"{self.path}, image {image_id}"
        name = field_of(entry, "file_name", str, location=described)
        if Path(name).name != name:
            raise ValueError(f"{described}: `file_name` must be a plain file name, got {name!r:.80}")
        size = [field_of(entry, side, int, location=described) for side in ("height", "width")]
        if bool in map(type, size) or min(size) < 1 or size[0] * size[1] > MAX_MASK_PIXELS:
            raise ValueError(f"{described}: an image has 1 to {MAX_MASK_PIXELS} pixels, got {size[1]} x {size[0]}")
        return self._image_folder / name, (size[0], size[1])


def _sentences(
    reference: Mapping[str, Any], instances: _Instances, *, is_generalized: bool, location: str
) -> Iterator[BenchmarkSample]:
    path, size = instances.image(field_of(reference, "image_id", int, location=location), location=location)
    named = field_of(reference, "ann_id", (int, list), location=location)
    keys = [key for key in (named if isinstance(named, list) else [named]) if key != -1]
    if not all(isinstance(key, int) for key in keys):
        raise ValueError(f"{location}: `ann_id` is an id or a list of them, got {named!r:.80}")
    if missing := [key for key in keys if key not in instances.annotations]:
        raise ValueError(f"{location}: annotation {missing[0]} is not in {instances.path}")
    annotations = [instances.annotations[key] for key in keys]
    box = None if is_generalized else _box(annotations, location=location)
    truth = partial(
        _truth, annotations, size=size, box=box, is_generalized=is_generalized, location=str(instances.path)
    )
    for sentence in field_of(reference, "sentences", list, location=location):
        text = field_of(sentence, "sent", str, location=location)
        key = field_of(sentence, "sent_id", int, location=location)
        first = field_of(reference, "ref_id", int, location=location) if is_generalized else path.stem
        yield BenchmarkSample(
            name=f"{first}/{key}",
            question=segmentation_question(text, num_frames=1, is_published=True),
            frames=(path.stem,),
            language_frames=(0,),
            media=SampleMedia(paths=(path,)),
            truth=truth,
            fields={
                "type": "query",
                "query": text,
                "media": "image",
                **({"no_target": not keys} if is_generalized else {"box": box}),
            },
        )


def _box(annotations: Sequence[Mapping[str, Any]], *, location: str) -> tuple[float, float, float, float]:
    if len(annotations) != 1:
        raise ValueError(f"{location}: an expression names one annotation, got {len(annotations)}")
    numbers = field_of(annotations[0], "bbox", list, location=location)
    if len(numbers) != 4 or not all(isinstance(number, (int, float)) for number in numbers):
        raise ValueError(f"{location}: `bbox` is [x, y, width, height], got {numbers!r:.80}")
    left, top, width, height = numbers
    return left, top, left + width, top + height


def _truth(
    annotations: Sequence[Mapping[str, Any]],
    *,
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None,
    is_generalized: bool,
    location: str,
) -> SampleTruth:
    """Decode the union of the annotated objects; in gRefCOCO without those marked as crowds, as in its evaluation."""
    mask = np.zeros(size, bool)
    for annotation in annotations:
        if not (is_generalized and annotation.get("iscrowd")):
            described = f"{location}, annotation {annotation['id']}"
            mask |= decode_segmentation(annotation.get("segmentation"), size=size, location=described)
    return SampleTruth(masks=mask[None, None], box_xyxy=box, fields={"no_target": not annotations})
