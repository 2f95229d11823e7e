"""Images with regions that are to be described: from our JSON lines, COCO annotations, or the files of SA-1B.

Shape letters: H, W image in pixels.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.jsonl import JsonlDataset
from unipixel.train.datasets.published.json_members import JsonMembers
from unipixel.train.datasets.published.source_files import parse_json, resolve
from unipixel.train.evaluation.benchmarks.annotation_files import field_of
from unipixel.train.evaluation.readers.segmentations import decode_segmentation
from unipixel.video.images import is_image_file, read_image

MAX_IMAGE_PIXELS = 2**26
"""Most pixels of an image."""
MAX_ANNOTATION_BYTES = 2**32
"""Size in bytes of the largest annotation file."""
_MAX_IMAGE_BYTES = 2**27
_UNSAFE = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class SourceRegion:
    """One region of an image.

    Attributes:
        id: Its id in the annotations.
        mask: (H, W) bool.
        category: Its annotated category; None where it has none.
    """

    id: str
    mask: NDArray[np.bool_]
    category: str | None = None


@dataclass(frozen=True)
class RegionImage:
    """An image with its regions.

    Attributes:
        name: Its name in the source, which identifies it.
        file_name: Name of a copy of the image: readable, and unique by the content.
        content: The bytes of an image file; None for a frame of a clip, which is stored as PNG.
        sha256: Hash of `content`, or of the pixels.
        pixels: (H, W, 3) uint8 RGB.
        regions: The regions.
    """

    name: str
    file_name: str
    content: bytes | None
    sha256: str
    pixels: NDArray[np.uint8]
    regions: tuple[SourceRegion, ...]


@dataclass(frozen=True)
class RegionChoice:
    """Which regions of an image are described.

    Attributes:
        max_per_image: Most regions of an image, drawn at random.
        min_area: Smallest region as a fraction of the image.
        seed: Seed of the draw.
    """

    max_per_image: int = 10
    min_area: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_per_image < 1:
            raise ValueError(f"the regions of an image must be at least 1, got {self.max_per_image}")
        if not 0 <= self.min_area < 1:
            raise ValueError(f"the smallest region must be in [0, 1) of the image, got {self.min_area}")

    def choose(self, regions: Mapping[str, SourceRegion], *, name: str) -> tuple[SourceRegion, ...]:
        """Return the regions of the image `name` that are described, in the order of the annotations."""
        large = [key for key, one in regions.items() if one.mask.any() and one.mask.mean() >= self.min_area]
        drawn = random.Random(f"{self.seed}/{name}").sample(large, min(len(large), self.max_per_image))
        return tuple(regions[key] for key in large if key in set(drawn))


PendingImage = tuple[str, Callable[[], RegionImage]]
"""Name of an image, and a function that reads it with its regions; it raises ValueError or OSError."""


def describe_source(source: Path) -> dict[str, Any]:
    """Return what tells a source from others: its path, and the size of a file.

    Raises:
        OSError: It does not exist.
    """
    size = source.stat().st_size if source.is_file() else None
    return {"source": str(source.resolve(strict=True)), "source_bytes": size}


def open_source(source: Path, *, images: Path | None, choice: RegionChoice) -> Iterator[PendingImage]:
    """Yield the images of a source; each is read when it is needed.

    Args:
        source: A `.jsonl` file in the format of `unipixel.train.datasets.jsonl`; a `.json` file of COCO annotations; or
            a folder with an image and a JSON file of the same name each, as in SA-1B.
        images: Folder of the images of COCO annotations.
        choice: Which regions are described.

    Raises:
        OSError: The source cannot be read.
        ValueError: It has another form or is too large, or `images` is missing or not needed.
    """
    is_coco = source.suffix == ".json"
    if is_coco != (images is not None):
        raise ValueError(f"{source}: COCO annotations (.json) need --images DIR, other sources have their own images")
    if not source.exists():
        raise FileNotFoundError(2, "no such file or folder", str(source))
    if source.is_file() and source.stat().st_size > MAX_ANNOTATION_BYTES:
        raise ValueError(f"{source} has {source.stat().st_size} bytes: at most {MAX_ANNOTATION_BYTES} are read")
    if images is not None:
        yield from _coco_images(source, images, choice)
    elif source.is_dir():
        yield from _folder_images(source, choice)
    elif source.suffix == ".jsonl":
        dataset = JsonlDataset.read(source)
        for line in dataset.lines:
            yield str(line["id"]), lambda line=line: _line_image(dataset, line, choice)  # type: ignore[misc]
    else:
        raise ValueError(f"{source}: a source is a .jsonl file, a .json file with COCO annotations, or a folder")


def _line_image(dataset: JsonlDataset, line: Mapping[str, Any], choice: RegionChoice) -> RegionImage:
    still, name = dataset.load_still(line), str(line["id"])
    regions = {str(key): SourceRegion(str(key), mask) for key, mask in still.masks.items()}
    if still.path.is_file() and is_image_file(still.path):
        return _image_of_file(still.path, name, lambda size: regions, choice)
    digest = hashlib.sha256(repr(still.image.shape).encode() + still.image.tobytes()).hexdigest()
    file_name = f"{_safe_stem(still.path.name)}-{still.frame_index}-{digest[:12]}.png"
    return RegionImage(name, file_name, None, digest, still.image, choice.choose(regions, name=name))


def _coco_images(source: Path, folder: Path, choice: RegionChoice) -> Iterator[PendingImage]:
    """Yield the images of COCO annotations that have regions; crowds are left out."""
    categories = {}
    # SA-1B and other sources without categories have no such list.
    with_categories = JsonMembers.read(source)
    if with_categories.is_object and "categories" in with_categories.value_spans():
        for row in JsonMembers.read(source, ("categories",)):
            location = f"{source}, categories"
            categories[field_of(row, "id", int, location=location)] = field_of(row, "name", str, location=location)
    annotations = JsonMembers.read(source, ("annotations",))
    spans = defaultdict(list)
    for row, span in zip(annotations, annotations.spans.tolist(), strict=True):
        if not row.get("iscrowd"):
            spans[field_of(row, "image_id", (int, str), location=f"{source}, annotations")].append(span)
    for image in JsonMembers.read(source, ("images",)):
        own = spans.get(field_of(image, "id", (int, str), location=f"{source}, images"))
        if own:
            name = field_of(image, "file_name", str, location=f"{source}, images")

            def read(name: str = name, own: list[list[int]] = own, described: Any = image) -> RegionImage:
                rows = [JsonMembers.read_value(source, span) for span in own]
                return _annotated_image(resolve(folder, name), described, rows, categories, choice)

            yield name, read


def _folder_images(folder: Path, choice: RegionChoice) -> Iterator[PendingImage]:
    """Yield the images of a folder that have a JSON file of the same name."""
    found = False
    for file in sorted(folder.glob("*.json")):
        found = True

        def read(file: Path = file) -> RegionImage:
            content = parse_json(file)
            described = field_of(content, "image", dict, location=str(file))
            name = field_of(described, "file_name", str, location=str(file))
            rows = field_of(content, "annotations", list, location=str(file))
            return _annotated_image(resolve(folder, name), described, rows, {}, choice)

        yield file.stem, read
    if not found:
        raise ValueError(f"{folder} has no JSON file: a folder has an image and a JSON file of its regions each")


def _annotated_image(
    path: Path, described: Mapping[str, Any], rows: list[Any], categories: Mapping[int, str], choice: RegionChoice
) -> RegionImage:
    name = str(described["file_name"])

    def decode(size: tuple[int, int]) -> dict[str, SourceRegion]:
        annotated = (described.get("height", size[0]), described.get("width", size[1]))
        if annotated != size:
            raise ValueError(f"{path} has (H, W) = {size}, its annotation {annotated}")
        regions = {}
        for row in rows:
            key = str(field_of(row, "id", (int, str), location=name))
            location = f"{name}, annotation {key}"
            mask = decode_segmentation(row.get("segmentation"), size=size, location=location)
            regions[key] = SourceRegion(key, mask, categories.get(row.get("category_id")))
        return regions

    return _image_of_file(path, name, decode, choice)


def _image_of_file(
    path: Path,
    name: str,
    decode: Callable[[tuple[int, int]], Mapping[str, SourceRegion]],
    choice: RegionChoice,
) -> RegionImage:
    if path.stat().st_size > _MAX_IMAGE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size} bytes: at most {_MAX_IMAGE_BYTES} are read")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    pixels = read_image(path, max_pixels=MAX_IMAGE_PIXELS)
    regions = choice.choose(decode((pixels.shape[0], pixels.shape[1])), name=name)
    file_name = f"{_safe_stem(path.name)}-{digest[:12]}{path.suffix.lower()}"
    return RegionImage(name, file_name, content, digest, pixels, regions)


def _safe_stem(name: str) -> str:
    return _UNSAFE.sub("-", Path(name).stem)[:80]
