"""Which frames of a clip the language model sees (UniPixel; published code, frame selection)."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Sequence

_RANGE = re.compile(r"\s*(\d+)\s*(?:,\s*(\d+)\s*)?")


def uniform_indices(num_frames: int, count: int) -> tuple[int, ...]:
    """Choose frames at equal distances, the first and the last included; all where there are no more.

    A single frame is the first: every choice begins with it, and masks of objects that language
    finds are anchored on it.

    Args:
        num_frames: Frames of the clip.
        count: Frames to choose at most.

    Raises:
        ValueError: One of them is below 1.
    """
    _check_counts(num_frames, count)
    if num_frames <= count:
        return tuple(range(num_frames))
    if count == 1:
        return (0,)
    return tuple(round(step * (num_frames - 1) / (count - 1)) for step in range(count))


def random_indices(num_frames: int, count: int, *, generator: random.Random) -> tuple[int, ...]:
    """Choose one random frame from each of `count` equal segments, for training.

    As in the published training, the last frame is never chosen from a clip that is longer than `count`.

    Args:
        num_frames: Frames of the clip.
        count: Frames to choose at most.
        generator: Source of the choices; seed it to repeat them.

    Raises:
        ValueError: A number is below 1.
    """
    _check_counts(num_frames, count)
    if num_frames <= count:
        return tuple(range(num_frames))
    edges = [round(step * (num_frames - 1) / count) for step in range(count + 1)]
    return tuple(generator.randrange(start, end) for start, end in itertools.pairwise(edges))


def keep_frames(indices: Sequence[int], kept: Collection[int], *, num_frames: int) -> tuple[int, ...]:
    """Make sure that annotated or prompted frames are among the chosen ones.

    Each frame that is missing replaces the chosen index nearest to it, the earlier of two; an index
    that is itself to be kept is never replaced.

    Args:
        indices: Chosen frames, rising.
        kept: Frames that must be seen.
        num_frames: Frames of the clip.

    Raises:
        ValueError: A frame is beyond the clip, or there are more frames to keep than were chosen.
    """
    for frame in sorted(set(kept)):
        check_frame_index(frame, num_frames)
    if len(set(kept)) > len(indices):
        raise ValueError(
            f"{len(set(kept))} frames are to be kept, {len(indices)} are chosen: choose at least {len(set(kept))}"
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
    """Choose the frames of a clip that the language model sees.

    Args:
        num_frames: Frames of the clip.
        count: Frames to choose at most.
        kept: Frames that must be among them: those with a point, box or mask.
        generator: Chooses at random, as in training; None chooses at equal distances.

    Raises:
        ValueError: A number is below 1, or a kept frame is beyond the clip or does not fit in.
    """
    if generator is None:
        indices = uniform_indices(num_frames, count)
    else:
        indices = random_indices(num_frames, count, generator=generator)
    return keep_frames(indices, kept, num_frames=num_frames)


def parse_frame_count(text: str | int) -> tuple[int, int]:
    """Read a number of frames, "8", or a range of them, "4,8".

    Returns:
        The smallest and the largest number; equal where one was given.

    Raises:
        ValueError: It is neither, a number is below 1, or the range is inverted.
    """
    match = _RANGE.fullmatch(str(text))
    if match is None:
        raise ValueError(f'a number of frames is written "8" or "4,8", got {text!r}')
    low = int(match[1])
    high = int(match[2]) if match[2] else low
    if not 1 <= low <= high:
        raise ValueError(f"a number of frames must be 1 or more and a range rising, got {text!r}")
    return low, high


def draw_frame_count(text: str | int, *, generator: random.Random) -> int:
    """Draw a number of frames from what `parse_frame_count` reads, both ends included."""
    return generator.randint(*parse_frame_count(text))


def check_frame_index(frame_index: int, num_frames: int) -> None:
    """Check that a clip has a frame.

    Raises:
        ValueError: It has not.
    """
    if not 0 <= frame_index < num_frames:
        raise ValueError(
            f"frame {frame_index} is beyond the clip of {num_frames} frames: allowed are 0 to {num_frames - 1}"
        )


def _check_counts(num_frames: int, count: int) -> None:
    if num_frames < 1:
        raise ValueError(f"a clip has at least 1 frame, got {num_frames}")
    if count < 1:
        raise ValueError(f"at least 1 frame must be chosen, got {count}")
