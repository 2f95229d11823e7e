"""Captions of images whose phrases have masks: the sets of GranD-f (GLaMM)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from unipixel.processing.special_tokens import SEG
from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

GroundingFields = Literal["groundings", "ann_info", "refs"]
_Span = tuple[int, int, list[Any]]


def read_grounded_captions(
    files: SourceFiles, *, annotations: str, images: str, fields: GroundingFields
) -> Iterator[Group]:
    """Yield each caption with `<p> phrase </p>` and a mask after each phrase.

    Args:
        files: Access to the files.
        annotations: JSON list, or object of such entries, with a caption and a file name.
        images: Folder of the images.
        fields: Where the phrases are: `groundings` by phrase, `ann_info` with `tokens_positive` and `sam_mask`, or
            `refs` with `sentence` and `segmentation`.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    members = files.members(annotations)
    for member in members:
        name, annotation = member if members.is_object else (None, member)
        # Some files have one entry per object of a list.
        if fields == "ann_info" and len(annotation) == 1:
            ((name, annotation),) = annotation.items()
        file_name = str(annotation.get("file_name") or annotation.get("img_file_name") or name)
        caption = annotation["caption"].strip("\"'").strip().lower()
        spans = _separate(_spans(annotation, caption, fields))
        if not spans:
            continue
        yield {
            "name": PurePosixPath(file_name).stem,
            "task": "grounded",
            "media": {"frames": [f"{images}/{PurePosixPath(file_name).name}"]},
            "size": _size(annotation),
            "turns": [("", mark_phrases(caption, spans))],
            "targets": [[str(row) for row in range(len(spans))]],
            "objects": {str(row): {"track": [masks]} for row, (_, _, masks) in enumerate(spans)},
            "entries": [{}],
        }


def mark_phrases(caption: str, spans: Sequence[_Span]) -> str:
    """Return a caption with tags around phrases, and `<|seg|>` after each."""
    text, position = "", 0
    for start, end, _ in spans:
        text += f"{caption[position:start]}<p> {caption[start:end].strip()} </p> {SEG}"
        position = end
    return text + caption[position:]


def _spans(annotation: Mapping[str, Any], caption: str, fields: str) -> list[_Span]:
    """Return start, end and masks of each phrase of a caption."""
    found: list[_Span] = []
    if fields == "groundings":
        for grounding in annotation["groundings"].values():
            if grounding is not None:
                start, end = grounding["token_positives"]
                found.append((start, end, list(grounding["rle_masks"])))
    elif fields == "ann_info":
        for one in annotation["ann_info"]:
            start, end = one["tokens_positive"]
            found.append((start, end, [one["sam_mask"]]))
    else:
        for one in annotation["refs"]:
            start = caption.find(one["sentence"].lower())
            found.append((start, start + len(one["sentence"]), [one["segmentation"]]))
    return [span for span in found if 0 <= span[0] < span[1] <= len(caption)]


def _separate(spans: list[_Span]) -> list[_Span]:
    """Return spans in the order of the text; one that overlaps the one before starts after it."""
    separate: list[_Span] = []
    for start, end, masks in sorted(spans, key=lambda span: span[:2]):
        start = max(start, separate[-1][1]) if separate else start
        if start < end:
            separate.append((start, end, masks))
    return separate


def _size(annotation: Mapping[str, Any]) -> list[int] | None:
    return [annotation["height"], annotation["width"]] if "height" in annotation and "width" in annotation else None
