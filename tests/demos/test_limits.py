"""Limits are validated when the server starts."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from unipixel.demos.limits import Limits


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "8", None, True])
def test_invalid_limit_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive finite number"):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_fractional_count_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_frames must be an integer, got 1\.5"):
        Limits(max_frames=1.5)  # type: ignore[arg-type]
