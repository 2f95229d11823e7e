"""Questions about images whose answers name several objects with masks: MUSE (PixelLM)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from unipixel.processing.special_tokens import SEG
from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

_SLOT = "{seg}"
_REQUEST = "Please respond with segmentation mask."


def read_muse(
    files: SourceFiles, *, annotations: str, images: str | Sequence[str], images_by_address: Mapping[str, str]
) -> Iterator[Group]:
    """Yield the questions about each image.

    Args:
        files: Access to the files.
        annotations: JSON list of `coco_url | file_name, height, width, questions[], answers[][], text_answers[]`.
        images: Folder of the images with a `file_name`, or alternatives.
        images_by_address: Folder of the images with a `coco_url`, by a part of the address.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    named = files.choose(images)
    for annotation in files.members(annotations):
        path = PurePosixPath(annotation.get("file_name") or annotation["coco_url"])
        folder = named
        if "file_name" not in annotation:
            folder = next(folder for part, folder in images_by_address.items() if part in annotation["coco_url"])
        objects: dict[str, Any] = {}
        turns, targets = [], []
        texts = annotation.get("text_answers") or [None] * len(annotation["questions"])
        for question, answers, text in zip(annotation["questions"], annotation["answers"], texts, strict=True):
            if not answers:
                continue
            keys = [str(len(objects) + row) for row in range(len(answers))]
            objects |= {key: {"track": [one["segmentation"]]} for key, one in zip(keys, answers, strict=True)}
            turns.append((f"{question.strip()} {_REQUEST}", fill_answer(text, answers)))
            targets.append(keys)
        if turns:
            yield {
                "name": path.stem,
                "task": "grounded",
                "media": {"frames": [f"{folder}/{path.name}"]},
                "size": [annotation["height"], annotation["width"]],
                "turns": turns,
                "targets": targets,
                "objects": objects,
                "entries": [{}],
            }


def fill_answer(text: str | None, answers: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of an answer with a mask in each slot, or one composed of the names of its objects."""
    if text is not None and text.count(_SLOT) == len(answers):
        return text.replace(_SLOT, SEG)
    names = [one.get("rephrased_name") or one["category_name"] for one in answers]
    return ", ".join(f"{name} is {SEG}" for name in names) + "."
