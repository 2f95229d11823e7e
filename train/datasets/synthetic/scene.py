"""Contents of a synthetic clip before rendering: objects, attributes, trajectories and depth order."""

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

NUM_TIMES = 49
# Events that several objects of one scene may share, so that questions about their order have candidates.
_SHARED_EVENTS = ("stops", "starts_late", "leaves", "appears_late", "turns_back")


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        shape: One of `SHAPES`.
        colour: One of `COLOURS`.
        texture: One of `TEXTURES`.
        extent: Mean extent, as a fraction of the frame's shorter side.
        plan: Its motion.
        trajectory: Its state at `NUM_TIMES` times.
    """

    shape: str
    colour: str
    texture: str
    extent: float
    plan: MotionPlan
    trajectory: Trajectory


@dataclass(frozen=True)
class Scene:
    """Contents of a clip.

    Attributes:
        frame: Width and height, in units of the shorter side.
        objects: Objects, the farthest first: later ones occlude earlier ones.
        num_frames: Frames of the full clip.
        fps: Frames per second of the full clip.
    """

    frame: tuple[float, float]
    objects: tuple[SceneObject, ...]
    num_frames: int
    fps: float


def _motion_words(plan: MotionPlan) -> set[str]:
    """Return the motion words of a plan, for the held-out combinations."""
    words = {plan.path, plan.profile} | ({plan.direction} if plan.direction else set())
    words |= {"spins"} if plan.is_spinning else set()
    words |= {"grows"} if plan.growth > 1 else {"shrinks"} if plan.growth < 1 else set()
    words |= {"appears_late"} if plan.appear_time > 0 or plan.path == "enter" else set()
    names = {"turn": "turns_back", "bounce": "bounces", "leave": "leaves"}
    return {names.get(word, word) for word in words}


def is_allowed(shape: str, colour: str, plan: MotionPlan, *, forbidden: frozenset[tuple[str, str]]) -> bool:
    """Whether an object shows no held-out combination.

    Args:
        shape: One of `SHAPES`.
        colour: One of `COLOURS`.
        plan: Motion of the object.
        forbidden: Result of `attributes.held_out_pairs`.
    """
    if (shape, colour) in forbidden:
        return False
    return not any((word, shape) in forbidden for word in _motion_words(plan))


# Weights of the paths and of the speed profiles of a line.
_PATHS = {"still": 17, "line": 44, "turn": 9, "circle": 8, "bounce": 8, "enter": 5, "leave": 7, "return": 2}
_PROFILES = {"steady": 36, "speeds_up": 14, "slows_down": 14, "stops": 20, "starts_late": 16}


def _weighted_choice(rng: np.random.Generator, weights: dict[str, int]) -> str:
    """Sample a key by its weight; many times faster than `Generator.choice` with probabilities."""
    remaining = rng.random() * sum(weights.values())
    for word, weight in weights.items():
        remaining -= weight
        if remaining < 0:
            return word
    return word


def _sample_plan(rng: np.random.Generator, *, shape: str, texture: str) -> MotionPlan:
    path = _weighted_choice(rng, _PATHS)
    direction = None
    if path not in ("still", "circle", "bounce"):
        direction = DIRECTIONS[int(rng.integers(4))] if rng.random() < 0.78 else "diagonal"
    profile, appear_time = "steady", 0.0
    if path == "line":
        profile = _weighted_choice(rng, _PROFILES)
    if path == "still" or (path == "line" and profile == "steady"):
        appear_time = float(rng.uniform(0.22, 0.55)) if rng.random() < 0.12 else 0.0
    # The rotation of a round shape is visible only in its texture.
    can_spin = shape not in ("circle", "ring") or texture in ("striped", "checkered")
    is_spinning = can_spin and rng.random() < (0.4 if path == "still" else 0.15)
    growth = 1.0
    if not is_spinning and rng.random() < (0.4 if path == "still" else 0.13):
        growth = float(rng.uniform(1.7, 2.3)) ** (1 if rng.random() < 0.5 else -1)
    return MotionPlan(path, direction, profile, bool(is_spinning), growth, appear_time)


def _sample_extent(rng: np.random.Generator, *, growth: float, is_crowded: bool) -> float:
    weights = [0.3, 0.5, 0.2] if is_crowded else [0.18, 0.44, 0.38]
    low, high = SIZE_RANGES[str(rng.choice(["small", "medium", "large"], p=weights))]
    extent = float(rng.uniform(low, high))
    if growth == 1.0:
        return extent
    root = max(growth, 1 / growth) ** 0.5
    return float(np.clip(extent, 0.075 * root, 0.37 / root))


@dataclass(frozen=True)
class _Palette:
    """Words from which the attributes of a scene's objects are sampled; few words make objects similar."""

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


