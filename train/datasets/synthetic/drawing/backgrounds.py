"""Backgrounds: plain, gradient, smooth noise, photographs; still or slowly moving."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.train.datasets.synthetic.attributes import Split

Array = NDArray[np.float32]
Colour = tuple[float, float, float]

BACKGROUNDS = ("plain", "gradient", "noise", "photograph")
# Images that ship with scikit-image, so that nothing is downloaded. Those of the second tuple are shown only in
# validation and testing.
TRAIN_PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "ihc.png",
    "retina.jpg",
    "brick.png",
    "grass.png",
    "camera.png",
    "coins.png",
)
EXTRA_PHOTOGRAPHS = ("coffee.png", "gravel.png")


@lru_cache(maxsize=16)
def photograph(name: str) -> Image.Image:
    """Load an image from scikit-image.

    Args:
        name: File name in the package's data folder.

    Returns:
        RGB image, at most 640 pixels on its shorter side.

    Raises:
        ImportError: scikit-image is not installed.
        OSError: The installed version does not contain the image.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("synthetic clips need scikit-image: install the extra `unipixel-agent[train]`")
    with Image.open(Path(spec.submodule_search_locations[0]) / "data" / name) as file:
        image = file.convert("RGB")
        shorter = min(image.size)
        if shorter > 640:
            width, height = (round(side * 640 / shorter) for side in image.size)
            image = image.resize((width, height), Image.Resampling.LANCZOS)
        return image


def colour_gap(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the perceived difference of RGB colours: brightness and two opponent channels.

    Args:
        first: Colours (..., 3), 0 to 1.
        second: Colours (..., 3), broadcastable.

    Returns:
        Differences (...), 0 for equal colours, about 1 between black and white.
    """
    delta = first - second
    brightness = delta @ np.array([0.299, 0.587, 0.114])
    red_green = delta[..., 0] - delta[..., 1]
    yellow_blue = (delta[..., 0] + delta[..., 1]) / 2 - delta[..., 2]
    return np.sqrt(brightness**2 + 0.25 * red_green**2 + 0.2 * yellow_blue**2)


def _contrasting_colour(rng: np.random.Generator, avoid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sample a muted colour that differs from all of `avoid` (K, 3) as far as twelve attempts allow."""
    grey = rng.uniform(0.05, 0.95, (12, 1))
    tints = np.clip(grey + rng.normal(0, 1, (12, 3)) * rng.choice([0.03, 0.1, 0.2], (12, 1)), 0, 1)
    if not len(avoid):
        return tints[0]
    gaps = colour_gap(tints[:, None], avoid[None]).min(axis=1)
    candidates = np.flatnonzero(gaps > 0.27)
    return tints[candidates[0]] if len(candidates) else tints[int(gaps.argmax())]


def smooth_noise(rng: np.random.Generator, *, height: int, width: int, cells: int, channels: int = 1) -> Array:
    """Sample smooth noise.

    Args:
        rng: Source of randomness.
        height: Height in pixels.
        width: Width in pixels.
        cells: Cells along the shorter side in the coarsest octave.
        channels: Independent channels C.

    Returns:
        Noise (height, width, C), 0 to 1.
    """
    total = np.zeros((height, width, channels), np.float32)
    weight, shorter = 0.6, min(height, width)
    for octave in range(3):
        steps = cells * 2**octave
        rows, columns = (max(2, round(steps * side / shorter)) + 1 for side in (height, width))
        for channel in range(channels):
            grid = Image.fromarray(rng.random((rows, columns), np.float32))
            layer = grid.resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += weight * np.asarray(layer)
        weight *= 0.5
    low, high = total.min(), total.max()
    return ((total - low) / max(float(high - low), 1e-6)).astype(np.float32)


def _crop(rng: np.random.Generator, name: str, *, height: int, width: int) -> Array:
    """Return a random part of a photograph at the given size, mirrored at random."""
    image = photograph(name)
    scale = min(image.width / width, image.height / height) * rng.uniform(0.45, 1.0)
    crop_width, crop_height = width * scale, height * scale
    left, top = rng.uniform(0, image.width - crop_width), rng.uniform(0, image.height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    part = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=box), np.float32) / np.float32(255)
    return np.flip(part, axis=1) if rng.random() < 0.5 else part


def background_image(
    rng: np.random.Generator, *, kind: str, split: Split, height: int, width: int, avoid: NDArray[np.float64]
) -> Array:
    """Sample one background image.

    Args:
        rng: Source of randomness.
        kind: One of `BACKGROUNDS`.
        split: Decides which photographs may be shown.
        height: Height in pixels.
        width: Width in pixels.
        avoid: Colours (K, 3), 0 to 1, that generated backgrounds avoid.

    Returns:
        Image (height, width, 3), 0 to 1.

    Raises:
        ValueError: The kind is unknown.
        ImportError: A photograph is wanted and scikit-image is missing.
    """
    if kind == "photograph":
        names = TRAIN_PHOTOGRAPHS if split == "train" else TRAIN_PHOTOGRAPHS + EXTRA_PHOTOGRAPHS
        part = _crop(rng, names[int(rng.integers(len(names)))], height=height, width=width)
        tone = rng.uniform(0.0, 1.0, 3).astype(np.float32) * np.float32(0.5) + np.float32(part.mean()) * 0.5
        strength = np.float32(rng.uniform(0.0, 0.45))
        return part * (1 - strength) + tone * strength
    first = _contrasting_colour(rng, avoid).astype(np.float32)
    if kind == "plain":
        return np.broadcast_to(first, (height, width, 3)).copy()
    second = _contrasting_colour(rng, avoid).astype(np.float32)
    if kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        ramp = columns * np.float32(np.cos(angle) / width) + rows * np.float32(np.sin(angle) / height)
        ramp = (ramp - ramp.min()) / max(float(np.ptp(ramp)), 1e-6)
        weight = ramp[..., None]
    elif kind == "noise":
        weight = smooth_noise(rng, height=height, width=width, cells=int(rng.integers(2, 8)))
        # Two very different tones would look like further objects.
        second = first + (second - first) * np.float32(rng.uniform(0.25, 0.8))
    else:
        raise ValueError(f"kind must be one of {BACKGROUNDS}, got {kind!r}")
    return first + (second - first) * weight


def pan_image(image: Array, shifts: NDArray[np.float64], *, height: int, width: int) -> Array:
    """Crop an image with a moving window.

    Args:
        image: Image (H, W, 3), larger than the window by the largest shift and one pixel.
        shifts: Top left corners (N, 2) of the window as (x, y) in pixels, not negative.
        height: Height of the window.
        width: Width of the window.

    Returns:
        Frames (N, height, width, 3).
    """
    frames = np.empty((len(shifts), height, width, 3), np.float32)
    for index, (x, y) in enumerate(shifts):
        left, top = int(x), int(y)
        fx, fy = np.float32(x - left), np.float32(y - top)
        window = image[top : top + height + 1, left : left + width + 1]
        if fx == 0 and fy == 0:
            frames[index] = window[:height, :width]
            continue
        rows = window[:height] * (1 - fy) + window[1 : height + 1] * fy
        frames[index] = rows[:, :width] * (1 - fx) + rows[:, 1 : width + 1] * fx
    return frames
