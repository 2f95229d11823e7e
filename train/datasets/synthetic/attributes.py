"""Attribute vocabulary of the synthetic clips, and the combinations that each split holds out.

The lists follow the published vocabulary; the hue ranges leave gaps between neighbouring colour names, so that every
colour has exactly one name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "crescent")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white", "black", "pink")
TEXTURES = ("plain", "striped", "spotted", "checkered")
SIZES = ("small", "medium", "large")

DIRECTIONS = ("left", "right", "up", "down")
MOTIONS = (
    "still",
    *DIRECTIONS,
    "diagonal",
    "turns_back",
    "speeds_up",
    "slows_down",
    "stops",
    "starts_late",
    "spins",
    "grows",
    "shrinks",
    "circle",
    "bounces",
    "appears_late",
    "leaves",
)
RELATIONS = ("left_of", "right_of", "above", "below", "behind", "front", "touches", "follows", "overtakes")


@dataclass(frozen=True)
class ColourRange:
    """Range of hue, saturation and value of one colour name.

    Attributes:
        hue: Lowest and highest hue in degrees; negative values wrap around (red).
        saturation: Lowest and highest saturation, 0 to 1.
        value: Lowest and highest value, 0 to 1.
    """

    hue: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]


COLOUR_RANGES: dict[str, ColourRange] = {
    "red": ColourRange((-7.0, 6.0), (0.78, 1.0), (0.66, 1.0)),
    "orange": ColourRange((24.0, 37.0), (0.85, 1.0), (0.92, 1.0)),
    "yellow": ColourRange((52.0, 60.0), (0.72, 1.0), (0.9, 1.0)),
    "green": ColourRange((102.0, 146.0), (0.6, 1.0), (0.45, 0.95)),
    "cyan": ColourRange((176.0, 187.0), (0.65, 1.0), (0.85, 1.0)),
    "blue": ColourRange((214.0, 241.0), (0.72, 1.0), (0.6, 1.0)),
    "purple": ColourRange((270.0, 299.0), (0.6, 1.0), (0.45, 0.72)),
    "pink": ColourRange((326.0, 348.0), (0.25, 0.6), (0.95, 1.0)),
    "white": ColourRange((0.0, 360.0), (0.0, 0.05), (0.93, 1.0)),
    "black": ColourRange((0.0, 360.0), (0.0, 0.3), (0.0, 0.12)),
}

# Extents as fractions of the frame's shorter side. The published limits are 0.12 and 0.22; an object between two of
# these ranges has no size name.
SIZE_RANGES: dict[str, tuple[float, float]] = {
    "small": (0.065, 0.105),
    "medium": (0.135, 0.2),
    "large": (0.245, 0.38),
}
SMALLEST, LARGEST = 0.06, 0.4

# Combinations held out of the training split. The validation split adds the first tuples, the test split all.
VAL_SHAPE_COLOURS = (("circle", "purple"), ("square", "pink"), ("heart", "cyan"), ("ring", "orange"))
TEST_SHAPE_COLOURS = (
    ("star", "green"),
    ("triangle", "blue"),
    ("ring", "red"),
    ("cross", "yellow"),
    ("heart", "black"),
    ("crescent", "white"),
    ("circle", "orange"),
    ("square", "purple"),
)
VAL_MOTION_SHAPES = (("spins", "heart"), ("up", "crescent"), ("leaves", "square"))
TEST_MOTION_SHAPES = (
    ("turns_back", "star"),
    ("stops", "triangle"),
    ("circle", "cross"),
    ("grows", "ring"),
    ("starts_late", "heart"),
    ("left", "crescent"),
    ("bounces", "square"),
    ("appears_late", "circle"),
)


def held_out_pairs(split: Split) -> frozenset[tuple[str, str]]:
    """Return the combinations that a split must not show.

    Args:
        split: Name of the split.

    Returns:
        Pairs of (shape, colour) and of (motion, shape); empty for the test split.

    Raises:
        ValueError: The split is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; allowed are {', '.join(SPLITS)}.")
    if split == "test":
        return frozenset()
    pairs: tuple[tuple[str, str], ...] = (*TEST_SHAPE_COLOURS, *TEST_MOTION_SHAPES)
    if split == "train":
        pairs = (*pairs, *VAL_SHAPE_COLOURS, *VAL_MOTION_SHAPES)
    return frozenset(pairs)


def size_class(size: float) -> str | None:
    """Return the name of a size, or None near a limit.

    Args:
        size: Extent as a fraction of the frame's shorter side.

    Returns:
        One of `SIZES`, or None where two names could apply.
    """
    for name, (low, high) in SIZE_RANGES.items():
        if low - 0.006 <= size <= high + 0.006:
            return name
    return None
