"""Where masks are uncertain: their scores stay low, or they cover the whole frame."""

from __future__ import annotations

from collections.abc import Iterable

LOW_SCORE = 0.4
"""Confidence below which a mask is uncertain.

With unipixel-nano, the masks below it have a mean IoU of 0.33 on three sequences of DAVIS 2017, those above it of 0.57.
"""

FLOODED_FRACTION = 0.9
"""Fraction of the frame above which a mask is uncertain: it has most likely spread to the background."""

MIN_UNCERTAIN_FRAMES = 5
"""Consecutive uncertain frames that are reported; fewer are reported only if they are the whole video."""


def is_uncertain(*, visible: bool, score: float, area: int, num_pixels: int) -> bool:
    """Return whether a mask is uncertain; an object that is not visible has none.

    Args:
        visible: Whether the object is in the frame.
        score: Confidence in 0..1.
        area: Pixels of the mask.
        num_pixels: Pixels of the frame.
    """
    return visible and (score < LOW_SCORE or area > FLOODED_FRACTION * num_pixels)


def low_confidence_ranges(frames: Iterable[tuple[int, bool]]) -> list[tuple[int, int]]:
    """Return the first and last frame of each stretch of uncertain frames.

    Args:
        frames: Index of each frame in order, and whether its mask is uncertain.
    """
    stretches: list[tuple[int, int]] = []
    num_frames, start, last = 0, None, 0
    for index, is_low in frames:
        num_frames += 1
        if is_low and start is None:
            start = index
        elif not is_low and start is not None:
            stretches.append((start, last))
            start = None
        last = index
    if start is not None:
        stretches.append((start, last))
    shortest = min(MIN_UNCERTAIN_FRAMES, num_frames)
    return [(first, end) for first, end in stretches if end - first + 1 >= shortest]


def describe_ranges(ranges: list[tuple[int, int]], *, num_frames: int) -> str:
    """Describe stretches in words, such as "low confidence after frame 40"; empty for none.

    Args:
        ranges: From `low_confidence_ranges`.
        num_frames: Number of frames of the video.
    """
    if not ranges:
        return ""
    if ranges == [(0, num_frames - 1)]:
        return "low confidence in the whole video" if num_frames > 1 else "low confidence"
    texts = [
        f"after frame {first - 1}" if last == num_frames - 1 and first else f"in frames {first} to {last}"
        for first, last in ranges[:3]
    ]
    more = f" and {len(ranges) - 3} more" if len(ranges) > 3 else ""
    return f"low confidence {', '.join(texts)}{more}"
