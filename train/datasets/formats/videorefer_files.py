"""Captions of and questions about objects of videos, with the masks in files: VideoRefer-700K."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from unipixel.processing.special_tokens import REF
from unipixel.train.datasets.published.entries import EntryTask, Group
from unipixel.train.datasets.published.source_files import SourceFiles

_MAX_OBJECTS = 5
_MIN_RATIO = 0.3
_REGION = "<region>"
_NAMED_REGION = re.compile(r"<object(\d+)><region>")


def read_videorefer(
    files: SourceFiles, *, annotations: str, masks: str, videos: str, task: EntryTask
) -> Iterator[Group]:
    """Yield each question and answer.

    Args:
        files: Access to the files.
        annotations: JSON list of `id, video, ratio, conversations` and `annotation`, per object the frames with a mask.
        masks: Folder of `NUMBER.json`, with the masks of the annotation NUMBER of the list, by object and frame.
        videos: Folder of the videos.
        task: `refer` takes all; the others only those of one to five objects that are annotated in enough frames, and
            `prefill` only those on several frames.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON, or a question does not name its objects.
    """
    for number, annotation in enumerate(files.members(annotations)):
        annotated = annotation["annotation"]
        indices = sorted({int(index) for one in annotated for index in one})
        if task != "refer":
            if not 1 <= len(annotated) <= _MAX_OBJECTS or annotation["ratio"] < _MIN_RATIO:
                continue
            if task == "prefill" and len(indices) == 1:
                continue
        question, answer = (strip_media_tags(turn["value"].strip()) for turn in annotation["conversations"])
        if question.count(_REGION) != len(annotated):
            raise ValueError(
                f"{files.root / annotations}: the question {annotation['id']!r} names {question.count(_REGION)} "
                f"regions, but has {len(annotated)} objects"
            )
        ids = _NAMED_REGION.findall(question)
        if task == "refer":
            question = question.replace(_REGION, REF)
        keys = ids or [str(row) for row in range(len(annotated))]
        path = f"{masks}/{number}.json"
        is_context = len(indices) == 1
        media: Mapping[str, Any] = {
            "video": f"{videos}/{annotation['video']}",
            "frame_indices": indices,
            "is_context": is_context,
        }
        yield {
            "name": PurePosixPath(annotation["video"]).stem,
            "task": task,
            "id": annotation["id"],
            "media": media,
            "turns": [(question, answer)],
            "has_ids": bool(ids),
            "objects": {key: {"file": path, "object": row} for row, key in enumerate(keys)},
            "entries": [{}],
        }


def strip_media_tags(text: str) -> str:
    """Remove the tag of an image or video from the start or end of a question."""
    for tag in ("<video>", "<image>"):
        text = text.removeprefix(f"{tag}\n").removesuffix(f"\n{tag}").strip()
    return text
