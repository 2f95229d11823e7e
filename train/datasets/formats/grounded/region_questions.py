"""Multiple-choice questions about regions of images, in the layout of PerBench (Pixel-SAIL, arXiv:2504.10465)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

_GROUP_SIZE = 5


def read_region_questions(files: SourceFiles, *, annotations: str, images: str) -> Iterator[Group]:
    """Yield the questions about the regions of each image, five at a time.

    Args:
        files: Access to the files.
        annotations: JSON list of `image_name, mcqs[].{object, question, answer}`; the question lists its options.
        images: Folder of the images.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    for annotation in files.members(annotations):
        asked = annotation["mcqs"]
        entries = []
        for first in range(0, len(asked), _GROUP_SIZE):
            keys = [str(row) for row in range(first, min(first + _GROUP_SIZE, len(asked)))]
            turns = [(_question(key, asked[int(key)]["question"]), asked[int(key)]["answer"]) for key in keys]
            entries.append({"turns": turns, "object_keys": keys})
        if entries:
            yield {
                "name": PurePosixPath(annotation["image_name"]).stem,
                "task": "region",
                "media": {"frames": [f"{images}/{annotation['image_name']}"]},
                "objects": {str(row): {"track": [one["object"]]} for row, one in enumerate(asked)},
                "entries": entries,
            }


def _question(key: str, text: str) -> str:
    """Name the region of a question as PerBench does."""
    return f"Please answer the question according to the [{key}]. {text} Select a correct choice."
