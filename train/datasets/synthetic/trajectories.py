"""Ground truth of motion words and of following and overtaking, derived from plans and trajectories."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.synthetic.attributes import DIRECTIONS, MOTIONS
from unipixel.train.datasets.synthetic.motion import MotionPlan
from unipixel.train.datasets.synthetic.scene import SceneObject

TRUE, FALSE, UNKNOWN = 1, 0, -1
Truth = NDArray[np.int8]
MOTION_WORDS = (*MOTIONS, "moves", "returns")


def _direction_truth(plan: MotionPlan) -> dict[str, int]:
    """Return the truth of the five directions for a plan."""
    truth = dict.fromkeys((*DIRECTIONS, "diagonal"), FALSE)
    if plan.path == "still":
        return truth
    if plan.path in ("circle", "bounce", "turn", "return"):
        return dict.fromkeys(truth, UNKNOWN)
    if plan.direction == "diagonal":
        return {**dict.fromkeys(DIRECTIONS, UNKNOWN), "diagonal": TRUE}
    return {**truth, str(plan.direction): TRUE}


def motion_truth(plan: MotionPlan) -> dict[str, int]:
    """Return the truth of every motion word for a plan.

    Ambiguous words are UNKNOWN, such as "turns back" for an object that bounces straight back.

    Args:
        plan: Motion of an object.

    Returns:
        TRUE, FALSE or UNKNOWN for each of `MOTION_WORDS`.
    """
    truth = dict.fromkeys(MOTION_WORDS, FALSE) | _direction_truth(plan)
    changes = plan.is_spinning or plan.growth != 1.0 or plan.appear_time > 0
    if plan.path == "still":
        truth["still"] = UNKNOWN if changes else TRUE
        truth["moves"] = UNKNOWN if changes else FALSE
    else:
        truth["moves"] = TRUE
    truth["spins"] = TRUE if plan.is_spinning else FALSE
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
    if plan.appear_time > 0 or plan.path == "enter":
        truth["appears_late"], truth["starts_late"] = TRUE, UNKNOWN
    paths = {"turn": "turns_back", "circle": "circle", "bounce": "bounces", "leave": "leaves", "return": "returns"}
    if plan.path in paths:
        truth[paths[plan.path]] = TRUE
    ambiguous = {
        "turn": ("speeds_up", "slows_down"),
        "bounce": ("turns_back", "speeds_up", "slows_down"),
        "leave": ("stops",),
        "return": ("turns_back", "leaves", "stops", "appears_late", "bounces"),
        "circle": ("turns_back",),
        "enter": ("speeds_up",),
    }
    for word in ambiguous.get(plan.path, ()):
        truth[word] = UNKNOWN
    return truth


def following_truth(objects: tuple[SceneObject, ...]) -> tuple[Truth, Truth]:
    """Return the truth of "follows" and "overtakes", derived from the whole trajectories.

    Args:
        objects: O objects.

    Returns:
        Two arrays (O, O); the row's object has the relation to the column's.
    """
    count = len(objects)
    follows, overtakes = np.zeros((2, count, count), np.int8)
    for one, first in enumerate(objects):
        for two, second in enumerate(objects):
            if one == two:
                continue
            follows[one, two], overtakes[one, two] = _pair_following_truth(first, second)
    return follows, overtakes


def _pair_following_truth(first: SceneObject, second: SceneObject) -> tuple[int, int]:
    """Return the truth of "the first follows the second" and "the first overtakes the second"."""
    moves = motion_truth(first.plan)["moves"], motion_truth(second.plan)["moves"]
    if moves[0] != TRUE:
        return FALSE, FALSE
    a, b = first.trajectory.centres, second.trajectory.centres
    straight_paths = {"line", "enter", "leave"}
    if first.plan.path not in straight_paths or second.plan.path not in straight_paths:
        # Following along curves and passing a still object are ambiguous.
        is_near = np.linalg.norm(a - b, axis=1).min() < 0.3
        return (UNKNOWN if is_near and moves[1] == TRUE else FALSE), (UNKNOWN if is_near else FALSE)
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
    is_steady = first.plan.profile == second.plan.profile == "steady"
    is_late = first.plan.appear_time > 0 or second.plan.appear_time > 0
    follows = overtakes = UNKNOWN
    if behind.min() > 0.05 and aside.max() < 0.35 * width and is_steady and not is_late:
        follows = TRUE if behind.max() < 1.6 * width and np.ptp(behind) < 0.08 else UNKNOWN
    elif behind.max() < -0.02 or aside.min() > 1.5 * width:
        follows = FALSE
    if behind[0] > 0.1 and behind[-1] < -0.1:
        overtakes = TRUE if not is_late and aside.max() < 2.5 * width else UNKNOWN
        follows = FALSE
    elif (behind > 0.03).all() or (behind < -0.03).all():
        overtakes = FALSE
    return follows, overtakes
