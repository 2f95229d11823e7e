"""Sampling of the frames that the language model gets, as in the published code."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Sequence

_RANGE = re.compile(r"\s*(\d+)\s*(?:,\s*(\d+)\s*)?")


def uniform_indices(num_frames: int, count: int) -> tuple[int, ...]:
    """Sample evenly spaced frames, including the first and the last; all frames if there are no more than `count`.

    A single frame is the first, which is the anchor frame of objects that are found by text.

    Args:
        num_frames: Number of frames of the clip.
        count: Maximum number of frames to sample.

    Raises:
        ValueError: A number is below 1.
    """
    _check_counts(num_frames, count)
    if num_frames <= count:
        return tuple(range(num_frames))
    if count == 1:
        return (0,)
    return tuple(round(step * (num_frames - 1) / (count - 1)) for step in range(count))


def random_indices(num_frames: int, count: int, *, generator: random.Random) -> tuple[int, ...]:
    """Sample one random frame from each of `count` equal segments, for training.

    As in the published training, the last frame of a clip longer than `count` is never sampled.

    Args:
        num_frames: Number of frames of the clip.
        count: Maximum number of frames to sample.
        generator: Source of randomness.

    Raises:
        ValueError: A number is below 1.
    """
    _check_counts(num_frames, count)
    if num_frames <= count:
        return tuple(range(num_frames))
    edges = [round(step * (num_frames - 1) / count) for step in range(count + 1)]
    return tuple(generator.randrange(start, end) for start, end in itertools.pairwise(edges))


def keep_frames(indices: Sequence[int], kept: Collection[int], *, num_frames: int) -> tuple[int, ...]:
    """Ensure that annotated or prompted frames are among the sampled ones.

    Each missing frame replaces the nearest sampled index, the earlier of two equally near; an index
    that must be kept itself is never replaced.

    Args:
        indices: Sampled frames, increasing.
        kept: Frames that must be included.
        num_frames: Number of frames of the clip.

    Raises:
        ValueError: A frame is outside the clip, or there are more frames to keep than were sampled.
    """
    for frame in sorted(set(kept)):
        check_frame_index(frame, num_frames)
    if len(set(kept)) > len(indices):
        raise ValueError(
            f"{len(set(kept))} frames must be kept, {len(indices)} are sampled: sample at least {len(set(kept))}"
        )
    chosen = list(indices)
    for frame in sorted(set(kept) - set(chosen)):
        replaceable = [index for index in chosen if index not in kept]
        nearest = min(replaceable, key=lambda index: (abs(index - frame), index))
        chosen[chosen.index(nearest)] = frame
    return tuple(sorted(chosen))


def select_frames(
    num_frames: int, count: int, *, kept: Collection[int] = (), generator: random.Random | None = None
) -> tuple[int, ...]:
    """Sample the frames of a clip that the language model gets.

    Args:
        num_frames: Number of frames of the clip.
        count: Maximum number of frames to sample.
        kept: Frames that must be included: those with a point, box or mask.
        generator: Samples at random, as in training; None samples evenly spaced frames.

    Raises:
        ValueError: A number is below 1, or a kept frame is outside the clip or exceeds the count.
    """
    if generator is None:
        indices = uniform_indices(num_frames, count)
    else:
        indices = random_indices(num_frames, count, generator=generator)
    return keep_frames(indices, kept, num_frames=num_frames)


def parse_frame_count(text: str | int) -> tuple[int, int]:
    """Parse a number of frames, "8", or a range, "4,8".

    Returns:
        The smallest and the largest number, equal if one was given.

    Raises:
        ValueError: It is neither, a number is below 1, or the range is inverted.
    """
    match = _RANGE.fullmatch(str(text))
    if match is None:
        raise ValueError(f'a number of frames has the form "8" or "4,8", got {text!r}')
    low = int(match[1])
    high = int(match[2]) if match[2] else low
    if not 1 <= low <= high:
        raise ValueError(f"a number of frames must be at least 1 and a range increasing, got {text!r}")
    return low, high


def draw_frame_count(text: str | int, *, generator: random.Random) -> int:
    """Draw a number of frames from a number or range, see `parse_frame_count`; both ends are included."""
    return generator.randint(*parse_frame_count(text))


def check_frame_index(frame_index: int, num_frames: int) -> None:
    """Check a frame index.

    Raises:
        ValueError: It is outside the clip.
    """
    if not 0 <= frame_index < num_frames:
        raise ValueError(
            f"frame {frame_index} is outside the clip of {num_frames} frames: allowed are 0 to {num_frames - 1}"
        )


def _check_counts(num_frames: int, count: int) -> None:
    if num_frames < 1:
        raise ValueError(f"a clip has at least 1 frame, got {num_frames}")
    if count < 1:
        raise ValueError(f"at least 1 frame must be sampled, got {count}")
