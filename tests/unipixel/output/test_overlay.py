"""Labels of objects at the upper edge of a frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unipixel.output.overlay import draw_overlay
from unipixel.tracking.types import ObjectMask


def drawn_pixels(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which pixels the contour and the label of an object change on a black frame."""
    frame = np.zeros((*mask.shape, 3), dtype=np.uint8)
    return np.asarray(draw_overlay(frame, {1: ObjectMask(mask, 1.0, True)}, opacity=0.0).any(axis=-1))


def test_label_of_a_small_object_at_the_upper_edge_is_below_it() -> None:
    mask = np.zeros((360, 640), dtype=bool)
    mask[0:12, 300:312] = True
    drawn = drawn_pixels(mask)
    assert not drawn[:12][~mask[:12]].any(), "nothing beside the object"
    assert drawn[14:34, 290:322].mean() > 0.5
    assert not drawn[40:].any()


def test_label_of_a_large_object_at_the_upper_edge_is_inside_it() -> None:
    mask = np.zeros((360, 640), dtype=bool)
    mask[0:300, 100:600] = True
    drawn = drawn_pixels(mask)
    assert drawn[4:14, 340:360].mean() > 0.5
    assert not drawn[40:290, 110:590].any()
    assert not drawn[300:].any()
