"""Sentences about objects of images in the layout of the REFER toolkit: the RefCOCO family, RefClef, gRefCOCO."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles


def read_references(
    files: SourceFiles,
    *,
    references: str | Sequence[str],
    instances: str | Sequence[str],
    images: str | Sequence[str],
    split: str = "train",
) -> Iterator[Group]:
    """Yield each image with all its sentences.

    Args:
        files: Access to the files.
        references: `refs(unc).p`, a pickle or JSON file of `ref_id, ann_id, image_id, split, sentences`; `ann_id` may
            be a list, and `[-1]` for no object.
        instances: COCO file with the masks and boxes, or alternatives.
        images: Folder to which its `file_name` is relative, or alternatives.
        split: Split of the references.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: A file has another form, or an image or annotation is missing.
    """
    by_image = defaultdict(list)
    instances, images = files.choose(instances), files.choose(images)
    name = files.choose(references)
    for reference in files.parse(name) if name.endswith(".json") else files.unpickle(name):
        if reference["split"] == split:
            by_image[reference["image_id"]].append(reference)
    sizes = {one["id"]: one for one in files.members(instances, ("images",)) if one["id"] in by_image}
    wanted = {one for found in by_image.values() for reference in found for one in _annotation_ids(reference)}
    annotations = {}
    members = files.members(instances, ("annotations",))
    for span, annotation in zip(members.spans.tolist(), members, strict=True):
        if annotation["id"] in wanted:
            annotations[annotation["id"]] = (span, annotation.get("bbox"))
    for image_id, found in by_image.items():
        if image_id not in sizes:
            raise ValueError(f"{files.root / instances} has no image {image_id}, which {name} names")
        yield _image_group(sizes[image_id], found, annotations, instances, images)


def _image_group(
    image: Mapping[str, Any],
    references: Sequence[Mapping[str, Any]],
    annotations: Mapping[int, tuple[list[int], list[float] | None]],
    instances: str,
    images: str,
) -> Group:
    objects: dict[str, Any] = {}
    expressions = []
    for reference in references:
        ids = _annotation_ids(reference)
        if unknown := [one for one in ids if one not in annotations]:
            raise ValueError(f"{instances} has no annotation {unknown[0]}, which reference {reference['ref_id']} names")
        key = str(reference["ref_id"])
        objects[key] = {"file": instances, "members": [annotations[one][0] for one in ids], "key": "segmentation"}
        box = annotations[ids[0]][1] if len(ids) == 1 else None
        corners = None if box is None else [box[0], box[1], box[0] + box[2], box[1] + box[3]]
        expressions += [
            {"id": one["sent_id"], "form": "query", "text": one["sent"], "object": key, "box_xyxy": corners}
            for one in reference["sentences"]
        ]
    return {
        "name": PurePosixPath(image["file_name"]).stem,
        "task": "segment",
        "media": {"frames": [f"{images}/{image['file_name']}"]},
        "objects": objects,
        "size": [image["height"], image["width"]],
        "entries": [{"expressions": expressions}],
    }


def _annotation_ids(reference: Mapping[str, Any]) -> list[int]:
    ids = reference["ann_id"] if isinstance(reference["ann_id"], list) else [reference["ann_id"]]
    return [one for one in ids if one != -1]
