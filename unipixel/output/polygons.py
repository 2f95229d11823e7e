"""Masks as polygons along the edges of their pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Right, down, left, up in (x, y): each boundary edge runs so that the object is on its right.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def outer_polygons(mask: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Return the outer contours (n, 2) of a mask as x, y of pixel corners, the largest first; holes are filled.

    The contours are exact: a pixel is inside where its centre is. Parts that touch at a corner only are separate.

    Args:
        mask: (H, W).
    """
    # Imported here, because scipy takes long to import and few commands write polygons.
    from scipy.ndimage import binary_fill_holes

    # Without holes, every boundary is an outer contour, and none is within another.
    filled = binary_fill_holes(mask, structure=np.ones((3, 3)))
    return sorted((_without_collinear(loop) for loop in _trace(_boundary_edges(filled))), key=_area, reverse=True)


def join_polygons(polygons: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Join polygons to one by lines between their nearest corners, that are passed in both directions.

    Formats with one polygon per object store objects of several parts in this way.

    Args:
        polygons: At least one.
    """
    joined = polygons[0]
    for polygon in polygons[1:]:
        distances = ((joined[:, None].astype(np.float64) - polygon[None]) ** 2).sum(axis=-1)
        start, end = np.unravel_index(int(distances.argmin()), distances.shape)
        detour = np.concatenate([polygon[end:], polygon[: end + 1]])
        joined = np.concatenate([joined[: start + 1], detour, joined[start:]])
    return joined


def _boundary_edges(mask: NDArray[np.bool_]) -> dict[tuple[int, int], list[int]]:
    """Return the directions of the boundary edges that start at each pixel corner."""
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    inside = padded[1:-1, 1:-1]
    edges: dict[tuple[int, int], list[int]] = {}
    # Neighbour above, right, below, left of a pixel; the corner where its edge starts; the direction of the edge.
    sides = (
        (padded[:-2, 1:-1], (0, 0), 0),
        (padded[1:-1, 2:], (1, 0), 1),
        (padded[2:, 1:-1], (1, 1), 2),
        (padded[1:-1, :-2], (0, 1), 3),
    )
    for neighbour, (dx, dy), direction in sides:
        rows, columns = np.nonzero(inside & ~neighbour)
        for x, y in zip((columns + dx).tolist(), (rows + dy).tolist(), strict=True):
            edges.setdefault((x, y), []).append(direction)
    return edges


def _trace(edges: dict[tuple[int, int], list[int]]) -> list[NDArray[np.int64]]:
    """Link edges to closed loops of corners."""
    loops = []
    while edges:
        start = next(iter(edges))
        corner, direction = start, edges[start][0]
        loop = []
        while corner in edges:
            options = edges[corner]
            # Where two pixels touch at a corner, a right turn keeps them separate.
            turned = (direction + 1) % 4
            direction = turned if turned in options else options[0]
            options.remove(direction)
            if not options:
                del edges[corner]
            loop.append(corner)
            step = _STEPS[direction]
            corner = (corner[0] + step[0], corner[1] + step[1])
            if corner == start:
                break
        loops.append(np.array(loop, dtype=np.int64))
    return loops


def _without_collinear(loop: NDArray[np.int64]) -> NDArray[np.int64]:
    before, after = loop - np.roll(loop, 1, axis=0), np.roll(loop, -1, axis=0) - loop
    return loop[(before != after).any(axis=1)]


def _area(loop: NDArray[np.int64]) -> float:
    x, y = loop[:, 0], loop[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
