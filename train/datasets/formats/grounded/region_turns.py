"""Groups of turns about the regions of one image, as the image sets of Pixel-SAIL have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from unipixel.train.datasets.published.entries import Group

_GROUP_SIZE = 5


def group_region_turns(image: str, *, masks: Sequence[Any], turns: Sequence[tuple[str, str]]) -> Iterator[Group]:
    """Yield the regions of one image with their turns, five per entry; nothing for an image without regions.

    Args:
        image: Path of the image.
        masks: Mask of each region, in a form that annotations have.
        turns: Question and answer about each region, which the question names by its position in `masks`.
    """
    entries = []
    for first in range(0, len(turns), _GROUP_SIZE):
        keys = [str(row) for row in range(first, min(first + _GROUP_SIZE, len(turns)))]
        entries.append({"turns": list(turns[first : first + _GROUP_SIZE]), "object_keys": keys})
    if entries:
        yield {
            "name": PurePosixPath(image).stem,
            "task": "region",
            "media": {"frames": [image]},
            "objects": {str(row): {"track": [mask]} for row, mask in enumerate(masks)},
            "entries": entries,
        }
