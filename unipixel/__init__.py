"""UniPixel: a video-first streaming segmentation agent."""

from __future__ import annotations
