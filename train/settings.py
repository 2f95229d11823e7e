"""Base class of the dataclasses that are read from recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class Settings:
    """Makes pydantic refuse unknown keys and values of another type, see `unipixel.train.recipe_files`."""

    __pydantic_config__: ClassVar[Mapping[str, object]] = {"extra": "forbid", "strict": True}
