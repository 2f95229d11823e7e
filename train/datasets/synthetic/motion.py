"""How one object moves: a plan in the words of the vocabulary, and the trajectory that carries it out.

Lengths are shares of the frame's shorter side, time runs from 0 to 1 over the clip, y points down.
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
    """What an object does over the clip.

    Attributes:
        path: A word of `PATHS`.
        direction: "left", "right", "up", "down", "diagonal", or None where the path has no single direction.
        profile: A word of `PROFILES`; only lines have another than "steady".
        spins: Whether it turns around its own centre.
        growth: Extent at the end divided by the extent at the start.
        appears: Moment at which it pops into the picture, 0 for one that is there from the start.
    """

    path: str
    direction: str | None = None
    profile: str = "steady"
    is_spinning: bool = False
    growth: float = 1.0
    appear_time: float = 0.0


@dataclass(frozen=True)
class Trajectory:
    """State of one object at chosen moments.

    Attributes:
        centres: Positions (T, 2) as (x, y), from the frame's top left corner.
        extents: Extents (T,).
        angles: Rotations (T,) in radians, clockwise on the screen.
        exists: Whether it is in the world at all (T,); outside the frame it still exists.
        event_time: Moment of the path's event (turn, stop, start, edge, entry, exit), or None.
    """

    centres: Array
    extents: Array
    angles: Array
    is_present: NDArray[np.bool_]
    event_time: float | None


def direction_angle(rng: np.random.Generator, direction: str) -> float:
    """Draw a heading that deserves the name of its direction, in radians (0 is right, pi/2 is down)."""
    if direction == "diagonal":
        return float(rng.choice(_DIAGONALS) + rng.uniform(-0.16, 0.16))
    return _ANGLES[direction] + rng.uniform(-0.12, 0.12)


def progress(times: Array, *, profile: str, event_time: float, ratio: float) -> Array:
    """Share of a line that is covered at each moment.

    Args:
        times: Moments (T,), 0 to 1.
        profile: A word of `PROFILES`.
        event_time: Moment of stopping or starting, 0 to 1; unused by the other profiles.
        ratio: Lowest speed divided by highest speed, for the profiles that change speed.

    Returns:
        Shares (T,), 0 to 1, never decreasing.

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
    raise ValueError(f"Unknown profile {profile!r}; allowed are {', '.join(PROFILES)}.")


def _reach_in_frame(start: Array, heading: Array, *, margin: float, frame: tuple[float, float]) -> float:
    """Distance from a point along a unit heading until the frame's border, `margin` inside it."""
    room = np.inf
    for axis in range(2):
        if heading[axis] > 1e-6:
            room = min(room, (frame[axis] - margin - start[axis]) / heading[axis])
        elif heading[axis] < -1e-6:
            room = min(room, (margin - start[axis]) / heading[axis])
    return float(room)


def _inside(rng: np.random.Generator, *, margin: float, frame: tuple[float, float]) -> Array:
    return np.array([rng.uniform(margin, max(side - margin, margin + 1e-3)) for side in frame])


def _line(
    rng: np.random.Generator, *, heading: Array, margin: float, frame: tuple[float, float]
) -> tuple[Array, float]:
    """Start and length of a long enough line inside the frame."""
    best, best_room = _inside(rng, margin=margin, frame=frame), 0.0
    for _ in range(8):
        start = _inside(rng, margin=margin, frame=frame)
        room = _reach_in_frame(start, heading, margin=margin, frame=frame)
        if room > best_room:
            best, best_room = start, room
        if best_room > 0.45:
            break
    low = min(0.3, best_room)
    return best, float(rng.uniform(low, max(best_room, low)))


def _moments(num_times: int) -> Array:
    return np.linspace(0.0, 1.0, num_times)


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
    # The other edges stay at a distance: it shall be clear which one it bounces off.
    inset = min(margin + 0.06, frame[1 - axis] / 2 - 0.02)
    touch[1 - axis] = rng.uniform(inset, frame[1 - axis] - inset)
    room = max(frame[axis] - 2 * margin, 0.1)
    speed = rng.uniform(0.6, 1.0) * room / max(event_time, 1 - event_time)
    speed = max(speed, min(0.5, room / max(event_time, 1 - event_time)))
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
    """A point inside and the distance along `heading` after which the object is out of the frame."""
    start, _ = _line(rng, heading=heading, margin=margin, frame=frame)
    gone = np.inf
    for axis in range(2):
        if abs(heading[axis]) > 0.3:
            edge = frame[axis] + reach if heading[axis] > 0 else -reach
            gone = min(gone, (edge - start[axis]) / heading[axis])
    return start, float(gone)


