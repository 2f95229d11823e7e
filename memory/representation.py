"""Short representations of dataclasses whose fields are tensors, arrays or long texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

_MAX_TEXT = 48
_MAX_ITEMS = 4


def short_repr(instance: Any) -> str:
    """Return the `repr` of a dataclass on one line: tensors and arrays by type and shape, long values shortened.

    Fields that have their default are left out.
    """
    shown = []
    for entry in dataclasses.fields(instance):
        value = getattr(instance, entry.name)
        if value is None or (isinstance(value, str | int | float | bool | tuple) and value == entry.default):
            continue
        shown.append(f"{entry.name}={short_value(value)}")
    return f"{type(instance).__name__}({', '.join(shown)})"


def short_value(value: Any) -> str:
    """Return a value in a few characters: tensors and arrays by type and shape, collections by their length."""
    if isinstance(value, np.ndarray) or hasattr(value, "element_size"):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, Mapping):
        return f"<{len(value)} entries>"
    if isinstance(value, list | tuple) and len(value) > _MAX_ITEMS:
        return f"<{len(value)} items>"
    if isinstance(value, list | tuple):
        inner = ", ".join(short_value(item) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if dataclasses.is_dataclass(value):
        return f"<{type(value).__name__}>"
    text = repr(value)
    is_plain = isinstance(value, str | int | float | bool)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..." if is_plain else f"<{type(value).__name__}>"
