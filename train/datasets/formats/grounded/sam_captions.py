"""Captions of objects of SA-1B images, as Pixel-SAIL uses them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

_GROUP_SIZE = 5


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
        entries = []
        for first in range(0, len(described), _GROUP_SIZE):
            keys = [str(row) for row in range(first, min(first + _GROUP_SIZE, len(described)))]
            turns = [(f"[{key}]", described[int(key)]["caption"]) for key in keys]
            entries.append({"turns": turns, "object_keys": keys})
        if entries:
            yield {
                "name": PurePosixPath(annotation["image_name"]).stem,
                "task": "region",
                "media": {"frames": [f"{images}/{annotation['image_name']}"]},
                "objects": {str(row): {"track": [one["segmentation"]]} for row, one in enumerate(described)},
                "entries": entries,
            }
