"""Colours and textures of objects: colour ranges that do not overlap, and four patterns."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.synthetic.attributes import COLOUR_RANGES

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Material:
    """Surface appearance of one object.

    Attributes:
        texture: One of `attributes.TEXTURES`.
        base: Main colour, RGB from 0 to 1, which determines the colour name.
        second: Colour of stripes, spots or checks, RGB from 0 to 1.
        period: Length of one repetition, in units of the object's extent.
        duty: Fraction of a repetition in the second colour.
        phase: Offset of the pattern (x, y), in repetitions.
        pattern_angle: Direction of the pattern relative to the object, radians.
        outline: Colour of a thin outline, RGB from 0 to 1, or None.
        shading: Strength of the darkening from top to bottom, 0 for none.
    """

    texture: str
    base: tuple[float, float, float]
    second: tuple[float, float, float]
    period: float
    duty: float
    phase: tuple[float, float]
    pattern_angle: float
    outline: tuple[float, float, float] | None
    shading: float


def sample_colour(rng: np.random.Generator, colour: str) -> tuple[float, float, float]:
    """Sample an RGB colour to which only the given name applies.

    Args:
        rng: Source of randomness.
        colour: One of `attributes.COLOURS`.

    Returns:
        RGB, each from 0 to 1.

    Raises:
        ValueError: The colour is unknown.
    """
    if colour not in COLOUR_RANGES:
        raise ValueError(f"colour must be one of {tuple(COLOUR_RANGES)}, got {colour!r}")
    limits = COLOUR_RANGES[colour]
    hue = rng.uniform(*limits.hue) % 360.0
    return colorsys.hsv_to_rgb(hue / 360.0, rng.uniform(*limits.saturation), rng.uniform(*limits.value))


def _second_colour(
    rng: np.random.Generator, colour: str, base: tuple[float, float, float], *, texture: str
) -> tuple[float, float, float]:
    """Sample a darker or lighter variant of the base with the same colour name, at times near black or white."""
    if colour == "black":
        target, strength = 1.0, rng.uniform(0.3, 0.45)
    elif colour in ("white", "yellow", "cyan", "pink"):
        target, strength = 0.0, rng.uniform(0.35, 0.55)
    elif rng.random() < 0.5:
        target, strength = 0.0, rng.uniform(0.45, 0.7)
    else:
        target, strength = 1.0, rng.uniform(0.45, 0.65)
    if texture != "checkered" and colour not in ("black", "white") and rng.random() < 0.3:
        strength = min(strength + 0.3, 0.95)
    red, green, blue = (c + (target - c) * strength for c in base)
    return red, green, blue


def sample_material(rng: np.random.Generator, *, colour: str, texture: str, size_pixels: float) -> Material:
    """Sample the material of an object.

    Args:
        rng: Source of randomness.
        colour: One of `attributes.COLOURS`.
        texture: One of `attributes.TEXTURES`.
        size_pixels: Extent of the object in the rendered frame; patterns of small objects are coarser, because a
            period below about four pixels is not visible.
    """
    base = sample_colour(rng, colour)
    finest = min(4.5 / max(size_pixels, 1.0), 0.5)
    period = max(rng.uniform(0.2, 0.42), finest)
    brightness = 0.299 * base[0] + 0.587 * base[1] + 0.114 * base[2]
    outline = None
    if rng.random() < 0.25:
        tone = rng.uniform(0.75, 1.0) if brightness < 0.35 else rng.uniform(0.0, 0.2)
        outline = (tone, tone, tone)
    angle = rng.choice([0.0, np.pi / 2, np.pi / 4, rng.uniform(0, np.pi)])
    return Material(
        texture=texture,
        base=base,
        second=_second_colour(rng, colour, base, texture=texture),
        period=period,
        duty=rng.uniform(0.36, 0.48),
        phase=(rng.uniform(0, 1), rng.uniform(0, 1)),
        pattern_angle=float(angle),
        outline=outline,
        shading=rng.uniform(0, 0.25) if rng.random() < 0.35 else 0.0,
    )


def _soft_step(values: Array, *, pixels_per_unit: Array) -> Array:
    """Return an anti-aliased step at zero: 0 below, 1 above, over one pixel."""
    return np.clip(values * pixels_per_unit + np.float32(0.5), 0, 1)


def pattern_weights(material: Material, x: Array, y: Array, *, extent_pixels: Array) -> Array:
    """Return the weight of the second colour at points of an object.

    Args:
        material: Material of the object.
        x: Horizontal coordinates (N, H, W), in units of the extent.
        y: Vertical coordinates (N, H, W).
        extent_pixels: Extent in pixels (N, 1, 1), for anti-aliasing.

    Returns:
        Weights (N, H, W) from 0 (base colour) to 1 (second colour).
    """
    if material.texture == "plain":
        return np.zeros(x.shape, np.float32)
    cosine, sine = np.float32(np.cos(material.pattern_angle)), np.float32(np.sin(material.pattern_angle))
    inverse = np.float32(1 / material.period)
    u = (x * cosine + y * sine) * inverse + np.float32(material.phase[0])
    scale = (extent_pixels * material.period).astype(np.float32)
    if material.texture == "striped":
        wave = np.abs(u - np.floor(u) - np.float32(0.5))
        return _soft_step(np.float32(material.duty / 2) - wave, pixels_per_unit=scale)
    v = (y * cosine - x * sine) * inverse + np.float32(material.phase[1])
    if material.texture == "spotted":
        du, dv = u - np.floor(u) - np.float32(0.5), v - np.floor(v) - np.float32(0.5)
        radius = np.float32(np.sqrt(material.duty * 0.75 / np.pi))
        return _soft_step(radius - np.sqrt(du * du + dv * dv), pixels_per_unit=scale)
    # Triangle waves: their product changes sign exactly on the borders of the checks.
    du, dv = u - np.floor(u), v - np.floor(v)
    wave = (np.float32(0.25) - np.abs(du - np.float32(0.5))) * (np.float32(0.25) - np.abs(dv - np.float32(0.5)))
    return _soft_step(wave * np.float32(4), pixels_per_unit=scale)