def trajectory(
    rng: np.random.Generator,
    *,
    plan: MotionPlan,
    extent: float,
    reach: float,
    frame: tuple[float, float],
    num_times: int,
) -> Trajectory:
    """Draw a trajectory that carries out a plan.

    Args:
        rng: Source of randomness.
        plan: What the object does.
        extent: Mean extent of the object.
        reach: Farthest point of its shape from its centre, in units of the extent.
        frame: Width and height of the frame.
        num_times: Number T of evenly spaced moments, first and last included.

    Returns:
        The trajectory.

    Raises:
        ValueError: The plan's path is unknown.
    """
    times = _moments(num_times)
    root = np.sqrt(plan.growth)
    extents = extent / root * plan.growth**times
    margin = min(float(extents.max()) * reach, min(frame) / 2 - 0.02)
    tilt = rng.uniform(0, 2 * np.pi) if rng.random() < 0.35 else rng.uniform(-0.15, 0.15)
    turn = rng.choice([-1.0, 1.0]) * rng.uniform(2.7, 3.7) if plan.is_spinning else 0.0
    angles = tilt + turn * times
    is_present = times >= plan.appear_time
    event_time: float | None = plan.appear_time or None

    def along(heading: Array, start: Array, shares: Array, length: float) -> Array:
        return start + shares[:, None] * length * heading

    angle = direction_angle(rng, plan.direction or "right")
    heading = np.array([np.cos(angle), np.sin(angle)])
    if plan.path == "still":
        centres = np.tile(_inside(rng, margin=margin, frame=frame), (num_times, 1))
    elif plan.path == "line":
        start, length = _line(rng, heading=heading, margin=margin, frame=frame)
        event = float(rng.uniform(0.3, 0.66))
        event = 1 - event if plan.profile == "starts_late" else event
        own = np.clip((times - plan.appear_time) / (1 - plan.appear_time), 0, 1)
        shares = progress(own, profile=plan.profile, event_time=event, ratio=float(rng.uniform(0.1, 0.22)))
        centres = along(heading, start, shares, length)
        if plan.profile in ("stops", "starts_late"):
            event_time = plan.appear_time + event * (1 - plan.appear_time)
    elif plan.path == "turn":
        event_time = float(rng.uniform(0.35, 0.65))
        start, length = _line(rng, heading=heading, margin=margin, frame=frame)
        # The longer of the two ways spans the line, so that neither leaves the frame.
        shares = 1 - np.abs(times - event_time) / max(event_time, 1 - event_time)
        centres = along(heading, start, shares, length)
    elif plan.path == "circle":
        centres = _circle(rng, times=times, margin=margin, frame=frame)
    elif plan.path == "bounce":
        event_time = float(rng.uniform(0.38, 0.62))
        centres = _bounce(rng, times=times, margin=margin, frame=frame, event_time=event_time)
    elif plan.path in ("enter", "leave", "return"):
        centres, event_time = _through_the_edge(
            rng, plan=plan, times=times, angle=angle, margin=margin, frame=frame, reach=extent * reach * 1.5
        )
    else:
        raise ValueError(f"Unknown path {plan.path!r}; allowed are {', '.join(PATHS)}.")
    return Trajectory(centres, extents, angles, is_present, event_time)


def _through_the_edge(
    rng: np.random.Generator,
    *,
    plan: MotionPlan,
    times: Array,
    angle: float,
    margin: float,
    frame: tuple[float, float],
    reach: float,
) -> tuple[Array, float]:
    """Centres (T, 2) of an object that crosses the frame's edge, and the moment it is out or comes in."""
    if plan.path == "return":
        out, back = float(rng.uniform(0.28, 0.38)), float(rng.uniform(0.6, 0.7))
        heading = np.array([np.cos(angle), np.sin(angle)])
        start, gone = _crossing(rng, heading=heading, margin=margin, reach=reach, frame=frame)
        shares = np.where(times < 0.5, times / out, (1 - times) / (1 - back))
        return start + shares[:, None] * gone * heading, out
    event_time = float(rng.uniform(0.42, 0.78))
    entering = plan.path == "enter"
    # An entry is an exit played backwards: its heading points outwards, against the way it moves.
    angle = angle + np.pi if entering else angle
    heading = np.array([np.cos(angle), np.sin(angle)])
    start, gone = _crossing(rng, heading=heading, margin=margin, reach=reach, frame=frame)
    shares = (1 - times if entering else times) / event_time
    return start + shares[:, None] * gone * heading, 1 - event_time if entering else event_time
