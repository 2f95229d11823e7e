"""The true state of a clip before anything is drawn: objects, looks, trajectories, depth order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from unipixel.train.datasets.synthetic.attributes import (
    COLOURS,
    DIRECTIONS,
    SHAPES,
    SIZE_RANGES,
    TEST_MOTION_SHAPES,
    TEST_SHAPE_COLOURS,
    TEXTURES,
    VAL_MOTION_SHAPES,
    VAL_SHAPE_COLOURS,
    Split,
    held_out_pairs,
)
from unipixel.train.datasets.synthetic.drawing.shapes import REACH
from unipixel.train.datasets.synthetic.interactions import INTERACTIONS, sample_interaction
from unipixel.train.datasets.synthetic.motion import MotionPlan, Trajectory, trajectory

NUM_MOMENTS = 49
# Events that several objects of one scene may share, so that "the first to stop" has something to choose from.
_SHARED_EVENTS = ("stops", "starts_late", "leaves", "appears_late", "turns_back")


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        shape: A word of `SHAPES`.
        colour: A word of `COLOURS`.
        texture: A word of `TEXTURES`.
        extent: Mean extent, as a share of the frame's shorter side.
        plan: What it does.
        trajectory: Its state at `NUM_MOMENTS` moments.
    """

    shape: str
    colour: str
    texture: str
    extent: float
    plan: MotionPlan
    trajectory: Trajectory


@dataclass(frozen=True)
class Scene:
    """A clip's contents.

    Attributes:
        frame: Width and height, in units of the shorter side.
        objects: Objects, the farthest first: a later one hides an earlier one.
        num_frames: Frames of the full clip.
        fps: Frames per second of the full clip.
    """

    frame: tuple[float, float]
    objects: tuple[SceneObject, ...]
    num_frames: int
    fps: float


def _motion_words(plan: MotionPlan) -> set[str]:
    """Words a plan deserves, for the held-out combinations."""
    words = {plan.path, plan.profile} | ({plan.direction} if plan.direction else set())
    words |= {"spins"} if plan.is_spinning else set()
    words |= {"grows"} if plan.growth > 1 else {"shrinks"} if plan.growth < 1 else set()
    words |= {"appears_late"} if plan.appear_time > 0 or plan.path == "enter" else set()
    names = {"turn": "turns_back", "bounce": "bounces", "leave": "leaves"}
    return {names.get(word, word) for word in words}


def is_allowed(shape: str, colour: str, plan: MotionPlan, *, forbidden: frozenset[tuple[str, str]]) -> bool:
    """Whether no held-out combination is shown by an object.

    Args:
        shape: A word of `SHAPES`.
        colour: A word of `COLOURS`.
        plan: What the object does.
        forbidden: Result of `vocabulary.held_out_pairs`.
    """
    if (shape, colour) in forbidden:
        return False
    return not any((word, shape) in forbidden for word in _motion_words(plan))


# Shares of the paths and of the profiles of a line.
_PATHS = {"still": 17, "line": 44, "turn": 9, "circle": 8, "bounce": 8, "enter": 5, "leave": 7, "return": 2}
_PROFILES = {"steady": 36, "speeds_up": 14, "slows_down": 14, "stops": 20, "starts_late": 16}


def _draw(rng: np.random.Generator, shares: dict[str, int]) -> str:
    """Draw a key by its share; many times faster than `Generator.choice` with probabilities."""
    left = rng.random() * sum(shares.values())
    for word, share in shares.items():
        left -= share
        if left < 0:
            return word
    return word


def _sample_plan(rng: np.random.Generator, *, shape: str, texture: str) -> MotionPlan:
    path = _draw(rng, _PATHS)
    direction = None
    if path not in ("still", "circle", "bounce"):
        direction = DIRECTIONS[int(rng.integers(4))] if rng.random() < 0.78 else "diagonal"
    profile, appears = "steady", 0.0
    if path == "line":
        profile = _draw(rng, _PROFILES)
    if path == "still" or (path == "line" and profile == "steady"):
        appears = float(rng.uniform(0.22, 0.55)) if rng.random() < 0.12 else 0.0
    # A round outline shows its rotation only through its texture.
    can_spin = shape not in ("circle", "ring") or texture in ("striped", "checkered")
    spins = can_spin and rng.random() < (0.4 if path == "still" else 0.15)
    growth = 1.0
    if not spins and rng.random() < (0.4 if path == "still" else 0.13):
        growth = float(rng.uniform(1.7, 2.3)) ** (1 if rng.random() < 0.5 else -1)
    return MotionPlan(path, direction, profile, bool(spins), growth, appears)


