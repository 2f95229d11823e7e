"""Images with a label image of classes: ADE20K, COCO-Stuff, Mapillary Vistas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles


def read_label_maps(files: SourceFiles, *, labels: str, images: str) -> Iterator[Group]:
    """Yield each image with its label image, which is read when a sample is drawn.

    Args:
        files: Access to the files.
        labels: Folder of `NAME.png`.
        images: Folder of `NAME.jpg`.

    Raises:
        OSError: A folder is missing or cannot be read.
    """
    files.find(images)
    for file in files.names_in(labels, [".png"]):
        name = PurePosixPath(file).stem
        yield {
            "name": name,
            "task": "classes",
            "media": {"frames": [f"{images}/{name}.jpg"]},
            "objects": {"classes": {"labels": [f"{labels}/{file}"]}},
            "entries": [{}],
        }
