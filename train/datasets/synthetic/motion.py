"""Motion of one object: a plan in words of the vocabulary, and a trajectory that follows it.

Lengths are fractions of the frame's shorter side, time runs from 0 to 1 over the clip, y points down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PATHS = ("still", "line", "turn", "circle", "bounce", "enter", "leave", "return")
PROFILES = ("steady", "speeds_up", "slows_down", "stops", "starts_late")
_ANGLES = {"right": 0.0, "down": np.pi / 2, "left": np.pi, "up": -np.pi / 2}
_DIAGONALS = (np.pi / 4, 3 * np.pi / 4, -np.pi / 4, -3 * np.pi / 4)


@dataclass(frozen=True)
class MotionPlan:
    """Motion of an object over the clip.

    Attributes:
        path: One of `PATHS`.
        direction: "left", "right", "up", "down", "diagonal", or None where the path has no single direction.
        profile: Speed profile, one of `PROFILES`; only lines have another than "steady".
        is_spinning: Whether it rotates around its centre.
        growth: Extent at the end divided by the extent at the start.
        appear_time: Time at which it appears, 0 for an object that is present from the start.
    """

    path: str
    direction: str | None = None
    profile: str = "steady"
    is_spinning: bool = False
    growth: float = 1.0
    appear_time: float = 0.0


@dataclass(frozen=True)
class Trajectory:
    """State of one object at T times.

    Attributes:
        centres: Positions (T, 2) as (x, y), from the frame's top left corner.
        extents: Extents (T,).
        angles: Rotations (T,) in radians, clockwise in the image.
        is_present: Whether it is in the scene (T,); it may be outside the frame.
        event_time: Time of the path's event (turn, stop, start, edge, entry, exit), or None.
    """

    centres: Array
    extents: Array
    angles: Array
    is_present: NDArray[np.bool_]
    event_time: float | None


def direction_angle(rng: np.random.Generator, direction: str) -> float:
    """Sample a heading for a named direction, in radians (0 is right, pi/2 is down)."""
    if direction == "diagonal":
        return float(rng.choice(_DIAGONALS) + rng.uniform(-0.16, 0.16))
    return _ANGLES[direction] + rng.uniform(-0.12, 0.12)


def progress(times: Array, *, profile: str, event_time: float, ratio: float) -> Array:
    """Return the fraction of a line that is covered at each time.

    Args:
        times: Times (T,), 0 to 1.
        profile: One of `PROFILES`.
        event_time: Time of stopping or starting, 0 to 1; unused by the other profiles.
        ratio: Lowest speed divided by highest speed, for the profiles that change speed.

    Returns:
        Fractions (T,), 0 to 1, not decreasing.

    Raises:
        ValueError: The profile is unknown.
    """
    t = np.clip(times, 0.0, 1.0)
    if profile == "steady":
        return t
    if profile == "stops":
        return np.minimum(t / event_time, 1.0)
    if profile == "starts_late":
        return np.maximum((t - event_time) / (1 - event_time), 0.0)
    # Speed changes linearly between two values; the integral is normalised to end at one.
    if profile == "speeds_up":
        return (ratio * t + (1 - ratio) * t * t / 2) / ((1 + ratio) / 2)
    if profile == "slows_down":
        return (t - (1 - ratio) * t * t / 2) / ((1 + ratio) / 2)
    raise ValueError(f"profile must be one of {PROFILES}, got {profile!r}")


def _reach_in_frame(start: Array, heading: Array, *, margin: float, frame: tuple[float, float]) -> float:
    """Return the distance from a point along a unit heading to `margin` before the frame's border."""
    distance = np.inf
    for axis in range(2):
        if heading[axis] > 1e-6:
            distance = min(distance, (frame[axis] - margin - start[axis]) / heading[axis])
        elif heading[axis] < -1e-6:
            distance = min(distance, (margin - start[axis]) / heading[axis])
    return float(distance)


