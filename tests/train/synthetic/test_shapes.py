"""Rasterized shapes against closed-form areas; colours and patterns against their definitions."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from unipixel.train.datasets.synthetic.attributes import COLOUR_RANGES, COLOURS, SHAPES, TEXTURES, size_class
from unipixel.train.datasets.synthetic.drawing.backgrounds import smooth_noise
from unipixel.train.datasets.synthetic.drawing.occlusion import compute_visibility, rasterize_object
from unipixel.train.datasets.synthetic.drawing.shapes import AREAS, REACH, blob_distance, signed_distance
from unipixel.train.datasets.synthetic.drawing.textures import pattern_weights, sample_colour, sample_material
from unipixel.train.datasets.synthetic.motion import MotionPlan, Trajectory
from unipixel.train.datasets.synthetic.scene import NUM_TIMES, SceneObject

SIDE = 600


def raster(shape: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inside test on a raster of the square from -0.8 to 0.8, and its coordinates."""
    steps = ((np.arange(SIDE) + 0.5) / SIDE * 1.6 - 0.8).astype(np.float32)
    x, y = np.meshgrid(steps, steps)
    return signed_distance(shape, x, y) <= 0, x, y


def still_object(shape: str, *, extent: float, centre: tuple[float, float], angle: float = 0.0) -> SceneObject:
    trajectory = Trajectory(
        np.tile(centre, (NUM_TIMES, 1)),
        np.full(NUM_TIMES, extent),
        np.full(NUM_TIMES, angle),
        np.ones(NUM_TIMES, bool),
        None,
    )
    return SceneObject(shape, "red", "plain", extent, MotionPlan("still"), trajectory)


@pytest.mark.parametrize("shape", SHAPES)
def test_area_of_every_shape_equals_its_constant(shape: str) -> None:
    inside, _, _ = raster(shape)
    assert inside.mean() * 1.6**2 == pytest.approx(AREAS[shape], abs=0.006)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_is_within_its_reach_and_unit_box(shape: str) -> None:
    inside, x, y = raster(shape)
    assert np.hypot(x, y)[inside].max() <= REACH[shape] + 0.004
    width, height = np.ptp(x[inside]), np.ptp(y[inside])
    assert max(width, height) == pytest.approx(1.0, abs=0.03)
    assert abs(x[inside].mean()) < 0.002
    assert abs(y[inside].mean()) < 0.002


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi / 4),
        ("square", 1.0),
        ("triangle", 0.5),
        ("ring", np.pi * (0.5**2 - 0.26**2)),
        ("cross", 2 * 0.34 - 0.34**2),
    ],
)
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_mask_area_matches_the_closed_form(shape: str, area: float, angle: float) -> None:
    obj = still_object(shape, extent=0.4, centre=(0.503, 0.497), angle=angle)
    layer = rasterize_object(obj, np.array([0.0]), pixels_per_unit=200)
    view = compute_visibility([layer], num_frames=1, height=200, width=200)
    assert view.masks.sum() == pytest.approx(area * 80**2, rel=0.015)
    assert layer.coverage.sum() == pytest.approx(area * 80**2, rel=0.01)


@pytest.mark.parametrize("shape", ["circle", "square", "ring", "cross", "heart", "triangle", "star", "crescent"])
def test_distance_near_the_outline_has_unit_slope(shape: str) -> None:
    _inside, x, y = raster(shape)
    distance = signed_distance(shape, x, y)
    slope = np.hypot(*np.gradient(distance, 1.6 / SIDE))
    near = np.abs(distance) < 0.01
    assert np.median(slope[near]) == pytest.approx(1.0, abs=0.02)


def test_later_object_occludes_the_earlier_one() -> None:
    layers = [
        rasterize_object(still_object("square", extent=0.4, centre=(0.4, 0.5)), np.array([0.0]), pixels_per_unit=100),
        rasterize_object(still_object("square", extent=0.4, centre=(0.6, 0.5)), np.array([0.0]), pixels_per_unit=100),
    ]
    view = compute_visibility(layers, num_frames=1, height=100, width=100)
    assert not (view.masks[0] & view.masks[1]).any()
    assert view.masks[1].sum() == 1600
    assert view.masks[0].sum() == 800
    assert view.hidden_by[0, 1, 0] == 800
    assert view.hidden_by[1, 0, 0] == 0