def _overlap_fraction(candidate: SceneObject, others: list[SceneObject]) -> float:
    """Return the largest fraction of time during which the centre of one of two objects lies within the other."""
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
    is_crowded: bool,
) -> SceneObject:
    shape, colour, texture = words
    extent = _sample_extent(rng, growth=plan.growth, is_crowded=is_crowded)
    best: tuple[float, SceneObject] | None = None
    for _ in range(6):
        path = trajectory(rng, plan=plan, extent=extent, reach=REACH[shape], frame=frame, num_times=NUM_TIMES)
        candidate = SceneObject(shape, colour, texture, extent, plan, path)
        overlap = _overlap_fraction(candidate, others)
        if best is None or overlap < best[0]:
            best = overlap, candidate
        if overlap < 0.12:
            break
    if best is None:
        raise RuntimeError("no trajectory was sampled: the loop must run at least once")
    return best[1]


def _choose_held_out_pair(
    rng: np.random.Generator, split: Split
) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """Choose a held-out (shape, colour) or (motion, shape) to show, at most one of them."""
    if split == "train" or rng.random() < 0.45:
        return None, None
    colours: tuple[tuple[str, str], ...] = TEST_SHAPE_COLOURS if split == "test" else VAL_SHAPE_COLOURS
    motions: tuple[tuple[str, str], ...] = TEST_MOTION_SHAPES if split == "test" else VAL_MOTION_SHAPES
    if rng.random() < 0.5:
        return colours[int(rng.integers(len(colours)))], None
    return None, motions[int(rng.integers(len(motions)))]


def _plan_with(rng: np.random.Generator, word: str, *, shape: str, texture: str) -> MotionPlan:
    """Sample a plan for which a motion word is true."""
    for _ in range(400):
        plan = _sample_plan(rng, shape=shape, texture=texture)
        if word in _motion_words(plan):  # the rarest word is sampled once in twenty times
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
    """Sample the contents of a clip.

    Args:
        rng: Source of randomness.
        split: Decides which combinations may be shown.
        frame: Width and height in units of the shorter side.
        interaction_rate: Probability of a planned interaction of two objects (hiding, touching, following,
            overtaking); others occur by chance.
        event_rate: Probability that several objects share an event (stopping, leaving, ...), so that questions about
            their order are possible.

    Returns:
        The scene, 1 to 8 objects.
    """
    forbidden = held_out_pairs(split)
    palette = _sample_palette(rng)
    count = int(rng.choice(np.arange(1, 9), p=[0.05, 0.14, 0.22, 0.22, 0.17, 0.1, 0.06, 0.04]))
    objects: list[SceneObject] = []
    if count >= 2 and rng.random() < interaction_rate:
        objects += _sample_interaction(rng, palette=palette, forbidden=forbidden, frame=frame)
    colour_pair, motion_pair = _choose_held_out_pair(rng, split)
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
        objects.append(_sample_object(rng, words=words, plan=plan, frame=frame, others=objects, is_crowded=count > 5))
    fps = float(rng.integers(8, 31))
    return Scene(frame, _in_depth_order(rng, objects), int(rng.integers(8, 121)), fps)


def _in_depth_order(rng: np.random.Generator, objects: list[SceneObject]) -> tuple[SceneObject, ...]:
    """Shuffle the depth order, except that the first object stays behind the second (see `_sample_interaction`)."""
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
    """Sample two interacting objects, the farther one first; empty where held-out combinations prevent it."""
    for _ in range(12):
        kind = str(rng.choice(INTERACTIONS))
        words = [_sample_words(rng, palette, forbidden=forbidden) for _ in range(2)]
        reaches = REACH[words[0][0]], REACH[words[1][0]]
        pair = sample_interaction(rng, kind=kind, reaches=reaches, frame=frame, num_times=NUM_TIMES)
        if pair is None:
            continue
        if all(
            is_allowed(word[0], word[1], member.plan, forbidden=forbidden)
            for word, member in zip(words, pair, strict=True)
        ):
            return [
                SceneObject(*word, member.extent, member.plan, member.trajectory)
                for word, member in zip(words, pair, strict=True)
            ]
    return []
