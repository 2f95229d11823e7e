"""Miniature benchmarks in their official layouts, with the figures of the published code."""

from __future__ import annotations

import json
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "train" / "evaluation" / "golden"


@cache
def golden_case(name: str) -> Path:
    """Unpack a case once per process and return its folder; tests must not change it."""
    folder = _folder() / name
    with zipfile.ZipFile(GOLDEN / f"{name}.zip") as archive:
        archive.extractall(folder)
    return folder


def expected_of(name: str, file: str = "expected.json") -> Any:
    """Return the figures of a case."""
    return json.loads((golden_case(name) / file).read_text(encoding="utf-8"))


@cache
def _folder() -> Path:
    # The object is kept by the cache of `_temporary`, so that the folder is deleted when the process ends.
    return Path(_temporary().name)


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="golden-evaluation-")
