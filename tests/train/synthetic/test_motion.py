"""Motion labels, compared with the centroids and areas of rendered masks."""

from __future__ import annotations

import numpy as np
import pytest

from unipixel.train.datasets.synthetic.drawing.occlusion import compute_visibility, rasterize_object
from unipixel.train.datasets.synthetic.drawing.shapes import REACH
from unipixel.train.datasets.synthetic.motion import MotionPlan, progress, trajectory
from unipixel.train.datasets.synthetic.scene import NUM_TIMES, SceneObject
from unipixel.train.datasets.synthetic.trajectories import FALSE, TRUE, UNKNOWN, motion_truth

TIMES = np.linspace(0, 1, 17)
SIDE = 160


def tracked(
    plan: MotionPlan, seed: int, *, shape: str = "circle", extent: float = 0.14
) -> tuple[np.ndarray, np.ndarray]:
    """Centroids (N, 2) in shorter sides (NaN where hidden) and areas (N,) of the rendered mask."""
    rng = np.random.default_rng(seed)
    frame = (1.25, 1.0)
    path = trajectory(rng, plan=plan, extent=extent, reach=REACH[shape], frame=frame, num_times=NUM_TIMES)
    obj = SceneObject(shape, "red", "plain", extent, plan, path)
    layer = rasterize_object(obj, TIMES, pixels_per_unit=SIDE)
    masks = compute_visibility([layer], num_frames=len(TIMES), height=SIDE, width=round(1.25 * SIDE)).masks[0]
    areas = masks.sum(axis=(1, 2))
    centroids = np.full((len(masks), 2), np.nan)
    for index in np.flatnonzero(areas >= 0.9 * areas.max()):
        rows, columns = np.nonzero(masks[index])
        centroids[index] = columns.mean() / SIDE, rows.mean() / SIDE
    return centroids, areas


def net(centroids: np.ndarray) -> np.ndarray:
    known = centroids[~np.isnan(centroids[:, 0])]
    return known[-1] - known[0]


def steps(centroids: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(centroids, axis=0), axis=1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("direction", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)]
)
@pytest.mark.parametrize("path", ["line", "enter", "leave"])
def test_direction_is_that_of_the_centroid(path: str, direction: str, axis: int, sign: int, seed: int) -> None:
    step = net(tracked(MotionPlan(path, direction), seed)[0])
    assert sign * step[axis] > 0.02
    assert abs(step[1 - axis]) < 0.3 * abs(step[axis])


@pytest.mark.parametrize("seed", range(8))
def test_diagonal_covers_both_axes(seed: int) -> None:
    step = np.abs(net(tracked(MotionPlan("line", "diagonal"), seed)[0]))
    assert step.min() > 0.55 * step.max()


@pytest.mark.parametrize("seed", range(6))
def test_still_object_keeps_its_centroid(seed: int) -> None:
    assert np.ptp(tracked(MotionPlan("still"), seed)[0], axis=0).max() < 1e-9


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("profile", "is_growing"), [("speeds_up", True), ("slows_down", False)])
def test_change_of_speed_changes_the_steps(profile: str, is_growing: bool, seed: int) -> None:
    moved = steps(tracked(MotionPlan("line", "right", profile), seed)[0])
    early, late = moved[:5].sum(), moved[-5:].sum()
    assert (late / early if is_growing else early / late) > 2.2


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("profile", ["stops", "starts_late"])
def test_stops_and_late_starts_have_no_steps_at_one_end(profile: str, seed: int) -> None:
    moved = steps(tracked(MotionPlan("line", "up", profile), seed)[0])
    still, moving = (moved[-5:], moved[:4]) if profile == "stops" else (moved[:5], moved[-4:])
    assert still.max() < 1e-3
    assert moving.min() > 0.01


@pytest.mark.parametrize("seed", range(6))
def test_turning_back_reverses_the_centroid(seed: int) -> None:
    centroids, _ = tracked(MotionPlan("turn", "left"), seed)
    moved = np.diff(centroids[:, 0])
    assert moved[0] < -0.005
    assert moved[-1] > 0.005


@pytest.mark.parametrize("seed", range(6))
def test_circle_keeps_its_distance_from_one_centre(seed: int) -> None:
    centroids, _ = tracked(MotionPlan("circle"), seed)
    # Circle through all points by least squares.
    rows = np.column_stack([2 * centroids, np.ones(len(centroids))])
    solution, *_ = np.linalg.lstsq(rows, (centroids**2).sum(axis=1), rcond=None)
    radii = np.linalg.norm(centroids - solution[:2], axis=1)
    assert np.ptp(radii) < 0.02
    assert radii.mean() > 0.12


