"""The table of published training sets, `sets.toml`, and the lists of classes beside it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from unipixel.train.datasets.formats.category_masks import read_category_masks
from unipixel.train.datasets.formats.expression_files import read_expressions
from unipixel.train.datasets.formats.grounded.coco_panoptic import read_panoptic
from unipixel.train.datasets.formats.grounded.grand_captions import read_grounded_captions
from unipixel.train.datasets.formats.grounded.muse_questions import read_muse
from unipixel.train.datasets.formats.grounded.region_questions import read_region_questions
from unipixel.train.datasets.formats.grounded.sam_captions import read_sam_captions
from unipixel.train.datasets.formats.groundmore_clips import read_groundmore
from unipixel.train.datasets.formats.inst_it_files import read_inst_it_images, read_inst_it_videos
from unipixel.train.datasets.formats.label_maps import read_label_maps
from unipixel.train.datasets.formats.llava_conversations import read_conversations
from unipixel.train.datasets.formats.osprey_files import read_osprey
from unipixel.train.datasets.formats.reason_seg_files import read_reason_seg
from unipixel.train.datasets.formats.refer_pickles import read_references
from unipixel.train.datasets.formats.sav_objects import read_sav_objects
from unipixel.train.datasets.formats.vicas_clips import read_vicas
from unipixel.train.datasets.formats.videorefer_files import read_videorefer
from unipixel.train.datasets.published.entry_index import ReadGroups

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FORMATS: Mapping[str, ReadGroups] = {
    "category-masks": read_category_masks,
    "conversations": read_conversations,
    "expressions": read_expressions,
    "grounded-captions": read_grounded_captions,
    "groundmore": read_groundmore,
    "inst-it-images": read_inst_it_images,
    "inst-it-videos": read_inst_it_videos,
    "label-maps": read_label_maps,
    "muse": read_muse,
    "osprey": read_osprey,
    "panoptic": read_panoptic,
    "reason-seg": read_reason_seg,
    "references": read_references,
    "region-questions": read_region_questions,
    "sam-captions": read_sam_captions,
    "sav-objects": read_sav_objects,
    "vicas": read_vicas,
    "videorefer": read_videorefer,
}
"""Reader of each annotation format."""


@dataclass(frozen=True)
class SetDefinition:
    """One published training set.

    Attributes:
        name: Its name in recipes and commands.
        title: Its name in papers.
        format: One of `FORMATS`.
        options: Arguments of the reader.
        layout: Files and folders below the folder of all data sets, with names in capitals for those that vary.
        source: Where the authors publish it.
        licence: Its licence.
        num_samples: Samples as the paper counts them; None where it does not say.
        repeats: Times that each stage of the paper repeats it.
        mixture: The paper that trains on it.
        classes: File of class names, one per line.
        first_class: Label of the first class.
        ignored_classes: Labels that are not used.
        max_regions: Most regions of an entry that are asked about, drawn at random; None asks about all.
        single_frame_fraction: Fraction of the samples in which the masks of regions are given on one frame only.
        note: What to know about it.
    """

    name: str
    title: str
    format: str
    options: Mapping[str, Any]
    layout: tuple[str, ...]
    source: str
    licence: str
    num_samples: int | None = None
    repeats: Mapping[str, int] = field(default_factory=dict)
    mixture: str = "UniPixel"
    classes: str | None = None
    first_class: int = 0
    ignored_classes: tuple[int, ...] = ()
    max_regions: int | None = None
    single_frame_fraction: float = 0.0
    note: str = ""

    @property
    def read_groups(self) -> ReadGroups:
        """Reader of its format."""
        return FORMATS[self.format]

    def class_names(self) -> Mapping[int, str]:
        """Return the name of each label that is used.

        Raises:
            OSError: The list of classes cannot be read.
        """
        if self.classes is None:
            return {}
        names = (_folder() / "classes" / self.classes).read_text(encoding="utf-8").splitlines()
        return {label: name for label, name in enumerate(names, self.first_class) if label not in self.ignored_classes}


@cache
def published_sets() -> Mapping[str, SetDefinition]:
    """Return all published sets by name."""
    table = tomllib.loads((_folder() / "sets.toml").read_text(encoding="utf-8"))
    return {
        name: SetDefinition(
            **{
                "name": name,
                **row,
                "layout": tuple(row["layout"]),
                "ignored_classes": tuple(row.get("ignored_classes", ())),
            }
        )
        for name, row in table.items()
    }


def find_set(name: str) -> SetDefinition:
    """Return a set by its name.

    Raises:
        ValueError: There is no such set.
    """
    known = published_sets()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise ValueError(f"there is no data set {name!r} (nearest: {nearest}): known are {', '.join(known)}")
    return known[name]


def render_tree(paths: Sequence[str]) -> list[str]:
    """Draw paths as the lines of a tree."""
    lines: list[str] = []
    shown: set[str] = set()
    for path in paths:
        parts = path.split("/")
        for depth, part in enumerate(parts):
            above = "/".join(parts[: depth + 1])
            if above not in shown:
                shown.add(above)
                lines.append("    " * depth + part + ("/" if depth < len(parts) - 1 else ""))
    return lines


def _folder() -> Any:
    return resources.files("unipixel.train.datasets.published")
