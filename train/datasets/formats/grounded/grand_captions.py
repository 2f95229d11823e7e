"""Captions of images whose phrases have masks: the sets of GranD-f (GLaMM)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from unipixel.processing.special_tokens import SEG
from unipixel.train.datasets.published.entries import Group, MaskReference
from unipixel.train.datasets.published.source_files import SourceFiles

GroundingFields = Literal["groundings", "coco", "refs"]
_Span = tuple[int, int, MaskReference]


def read_grounded_captions(
    files: SourceFiles, *, annotations: str | Sequence[str], images: str | Sequence[str], fields: GroundingFields
) -> Iterator[Group]:
    """Yield each caption with `<p> phrase </p>` and a mask after each phrase.

    Args:
        files: Access to the files.
        annotations: The annotations, or alternatives.
        images: Folder of the images, or alternatives.
        fields: Form of the annotations: a list with `file_name`, `caption` and per phrase `groundings` of
            `token_positives` and `rle_masks`; a list with `img_file_name`, `caption` and `refs` of `sentence` and
            `segmentation`; or a COCO file whose images have a `caption` and whose annotations `tokens_positive` and
            `sam_mask`.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    source, folder = files.choose(annotations), files.choose(images)
    if fields == "coco":
        yield from _read_coco(files, source, folder)
        return
    for annotation in files.members(source):
        caption = annotation["caption"].strip('"').strip()
        if fields == "refs":
            caption = caption.lower()
            spans = _sentence_spans(annotation["refs"], caption)
        else:
            found = [one for one in annotation["groundings"].values() if one is not None]
            spans = [(*one["token_positives"], {"track": [one["rle_masks"]]}) for one in found]
        yield from _caption_group(annotation.get("file_name") or annotation["img_file_name"], caption, spans, folder)


def mark_phrases(caption: str, spans: Sequence[_Span]) -> str:
    """Return a caption with tags around phrases, and `<|seg|>` after each."""
    text, position = "", 0
    for start, end, _ in spans:
        text += f"{caption[position:start]}<p> {caption[start:end].strip()} </p> {SEG}"
        position = end
    return text + caption[position:]


def _read_coco(files: SourceFiles, source: str, folder: str) -> Iterator[Group]:
    spans = defaultdict(list)
    members = files.members(source, ("annotations",))
    for member, annotation in zip(members.spans.tolist(), members, strict=True):
        if not annotation.get("ignore"):
            start, end = annotation["tokens_positive"][0]
            mask = {"file": source, "members": [member], "key": "sam_mask"}
            spans[annotation["image_id"]].append((start, end, mask))
    for image in files.members(source, ("images",)):
        yield from _caption_group(image["file_name"], image["caption"], spans[image["id"]], folder)


def _caption_group(file_name: str, caption: str, spans: Sequence[_Span], folder: str) -> Iterator[Group]:
    """Yield the group of one caption, if a phrase of it has a mask."""
    separate = _separate([span for span in spans if 0 <= span[0] < span[1] <= len(caption)])
    if separate:
        path = PurePosixPath(file_name)
        yield {
            "name": path.stem,
            "task": "grounded",
            "media": {"frames": [f"{folder}/{path.name}"]},
            "turns": [("", mark_phrases(caption, separate))],
            "targets": [[str(row) for row in range(len(separate))]],
            "objects": {str(row): mask for row, (_, _, mask) in enumerate(separate)},
            "entries": [{}],
        }


def _sentence_spans(references: Sequence[Mapping[str, Any]], caption: str) -> list[_Span]:
    """Return where each sentence is in a caption; start -1 where it is not."""
    found: list[_Span] = []
    for one in references:
        start = caption.find(one["sentence"].lower())
        found.append((start, start + len(one["sentence"]), {"track": [one["segmentation"]]}))
    return found


def _separate(spans: list[_Span]) -> list[_Span]:
    """Return spans in the order of the text; one that overlaps the one before starts after it."""
    separate: list[_Span] = []
    for start, end, mask in sorted(spans, key=lambda span: span[:2]):
        start = max(start, separate[-1][1]) if separate else start
        if start < end:
            separate.append((start, end, mask))
    return separate
