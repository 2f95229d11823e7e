"""Where every object lies in the chosen frames: coverage, visible masks, who hides whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.world.scene import WorldObject
from unipixel.train.datasets.world.shapes import REACH, signed_distance

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One object in N frames, restricted to a patch that moves with it.

    Attributes:
        origins: Top left pixel (N, 2) of the patch as (x, y); may lie outside the frame.
        coverage: Share of each pixel that the object covers (N, h, w), 0 to 1.
        x: Horizontal coordinates in the object's own axes (N, h, w), in units of its extent.
        y: Vertical coordinates (N, h, w).
        extent_pixels: Extent in pixels (N,).
    """

    origins: NDArray[np.int64]
    coverage: Array
    x: Array
    y: Array
    extent_pixels: NDArray[np.float64]


@dataclass(frozen=True)
class Visibility:
    """What is seen of O objects in N frames of H x W pixels.

    Attributes:
        masks: Visible parts (O, N, H, W).
        whole_area: Pixels each object covers including hidden parts and parts outside the frame (O, N).
        frame_area: Pixels each object covers inside the frame, hidden or not (O, N).
        visible_area: Pixels of the visible part (O, N).
        hidden_by: Pixels of the first object that the second hides (O, O, N).
        touching: Whether the areas of two objects meet or overlap inside the frame (O, O, N).
    """

    masks: NDArray[np.bool_]
    whole_area: NDArray[np.int64]
    frame_area: NDArray[np.int64]
    visible_area: NDArray[np.int64]
    hidden_by: NDArray[np.int64]
    touching: NDArray[np.bool_]


@dataclass(frozen=True)
class Pose:
    """State of an object at N moments: centres (N, 2), extents (N,), angles (N,), exists (N,)."""

    centres: NDArray[np.float64]
    extents: NDArray[np.float64]
    angles: NDArray[np.float64]
    exists: NDArray[np.bool_]


def pose(obj: WorldObject, moments: NDArray[np.float64]) -> Pose:
    """Interpolate an object's trajectory.

    Args:
        obj: Object of a scene.
        moments: Moments (N,), 0 to 1.

    Returns:
        Its state at these moments, lengths in units of the frame's shorter side.
    """
    path = obj.trajectory
    known = np.linspace(0, 1, len(path.extents))
    centres = np.stack([np.interp(moments, known, path.centres[:, axis]) for axis in range(2)], axis=1)
    return Pose(
        centres,
        np.interp(moments, known, path.extents),
        np.interp(moments, known, path.angles),
        moments >= obj.plan.appears,
    )


def patch_grid(
    state: Pose, *, reach: float, pixels_per_unit: float
) -> tuple[NDArray[np.int64], Array, Array, NDArray[np.float64]]:
    """Coordinates of a patch around an object, in the object's own axes.

    Args:
        state: Centres, extents and angles at N moments.
        reach: Farthest point of the object in units of its extent.
        pixels_per_unit: Pixels on the frame's shorter side.

    Returns:
        Origins (N, 2), x and y (N, h, w), extents in pixels (N,).
    """
    extents = state.extents * pixels_per_unit
    half = int(np.ceil(extents.max() * reach + 1.5))
    centres = state.centres * pixels_per_unit
    origins = np.floor(centres).astype(np.int64) - half
    steps = np.arange(2 * half + 1, dtype=np.float32) + np.float32(0.5)
    dx = (steps + (origins[:, :1] - centres[:, :1]).astype(np.float32)) / extents[:, None].astype(np.float32)
    dy = (steps + (origins[:, 1:] - centres[:, 1:]).astype(np.float32)) / extents[:, None].astype(np.float32)
    cosine = np.cos(state.angles).astype(np.float32)[:, None, None]
    sine = np.sin(state.angles).astype(np.float32)[:, None, None]
    dx, dy = dx[:, None, :], dy[:, :, None]
    return origins, dx * cosine + dy * sine, dy * cosine - dx * sine, extents


