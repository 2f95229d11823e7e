"""Three-valued ground truth of a clip: attributes, motion and relations of its objects.

Truth values are int8 arrays of TRUE, FALSE and UNKNOWN. A statement is TRUE only where it is visible in the sampled
frames, and FALSE only where it fails by a margin over the whole clip; questions are built on TRUE and FALSE alone.
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
    """Ground truth of a clip of O objects, of which N frames are shown.

    Attributes:
        objects: The objects, in the order of the masks.
        size_names: Size class of each object, None where it is ambiguous or changes.
        motion: For each word of `MOTION_WORDS`, truth per object (O,).
        relations: For each word of `attributes.RELATIONS`, truth (O, O) that the row's object has the relation to the
            column's. The four relative positions are TRUE or FALSE where they are so in every frame.
        directions_at: For "start" and "end", truth (O, O) of the four relative positions.
        distances_at: For "start" and "end", distances of the centres (O, O), NaN where one is not visible.
        centres: Centres of the whole objects (O, N, 2) in units of the shorter side.
        is_visible: Whether enough of an object is visible to recognise it (O, N).
        is_fully_visible: Whether nearly all of an object is visible (O, N).
        speeds: Mean and peak speed (O, 2), shorter sides per clip; NaN where it is unknown.
        areas: Nominal area at the start and at the end (O, 2), squared shorter sides.
        extents: Extent at the start and at the end (O, 2).
        event_times: Time of each object's event by name ("stops", "starts_late", "appears_late", "leaves",
            "turns_back", "bounces"): arrays (O,), NaN where the object has no such event.
        has_legible_texture: Whether an object is rendered large enough to recognise its texture (O,).
        frame_size: Width and height in units of the shorter side.
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
    """Return the element-wise three-valued conjunction.

    Args:
        truths: Arrays of one shape.

    Returns:
        FALSE where any is FALSE, else UNKNOWN where any is UNKNOWN, else TRUE.
    """
    stack = np.stack(truths)
    result = np.where((stack == UNKNOWN).any(axis=0), UNKNOWN, TRUE)
    return np.where((stack == FALSE).any(axis=0), FALSE, result).astype(np.int8)


def logical_not(truth: Truth) -> Truth:
    """Return the element-wise three-valued negation."""
    return np.where(truth == UNKNOWN, UNKNOWN, 1 - truth).astype(np.int8)


def relative_position_truth(
    first: NDArray[np.float64], second: NDArray[np.float64], known: NDArray[np.bool_]
) -> dict[str, Truth]:
    """Return the truth of the four relative positions.

    "Left of" requires a large horizontal offset that is not much smaller than the vertical one, so that a comparison of
    x alone and one of the dominant direction agree.

    Args:
        first: Centres (..., 2) of the subjects.
        second: Centres (..., 2) of the objects that they are compared with.
        known: Whether both are visible (...).

    Returns:
        Truth (...) of left_of, right_of, above and below.
    """
    delta = second - first
    result: dict[str, Truth] = {}
    for word, axis, sign in (("left_of", 0, 1), ("right_of", 0, -1), ("above", 1, 1), ("below", 1, -1)):
        offset, other = sign * delta[..., axis], np.abs(delta[..., 1 - axis])
        truth = np.full(offset.shape, UNKNOWN, np.int8)
        truth[(offset > 0.09) & (offset > 0.75 * other)] = TRUE
        truth[offset < -0.09] = FALSE
        truth[~known] = UNKNOWN
        result[word] = truth
    return result


def _always(truth: Truth) -> Truth:
    """Reduce the last axis: TRUE or FALSE only where all frames agree."""
    result = np.full(truth.shape[:-1], UNKNOWN, np.int8)
    result[(truth == TRUE).all(axis=-1)] = TRUE
    result[(truth == FALSE).all(axis=-1)] = FALSE
    return result


def _contact(scene: Scene, view: Visibility) -> tuple[Truth, Truth, Truth]:
    """Return the truth of behind, front and touches (O, O)."""
    objects = scene.objects
    count = len(objects)
    centres = np.stack([obj.trajectory.centres for obj in objects])
    reaches = np.stack([obj.trajectory.extents * REACH[obj.shape] for obj in objects])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1) - reaches[:, None] - reaches[None]
    is_always_apart = (gaps > 0.02).all(axis=-1)
    behind = np.full((count, count), UNKNOWN, np.int8)
    hidden_fraction = view.hidden_by / np.maximum(view.frame_area, 1)[:, None]
    behind[(hidden_fraction >= 0.2).any(axis=-1)] = TRUE
    # Only a nearer object, which has a larger index, can occlude another.
    depth = np.arange(count)
    behind[is_always_apart | (depth[:, None] >= depth[None])] = FALSE
    touches = np.full((count, count), UNKNOWN, np.int8)
    touches[view.touching.any(axis=-1)] = TRUE
    touches[is_always_apart] = FALSE
    return behind, behind.T.copy(), touches


