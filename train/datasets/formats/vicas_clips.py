"""Phrases about objects of captioned videos: ViCaS 1.0."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.json_members import JsonMembers
from unipixel.train.datasets.published.source_files import SourceFiles

_ID_LENGTH = 6


def read_vicas(files: SourceFiles, *, annotations: str, split: str, frames: str, masks: str) -> Iterator[Group]:
    """Yield the phrases about each video of a split.

    Args:
        files: Access to the files.
        annotations: JSON file of videos by id with `filename`, `segmentations[].filename` and
            `object_referrals[].prompt`, or the authors' folder of one file per video, which has the masks.
        split: JSON file with the ids of the split.
        frames: Folder of `VIDEO/FRAME.jpg`.
        masks: Folder of `VIDEO/NUMBER.json`, with the masks of phrase NUMBER, for annotations without masks.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: A file is not JSON, or a video of the split is missing.
    """
    names = [str(one).zfill(_ID_LENGTH) for one in files.parse(split)]
    path = files.find(annotations)
    is_folder = path.is_dir()
    spans = {} if is_folder else files.members(annotations).value_spans()
    for name in names:
        if is_folder:
            annotation = files.parse(f"{annotations}/{name}.json")
        elif name in spans:
            annotation = JsonMembers.read_value(path, spans[name])
        else:
            raise ValueError(f"{path} has no video {name!r}, which {split} names")
        video = annotation["filename"][:_ID_LENGTH]
        objects: dict[str, Any] = {}
        entries = []
        for number, phrase in enumerate(annotation["object_referrals"]):
            key = str(number)
            objects[key] = _inline_masks(annotation, phrase) if is_folder else {"file": f"{masks}/{video}/{key}.json"}
            text = phrase["prompt"].strip()
            expression = {"id": f"{video}_{number}", "form": "sentence", "text": text, "object": key}
            entries.append({"expressions": [expression], "object_keys": [key]})
        if entries:
            media = {"frames": [f"{frames}/{video}/{frame['filename']}" for frame in annotation["segmentations"]]}
            yield {"name": video, "task": "segment", "media": media, "objects": objects, "entries": entries}


def _inline_masks(annotation: Mapping[str, Any], phrase: Mapping[str, Any]) -> dict[str, Any]:
    """Return the track of a phrase whose masks are in the annotation itself."""
    track = []
    for frame in annotation["segmentations"]:
        found = dict(zip(frame.get("track_ids", ()), frame.get("mask_rles", ()), strict=True))
        track.append([found.get(one) for one in phrase["track_ids"]])
    return {"track": track}
