"""Planned interactions of two objects: hiding, touching, following, overtaking.

Independent trajectories produce too few of them. Lengths are fractions of the frame's shorter side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.synthetic.attributes import DIRECTIONS
from unipixel.train.datasets.synthetic.motion import MotionPlan, Trajectory, direction_angle, progress

INTERACTIONS = ("hide", "hide_and_stop", "touch", "follow", "overtake")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class InteractingObject:
    """One of two interacting objects.

    Attributes:
        extent: Extent, constant over the clip.
        plan: Its motion in words of the vocabulary.
        trajectory: Its trajectory.
    """

    extent: float
    plan: MotionPlan
    trajectory: Trajectory


def _interacting_object(
    rng: np.random.Generator, centres: Array, *, extent: float, plan: MotionPlan, event_time: float | None = None
) -> InteractingObject:
    count = len(centres)
    angles = np.full(count, rng.uniform(0, 2 * np.pi) if rng.random() < 0.3 else rng.uniform(-0.12, 0.12))
    return InteractingObject(
        extent, plan, Trajectory(centres, np.full(count, extent), angles, np.ones(count, bool), event_time)
    )


def sample_interaction(
    rng: np.random.Generator,
    *,
    kind: str,
    reaches: tuple[float, float],
    frame: tuple[float, float],
    num_times: int,
) -> tuple[InteractingObject, InteractingObject] | None:
    """Sample two interacting objects.

    Args:
        rng: Source of randomness.
        kind: One of `INTERACTIONS`.
        reaches: Farthest points of the two shapes, in units of their extents.
        frame: Width and height of the frame.
        num_times: Number of times at which trajectories are sampled.

    Returns:
        The active object (that hides, arrives, follows, overtakes) and the other one; the first is farther away. None
        where the sampled paths do not fit into the frame.

    Raises:
        ValueError: The kind is unknown.
    """
    if kind not in INTERACTIONS:
        raise ValueError(f"kind must be one of {INTERACTIONS}, got {kind!r}")
    direction = str(rng.choice(DIRECTIONS)) if rng.random() < 0.8 else "diagonal"
    angle = direction_angle(rng, direction)
    heading = np.array([np.cos(angle), np.sin(angle)])
    times = np.linspace(0, 1, num_times)
    draw = {"follow": _follow, "overtake": _overtake}.get(kind, _approach)
    for _ in range(6):
        first, second, extents, plans, event_time = draw(
            rng, kind=kind, heading=heading, times=times, direction=direction
        )
        margins = extents[0] * reaches[0], extents[1] * reaches[1]
        shifted = _shift_into_frame(rng, first, second, margins=margins, frame=frame)
        if shifted is not None:
            return (
                _interacting_object(rng, shifted[0], extent=extents[0], plan=plans[0], event_time=event_time),
                _interacting_object(rng, shifted[1], extent=extents[1], plan=plans[1]),
            )
    return None


def _shift_into_frame(
    rng: np.random.Generator,
    first: Array,
    second: Array,
    *,
    margins: tuple[float, float],
    frame: tuple[float, float],
) -> tuple[Array, Array] | None:
    """Shift two paths by one random offset into the frame; None where they do not fit."""
    low = np.minimum(first.min(axis=0) - margins[0], second.min(axis=0) - margins[1])
    high = np.maximum(first.max(axis=0) + margins[0], second.max(axis=0) + margins[1])
    margin = np.array(frame) - (high - low)
    if margin.min() < 0:
        return None
    shift = rng.uniform(0, 1, 2) * margin - low
    return first + shift, second + shift


_Paths = tuple[Array, Array, tuple[float, float], tuple[MotionPlan, MotionPlan], float | None]


def _approach(rng: np.random.Generator, *, kind: str, heading: Array, times: Array, direction: str) -> _Paths:
    """The first moves towards the second, which is still: it passes behind it, stops behind it, or stops beside it."""
    second_extent = float(rng.uniform(0.2, 0.34))
    first_extent = float(rng.uniform(0.1, 0.2)) if kind != "touch" else float(rng.uniform(0.1, 0.26))
    across = np.array([-heading[1], heading[0]])
    before = second_extent / 2 + first_extent / 2 + rng.uniform(0.1, 0.3)
    second = np.zeros((len(times), 2))
    aside = rng.uniform(-0.12, 0.12) * second_extent
    event_time = None
    if kind == "hide":
        after = second_extent / 2 + first_extent / 2 + rng.uniform(0.08, 0.2)
        profile, shares, length = "steady", times, before + after
    else:
        gap = rng.uniform(0.1, 0.25) * second_extent
        if kind == "touch":
            gap = 0.46 * (first_extent + second_extent)
        length = before - gap
        event_time = float(rng.uniform(0.4, 0.62))
        profile = "stops"
        shares = progress(times, profile="stops", event_time=event_time, ratio=1.0)
    first = -before * heading + shares[:, None] * length * heading + aside * across
    plans = MotionPlan("line", direction, profile), MotionPlan("still")
    return first, second, (first_extent, second_extent), plans, event_time


def _follow(rng: np.random.Generator, *, kind: str, heading: Array, times: Array, direction: str) -> _Paths:
    """The first follows the second along the same line."""
    extents = float(rng.uniform(0.09, 0.18)), float(rng.uniform(0.09, 0.18))
    gap = (extents[0] + extents[1]) / 2 * rng.uniform(1.25, 1.6)
    length = rng.uniform(0.35, 0.6)
    second = times[:, None] * length * heading
    first = second - gap * heading
    return first, second, extents, (MotionPlan("line", direction), MotionPlan("line", direction)), None


def _overtake(rng: np.random.Generator, *, kind: str, heading: Array, times: Array, direction: str) -> _Paths:
    """The first starts behind the second on a parallel line and ends ahead of it."""
    extents = float(rng.uniform(0.09, 0.18)), float(rng.uniform(0.09, 0.18))
    offset = (extents[0] + extents[1]) / 2 * rng.uniform(0.9, 1.3) * rng.choice([-1.0, 1.0])
    across = np.array([-heading[1], heading[0]])
    behind, ahead = rng.uniform(0.14, 0.24, 2)
    length = rng.uniform(0.28, 0.4)
    second = times[:, None] * length * heading
    first = times[:, None] * (length + behind + ahead) * heading - behind * heading + offset * across
    return first, second, extents, (MotionPlan("line", direction), MotionPlan("line", direction)), None