def _inside(rng: np.random.Generator, *, margin: float, frame: tuple[float, float]) -> Array:
    return np.array([rng.uniform(margin, max(side - margin, margin + 1e-3)) for side in frame])


def _line(
    rng: np.random.Generator, *, heading: Array, margin: float, frame: tuple[float, float]
) -> tuple[Array, float]:
    """Return the start and length of a line inside the frame, long where possible."""
    best, longest = _inside(rng, margin=margin, frame=frame), 0.0
    for _ in range(8):
        start = _inside(rng, margin=margin, frame=frame)
        length = _reach_in_frame(start, heading, margin=margin, frame=frame)
        if length > longest:
            best, longest = start, length
        if longest > 0.45:
            break
    low = min(0.3, longest)
    return best, float(rng.uniform(low, max(longest, low)))


def _circle(rng: np.random.Generator, *, times: Array, margin: float, frame: tuple[float, float]) -> Array:
    limit = min(min(frame) / 2 - margin, 0.32)
    radius = rng.uniform(min(0.13, limit), max(limit, 0.131))
    centre = _inside(rng, margin=margin + radius, frame=frame)
    phase = rng.uniform(0, 2 * np.pi)
    sweep = rng.choice([-1.0, 1.0]) * rng.uniform(0.85, 1.25) * 2 * np.pi
    angle = phase + sweep * times
    return centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _bounce(
    rng: np.random.Generator, *, times: Array, margin: float, frame: tuple[float, float], event_time: float
) -> Array:
    axis, far = int(rng.integers(2)), bool(rng.integers(2))
    touch = np.empty(2)
    touch[axis] = frame[axis] - margin if far else margin
    # A distance from the other edges keeps it unambiguous which edge is touched.
    inset = min(margin + 0.06, frame[1 - axis] / 2 - 0.02)
    touch[1 - axis] = rng.uniform(inset, frame[1 - axis] - inset)
    extent = max(frame[axis] - 2 * margin, 0.1)
    speed = rng.uniform(0.6, 1.0) * extent / max(event_time, 1 - event_time)
    speed = max(speed, min(0.5, extent / max(event_time, 1 - event_time)))
    slant = 0.0 if rng.random() < 0.3 else rng.uniform(0.3, 0.9) * rng.choice([-1.0, 1.0])
    offset = np.abs(times - event_time) * speed * (-1 if far else 1)
    path = np.tile(touch, (len(times), 1))
    path[:, axis] += offset
    sideways = slant * speed * (times - event_time)
    low, high = inset - touch[1 - axis], frame[1 - axis] - inset - touch[1 - axis]
    shrink = 1.0
    if sideways.max() > high:
        shrink = min(shrink, max(high, 0.0) / sideways.max())
    if sideways.min() < low:
        shrink = min(shrink, min(low, 0.0) / sideways.min())
    path[:, 1 - axis] += sideways * shrink
    return path


def _crossing(
    rng: np.random.Generator, *, heading: Array, margin: float, reach: float, frame: tuple[float, float]
) -> tuple[Array, float]:
    """Return a point inside and the distance along `heading` after which the object is outside the frame."""
    start, _ = _line(rng, heading=heading, margin=margin, frame=frame)
    exit_distance = np.inf
    for axis in range(2):
        if abs(heading[axis]) > 0.3:
            edge = frame[axis] + reach if heading[axis] > 0 else -reach
            exit_distance = min(exit_distance, (edge - start[axis]) / heading[axis])
    return start, float(exit_distance)


