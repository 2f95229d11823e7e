"""Frames of a video file by index, read with decord (its fork decord2), which the extra `eval` installs."""

from __future__ import annotations

from typing import Literal

Decoder = Literal["auto", "av", "decord"]
"""What reads frames of a video file by index; both decoders return the same frames."""
