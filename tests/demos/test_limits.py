"""A server's ceilings are checked when it starts."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from unipixel.demos.limits import Limits


@pytest.mark.parametrize("name", [field.name for field in fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, "8", None, True])
def test_ceiling_that_is_none_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number above 0"):
        Limits(**{name: value})  # type: ignore[arg-type]


def test_count_is_a_whole_number() -> None:
    with pytest.raises(ValueError, match=r"max_frames must be a whole number, got 1\.5"):
        Limits(max_frames=1.5)  # type: ignore[arg-type]
