"""The description of a run beside its results, so that results of different runs are not mixed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unipixel.train.evaluation.running.predictions import replaced_file


def keep_description(file: Path, description: Mapping[str, Any]) -> None:
    """Write the description of a run, or check that the file has the same one.

    Args:
        file: The file.
        description: What is run; all values must be equal for a run to be continued.

    Raises:
        OSError: The file cannot be read or written.
        ValueError: It belongs to another run.
    """
    if not file.is_file():
        write_json(file, description)
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not the description of a run ({error}); give a new folder") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: not the description of a run; give a new folder")
    names = [name for name in {**found, **description} if found.get(name) != description.get(name)]
    if names:
        differences = "; ".join(f"{name} is {found.get(name)!r}, now {description.get(name)!r}" for name in names)
        raise ValueError(f"{file.parent} belongs to another run: {differences}. Give a new folder")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a readable JSON file in one step.

    Raises:
        OSError: The file cannot be written.
    """
    with replaced_file(path) as file:
        file.write(json.dumps(content, ensure_ascii=False, indent=1).encode("utf-8") + b"\n")