@pytest.mark.parametrize(("gap", "touches"), [(0.01, True), (0.04, False)])
def test_objects_touch_up_to_a_gap_of_one_pixel(gap: float, touches: bool) -> None:
    layers = [
        rasterize_object(still_object("square", extent=0.2, centre=(0.3, 0.5)), np.array([0.0]), pixels_per_unit=100),
        rasterize_object(
            still_object("square", extent=0.2, centre=(0.5 + gap, 0.5)), np.array([0.0]), pixels_per_unit=100
        ),
    ]
    assert compute_visibility(layers, num_frames=1, height=100, width=100).touching[0, 1, 0] == touches


def test_whole_area_counts_the_part_outside_the_frame() -> None:
    layer = rasterize_object(
        still_object("square", extent=0.4, centre=(0.0, 0.5)), np.array([0.0]), pixels_per_unit=100
    )
    view = compute_visibility([layer], num_frames=1, height=100, width=100)
    assert view.whole_area[0, 0] == 1600
    assert view.frame_area[0, 0] == 800


def test_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'blob'"):
        signed_distance("blob", np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float32))


def test_blob_without_harmonics_is_a_disc() -> None:
    steps = np.linspace(-0.6, 0.6, 241, dtype=np.float32)
    x, y = np.meshgrid(steps, steps)
    distance = blob_distance(x[None], y[None], np.zeros((1, 7, 2)))
    assert np.allclose(distance[0], np.hypot(x, y) - 0.38, atol=1e-5)


@pytest.mark.parametrize("colour", COLOURS)
def test_sampled_colour_has_exactly_its_name(colour: str) -> None:
    middles = {
        name: colorsys.hsv_to_rgb(*(float(np.mean(v)) for v in (np.mean(s.hue) % 360 / 360, s.saturation, s.value)))
        for name, s in COLOUR_RANGES.items()
    }
    rng = np.random.default_rng(3)
    for _ in range(200):
        shade = np.array(sample_colour(rng, colour))
        hue, saturation, value = colorsys.rgb_to_hsv(*shade)
        fitting = [
            name
            for name, s in COLOUR_RANGES.items()
            if s.saturation[0] <= saturation <= s.saturation[1] + 1e-6
            and s.value[0] <= value <= s.value[1] + 1e-6
            and (hue * 360 - s.hue[0]) % 360 <= s.hue[1] - s.hue[0] + 1e-6
        ]
        assert fitting == [colour]
        gaps = {name: np.linalg.norm(shade - np.array(middle)) for name, middle in middles.items()}
        assert gaps[colour] < 0.55


@pytest.mark.parametrize("texture", TEXTURES)
def test_pattern_covers_the_expected_fraction(texture: str) -> None:
    rng = np.random.default_rng(5)
    steps = np.linspace(-0.5, 0.5, 200, dtype=np.float32)
    x, y = np.meshgrid(steps, steps)
    for _ in range(20):
        material = sample_material(rng, colour="red", texture=texture, size_pixels=60)
        weight = pattern_weights(material, x[None], y[None], extent_pixels=np.full((1, 1, 1), 200.0, np.float32))
        low, high = {"plain": (0, 0), "striped": (0.25, 0.6), "spotted": (0.15, 0.45), "checkered": (0.38, 0.62)}[
            texture
        ]
        assert low <= weight.mean() <= high


def test_size_class_is_none_near_the_published_limits() -> None:
    assert [size_class(size) for size in (0.08, 0.12, 0.17, 0.22, 0.3)] == ["small", None, "medium", None, "large"]


def test_smooth_noise_spans_zero_to_one() -> None:
    noise = smooth_noise(np.random.default_rng(0), height=40, width=60, cells=4, channels=2)
    assert noise.shape == (40, 60, 2)
    assert (noise.min(), noise.max()) == (0.0, 1.0)
