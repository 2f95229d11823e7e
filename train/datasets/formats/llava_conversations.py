"""Conversations about an image, a video or nothing in the format of LLaVA."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

_ROLES = ("human", "gpt")


def read_conversations(
    files: SourceFiles, *, annotations: str, images: str, videos: str = "", fps: float = 2.0
) -> Iterator[Group]:
    """Yield each conversation whose two sides alternate.

    Args:
        files: Access to the files.
        annotations: JSON list of `id, image | video, conversations[].{from, value}`.
        images: Folder of the images.
        videos: Folder of the videos.
        fps: Frames per second that are sampled of a video.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    num_dropped = 0
    for number, annotation in enumerate(files.members(annotations)):
        name = str(annotation.get("id", number))
        said = annotation["conversations"]
        if len(said) % 2 or any(one["from"] != _ROLES[row % 2] for row, one in enumerate(said)):
            num_dropped += 1
            continue
        texts = [one["value"] for one in said]
        media: dict[str, Any] = {}
        if "image" in annotation:
            media = {"frames": [f"{images}/{annotation['image']}"]}
        elif "video" in annotation:
            media = {"video": f"{videos}/{annotation['video']}", "fps": fps}
        yield {
            "name": name,
            "task": "converse",
            "id": name,
            "media": media,
            "turns": list(zip(texts[::2], texts[1::2], strict=True)),
            "entries": [{}],
        }
    if num_dropped:
        warnings.warn(
            f"{files.root / annotations}: {num_dropped} conversations are left out, whose sides do not alternate",
            RuntimeWarning,
            stacklevel=2,
        )
