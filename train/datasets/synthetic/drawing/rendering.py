"""Rendering of frames from layers: background, materials, light, blur and noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from unipixel.train.datasets.synthetic.attributes import Split
from unipixel.train.datasets.synthetic.drawing.backgrounds import background_image, colour_gap, pan_image
from unipixel.train.datasets.synthetic.drawing.occlusion import Layer, patch_overlap
from unipixel.train.datasets.synthetic.drawing.textures import Material, pattern_weights, sample_material
from unipixel.train.datasets.synthetic.scene import Scene

Array = NDArray[np.float32]


def render_background(
    rng: np.random.Generator,
    *,
    split: Split,
    times: NDArray[np.float64],
    height: int,
    width: int,
    avoid: NDArray[np.float64],
    kinds: tuple[float, float, float, float] = (0.2, 0.2, 0.25, 0.35),
) -> Array:
    """Render the background of every frame; it moves in half of the clips.

    Args:
        rng: Source of randomness.
        split: Decides which photographs may be shown.
        times: Times (N,), 0 to 1.
        height: Height in pixels.
        width: Width in pixels.
        avoid: Colours (K, 3) of the objects.
        kinds: Probabilities of plain, gradient, noise and photograph.

    Returns:
        Frames (N, height, width, 3), 0 to 1.
    """
    kind = str(rng.choice(["plain", "gradient", "noise", "photograph"], p=kinds))
    reach = rng.uniform(0.04, 0.3) * min(height, width) if rng.random() < 0.5 else 0.0
    angle = rng.uniform(0, 2 * np.pi)
    travel = np.outer(times, [np.cos(angle), np.sin(angle)]) * reach
    travel -= travel.min(axis=0)
    border = int(np.ceil(travel.max())) + 2
    image = background_image(rng, kind=kind, split=split, height=height + border, width=width + border, avoid=avoid)
    return pan_image(image, travel, height=height, width=width)


def sample_materials(rng: np.random.Generator, scene: Scene, layers: Sequence[Layer]) -> tuple[Material, ...]:
    """Sample the material of every object of a scene.

    Args:
        rng: Source of randomness.
        scene: The scene.
        layers: Its layers, for the sizes in pixels.

    Returns:
        Materials, in the order of the objects.
    """
    return tuple(
        sample_material(rng, colour=obj.colour, texture=obj.texture, size_pixels=float(np.median(layer.extent_pixels)))
        for obj, layer in zip(scene.objects, layers, strict=True)
    )


def composite_layer(frames: Array, layer: Layer, material: Material) -> None:
    """Composite one object over the frames, in place.

    Args:
        frames: Frames (N, H, W, 3), 0 to 1.
        layer: The object's layer.
        material: Its material.
    """
    extent = layer.extent_pixels.astype(np.float32)[:, None, None]
    weight = pattern_weights(material, layer.x, layer.y, extent_pixels=extent)[..., None]
    base, second = np.asarray(material.base, np.float32), np.asarray(material.second, np.float32)
    colours = base + (second - base) * weight
    if material.shading:
        colours = colours * (1 - np.float32(material.shading) * (layer.y[..., None] + np.float32(0.5)))
    height, width = frames.shape[1:3]
    side = layer.coverage.shape[1]
    background_colours = []
    for index in range(len(frames)):
        overlap = patch_overlap(layer.origins[index], side=side, height=height, width=width)
        if overlap is None:
            continue
        (rows, columns), (patch_rows, patch_columns) = overlap
        cover = layer.coverage[index, patch_rows, patch_columns, None]
        target = frames[index, rows, columns]
        if cover.any():
            background_colours.append(target.reshape(-1, 3).mean(axis=0))
        target += (colours[index, patch_rows, patch_columns] - target) * cover
    outline = material.outline
    if outline is None and background_colours and colour_gap(np.median(background_colours, axis=0), base) < 0.2:
        # Without an outline, an object of the colour of its surroundings would be invisible.
        tone = 0.95 if float(base.mean()) < 0.5 else 0.05
        outline = (tone, tone, tone)
    if outline is not None:
        _composite_outline(frames, layer, np.asarray(outline, np.float32))


def _composite_outline(frames: Array, layer: Layer, tone: Array) -> None:
    """Composite the outline: covered pixels with a neighbour that is not covered."""
    height, width = frames.shape[1:3]
    solid = layer.coverage
    inner = solid.copy()
    inner[:, 1:] = np.minimum(inner[:, 1:], solid[:, :-1])
    inner[:, :-1] = np.minimum(inner[:, :-1], solid[:, 1:])
    inner[:, :, 1:] = np.minimum(inner[:, :, 1:], solid[:, :, :-1])
    inner[:, :, :-1] = np.minimum(inner[:, :, :-1], solid[:, :, 1:])
    outline_weight = solid * (1 - inner)
    for index in range(len(frames)):
        overlap = patch_overlap(layer.origins[index], side=solid.shape[1], height=height, width=width)
        if overlap is None:
            continue
        (rows, columns), (patch_rows, patch_columns) = overlap
        target = frames[index, rows, columns]
        target += (tone - target) * outline_weight[index, patch_rows, patch_columns, None] * np.float32(0.85)


def _blurred(frames: Array, radius: float) -> Array:
    """Blur every frame; Pillow's filter on bytes is several times faster than numpy on floats."""
    small = np.clip(frames * 255 + np.float32(0.5), 0, 255).astype(np.uint8)
    soft = [np.asarray(Image.fromarray(frame).filter(ImageFilter.GaussianBlur(radius))) for frame in small]
    return np.stack(soft).astype(np.float32) / np.float32(255)


def apply_camera_effects(rng: np.random.Generator, frames: Array, *, strength: float = 1.0) -> NDArray[np.uint8]:
    """Add the effects of a camera to rendered frames: light, blur, sensor noise, rounding.

    Args:
        rng: Source of randomness.
        frames: Frames (N, H, W, 3), 0 to 1; overwritten.
        strength: Scale of the changes of light and noise; colour names stay correct up to 1.

    Returns:
        Frames (N, H, W, 3), uint8.
    """
    count, height, width = frames.shape[:3]
    if rng.random() < 0.3:
        frames = _blurred(frames, float(rng.uniform(0.35, 0.8)) * min(1.0, max(height, width) / 128))
    gain = np.float32(255 * (1 + strength * rng.uniform(-0.14, 0.06)))
    tint = (1 + strength * rng.uniform(-0.03, 0.03, 3)).astype(np.float32)
    light = np.broadcast_to(gain * tint, (count, 1, 1, 3)).astype(np.float32)
    if rng.random() < 0.3:
        swing = strength * rng.uniform(-0.08, 0.08)
        light = light * np.linspace(1 - swing, 1 + swing, count, dtype=np.float32)[:, None, None, None]
    frames *= light
    if rng.random() < 0.45:
        spread = rng.uniform(1.0, 6.0) * strength
        # One tile of noise, shifted from frame to frame: new noise for each would cost more than all rendering.
        tile = rng.standard_normal((height + 32, width + 32), np.float32) * np.float32(spread)
        for index in range(count):
            row, column = rng.integers(0, 32, 2)
            frames[index] += tile[row : row + height, column : column + width, None]
    frames += np.float32(0.5)
    np.clip(frames, 0, 255, out=frames)
    return frames.astype(np.uint8)
