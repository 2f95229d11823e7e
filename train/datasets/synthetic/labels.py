"""What is true of a clip, in three values: true, false, or too close to call.

Truth is stored as int8 arrays of TRUE, FALSE and UNKNOWN. A fact is TRUE only where it can be seen in the
chosen frames, and FALSE only where it fails with a margin over the whole clip; a question may be built on
TRUE and FALSE alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.synthetic.attributes import size_class
from unipixel.train.datasets.synthetic.drawing.occlusion import Visibility
from unipixel.train.datasets.synthetic.drawing.shapes import AREAS, REACH
from unipixel.train.datasets.synthetic.scene import Scene, SceneObject
from unipixel.train.datasets.synthetic.trajectories import (
    FALSE,
    MOTION_WORDS,
    TRUE,
    UNKNOWN,
    Truth,
    following_truth,
    motion_truth,
)

MIN_FRAMES_FOR_MOTION = 4


@dataclass(frozen=True)
class SceneLabels:
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
        whole: Whether nearly all of it is visible, so that its middle shows (O, N).
        speeds: Mean and peak speed (O, 2), shorter sides per clip; NaN where it cannot be ranked.
        areas: Nominal area at the start and at the end (O, 2), squared shorter sides.
        extents: Extent at the start and at the end (O, 2).
        moments: Moment of each object's event by name ("stops", "starts_late", "appears_late", "leaves",
            "turns_back", "bounces"): arrays (O,), NaN where the object has no such event.
        legible: Whether an object is drawn large enough to read its texture (O,).
        frame: Width and height in units of the shorter side.
    """

    objects: tuple[SceneObject, ...]
    size_names: tuple[str | None, ...]
    motion: dict[str, Truth]
    relations: dict[str, Truth]
    directions_at: dict[str, dict[str, Truth]]
    distances_at: dict[str, NDArray[np.float64]]
    centres: NDArray[np.float64]
    is_visible: NDArray[np.bool_]
    is_fully_visible: NDArray[np.bool_]
    speeds: NDArray[np.float64]
    areas: NDArray[np.float64]
    extents: NDArray[np.float64]
    event_times: dict[str, NDArray[np.float64]]
    has_legible_texture: NDArray[np.bool_]
    frame_size: tuple[float, float]

    @property
    def num_objects(self) -> int:
        """Number O of objects."""
        return len(self.objects)


def logical_and(*truths: Truth) -> Truth:
    """Three-valued "and", element by element.

    Args:
        truths: Arrays of one shape.

    Returns:
        FALSE where any is FALSE, else UNKNOWN where any is UNKNOWN, else TRUE.
    """
    stack = np.stack(truths)
    result = np.where((stack == UNKNOWN).any(axis=0), UNKNOWN, TRUE)
    return np.where((stack == FALSE).any(axis=0), FALSE, result).astype(np.int8)


def logical_not(truth: Truth) -> Truth:
    """Three-valued "not", element by element."""
    return np.where(truth == UNKNOWN, UNKNOWN, 1 - truth).astype(np.int8)


def relative_position_truth(
    first: NDArray[np.float64], second: NDArray[np.float64], known: NDArray[np.bool_]
) -> dict[str, Truth]:
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


def _speeds(objects: tuple[SceneObject, ...]) -> NDArray[np.float64]:
    """Mean and peak speed (O, 2) of the centres, shorter sides per clip."""
    result = np.full((len(objects), 2), np.nan)
    for number, obj in enumerate(objects):
        path = obj.trajectory
        steps = np.linalg.norm(np.diff(path.centres, axis=0), axis=1) * (len(path.centres) - 1)
        steps = steps[path.is_present[1:]]
        if len(steps):
            result[number] = steps.mean(), np.quantile(steps, 0.95)
    return result


def _event_times(objects: tuple[SceneObject, ...]) -> dict[str, NDArray[np.float64]]:
    """Moments of the events of each object."""
    result: dict[str, NDArray[np.float64]] = {}
    for word in ("stops", "starts_late", "appears_late", "leaves", "turns_back", "bounces"):
        values = [
            float(obj.trajectory.event_time or np.nan) if motion_truth(obj.plan)[word] == TRUE else np.nan
            for obj in objects
        ]
        result[word] = np.array(values)
    return result


def label_scene(scene: Scene, view: Visibility, moments: NDArray[np.float64], *, shorter: int) -> SceneLabels:
    """Derive all labels of a clip.

    Args:
        scene: Its contents.
        view: What is seen in the chosen frames.
        moments: Moments (N,) of these frames, 0 to 1.
        shorter: Pixels on the drawn frame's shorter side.

    Returns:
        The labels. With fewer than four frames motion and events are UNKNOWN, because they cannot be seen.
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
    follows, overtakes = following_truth(objects)
    if not has_motion:
        follows, overtakes = np.full((2, count, count), UNKNOWN, np.int8)
    pairs_seen = seen[:, None] & seen[None]
    sides = relative_position_truth(centres[:, None], centres[None], pairs_seen)
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    gaps[~pairs_seen] = np.nan
    ends = np.array([obj.trajectory.extents[[0, -1]] for obj in objects])
    words = [size_class(low) if size_class(low) == size_class(high) else None for low, high in ends]
    return SceneLabels(
        objects=objects,
        size_names=tuple(words),
        motion=motion,
        relations={
            **{word: _always(truth) for word, truth in sides.items()},
            "behind": behind,
            "front": front,
            "touches": touches,
            "follows": follows,
            "overtakes": overtakes,
        },
        directions_at={
            name: {word: truth[..., index] for word, truth in sides.items()}
            for name, index in (("start", 0), ("end", -1))
        },
        distances_at={"start": gaps[..., 0], "end": gaps[..., -1]},
        centres=centres,
        is_visible=seen,
        is_fully_visible=seen & (visible > 0.85),
        speeds=_speeds(objects) if has_motion else np.full((count, 2), np.nan),
        areas=np.array([AREAS[obj.shape] for obj in objects])[:, None] * ends**2,
        extents=ends,
        event_times=_event_times(objects),
        has_legible_texture=np.array([obj.extent * shorter >= 13 for obj in objects]),
        frame_size=scene.frame,
    )
