"""Multiple-choice questions about regions of images, in the layout of PerBench (Pixel-SAIL, arXiv:2504.10465)."""

from __future__ import annotations

from collections.abc import Iterator

from unipixel.train.datasets.formats.grounded.region_turns import group_region_turns
from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles


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
        yield from group_region_turns(
            f"{images}/{annotation['image_name']}",
            masks=[one["object"] for one in asked],
            turns=[(_question(str(row), one["question"]), one["answer"]) for row, one in enumerate(asked)],
        )


def _question(key: str, text: str) -> str:
    """Name the region of a question as PerBench does."""
    return f"Please answer the question according to the [{key}]. {text} Select a correct choice."
