"""Signed distances of the eight shapes and of deforming blobs, in numpy.

Every shape fits a box of side 1 around its centre of mass (y down), so that its position does not depend on its shape;
a distance is negative inside, in units of that box.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Fraction of the unit box that a shape covers, to compare areas without rendering. Measured by counting pixels of a
# 1000 x 1000 raster; tests/train/synthetic/test_shapes.py repeats the measurement.
AREAS: dict[str, float] = {
    "circle": 0.785,
    "square": 1.0,
    "triangle": 0.5,
    "star": 0.34,
    "ring": 0.573,
    "cross": 0.566,
    "heart": 0.617,
    "crescent": 0.371,
}
# Distance from the centre to the farthest point of the shape, in units of its extent.
REACH: dict[str, float] = {
    "circle": 0.5,
    "square": 0.7072,
    "triangle": 0.668,
    "star": 0.526,
    "ring": 0.5,
    "cross": 0.53,
    "heart": 0.588,
    "crescent": 0.634,
}


def _polygon(x: Array, y: Array, corners: NDArray[np.float64]) -> Array:
    """Return the signed distance to a simple polygon with corners (K, 2), by an even-odd inside test."""
    best = np.full(x.shape, 1e9, np.float32)
    inside = np.zeros(x.shape, bool)
    previous = np.roll(corners, 1, axis=0)
    for (ax, ay), (bx, by) in zip(corners.astype(np.float32), previous.astype(np.float32), strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        dx, dy = wx - along * ex, wy - along * ey
        np.minimum(best, dx * dx + dy * dy, out=best)
        crosses = (y >= ay) != (y >= by)
        if ey != 0:
            inside ^= crosses & (wx < wy * (ex / ey))
    return np.where(inside, -np.sqrt(best), np.sqrt(best))


def _star_corners(inner: float) -> NDArray[np.float64]:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 0.525, 0.525 * inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


_STAR = _star_corners(0.42)
_TRIANGLE = np.array([[0.0, -2 / 3], [0.5, 1 / 3], [-0.5, 1 / 3]])


def _circle(x: Array, y: Array) -> Array:
    return np.sqrt(x * x + y * y) - np.float32(0.5)


def _square(x: Array, y: Array) -> Array:
    dx, dy = np.abs(x) - np.float32(0.5), np.abs(y) - np.float32(0.5)
    outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2)
    return outside + np.minimum(np.maximum(dx, dy), 0)


def _triangle(x: Array, y: Array) -> Array:
    return _polygon(x, y, _TRIANGLE)


def _star(x: Array, y: Array) -> Array:
    return _polygon(x, y, _STAR)


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.sqrt(x * x + y * y) - np.float32(0.38)) - np.float32(0.12)


def _cross(x: Array, y: Array) -> Array:
    ax, ay = np.abs(x), np.abs(y)
    wide = np.maximum(ax - np.float32(0.5), ay - np.float32(0.17))
    tall = np.maximum(ax - np.float32(0.17), ay - np.float32(0.5))
    return np.minimum(wide, tall)


def _heart(x: Array, y: Array) -> Array:
    # Two discs, and the wedge between the lines from the lower tip that are tangent to them. (0.770, 0.639)
    # is the normal of such a line; the wedge ends where it touches its disc.
    ax, y = np.abs(x), y - np.float32(0.089)
    dx, dy = ax - np.float32(0.23), y + np.float32(0.2)
    lobe = np.sqrt(dx * dx + dy * dy) - np.float32(0.27)
    wedge = dx * np.float32(0.7696) + dy * np.float32(0.6386) - np.float32(0.27)
    past = dx * np.float32(0.6386) - dy * np.float32(0.7696)
    return np.minimum(lobe, np.maximum(np.maximum(wedge, past), -y - np.float32(0.3)))


def _crescent(x: Array, y: Array) -> Array:
    x = x - np.float32(0.202)
    disc = np.sqrt(x * x + y * y) - np.float32(0.5)
    bite = np.float32(0.42) - np.sqrt((x - np.float32(0.27)) ** 2 + y * y)
    return np.maximum(disc, bite)


_DISTANCES: dict[str, Callable[[Array, Array], Array]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "heart": _heart,
    "crescent": _crescent,
}


def signed_distance(shape: str, x: Array, y: Array) -> Array:
    """Return the signed distance from points to the outline of a shape.

    Args:
        shape: One of `attributes.SHAPES`.
        x: Horizontal coordinates, any shape, float32, in units of the shape's extent.
        y: Vertical coordinates (down), same shape as `x`.

    Returns:
        Signed distances in the same units, negative inside. Exact near the outline, a bound elsewhere.

    Raises:
        ValueError: The shape is unknown.
    """
    if shape not in _DISTANCES:
        raise ValueError(f"shape must be one of {tuple(_DISTANCES)}, got {shape!r}")
    return _DISTANCES[shape](x, y)


def blob_distance(x: Array, y: Array, harmonics: NDArray[np.float64]) -> Array:
    """Return the signed distance from points to a wavy closed outline, one per frame.

    Args:
        x: Horizontal coordinates (N, H, W), float32, in units of the blob's extent.
        y: Vertical coordinates (N, H, W).
        harmonics: Cosine and sine coefficients (N, K, 2) of the outline's radius, orders 1 to K,
            relative to a mean radius of 0.38.

    Returns:
        Approximate signed distances (N, H, W), negative inside.
    """
    radius = np.sqrt(x * x + y * y)
    inverse = 1 / np.maximum(radius, np.float32(1e-4))
    first_cosine, first_sine = x * inverse, y * inverse
    cosine, sine = first_cosine, first_sine
    outline = np.full(x.shape, 0.38, np.float32)
    slope = np.zeros(x.shape, np.float32)
    weights = (harmonics * 0.38).astype(np.float32)[..., None, None]
    for order in range(harmonics.shape[1]):
        if order:
            # Angle addition: one pair of products per harmonic instead of a sine and a cosine.
            cosine, sine = cosine * first_cosine - sine * first_sine, sine * first_cosine + cosine * first_sine
        a, b = weights[:, order, 0], weights[:, order, 1]
        outline += a * cosine + b * sine
        slope += np.float32(order + 1) * (b * cosine - a * sine)
    # First-order correction: the radial gap overstates the distance where the outline is steep.
    steepness = slope / np.maximum(outline, np.float32(0.1))
    return np.asarray((radius - outline) / np.sqrt(1 + steepness**2), np.float32)


def blob_reach(harmonics: NDArray[np.float64]) -> float:
    """Return the distance of the farthest point of a blob from its centre in any frame, in units of its extent.

    Args:
        harmonics: As for `blob_distance`.
    """
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    orders = np.arange(1, harmonics.shape[1] + 1)[:, None] * angles
    outline = harmonics[..., 0] @ np.cos(orders) + harmonics[..., 1] @ np.sin(orders)
    return float(0.38 * (1 + outline.max()) * 1.04)