def trajectory(
    rng: np.random.Generator,
    *,
    plan: MotionPlan,
    extent: float,
    reach: float,
    frame: tuple[float, float],
    num_times: int,
) -> Trajectory:
    """Sample a trajectory for a plan.

    Args:
        rng: Source of randomness.
        plan: Motion of the object.
        extent: Mean extent of the object.
        reach: Farthest point of its shape from its centre, in units of the extent.
        frame: Width and height of the frame.
        num_times: Number T of evenly spaced times, first and last included.

    Raises:
        ValueError: The plan's path is unknown.
    """
    times = np.linspace(0.0, 1.0, num_times)
    root = np.sqrt(plan.growth)
    extents = extent / root * plan.growth**times
    margin = min(float(extents.max()) * reach, min(frame) / 2 - 0.02)
    tilt = rng.uniform(0, 2 * np.pi) if rng.random() < 0.35 else rng.uniform(-0.15, 0.15)
    turn = rng.choice([-1.0, 1.0]) * rng.uniform(2.7, 3.7) if plan.is_spinning else 0.0
    angles = tilt + turn * times
    is_present = times >= plan.appear_time
    event_time: float | None = plan.appear_time or None

    def along(heading: Array, start: Array, fractions: Array, length: float) -> Array:
        return start + fractions[:, None] * length * heading

    angle = direction_angle(rng, plan.direction or "right")
    heading = np.array([np.cos(angle), np.sin(angle)])
    if plan.path == "still":
        centres = np.tile(_inside(rng, margin=margin, frame=frame), (num_times, 1))
    elif plan.path == "line":
        start, length = _line(rng, heading=heading, margin=margin, frame=frame)
        event = float(rng.uniform(0.3, 0.66))
        event = 1 - event if plan.profile == "starts_late" else event
        local_times = np.clip((times - plan.appear_time) / (1 - plan.appear_time), 0, 1)
        fractions = progress(local_times, profile=plan.profile, event_time=event, ratio=float(rng.uniform(0.1, 0.22)))
        centres = along(heading, start, fractions, length)
        if plan.profile in ("stops", "starts_late"):
            event_time = plan.appear_time + event * (1 - plan.appear_time)
    elif plan.path == "turn":
        event_time = float(rng.uniform(0.35, 0.65))
        start, length = _line(rng, heading=heading, margin=margin, frame=frame)
        # The longer of the two segments spans the line, so that neither leaves the frame.
        fractions = 1 - np.abs(times - event_time) / max(event_time, 1 - event_time)
        centres = along(heading, start, fractions, length)
    elif plan.path == "circle":
        centres = _circle(rng, times=times, margin=margin, frame=frame)
    elif plan.path == "bounce":
        event_time = float(rng.uniform(0.38, 0.62))
        centres = _bounce(rng, times=times, margin=margin, frame=frame, event_time=event_time)
    elif plan.path in ("enter", "leave", "return"):
        centres, event_time = _edge_crossing(
            rng, plan=plan, times=times, angle=angle, margin=margin, frame=frame, reach=extent * reach * 1.5
        )
    else:
        raise ValueError(f"path must be one of {PATHS}, got {plan.path!r}")
    return Trajectory(centres, extents, angles, is_present, event_time)


def _edge_crossing(
    rng: np.random.Generator,
    *,
    plan: MotionPlan,
    times: Array,
    angle: float,
    margin: float,
    frame: tuple[float, float],
    reach: float,
) -> tuple[Array, float]:
    """Return the centres (T, 2) of an object that crosses the frame's edge, and the time of leaving or entering."""
    if plan.path == "return":
        exit_time, return_time = float(rng.uniform(0.28, 0.38)), float(rng.uniform(0.6, 0.7))
        heading = np.array([np.cos(angle), np.sin(angle)])
        start, exit_distance = _crossing(rng, heading=heading, margin=margin, reach=reach, frame=frame)
        fractions = np.where(times < 0.5, times / exit_time, (1 - times) / (1 - return_time))
        return start + fractions[:, None] * exit_distance * heading, exit_time
    event_time = float(rng.uniform(0.42, 0.78))
    is_entering = plan.path == "enter"
    # An entry is an exit reversed in time: its heading points outwards, against the motion.
    angle = angle + np.pi if is_entering else angle
    heading = np.array([np.cos(angle), np.sin(angle)])
    start, exit_distance = _crossing(rng, heading=heading, margin=margin, reach=reach, frame=frame)
    fractions = (1 - times if is_entering else times) / event_time
    return start + fractions[:, None] * exit_distance * heading, 1 - event_time if is_entering else event_time