def _sample_extent(rng: np.random.Generator, *, growth: float, crowded: bool) -> float:
    weights = [0.3, 0.5, 0.2] if crowded else [0.18, 0.44, 0.38]
    low, high = SIZE_RANGES[str(rng.choice(["small", "medium", "large"], p=weights))]
    extent = float(rng.uniform(low, high))
    if growth == 1.0:
        return extent
    root = max(growth, 1 / growth) ** 0.5
    return float(np.clip(extent, 0.075 * root, 0.37 / root))


@dataclass(frozen=True)
class _Palette:
    """Words a scene draws its objects from; few words make objects alike."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    textures: tuple[str, ...]


def _sample_palette(rng: np.random.Generator) -> _Palette:
    def some(words: tuple[str, ...], low: int, high: int) -> tuple[str, ...]:
        count = len(words) if rng.random() < 0.35 else int(rng.integers(low, high + 1))
        return tuple(str(word) for word in rng.permutation(words)[:count])

    return _Palette(some(SHAPES, 2, 4), some(COLOURS, 2, 5), some(TEXTURES, 1, 3))


def _sample_words(
    rng: np.random.Generator, palette: _Palette, *, forbidden: frozenset[tuple[str, str]]
) -> tuple[str, str, str]:
    for _ in range(40):
        shape, colour = str(rng.choice(palette.shapes)), str(rng.choice(palette.colours))
        if (shape, colour) not in forbidden:
            return shape, colour, str(rng.choice(palette.textures))
    return _sample_words(rng, _Palette(SHAPES, COLOURS, TEXTURES), forbidden=forbidden)


def _crowding(candidate: SceneObject, others: list[SceneObject]) -> float:
    """Largest share of moments during which the candidate's middle lies in another object, or the reverse."""
    worst = 0.0
    for other in others:
        gap = np.linalg.norm(candidate.trajectory.centres - other.trajectory.centres, axis=1)
        near = gap < 0.42 * (candidate.trajectory.extents + other.trajectory.extents)
        worst = max(worst, float(near.mean()))
    return worst


def _sample_object(
    rng: np.random.Generator,
    *,
    words: tuple[str, str, str],
    plan: MotionPlan,
    frame: tuple[float, float],
    others: list[SceneObject],
    crowded: bool,
) -> SceneObject:
    shape, colour, texture = words
    extent = _sample_extent(rng, growth=plan.growth, crowded=crowded)
    best: tuple[float, SceneObject] | None = None
    for _ in range(6):
        path = trajectory(rng, plan=plan, extent=extent, reach=REACH[shape], frame=frame, num_times=NUM_MOMENTS)
        candidate = SceneObject(shape, colour, texture, extent, plan, path)
        crowding = _crowding(candidate, others)
        if best is None or crowding < best[0]:
            best = crowding, candidate
        if crowding < 0.12:
            break
    if best is None:
        raise RuntimeError("No trajectory was drawn; the loop above must run at least once.")
    return best[1]


def _held_out_member(rng: np.random.Generator, split: Split) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """A held-out (shape, colour) or (motion, shape) to show, at most one of them."""
    if split == "train" or rng.random() < 0.45:
        return None, None
    colours: tuple[tuple[str, str], ...] = TEST_SHAPE_COLOURS if split == "test" else VAL_SHAPE_COLOURS
    motions: tuple[tuple[str, str], ...] = TEST_MOTION_SHAPES if split == "test" else VAL_MOTION_SHAPES
    if rng.random() < 0.5:
        return colours[int(rng.integers(len(colours)))], None
    return None, motions[int(rng.integers(len(motions)))]


