"""Descriptions of the objects of SA-V videos, whose masks are on every fourth frame: Ref-SAV."""

from __future__ import annotations

from collections.abc import Iterator

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

_STRIDE = 4
"""SA-V has 24 frames per second, of which 6 are annotated."""


def read_sav_objects(files: SourceFiles, *, expressions: str, videos: str) -> Iterator[Group]:
    """Yield the described objects of each video.

    Args:
        files: Access to the files.
        expressions: JSON file with `VIDEO.{video_path, anno_path, objects[ID].formated}`.
        videos: Folder that replaces the first one of these paths.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    for video, annotation in files.members(expressions):
        masks = f"{videos}/{annotation['anno_path'].split('/', 1)[1]}"
        path = f"{videos}/{annotation['video_path'].split('/', 1)[1]}"
        objects, entries = {}, []
        for key, described in annotation["objects"].items():
            objects[key] = {"file": masks, "key": "masklet", "column": int(key)}
            text = described["formated"].strip()
            expression = {"id": key, "form": "description", "text": text, "object": key}
            entries.append({"expressions": [expression], "object_keys": [key]})
        if entries:
            media = {"video": path, "stride": _STRIDE}
            yield {"name": video, "task": "segment", "media": media, "objects": objects, "entries": entries}
