"""COCO files whose categories are objects and their parts: PACO-LVIS, PASCAL-Part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles


def read_category_masks(files: SourceFiles, *, annotations: str, images: str) -> Iterator[Group]:
    """Yield each image with an expression per annotation: its category, `object` or `object:part`.

    Args:
        files: Access to the files.
        annotations: COCO file.
        images: Folder to which its `file_name` is relative.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON, or a category is unknown.
    """
    names = {one["id"]: category_name(one["name"]) for one in files.members(annotations, ("categories",))}
    found = defaultdict(list)
    members = files.members(annotations, ("annotations",))
    for span, annotation in zip(members.spans.tolist(), members, strict=True):
        if annotation["category_id"] not in names:
            raise ValueError(f"{files.root / annotations}: annotation {annotation['id']} has an unknown category")
        found[annotation["image_id"]].append((span, names[annotation["category_id"]]))
    for image in files.members(annotations, ("images",)):
        objects, expressions = {}, []
        for number, (span, text) in enumerate(found[image["id"]]):
            objects[str(number)] = {"file": annotations, "members": [span], "key": "segmentation"}
            expressions.append({"id": None, "form": "query", "text": text, "object": str(number)})
        if expressions:
            yield {
                "name": PurePosixPath(image["file_name"]).stem,
                "task": "segment",
                "media": {"frames": [f"{images}/{image['file_name']}"]},
                "objects": objects,
                "size": [image["height"], image["width"]],
                "entries": [{"expressions": expressions}],
            }


def category_name(name: str) -> str | tuple[str, str]:
    """Return the object, or object and part, of a category such as "dog_(animal):leg", without the senses."""
    words = [part.split("_(")[0] for part in name.strip().split(":")]
    if len(words) > 2:
        raise ValueError(f"the category {name!r} must have the form object or object:part")
    return words[0] if len(words) == 1 else (words[0], words[1])
