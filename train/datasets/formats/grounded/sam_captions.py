"""Captions of objects of SA-1B images, as Pixel-SAIL uses them."""

from __future__ import annotations

from collections.abc import Iterator

from unipixel.train.datasets.formats.grounded.region_turns import group_region_turns
from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles


def read_sam_captions(files: SourceFiles, *, annotations: str, images: str) -> Iterator[Group]:
    """Yield the captions of the objects of each image, five at a time.

    Args:
        files: Access to the files.
        annotations: JSON list of `image_name, object_annotations[].{segmentation, caption}`.
        images: Folder of the images.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    for annotation in files.members(annotations):
        described = annotation["object_annotations"]
        yield from group_region_turns(
            f"{images}/{annotation['image_name']}",
            masks=[one["segmentation"] for one in described],
            turns=[(f"[{row}]", one["caption"]) for row, one in enumerate(described)],
        )
