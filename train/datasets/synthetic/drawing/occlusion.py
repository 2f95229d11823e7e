"""Coverage, visible masks and occlusion of all objects in the sampled frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.synthetic.drawing.shapes import REACH, signed_distance
from unipixel.train.datasets.synthetic.scene import SceneObject

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One object in N frames, within a patch that moves with it.

    Attributes:
        origins: Top left pixel (N, 2) of the patch as (x, y); may lie outside the frame.
        coverage: Fraction of each pixel that the object covers (N, h, w), 0 to 1.
        x: Horizontal coordinates in the object's axes (N, h, w), in units of its extent.
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
    """Visible and occluded parts of O objects in N frames of H x W pixels.

    Attributes:
        masks: Visible parts (O, N, H, W).
        whole_area: Pixels of each object including occluded parts and parts outside the frame (O, N).
        frame_area: Pixels of each object inside the frame, occluded or not (O, N).
        visible_area: Pixels of the visible part (O, N).
        hidden_by: Pixels of the first object that the second occludes (O, O, N).
        touching: Whether two objects touch or overlap inside the frame (O, O, N).
    """

    masks: NDArray[np.bool_]
    whole_area: NDArray[np.int64]
    frame_area: NDArray[np.int64]
    visible_area: NDArray[np.int64]
    hidden_by: NDArray[np.int64]
    touching: NDArray[np.bool_]


@dataclass(frozen=True)
class Pose:
    """State of an object at N times: centres (N, 2), extents (N,), angles (N,), is_present (N,)."""

    centres: NDArray[np.float64]
    extents: NDArray[np.float64]
    angles: NDArray[np.float64]
    is_present: NDArray[np.bool_]


def pose_at(obj: SceneObject, times: NDArray[np.float64]) -> Pose:
    """Interpolate an object's trajectory.

    Args:
        obj: Object of a scene.
        times: Times (N,), 0 to 1.

    Returns:
        Its state at these times, lengths in units of the frame's shorter side.
    """
    path = obj.trajectory
    known = np.linspace(0, 1, len(path.extents))
    centres = np.stack([np.interp(times, known, path.centres[:, axis]) for axis in range(2)], axis=1)
    return Pose(
        centres,
        np.interp(times, known, path.extents),
        np.interp(times, known, path.angles),
        times >= obj.plan.appear_time,
    )


def object_grid(
    state: Pose, *, reach: float, pixels_per_unit: float
) -> tuple[NDArray[np.int64], Array, Array, NDArray[np.float64]]:
    """Compute the coordinates of a patch around an object, in the object's axes.

    Args:
        state: State of the object at N times.
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
    x, y = dx * cosine + dy * sine, dy * cosine - dx * sine
    return origins, np.asarray(x, np.float32), np.asarray(y, np.float32), extents


def rasterize_object(obj: SceneObject, times: NDArray[np.float64], *, pixels_per_unit: float) -> Layer:
    """Rasterize one object.

    Args:
        obj: Object of a scene.
        times: Times (N,), 0 to 1.
        pixels_per_unit: Pixels on the frame's shorter side.

    Returns:
        Its anti-aliased coverage in N frames.
    """
    state = pose_at(obj, times)
    origins, x, y, extents = object_grid(state, reach=REACH[obj.shape], pixels_per_unit=pixels_per_unit)
    scale = extents.astype(np.float32)[:, None, None]
    coverage = np.clip(np.float32(0.5) - signed_distance(obj.shape, x, y) * scale, 0, 1)
    coverage[~state.is_present] = 0
    return Layer(origins, coverage, x, y, extents)


def patch_overlap(
    origin: NDArray[np.int64], *, side: int, height: int, width: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Intersect a square patch with the frame.

    Args:
        origin: Top left pixel of the patch as (x, y).
        side: Side of the patch.
        height: Height of the frame.
        width: Width of the frame.

    Returns:
        Row and column slices in the frame and in the patch, or None where they are disjoint.
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


def compute_visibility(layers: Sequence[Layer], *, num_frames: int, height: int, width: int) -> Visibility:
    """Compute visible masks, areas and occlusion.

    Args:
        layers: Layers of O objects, the farthest first.
        num_frames: Number of frames N.
        height: Height in pixels.
        width: Width in pixels.

    Returns:
        Masks, areas and contacts.
    """
    count = len(layers)
    top = np.zeros((num_frames, height, width), np.int8)
    overlaps = [
        [patch_overlap(origin, side=layer.coverage.shape[1], height=height, width=width) for origin in layer.origins]
        for layer in layers
    ]
    solids = [layer.coverage >= 0.5 for layer in layers]
    for number, solid in enumerate(solids):
        for index, overlap in enumerate(overlaps[number]):
            if overlap is not None:
                top[index][overlap[0]][solid[index][overlap[1]]] = number + 1
    hidden_by = np.zeros((count, count, num_frames), np.int64)
    frame_area = np.zeros((count, num_frames), np.int64)
    for number, solid in enumerate(solids):
        for index, overlap in enumerate(overlaps[number]):
            if overlap is not None:
                owners = np.bincount(top[index][overlap[0]][solid[index][overlap[1]]], minlength=count + 1)
                hidden_by[number, :, index] = owners[1:]
                frame_area[number, index] = owners.sum()
    visible_area = hidden_by[np.arange(count), np.arange(count)].copy()
    hidden_by[np.arange(count), np.arange(count)] = 0
    return Visibility(
        masks=top[None] == np.arange(1, count + 1, dtype=np.int8)[:, None, None, None],
        whole_area=np.stack([solid.sum(axis=(1, 2)) for solid in solids]),
        frame_area=frame_area,
        visible_area=visible_area,
        hidden_by=hidden_by,
        touching=_contacts(layers, solids, num_frames=num_frames, height=height, width=width),
    )


def _contacts(
    layers: Sequence[Layer],
    solids: Sequence[NDArray[np.bool_]],
    *,
    num_frames: int,
    height: int,
    width: int,
) -> NDArray[np.bool_]:
    """Return whether two objects touch or overlap inside the frame (O, O, N); a gap of one pixel counts as contact."""
    count = len(layers)
    touching = np.zeros((count, count, num_frames), bool)
    if count < 2:
        return touching
    sides = np.array([solid.shape[1] for solid in solids])
    origins = np.stack([layer.origins for layer in layers])
    for index in range(num_frames):
        low = origins[:, index]
        high = low + sides[:, None]
        near = (low[:, None] < high[None]).all(axis=-1) & (low[None] < high[:, None]).all(axis=-1)
        for one, two in np.argwhere(np.triu(near, 1)):
            area = np.zeros((2, height + 2, width + 2), bool)
            for layer_area, number in zip(area, (one, two), strict=True):
                overlap = patch_overlap(low[number], side=int(sides[number]), height=height, width=width)
                if overlap is not None:
                    layer_area[1:-1, 1:-1][overlap[0]] = solids[number][index][overlap[1]]
            wide = area[0, 1:-1, 1:-1] | area[0, :-2, 1:-1] | area[0, 2:, 1:-1] | area[0, 1:-1, :-2]
            wide |= area[0, 1:-1, 2:]
            near_other = area[1, 1:-1, 1:-1] | area[1, :-2, 1:-1] | area[1, 2:, 1:-1] | area[1, 1:-1, :-2]
            near_other |= area[1, 1:-1, 2:]
            touching[one, two, index] = touching[two, one, index] = bool((wide & near_other).any())
    return touching
