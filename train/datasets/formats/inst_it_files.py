"""Captions of and questions about numbered objects of images and videos: Inst-IT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from unipixel.train.datasets.formats.groundmore_clips import number_of
from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

_MAX_OBJECTS = 5
_MENTION = re.compile(r"\[0*(\d+)\]")


def read_inst_it_images(
    files: SourceFiles, *, annotations: str, images: str, caption: Literal["short", "long"]
) -> Iterator[Group]:
    """Yield a caption of each object of each image.

    Args:
        files: Access to the files.
        annotations: JSON list of `image_id, image_path, instance_level_caption, segmentations`.
        images: Folder that replaces the first one of `image_path`.
        caption: Which caption is used.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    for annotation in files.members(annotations):
        objects, entries = {}, []
        for key, captions in annotation["instance_level_caption"].items():
            objects[key] = {"track": [annotation["segmentations"][key]["mask"]]}
            turns = [("", captions[caption])]
            entries.append({"id": f"{annotation['image_id']}_{key}", "turns": turns, "object_keys": [key]})
        if entries:
            path = f"{images}/{annotation['image_path'].split('/', 1)[1]}"
            yield {
                "name": annotation["image_id"],
                "task": "refer",
                "media": {"frames": [path]},
                "objects": objects,
                "entries": entries,
            }


def read_inst_it_videos(
    files: SourceFiles, *, annotations: str, videos: str, task: Literal["region", "prefill"], max_frames: int
) -> Iterator[Group]:
    """Yield the questions about objects of each video.

    Args:
        files: Access to the files.
        annotations: JSON list of `video_id, video_path, segmentations[FRAME][ID].mask, question_answer_pairs`.
        videos: Folder that replaces the first one of `video_path`, a folder of frames.
        task: What is trained: `region` drops videos that name more than five objects, `prefill` such questions.
        max_frames: Longer videos are dropped.

    Raises:
        OSError: A file or folder is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    for annotation in files.members(annotations):
        folder = f"{videos}/{annotation['video_path'].split('/', 1)[1]}"
        names = sorted(files.names_in(folder, [".jpg", ".png"]), key=number_of)
        if len(names) > max_frames:
            continue
        group = _video_group(annotation, names, task)
        if group["entries"] and (task == "prefill" or len(group["objects"]) <= _MAX_OBJECTS):
            media = {"frames": [f"{folder}/{name}" for name in names], "is_complete": True}
            yield {**group, "name": annotation["video_id"], "task": task, "media": media}


def _video_group(annotation: Mapping[str, Any], names: Sequence[str], task: str) -> Group:
    """Return the questions about a video that name objects, with the masks of these objects."""
    objects, entries = {}, []
    for number, pair in enumerate(annotation["question_answer_pairs"]):
        question, answer = (_repair(pair[field]) for field in ("question", "answer"))
        keys = list(dict.fromkeys(_MENTION.findall(question + "\n" + answer)))
        if not keys or (task == "prefill" and len(keys) > _MAX_OBJECTS):
            continue
        for key in keys:
            found = [annotation["segmentations"].get(name, {}).get(key) for name in names]
            objects[key] = {"track": [None if one is None else one["mask"] for one in found]}
        name = f"{annotation['video_id']}_{number}"
        entries.append({"id": name, "turns": [(question, answer)], "object_keys": keys})
    return {"objects": objects, "entries": entries}


def _repair(text: str) -> str:
    """Write times from 1, and ids without leading zeros."""
    return _MENTION.sub(r"[\1]", text.replace("<0>", "<1>"))
