"""What is true of a clip, in three values: true, false, or too close to call.

Truth is stored as int8 arrays of TRUE, FALSE and UNKNOWN. A fact is TRUE only where it can be seen in the
chosen frames, and FALSE only where it fails with a margin over the whole clip; a question may be built on
TRUE and FALSE alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.world.layers import Visibility
from unipixel.train.datasets.world.motion import Plan
from unipixel.train.datasets.world.scene import Scene, WorldObject
from unipixel.train.datasets.world.shapes import AREAS, REACH
from unipixel.train.datasets.world.vocabulary import DIRECTIONS, MOTIONS, size_class

TRUE, FALSE, UNKNOWN = 1, 0, -1
Truth = NDArray[np.int8]
MOTION_WORDS = (*MOTIONS, "moves", "returns")
MIN_FRAMES_FOR_MOTION = 4


@dataclass(frozen=True)
class Facts:
    """True state of a clip of O objects as seen in N frames.

    Attributes:
        objects: The objects, in the order of the masks.
        size_words: Size class of each object, None where too close to call or changing.
        motion: For each word of `MOTION_WORDS`, truth per object (O,).
        relations: For each word of `vocabulary.RELATIONS`, truth (O, O): row relates to column. The four
            sides hold over the whole clip.
        sides_at: For "start" and "end", truth (O, O) of the four sides.
        gaps_at: For "start" and "end", distances of the centres (O, O), NaN where one is not seen.
        centres: Centres of the whole objects (O, N, 2) in units of the shorter side.
        seen: Whether enough of an object is visible to recognise it (O, N).
        speeds: Mean and peak speed (O, 2), shorter sides per clip; NaN where it cannot be ranked.
        areas: Nominal area at the start and at the end (O, 2), squared shorter sides.
        extents: Extent at the start and at the end (O, 2).
        moments: Moment of each object's event by name ("stops", "starts_late", "appears_late", "leaves",
            "turns_back", "bounces"): arrays (O,), NaN where the object has no such event.
        legible: Whether an object is drawn large enough to read its texture (O,).
        frame: Width and height in units of the shorter side.
    """

    objects: tuple[WorldObject, ...]
    size_words: tuple[str | None, ...]
    motion: dict[str, Truth]
    relations: dict[str, Truth]
    sides_at: dict[str, dict[str, Truth]]
    gaps_at: dict[str, NDArray[np.float64]]
    centres: NDArray[np.float64]
    seen: NDArray[np.bool_]
    speeds: NDArray[np.float64]
    areas: NDArray[np.float64]
    extents: NDArray[np.float64]
    moments: dict[str, NDArray[np.float64]]
    legible: NDArray[np.bool_]
    frame: tuple[float, float]

    @property
    def num_objects(self) -> int:
        """Number O of objects."""
        return len(self.objects)


def both(*truths: Truth) -> Truth:
    """Three-valued "and", element by element.

    Args:
        truths: Arrays of one shape.

    Returns:
        FALSE where any is FALSE, else UNKNOWN where any is UNKNOWN, else TRUE.
    """
    stack = np.stack(truths)
    result = np.where((stack == UNKNOWN).any(axis=0), UNKNOWN, TRUE)
    return np.where((stack == FALSE).any(axis=0), FALSE, result).astype(np.int8)


def negation(truth: Truth) -> Truth:
    """Three-valued "not", element by element."""
    return np.where(truth == UNKNOWN, UNKNOWN, 1 - truth).astype(np.int8)


def _direction_truth(plan: Plan) -> dict[str, int]:
    """Truth of the five directions for a plan."""
    truth = dict.fromkeys((*DIRECTIONS, "diagonal"), FALSE)
    if plan.path == "still":
        return truth
    if plan.path in ("circle", "bounce", "turn", "return"):
        return dict.fromkeys(truth, UNKNOWN)
    if plan.direction == "diagonal":
        return {**dict.fromkeys(DIRECTIONS, UNKNOWN), "diagonal": TRUE}
    return {**truth, str(plan.direction): TRUE}


def motion_truth(plan: Plan) -> dict[str, int]:
    """Truth of every motion word for a plan.

    Words that a fair viewer might or might not grant (does an object that bounces straight back turn back?)
    are UNKNOWN.

    Args:
        plan: What an object does.

    Returns:
        TRUE, FALSE or UNKNOWN for each of `MOTION_WORDS`.
    """
    truth = dict.fromkeys(MOTION_WORDS, FALSE) | _direction_truth(plan)
    changes = plan.spins or plan.growth != 1.0 or plan.appears > 0
    if plan.path == "still":
        truth["still"] = UNKNOWN if changes else TRUE
        truth["moves"] = UNKNOWN if changes else FALSE
    else:
        truth["moves"] = TRUE
    truth["spins"] = TRUE if plan.spins else FALSE
    truth["grows"] = TRUE if plan.growth > 1 else FALSE
    truth["shrinks"] = TRUE if plan.growth < 1 else FALSE
    if plan.profile != "steady":
        truth[plan.profile] = TRUE
    if plan.profile == "stops":
        truth["slows_down"] = UNKNOWN
    elif plan.profile == "starts_late":
        truth["speeds_up"] = UNKNOWN
    elif plan.profile == "slows_down":
        truth["stops"] = UNKNOWN
    elif plan.profile == "speeds_up":
        truth["starts_late"] = UNKNOWN
    if plan.appears > 0 or plan.path == "enter":
        truth["appears_late"], truth["starts_late"] = TRUE, UNKNOWN
    paths = {"turn": "turns_back", "circle": "circle", "bounce": "bounces", "leave": "leaves", "return": "returns"}
    if plan.path in paths:
        truth[paths[plan.path]] = TRUE
    doubtful = {
        "turn": ("speeds_up", "slows_down"),
        "bounce": ("turns_back", "speeds_up", "slows_down"),
        "leave": ("stops",),
        "return": ("turns_back", "leaves", "stops", "appears_late", "bounces"),
        "circle": ("turns_back",),
        "enter": ("speeds_up",),
    }
    for word in doubtful.get(plan.path, ()):
        truth[word] = UNKNOWN
    return truth


def side_truth(first: NDArray[np.float64], second: NDArray[np.float64], known: NDArray[np.bool_]) -> dict[str, Truth]:
    """Truth of the four sides between centres.

    "Left of" needs a clear step to the left that is not dwarfed by the vertical step, so that both the
    reading by x alone and the reading by the dominant direction agree.

    Args:
        first: Centres (..., 2) of the objects that are placed.
        second: Centres (..., 2) of the objects they are placed by.
        known: Whether both are seen (...).

    Returns:
        Truth (...) for left_of, right_of, above and below.
    """
    delta = second - first
    result: dict[str, Truth] = {}
    for word, axis, sign in (("left_of", 0, 1), ("right_of", 0, -1), ("above", 1, 1), ("below", 1, -1)):
        step, other = sign * delta[..., axis], np.abs(delta[..., 1 - axis])
        truth = np.full(step.shape, UNKNOWN, np.int8)
        truth[(step > 0.09) & (step > 0.75 * other)] = TRUE
        truth[step < -0.09] = FALSE
        truth[~known] = UNKNOWN
        result[word] = truth
    return result


def _always(truth: Truth) -> Truth:
    """Collapse the last axis: TRUE or FALSE only where it holds in every frame."""
    result = np.full(truth.shape[:-1], UNKNOWN, np.int8)
    result[(truth == TRUE).all(axis=-1)] = TRUE
    result[(truth == FALSE).all(axis=-1)] = FALSE
    return result


def _contact(scene: Scene, view: Visibility) -> tuple[Truth, Truth, Truth]:
    """Truth of behind, front and touches (O, O)."""
    objects = scene.objects
    count = len(objects)
    centres = np.stack([obj.trajectory.centres for obj in objects])
    reaches = np.stack([obj.trajectory.extents * REACH[obj.shape] for obj in objects])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1) - reaches[:, None] - reaches[None]
    never_near = (gaps > 0.02).all(axis=-1)
    behind = np.full((count, count), UNKNOWN, np.int8)
    share = view.hidden_by / np.maximum(view.frame_area, 1)[:, None]
    behind[(share >= 0.2).any(axis=-1)] = TRUE
    # An object can only be hidden by one that lies nearer, that is, one with a larger index.
    depth = np.arange(count)
    behind[never_near | (depth[:, None] >= depth[None])] = FALSE
    touches = np.full((count, count), UNKNOWN, np.int8)
    touches[view.touching.any(axis=-1)] = TRUE
    touches[never_near] = FALSE
    return behind, behind.T.copy(), touches


def _same_course(objects: tuple[WorldObject, ...]) -> tuple[Truth, Truth]:
    """Truth of follows and overtakes (O, O), read from the whole trajectories."""
    count = len(objects)
    follows, overtakes = np.zeros((2, count, count), np.int8)
    for one, first in enumerate(objects):
        for two, second in enumerate(objects):
            if one == two:
                continue
            follows[one, two], overtakes[one, two] = _course_of_pair(first, second)
    return follows, overtakes


def _course_of_pair(first: WorldObject, second: WorldObject) -> tuple[int, int]:
    """Truth of "the first follows the second" and "the first overtakes the second"."""
    moving = motion_truth(first.plan)["moves"], motion_truth(second.plan)["moves"]
    if moving[0] != TRUE:
        return FALSE, FALSE
    a, b = first.trajectory.centres, second.trajectory.centres
    simple = {"line", "enter", "leave"}
    if first.plan.path not in simple or second.plan.path not in simple:
        # Chasing along curves, and passing something at rest, are for the eye of the beholder.
        near = np.linalg.norm(a - b, axis=1).min() < 0.3
        return (UNKNOWN if near and moving[1] == TRUE else FALSE), (UNKNOWN if near else FALSE)
    step_a, step_b = a[-1] - a[0], b[-1] - b[0]
    heading = step_b / max(float(np.linalg.norm(step_b)), 1e-9)
    cosine = float(step_a @ heading) / max(float(np.linalg.norm(step_a)), 1e-9)
    if cosine < 0.5:
        return FALSE, FALSE
    behind = (b - a) @ heading
    aside = np.abs((b - a) @ np.array([-heading[1], heading[0]]))
    width = first.extent + second.extent
    if cosine < 0.94:
        return UNKNOWN, UNKNOWN
    steady = first.plan.profile == second.plan.profile == "steady"
    late = first.plan.appears > 0 or second.plan.appears > 0
    follows = overtakes = UNKNOWN
    if behind.min() > 0.05 and aside.max() < 0.35 * width and steady and not late:
        follows = TRUE if behind.max() < 1.6 * width and np.ptp(behind) < 0.08 else UNKNOWN
    elif behind.max() < -0.02 or aside.min() > 1.5 * width:
        follows = FALSE
    if behind[0] > 0.1 and behind[-1] < -0.1:
        overtakes = TRUE if not late and aside.max() < 2.5 * width else UNKNOWN
        follows = FALSE
    elif (behind > 0.03).all() or (behind < -0.03).all():
        overtakes = FALSE
    return follows, overtakes


def _speeds(objects: tuple[WorldObject, ...]) -> NDArray[np.float64]:
    """Mean and peak speed (O, 2) of the centres, shorter sides per clip."""
    result = np.full((len(objects), 2), np.nan)
    for number, obj in enumerate(objects):
        path = obj.trajectory
        steps = np.linalg.norm(np.diff(path.centres, axis=0), axis=1) * (len(path.centres) - 1)
        steps = steps[path.exists[1:]]
        if len(steps):
            result[number] = steps.mean(), np.quantile(steps, 0.95)
    return result


def _moments(objects: tuple[WorldObject, ...]) -> dict[str, NDArray[np.float64]]:
    """Moments of the events of each object."""
    result: dict[str, NDArray[np.float64]] = {}
    for word in ("stops", "starts_late", "appears_late", "leaves", "turns_back", "bounces"):
        values = [
            float(obj.trajectory.key_time or np.nan) if motion_truth(obj.plan)[word] == TRUE else np.nan
            for obj in objects
        ]
        result[word] = np.array(values)
    return result


def gather_facts(scene: Scene, view: Visibility, moments: NDArray[np.float64], *, shorter: int) -> Facts:
    """Derive all facts of a clip.

    Args:
        scene: Its contents.
        view: What is seen in the chosen frames.
        moments: Moments (N,) of these frames, 0 to 1.
        shorter: Pixels on the drawn frame's shorter side.

    Returns:
        The facts. With fewer than four frames motion and events are UNKNOWN, because they cannot be seen.
    """
    objects = scene.objects
    count = len(objects)
    known = np.linspace(0, 1, len(objects[0].trajectory.extents))
    centres = np.empty((count, len(moments), 2))
    for number, obj in enumerate(objects):
        for axis in range(2):
            centres[number, :, axis] = np.interp(moments, known, obj.trajectory.centres[:, axis])
    visible = view.visible_area / np.maximum(view.whole_area, 1)
    seen = (visible > 0.5) & (view.visible_area >= 12)
    has_motion = len(moments) >= MIN_FRAMES_FOR_MOTION
    truths = [motion_truth(obj.plan) for obj in objects]
    motion = {
        word: np.array([truth[word] if has_motion else UNKNOWN for truth in truths], np.int8) for word in MOTION_WORDS
    }
    behind, front, touches = _contact(scene, view)
    follows, overtakes = _same_course(objects)
    if not has_motion:
        follows, overtakes = np.full((2, count, count), UNKNOWN, np.int8)
    pairs_seen = seen[:, None] & seen[None]
    sides = side_truth(centres[:, None], centres[None], pairs_seen)
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    gaps[~pairs_seen] = np.nan
    ends = np.array([obj.trajectory.extents[[0, -1]] for obj in objects])
    words = [size_class(low) if size_class(low) == size_class(high) else None for low, high in ends]
    return Facts(
        objects=objects,
        size_words=tuple(words),
        motion=motion,
        relations={
            **{word: _always(truth) for word, truth in sides.items()},
            "behind": behind,
            "front": front,
            "touches": touches,
            "follows": follows,
            "overtakes": overtakes,
        },
        sides_at={
            name: {word: truth[..., index] for word, truth in sides.items()}
            for name, index in (("start", 0), ("end", -1))
        },
        gaps_at={"start": gaps[..., 0], "end": gaps[..., -1]},
        centres=centres,
        seen=seen,
        speeds=_speeds(objects) if has_motion else np.full((count, 2), np.nan),
        areas=np.array([AREAS[obj.shape] for obj in objects])[:, None] * ends**2,
        extents=ends,
        moments=_moments(objects),
        legible=np.array([obj.extent * shorter >= 13 for obj in objects]),
        frame=scene.frame,
    )