def _speeds(objects: tuple[SceneObject, ...]) -> NDArray[np.float64]:
    """Return the mean and peak speed (O, 2) of the centres, shorter sides per clip."""
    result = np.full((len(objects), 2), np.nan)
    for number, obj in enumerate(objects):
        path = obj.trajectory
        steps = np.linalg.norm(np.diff(path.centres, axis=0), axis=1) * (len(path.centres) - 1)
        steps = steps[path.is_present[1:]]
        if len(steps):
            result[number] = steps.mean(), np.quantile(steps, 0.95)
    return result


def _event_times(objects: tuple[SceneObject, ...]) -> dict[str, NDArray[np.float64]]:
    """Return the event times of all objects by event."""
    result: dict[str, NDArray[np.float64]] = {}
    for word in ("stops", "starts_late", "appears_late", "leaves", "turns_back", "bounces"):
        values = [
            float(obj.trajectory.event_time or np.nan) if motion_truth(obj.plan)[word] == TRUE else np.nan
            for obj in objects
        ]
        result[word] = np.array(values)
    return result


def label_scene(scene: Scene, view: Visibility, times: NDArray[np.float64], *, shorter: int) -> SceneLabels:
    """Derive the ground truth of a clip.

    Args:
        scene: Its contents.
        view: Visibility in the sampled frames.
        times: Times (N,) of these frames, 0 to 1.
        shorter: Pixels on the rendered frame's shorter side.

    Returns:
        The labels. With fewer than four frames motion and events are UNKNOWN.
    """
    objects = scene.objects
    count = len(objects)
    known = np.linspace(0, 1, len(objects[0].trajectory.extents))
    centres = np.empty((count, len(times), 2))
    for number, obj in enumerate(objects):
        for axis in range(2):
            centres[number, :, axis] = np.interp(times, known, obj.trajectory.centres[:, axis])
    visible = view.visible_area / np.maximum(view.whole_area, 1)
    is_visible = (visible > 0.5) & (view.visible_area >= 12)
    has_motion = len(times) >= MIN_FRAMES_FOR_MOTION
    truths = [motion_truth(obj.plan) for obj in objects]
    motion = {
        word: np.array([truth[word] if has_motion else UNKNOWN for truth in truths], np.int8) for word in MOTION_WORDS
    }
    behind, front, touches = _contact(scene, view)
    follows, overtakes = following_truth(objects)
    if not has_motion:
        follows, overtakes = np.full((2, count, count), UNKNOWN, np.int8)
    both_visible = is_visible[:, None] & is_visible[None]
    positions = relative_position_truth(centres[:, None], centres[None], both_visible)
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    gaps[~both_visible] = np.nan
    end_extents = np.array([obj.trajectory.extents[[0, -1]] for obj in objects])
    size_names = [size_class(low) if size_class(low) == size_class(high) else None for low, high in end_extents]
    return SceneLabels(
        objects=objects,
        size_names=tuple(size_names),
        motion=motion,
        relations={
            **{word: _always(truth) for word, truth in positions.items()},
            "behind": behind,
            "front": front,
            "touches": touches,
            "follows": follows,
            "overtakes": overtakes,
        },
        directions_at={
            name: {word: truth[..., index] for word, truth in positions.items()}
            for name, index in (("start", 0), ("end", -1))
        },
        distances_at={"start": gaps[..., 0], "end": gaps[..., -1]},
        centres=centres,
        is_visible=is_visible,
        is_fully_visible=is_visible & (visible > 0.85),
        speeds=_speeds(objects) if has_motion else np.full((count, 2), np.nan),
        areas=np.array([AREAS[obj.shape] for obj in objects])[:, None] * end_extents**2,
        extents=end_extents,
        event_times=_event_times(objects),
        has_legible_texture=np.array([obj.extent * shorter >= 13 for obj in objects]),
        frame_size=scene.frame,
    )
