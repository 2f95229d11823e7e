"""Conversations about and descriptions of numbered regions of images: Osprey-724K."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

# Tags with the misspellings that are repaired in the published code: <region 2>, <region of2>, <region2] in
# conversations, <Region2>, <regin2>, <regin 2> in descriptions.
_TAG = re.compile(r"<region(?: | of)?(\d+)(?:[^\w\s<]|(?=[\s<]|$))")
_DESCRIPTION_TAG = re.compile(r"<(?:[Rr]egion|regin ?)(\d+)>")
_UNNUMBERED = "<region"
_DESCRIPTION = re.compile(r"\[(\d+)\]\s*:\s*(.+)", re.DOTALL)


def read_osprey(
    files: SourceFiles, *, annotations: str | Sequence[str], images: str | Sequence[str]
) -> Iterator[Group]:
    """Yield the conversation, or the descriptions, of each image; those with a region that does not exist are dropped.

    Args:
        files: Access to the files.
        annotations: JSON list, or alternatives, of `id, file_name, height, width, annotation[].segmentation` and
            `conversations` or `description`; regions are numbered from 1.
        images: Folder of the images, or several, which are searched in order.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    folders = [images] if isinstance(images, str) else list(images)
    folders = [folder for folder in folders if (files.root / folder).is_dir()] or folders[:1]
    for annotation in files.members(annotations):
        turns, keys = _descriptions(annotation) if "description" in annotation else _conversation(annotation)
        if not turns or not keys or any(not 1 <= int(key) <= len(annotation["annotation"]) for key in keys):
            continue
        yield {
            "name": PurePosixPath(annotation["file_name"]).stem,
            "task": "region",
            "id": annotation["id"],
            "media": {"frames": [_find_image(files, folders, annotation["file_name"])]},
            "size": [annotation["height"], annotation["width"]],
            "turns": turns,
            "objects": {key: {"track": [annotation["annotation"][int(key) - 1]["segmentation"]]} for key in keys},
            "entries": [{}],
        }


def _find_image(files: SourceFiles, folders: Sequence[str], name: str) -> str:
    """Return the path of an image in the first folder that contains it, or in the first."""
    paths = [f"{folder}/{name}" for folder in folders]
    return paths[0] if len(paths) == 1 else next((path for path in paths if (files.root / path).exists()), paths[0])


_NumberedTurns = tuple[list[tuple[str, str]], list[str]]


def _conversation(annotation: Mapping[str, Any]) -> _NumberedTurns:
    """Return the turns of a conversation and the numbers of its regions; no turns where a region has no number."""
    texts = [turn["value"] for turn in annotation["conversations"]]
    # A last question without an answer is left out.
    texts = texts[: len(texts) // 2 * 2]
    named = [_TAG.sub(r"[\1]", text) for text in texts]
    if any(_UNNUMBERED in text for text in named):
        return [], []
    numbers = list(dict.fromkeys(number for text in texts for number in _TAG.findall(text)))
    return list(zip(named[::2], named[1::2], strict=True)), numbers


def _descriptions(annotation: Mapping[str, Any]) -> _NumberedTurns:
    """Return each region as a question, with its description; no turns where a text does not name its region alone."""
    turns = []
    for text in annotation["description"]:
        numbers = _DESCRIPTION_TAG.findall(text)
        found = _DESCRIPTION.fullmatch(_DESCRIPTION_TAG.sub(r"[\1]", text.strip()))
        if found is None or len(numbers) != 1:
            return [], []
        turns.append((f"[{found[1]}]", found[2]))
    return turns, list(dict.fromkeys(question[1:-1] for question, _ in turns))
