"""The marks in a judge's reply about a description (VideoRefer-Bench-D, arXiv:2501.00599, section 5)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

DIMENSIONS = (
    "Subject Correspondence",
    "Appearance Description",
    "Temporal Description",
    "Hallucination Detection",
)
MAX_MARK = 5.0

_PUBLISHED = re.compile(r"\d+\.\s+(?P<name>[^\n]*?):\s+(?P<mark>[\d.]+)")
_MARKUP = re.compile(r"[*_`#]")


def parse_marks(reply: str) -> dict[str, float]:
    """Return the marks of the dimensions that a reply states as `N. NAME: MARK`, as the published script does.

    A dimension in another form (bold, with a dash, without spaces) is not found. A reply with a mark that is no number,
    such as "4.5.", has none.
    """
    try:
        found = {match["name"]: float(match["mark"]) for match in _PUBLISHED.finditer(reply)}
    except ValueError:
        return {}
    return {name: found[name] for name in DIMENSIONS if name in found}


def parse_marks_strictly(reply: str) -> dict[str, float]:
    """Return the marks of a reply in any usual form: bold, with a dash or a colon, as "2" or "2/5".

    A mark above 5 is not one.
    """
    plain = _MARKUP.sub("", reply)
    marks: dict[str, float] = {}
    for name in DIMENSIONS:
        words = r"[ \t]+".join(name.split())
        match = re.search(rf"{words}[ \t]*[:=\-–—]*[ \t]*(\d+(?:\.\d+)?)", plain, re.IGNORECASE)
        if match is not None and float(match[1]) <= MAX_MARK:
            marks[name] = float(match[1])
    return marks


def summarize_marks(marks: Sequence[Mapping[str, float]], *, is_missing_zero: bool) -> dict[str, float]:
    """Return the mean of each dimension over the samples, and their average.

    Args:
        marks: Marks of each sample.
        is_missing_zero: Whether a dimension without a mark counts 0; otherwise the sample leaves that mean, as in the
            published script. A dimension without any mark has no mean, and there is then no average.
    """
    figures: dict[str, float] = {}
    for name in DIMENSIONS:
        values = [found.get(name, 0.0) for found in marks if is_missing_zero or name in found]
        if values:
            figures[name] = float(np.mean(values))
    return figures | ({"average": float(np.mean(list(figures.values())))} if len(figures) == len(DIMENSIONS) else {})