def _plan_with(rng: np.random.Generator, word: str, *, shape: str, texture: str) -> MotionPlan:
    """A plan that deserves a motion word."""
    for _ in range(400):
        plan = _sample_plan(rng, shape=shape, texture=texture)
        if word in _motion_words(plan):  # the rarest word comes up once in twenty draws
            return plan
    return replace(MotionPlan("line", "right"), growth=1.9 if word == "grows" else 1.0)


def sample_scene(
    rng: np.random.Generator,
    *,
    split: Split,
    frame: tuple[float, float],
    interaction_rate: float = 0.4,
    event_rate: float = 0.15,
) -> Scene:
    """Draw the contents of a clip.

    Args:
        rng: Source of randomness.
        split: Decides which combinations may be shown.
        frame: Width and height in units of the shorter side.
        interaction_rate: Probability of a planned encounter of two objects (hiding, touching, following,
            overtaking); others arise by chance.
        event_rate: Probability that several objects have one event in common (stopping, leaving, ...), so
            that their order can be asked for.

    Returns:
        The scene, 1 to 8 objects.
    """
    forbidden = held_out_pairs(split)
    palette = _sample_palette(rng)
    count = int(rng.choice(np.arange(1, 9), p=[0.05, 0.14, 0.22, 0.22, 0.17, 0.1, 0.06, 0.04]))
    objects: list[SceneObject] = []
    if count >= 2 and rng.random() < interaction_rate:
        objects += _sample_interaction(rng, palette=palette, forbidden=forbidden, frame=frame)
    colour_pair, motion_pair = _held_out_member(rng, split)
    shared = str(rng.choice(_SHARED_EVENTS)) if rng.random() < event_rate else None
    while len(objects) < count:
        words = _sample_words(rng, palette, forbidden=forbidden)
        plan = None
        if colour_pair is not None:
            words, colour_pair = (colour_pair[0], colour_pair[1], words[2]), None
        elif motion_pair is not None:
            words = (motion_pair[1], words[1], words[2])
            plan, motion_pair = _plan_with(rng, motion_pair[0], shape=words[0], texture=words[2]), None
        elif shared is not None and rng.random() < 0.7:
            plan = _plan_with(rng, shared, shape=words[0], texture=words[2])
        for _ in range(60):
            if plan is not None and is_allowed(words[0], words[1], plan, forbidden=forbidden):
                break
            plan = _sample_plan(rng, shape=words[0], texture=words[2])
        else:
            continue
        objects.append(_sample_object(rng, words=words, plan=plan, frame=frame, others=objects, crowded=count > 5))
    fps = float(rng.integers(8, 31))
    return Scene(frame, _in_depth_order(rng, objects), int(rng.integers(8, 121)), fps)


def _in_depth_order(rng: np.random.Generator, objects: list[SceneObject]) -> tuple[SceneObject, ...]:
    """Shuffle depths, keeping the two actors of an encounter (marked by order) in theirs."""
    order = rng.permutation(len(objects))
    first, second = int(np.flatnonzero(order == 0)[0]), None
    if len(objects) > 1:
        second = int(np.flatnonzero(order == 1)[0])
    if second is not None and first > second:
        order[first], order[second] = order[second], order[first]
    return tuple(objects[index] for index in order)


def _sample_interaction(
    rng: np.random.Generator,
    *,
    palette: _Palette,
    forbidden: frozenset[tuple[str, str]],
    frame: tuple[float, float],
) -> list[SceneObject]:
    """Two objects that meet, the one behind first; empty where the combinations do not allow it."""
    for _ in range(12):
        kind = str(rng.choice(INTERACTIONS))
        words = [_sample_words(rng, palette, forbidden=forbidden) for _ in range(2)]
        reaches = REACH[words[0][0]], REACH[words[1][0]]
        actors = sample_interaction(rng, kind=kind, reaches=reaches, frame=frame, num_times=NUM_MOMENTS)
        if actors is None:
            continue
        if all(
            is_allowed(word[0], word[1], actor.plan, forbidden=forbidden)
            for word, actor in zip(words, actors, strict=True)
        ):
            return [
                SceneObject(*word, actor.extent, actor.plan, actor.trajectory)
                for word, actor in zip(words, actors, strict=True)
            ]
    return []