@pytest.mark.parametrize("seed", range(8))
def test_bounce_touches_an_edge_and_reverses(seed: int) -> None:
    centroids, _ = tracked(MotionPlan("bounce"), seed)
    gaps = np.concatenate([centroids, np.array([1.25, 1.0]) - centroids], axis=1).min(axis=1)
    turn = int(gaps.argmin())
    assert gaps[turn] < 0.14
    assert 0 < turn < len(gaps) - 1
    assert gaps[0] > gaps[turn] + 0.03 or gaps[-1] > gaps[turn] + 0.03


@pytest.mark.parametrize("seed", range(6))
def test_growth_changes_the_area(seed: int) -> None:
    grown = tracked(MotionPlan("still", growth=1.9), seed)[1]
    shrunk = tracked(MotionPlan("still", growth=1 / 1.9), seed)[1]
    assert grown[-1] / grown[0] == pytest.approx(1.9**2, rel=0.1)
    assert shrunk[0] / shrunk[-1] == pytest.approx(1.9**2, rel=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_late_and_leaving_objects_are_absent_at_one_end(seed: int) -> None:
    for plan, absent, present in (
        (MotionPlan("leave", "right"), slice(-4, None), slice(0, 3)),
        (MotionPlan("enter", "down"), slice(0, 4), slice(-3, None)),
        (MotionPlan("still", appear_time=0.4), slice(0, 6), slice(8, None)),
    ):
        _, areas = tracked(plan, seed)
        assert not areas[absent].any()
        assert areas[present].all()


@pytest.mark.parametrize("seed", range(6))
def test_returning_object_is_absent_in_the_middle(seed: int) -> None:
    _, areas = tracked(MotionPlan("return", "up"), seed)
    assert areas[8] == 0
    assert areas[0] > 0
    assert areas[-1] > 0


@pytest.mark.parametrize("seed", range(4))
def test_spinning_object_keeps_its_centroid_and_area(seed: int) -> None:
    centroids, areas = tracked(MotionPlan("still", is_spinning=True), seed, shape="cross", extent=0.3)
    assert np.nanmax(np.ptp(centroids, axis=0)) < 0.01
    assert np.ptp(areas) < 0.05 * areas.max()


@pytest.mark.parametrize("profile", ["steady", "speeds_up", "slows_down", "stops", "starts_late"])
def test_progress_runs_from_zero_to_one(profile: str) -> None:
    shares = progress(np.linspace(0, 1, 50), profile=profile, event_time=0.5, ratio=0.2)
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(1)
    assert (np.diff(shares) >= -1e-12).all()


CLEAR: list[tuple[MotionPlan, set[str]]] = [
    (MotionPlan("still"), {"still"}),
    (MotionPlan("line", "left"), {"left", "moves"}),
    (MotionPlan("line", "diagonal", "stops"), {"diagonal", "stops", "moves"}),
    (MotionPlan("turn", "up"), {"turns_back", "moves"}),
    (MotionPlan("circle"), {"circle", "moves"}),
    (MotionPlan("bounce"), {"bounces", "moves"}),
    (MotionPlan("enter", "down"), {"appears_late", "down", "moves"}),
    (MotionPlan("leave", "right", is_spinning=True), {"leaves", "right", "spins", "moves"}),
    (MotionPlan("still", growth=2.0), {"grows"}),
]


@pytest.mark.parametrize(("plan", "words"), CLEAR)
def test_motion_truth_of_clear_plans(plan: MotionPlan, words: set[str]) -> None:
    assert {word for word, truth in motion_truth(plan).items() if truth == TRUE} == words


@pytest.mark.parametrize(
    ("plan", "word", "truth"),
    [
        (MotionPlan("bounce"), "turns_back", UNKNOWN),
        (MotionPlan("line", "left", "slows_down"), "stops", UNKNOWN),
        (MotionPlan("still", is_spinning=True), "still", UNKNOWN),
        (MotionPlan("line", "diagonal"), "left", UNKNOWN),
        (MotionPlan("line", "left"), "right", FALSE),
    ],
)
def test_motion_truth_of_ambiguous_and_false_words(plan: MotionPlan, word: str, truth: int) -> None:
    assert motion_truth(plan)[word] == truth
