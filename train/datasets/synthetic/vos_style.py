"""Clips in the VOS style: deforming textured blobs over moving images, so that tracking transfers to real video.

They go beyond the attribute vocabulary: texture, deformation, motion blur, camera motion, changes of scale and light,
occluders. Masks are those of the middle of each exposure.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.train.datasets.samples import Clip
from unipixel.train.datasets.synthetic.attributes import Split
from unipixel.train.datasets.synthetic.drawing.backgrounds import background_image, smooth_noise
from unipixel.train.datasets.synthetic.drawing.occlusion import (
    Layer,
    Pose,
    compute_visibility,
    object_grid,
    patch_overlap,
)
from unipixel.train.datasets.synthetic.drawing.rendering import apply_camera_effects
from unipixel.train.datasets.synthetic.drawing.shapes import blob_distance, blob_reach

Array = NDArray[np.float32]
TILE = 96
EXPOSURES = 3


@dataclass(frozen=True)
class _Camera:
    """Background shift (T, 2) in units of the shorter side, and zoom (T,)."""

    shift: NDArray[np.float64]
    zoom: NDArray[np.float64]


def smooth_curves(
    rng: np.random.Generator, times: NDArray[np.float64], *, size: float, columns: int
) -> NDArray[np.float64]:
    """Sample smooth random curves.

    Args:
        rng: Source of randomness.
        times: Times (T,), 0 to 1.
        size: Typical distance from zero.
        columns: Number C of curves.

    Returns:
        Values (T, C).
    """
    total = np.zeros((len(times), columns))
    for rate in (0.5, 1.0, 2.0):
        phase = rng.uniform(0, 2 * np.pi, columns)
        weight = rng.normal(0, 1, columns) / (1 + rate)
        total += weight * np.sin(2 * np.pi * rate * rng.uniform(0.6, 1.4) * times[:, None] + phase)
    return size * total


def _tile(rng: np.random.Generator, *, split: Split) -> Array:
    """Sample a texture (TILE, TILE, 3): part of a photograph, coloured noise, or striped noise."""
    if rng.random() < 0.45:
        part = background_image(rng, kind="photograph", split=split, height=TILE, width=TILE, avoid=np.zeros((0, 3)))
        return np.clip(part * rng.uniform(0.6, 1.4, 3).astype(np.float32), 0, 1)
    colours = rng.random((2, 3), np.float32)
    weight = smooth_noise(rng, height=TILE, width=TILE, cells=int(rng.integers(1, 10)))
    if rng.random() < 0.4:
        weight = (np.sin(weight * np.float32(rng.uniform(8, 40))) + 1) / 2
    tile = colours[0] + (colours[1] - colours[0]) * weight
    if rng.random() < 0.5:
        tile = tile + 0.25 * (smooth_noise(rng, height=TILE, width=TILE, cells=12, channels=3) - 0.5)
    return np.clip(tile, 0, 1).astype(np.float32)


def _blob(
    rng: np.random.Generator,
    *,
    sub_times: NDArray[np.float64],
    camera: _Camera,
    frame: tuple[float, float],
    pixels_per_unit: float,
) -> Layer:
    """Rasterize one blob at the exposure times."""
    count = len(sub_times)
    extent = float(np.exp(rng.uniform(np.log(0.14), np.log(0.7))))
    scale = np.exp(smooth_curves(rng, sub_times, size=rng.uniform(0.05, 0.35), columns=1)[:, 0])
    start = np.array([rng.uniform(0.2, 0.8) * side for side in frame])
    middle = np.array(frame) / 2
    centres = start + smooth_curves(rng, sub_times, size=rng.uniform(0.03, 0.3), columns=2)
    centres = (centres - camera.shift - middle) * camera.zoom[:, None] + middle
    # Blobs are kept near the frame, so that every clip has objects to track.
    centres = np.clip(centres, -0.1, np.array(frame) + 0.1)
    angles = rng.uniform(0, 2 * np.pi) + smooth_curves(rng, sub_times, size=rng.uniform(0.0, 0.8), columns=1)[:, 0]
    orders = 7
    decay = 1 / np.arange(2, orders + 2)[:, None]
    constant = rng.normal(0, 0.3, (orders, 2)) * decay
    constant[1, 0] += rng.uniform(0, 0.3)
    moving = smooth_curves(rng, sub_times, size=rng.uniform(0.05, 0.3), columns=orders * 2).reshape(count, orders, 2)
    harmonics = np.clip(constant + moving * decay, -0.3, 0.3)
    state = Pose(centres, np.clip(extent * scale * camera.zoom, 0.08, 0.95), angles, np.ones(count, bool))
    reach = blob_reach(harmonics)
    origins, x, y, extents = object_grid(state, reach=reach, pixels_per_unit=pixels_per_unit)
    distance = blob_distance(x, y, harmonics) * extents.astype(np.float32)[:, None, None]
    return Layer(origins, np.clip(np.float32(0.5) - distance, 0, 1), x, y, extents)


def _background(rng: np.random.Generator, *, split: Split, camera: _Camera, height: int, width: int) -> Array:
    """Render frames (T, height, width, 3) of an image under a panning and zooming camera."""
    kind = "photograph" if rng.random() < 0.65 else "noise"
    large = background_image(rng, kind=kind, split=split, height=height * 2, width=width * 2, avoid=np.zeros((0, 3)))
    if kind == "noise" and rng.random() < 0.7:
        large = large + 0.3 * (smooth_noise(rng, height=height * 2, width=width * 2, cells=14, channels=3) - 0.5)
    image = Image.fromarray((np.clip(large, 0, 1) * 255).astype(np.uint8))
    shorter = min(height, width)
    frames = np.empty((len(camera.zoom), height, width, 3), np.float32)
    for index, (shift, zoom) in enumerate(zip(camera.shift, camera.zoom, strict=True)):
        half = np.array([width, height]) / 2 / zoom
        centre = np.array([width, height]) + shift * shorter
        centre = np.clip(centre, half, np.array([2 * width, 2 * height]) - half)
        box = (*(centre - half), *(centre + half))
        part = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        frames[index] = np.asarray(part, np.float32) / 255
    return frames


def _composite_blob(frames: Array, layer: Layer, tile: Array, brightness: Array) -> None:
    """Composite a textured blob over frames, in place; brightness (T,) scales its colours."""
    height, width = frames.shape[1:3]
    side = layer.coverage.shape[1]
    for index in range(len(frames)):
        overlap = patch_overlap(layer.origins[index], side=side, height=height, width=width)
        if overlap is None:
            continue
        (rows, columns), (patch_rows, patch_columns) = overlap
        part = (index, patch_rows, patch_columns)
        # Offset by whole tiles, so that the cast to integers rounds in one direction.
        across = ((layer.x[part] * np.float32(0.7) + np.float32(4.5)) * TILE).astype(np.int32) % TILE
        down = ((layer.y[part] * np.float32(0.7) + np.float32(4.5)) * TILE).astype(np.int32) % TILE
        colours = tile[down, across] * brightness[index]
        below = frames[index, rows, columns]
        below += (colours - below) * layer.coverage[part][..., None]


def _middle_exposure(layer: Layer, exposures: int) -> Layer:
    """Return the layer at the middle exposure of every frame."""
    middle = slice(exposures // 2, None, exposures)
    return Layer(
        layer.origins[middle],
        layer.coverage[middle],
        layer.x[middle],
        layer.y[middle],
        layer.extent_pixels[middle],
    )


def sample_vos_clip(rng: np.random.Generator, *, split: Split, height: int, width: int, num_frames: int | None) -> Clip:
    """Sample a clip in the VOS style.

    Args:
        rng: Source of randomness.
        split: Decides which photographs may be shown.
        height: Height in pixels.
        width: Width in pixels.
        num_frames: Frames N to render; None for a full clip of 16 to 48. Whatever the number, neighbouring frames are
            as far apart as in a full clip.

    Returns:
        A clip of 1 to 4 objects, each visible in the first frame.
    """
    shorter = min(height, width)
    frame = (width / shorter, height / shorter)
    source = int(rng.integers(16, 49))
    count = min(num_frames or source, source)
    spread = 1.0 if count == source else float(rng.uniform(count / source, 1.0))
    for _ in range(50):
        blur, exposures = (rng.uniform(0.2, 0.9), EXPOSURES) if rng.random() < 0.4 else (0.0, 1)
        times = np.linspace(0, spread, count)
        gap = spread / max(count - 1, 1)
        sub_times = (times[:, None] + np.linspace(-0.5, 0.5, exposures) * gap * blur * 0.4).ravel()
        travel = rng.uniform(0.0, 0.3) if rng.random() < 0.75 else 0.0
        camera = _Camera(
            smooth_curves(rng, sub_times, size=travel, columns=2),
            np.exp(np.clip(smooth_curves(rng, sub_times, size=rng.uniform(0, 0.12), columns=1)[:, 0], -0.4, 0.5)),
        )
        camera = _Camera(camera.shift, np.maximum(camera.zoom, 0.7))
        total = int(rng.integers(1, 5)) + int(rng.integers(0, 3))
        objects = max(1, min(4, total - int(rng.integers(0, 3))))
        layers = [
            _blob(rng, sub_times=sub_times, camera=camera, frame=frame, pixels_per_unit=shorter) for _ in range(total)
        ]
        view = compute_visibility(
            [_middle_exposure(layer, exposures) for layer in layers], num_frames=count, height=height, width=width
        )
        chosen = np.flatnonzero(view.visible_area[:, 0] > 0.004 * height * width)
        if len(chosen):
            break
    else:
        raise RuntimeError("no blob was visible in the first frame in 50 attempts: the sampled ranges are wrong")
    # The other blobs stay in the image as occluders and distractors without a mask.
    chosen = np.sort(rng.permutation(chosen)[:objects])
    frames = _background(rng, split=split, camera=camera, height=height, width=width)
    for layer in layers:
        light = 1 + smooth_curves(rng, sub_times, size=rng.uniform(0, 0.15), columns=1)[:, 0]
        _composite_blob(frames, layer, _tile(rng, split=split), light.astype(np.float32))
    frames = frames.reshape(count, exposures, height, width, 3).mean(axis=1)
    light = 1 + smooth_curves(rng, times, size=rng.uniform(0, 0.2), columns=1)[:, 0]
    frames *= np.clip(light, 0.5, 1.4).astype(np.float32)[:, None, None, None]
    indices = np.round(times * (source - 1)).astype(int) if count < source else np.arange(source)
    return Clip(
        frames=apply_camera_effects(rng, frames, strength=1.6),
        masks=view.masks[chosen],
        object_ids=tuple(range(1, len(chosen) + 1)),
        frame_indices=tuple(int(index) for index in indices),
        timestamps_seconds=tuple(float(time) * (source - 1) / 24 for time in times),
        num_source_frames=source,
        fps=24.0,
    )