def draw_layer(obj: WorldObject, moments: NDArray[np.float64], *, pixels_per_unit: float) -> Layer:
    """Rasterise one object.

    Args:
        obj: Object of a scene.
        moments: Moments (N,), 0 to 1.
        pixels_per_unit: Pixels on the frame's shorter side.

    Returns:
        Its anti-aliased coverage in N frames.
    """
    state = pose(obj, moments)
    origins, x, y, extents = patch_grid(state, reach=REACH[obj.shape], pixels_per_unit=pixels_per_unit)
    scale = extents.astype(np.float32)[:, None, None]
    coverage = np.clip(np.float32(0.5) - signed_distance(obj.shape, x, y) * scale, 0, 1)
    coverage[~state.exists] = 0
    return Layer(origins, coverage, x, y, extents)


def window(
    origin: NDArray[np.int64], *, side: int, height: int, width: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Overlap of a square patch and the frame.

    Args:
        origin: Top left pixel of the patch as (x, y).
        side: Side of the patch.
        height: Height of the frame.
        width: Width of the frame.

    Returns:
        Row and column slices in the frame and in the patch, or None where they do not meet.
    """
    left, top = max(int(origin[0]), 0), max(int(origin[1]), 0)
    right, bottom = min(int(origin[0]) + side, width), min(int(origin[1]) + side, height)
    if left >= right or top >= bottom:
        return None
    rows, columns = top - int(origin[1]), left - int(origin[0])
    return (
        (slice(top, bottom), slice(left, right)),
        (slice(rows, rows + bottom - top), slice(columns, columns + right - left)),
    )


def visibility(layers: Sequence[Layer], *, num_frames: int, height: int, width: int) -> Visibility:
    """Work out who is seen where.

    Args:
        layers: Layers of O objects, the farthest first.
        num_frames: Number of frames N.
        height: Height in pixels.
        width: Width in pixels.

    Returns:
        Masks and areas.
    """
    count = len(layers)
    top = np.zeros((num_frames, height, width), np.int8)
    whole = np.zeros((count, num_frames, height, width), bool)
    grown = np.zeros((count, num_frames, height, width), bool)
    for number, layer in enumerate(layers):
        side = layer.coverage.shape[1]
        solid = layer.coverage >= 0.5
        wide = solid.copy()
        # A gap of one pixel still reads as contact.
        wide[:, 1:] |= solid[:, :-1]
        wide[:, :-1] |= solid[:, 1:]
        wide[:, :, 1:] |= solid[:, :, :-1]
        wide[:, :, :-1] |= solid[:, :, 1:]
        for index in range(num_frames):
            place = window(layer.origins[index], side=side, height=height, width=width)
            if place is None:
                continue
            (rows, columns), (patch_rows, patch_columns) = place
            part = solid[index, patch_rows, patch_columns]
            whole[number, index, rows, columns] = part
            grown[number, index, rows, columns] = wide[index, patch_rows, patch_columns]
            top[index, rows, columns][part] = number + 1
    masks = whole & (top[None] == np.arange(1, count + 1, dtype=np.int8)[:, None, None, None])
    hidden_by = np.zeros((count, count, num_frames), np.int64)
    touching = np.zeros((count, count, num_frames), bool)
    for number in range(count):
        frame_numbers, rows, columns = np.nonzero(whole[number])
        owner = top[frame_numbers, rows, columns].astype(np.int64)
        table = np.bincount(frame_numbers * (count + 1) + owner, minlength=num_frames * (count + 1))
        hidden_by[number] = table.reshape(num_frames, count + 1)[:, 1:].T
        hidden_by[number, number] = 0
        for other in range(number):
            meets = (grown[number] & grown[other]).any(axis=(1, 2))
            touching[number, other] = touching[other, number] = meets
    return Visibility(
        masks=masks,
        whole_area=np.stack([(layer.coverage >= 0.5).sum(axis=(1, 2)) for layer in layers]),
        frame_area=whole.sum(axis=(2, 3)),
        visible_area=masks.sum(axis=(2, 3)),
        hidden_by=hidden_by,
        touching=touching,
    )
