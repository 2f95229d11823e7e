"""Panoptic labels of COCO: classes, their instances, and descriptions of segments (Pix2Cap)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from unipixel.processing.special_tokens import SEG
from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

PanopticMode = Literal["semantic", "instance", "segment", "describe", "category"]
_MIN_CAPTION_LENGTH = 6
_SUFFIXES = ("-merged", "-other", "-stuff")


def read_panoptic(
    files: SourceFiles, *, annotations: str, labels: str, images: str, mode: PanopticMode
) -> Iterator[Group]:
    """Yield each image with its classes or descriptions; crowds are left out.

    Args:
        files: Access to the files.
        annotations: JSON file with `annotations[].{file_name, segments_info}`, `images` and `categories`.
        labels: Folder of the label images, whose colours are ids of segments.
        images: Folder of the images.
        mode: `semantic` asks for all of a class in one mask, `instance` for each instance of a class, `segment` for
            the segment of a description, `describe` for the description of a segment, `category` for the class of a
            segment.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON, or a category is unknown.
    """
    names, things = {}, set()
    for category in files.members(annotations, ("categories",)):
        names[category["id"]] = class_name(category["name"])
        if category.get("isthing"):
            things.add(category["id"])
    for annotation in files.members(annotations, ("annotations",)):
        segments = [one for one in annotation["segments_info"] if not one.get("iscrowd")]
        label = f"{labels}/{annotation['file_name']}"
        if mode in ("segment", "describe"):
            content = _described(segments, label, mode)
        elif mode == "category":
            content = _categorised(segments, label, names)
        else:
            content = _classes(segments, label, names, things if mode == "instance" else set())
        if content:
            stem = PurePosixPath(annotation["file_name"]).stem
            yield {"name": stem, "media": {"frames": [f"{images}/{stem}.jpg"]}, **content}


def class_name(name: str) -> str:
    """Return the name of a category without the suffixes of merged and residual classes."""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name.replace("-", " ")


def _described(segments: Sequence[Mapping[str, Any]], label: str, mode: str) -> dict[str, Any]:
    """Return the descriptions of segments as expressions, or as answers about regions."""
    found = [one for one in segments if len(one.get("description", "")) >= _MIN_CAPTION_LENGTH]
    objects = {str(row): {"panoptic": label, "ids": [one["id"]]} for row, one in enumerate(found)}
    if not found:
        return {}
    if mode == "describe":
        turns = [(f"[{row}]", one["description"]) for row, one in enumerate(found)]
        return {"task": "region", "turns": turns, "objects": objects, "entries": [{}]}
    expressions = [
        {"id": one["id"], "form": "description", "text": one["description"], "object": str(row)}
        for row, one in enumerate(found)
    ]
    return {"task": "segment", "objects": objects, "entries": [{"expressions": expressions}]}


def _categorised(segments: Sequence[Mapping[str, Any]], label: str, names: Mapping[int, str]) -> dict[str, Any]:
    """Return the class of each segment as an answer about a region."""
    if not segments:
        return {}
    _check_categories({one["category_id"] for one in segments}, label, names)
    objects = {str(row): {"panoptic": label, "ids": [one["id"]]} for row, one in enumerate(segments)}
    turns = [(f"[{row}]", names[one["category_id"]]) for row, one in enumerate(segments)]
    return {"task": "category", "turns": turns, "objects": objects, "entries": [{}]}


def _check_categories(categories: set[int], label: str, names: Mapping[int, str]) -> None:
    if unknown := sorted(categories - set(names)):
        raise ValueError(f"the labels {label} have the category {unknown[0]}, which is not in the list of categories")


def _classes(
    segments: Sequence[Mapping[str, Any]], label: str, names: Mapping[int, str], things: set[int]
) -> dict[str, Any]:
    """Return an expression per class, and for things whose instances are asked for, a turn per class."""
    by_class = defaultdict(list)
    for segment in segments:
        by_class[segment["category_id"]].append(segment)
    if not by_class:
        return {}
    _check_categories(set(by_class), label, names)
    objects: dict[str, Any] = {}
    turns, targets, expressions = [], [], []
    for category, members in by_class.items():
        name = names[category]
        if category not in things:
            objects[name] = {"panoptic": label, "ids": [one["id"] for one in members]}
            expressions.append({"id": category, "form": "query", "text": f"all the {name}", "object": name})
            turns.append((f"Please segment all the {name} in this image.", f"{name} {SEG}."))
            targets.append([name])
            continue
        # From left to right.
        members = sorted(members, key=lambda one: one["bbox"][0])
        keys = [f"{name}-{row}" for row in range(1, len(members) + 1)]
        objects |= {key: {"panoptic": label, "ids": [one["id"]]} for key, one in zip(keys, members, strict=True)}
        turns.append((f"Please segment each {name} in this image.", " ".join(f"{key} {SEG}" for key in keys) + "."))
        targets.append(keys)
    if things:
        return {"task": "grounded", "turns": turns, "targets": targets, "objects": objects, "entries": [{}]}
    return {"task": "segment", "objects": objects, "entries": [{"expressions": expressions}]}
