"""Descriptions of the parameters of functions, from their docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

_PARAMETER = re.compile(r"(\w+): (.*)")


def parameter_descriptions(function: Callable[..., Any]) -> dict[str, str]:
    """Return the text about each parameter, from the section Args of a docstring in Google style."""
    found: dict[str, str] = {}
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    name = ""
    for line in section.split("\n\n")[0].splitlines():
        text = line.strip()
        begins = len(line) - len(line.lstrip()) <= 4 and _PARAMETER.fullmatch(text)
        if begins:
            name = begins[1]
            found[name] = begins[2]
        elif name:
            found[name] += f" {text}"
    return found
