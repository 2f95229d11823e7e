"""Drawing of objects on a frame: fill, contour, label and prompts.

Line widths and sizes are proportional to the diagonal of the frame, so that overlays are similar at every resolution.
"""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from unipixel.memory.rle import mask_box
from unipixel.tracking.types import ObjectMask

# Seven colours that colour-blind people can distinguish (Okabe and Ito, 2008, without black), ordered
# so that the first few also differ in lightness.
_COLORS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
)
_LABELS_IN_OBJECT = 3  # an object at the top of the frame contains its label if it is so many labels high
_SUPERSAMPLING = 4  # tiles are drawn at this multiple of their size and scaled down, for smooth edges


@dataclass(frozen=True, slots=True)
class PromptMark:
    """A click or box of the user, in pixels of the original frame.

    Attributes:
        object_id: Id of the object.
        frame_index: The prompted frame.
        point_xy: Position of a click.
        box_xyxy: Left, top, right and bottom of a box.
        is_positive: False for a click outside the object.
    """

    object_id: int
    frame_index: int
    point_xy: tuple[float, float] | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    is_positive: bool = True

    def __post_init__(self) -> None:
        if (self.point_xy is None) == (self.box_xyxy is None):
            raise ValueError(f"object {self.object_id}: a mark needs either a point or a box")


def object_color(object_id: int) -> tuple[int, int, int]:
    """Return the RGB colour of an object, which depends on its id only.

    Ids 1 to 7 have the seven base colours, the next 7 ids lighter and the following 7 darker ones.
    """
    cycle, position = divmod(max(object_id, 1) - 1, len(_COLORS))
    hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in _COLORS[position]))
    lightness = (lightness, 0.5 + lightness / 2, lightness * 0.6)[cycle % 3]
    red, green, blue = (round(255 * value) for value in colorsys.hls_to_rgb(hue, lightness, saturation))
    return red, green, blue


def draw_overlay(
    image: NDArray[np.uint8],
    objects: Mapping[int, ObjectMask],
    *,
    prompts: Sequence[PromptMark] = (),
    opacity: float = 0.45,
) -> NDArray[np.uint8]:
    """Return a copy of a frame with its objects and prompts drawn on it.

    Lower ids are drawn over higher ones. Labels are drawn last and moved so that they do not overlap.

    Args:
        image: uint8 array (H, W, 3), RGB.
        objects: Masks of the frame's size by object id; invisible and empty ones are not drawn.
        prompts: Marks to draw on this frame.
        opacity: Opacity of the fill, 0 to 1.

    Raises:
        ValueError: A mask's size differs from the frame's.
    """
    canvas = image.copy()
    stroke = max(1, round(math.hypot(*image.shape[:2]) / 600))
    boxes: dict[int, tuple[int, int, int, int]] = {}
    for object_id in sorted(objects, reverse=True):
        mask = np.asarray(objects[object_id].mask, dtype=bool)
        if mask.shape != image.shape[:2]:
            raise ValueError(f"object {object_id}: the mask has {mask.shape}, the frame {image.shape[:2]}")
        box = mask_box(mask) if objects[object_id].visible else None
        if box is not None:
            boxes[object_id] = box
            _draw_mask(canvas, mask, box, object_color(object_id), stroke=stroke, opacity=opacity)
    for prompt in prompts:
        _draw_prompt(canvas, prompt, stroke=stroke)
    taken: list[tuple[int, int, int, int]] = []
    for object_id in sorted(boxes):
        _draw_label(canvas, object_id, objects[object_id].mask, boxes[object_id], taken)
    return canvas


def _draw_mask(
    canvas: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    box: tuple[int, int, int, int],
    color: tuple[int, int, int],
    *,
    stroke: int,
    opacity: float,
) -> None:
    """Draw fill and contour of a mask; the contour is inside, so that adjacent objects do not cover it."""
    left, top, right, bottom = box
    part = canvas[top:bottom, left:right]
    inside = mask[top:bottom, left:right]
    # Outside the frame counts as object, so that there is no contour along the edge of the frame.
    edges = ((top > 0, bottom < mask.shape[0]), (left > 0, right < mask.shape[1]))
    contour = inside & ~_erode(inside, stroke + 1, edges)
    fill = part[inside].astype(np.uint16)
    weight = round(256 * opacity)
    part[inside] = (fill * (256 - weight) + np.array(color, np.uint16) * weight) >> 8
    part[contour] = color
    # A dark line within the coloured one keeps it visible on a background of the same colour.
    inner = contour & _erode(inside, stroke, edges)
    part[inner] = np.array(color, np.uint16) * 2 // 5


def _erode(
    mask: NDArray[np.bool_], radius: int, has_outside: tuple[tuple[bool, bool], tuple[bool, bool]]
) -> NDArray[np.bool_]:
    """Erode a mask by a diamond of `radius` pixels, on the sides (per axis) that `has_outside` marks."""
    padded = np.ones(tuple(length + 2 for length in mask.shape), dtype=bool)
    padded[1:-1, 1:-1] = mask
    for axis, sides in enumerate(has_outside):
        for end, is_outside in zip((0, -1), sides, strict=True):
            if is_outside:
                padded[(slice(None),) * axis + (end,)] = False
    for _ in range(radius):
        core = padded[1:-1, 1:-1]
        smaller = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
        padded[1:-1, 1:-1] = smaller
    return padded[1:-1, 1:-1]


def _draw_prompt(canvas: NDArray[np.uint8], prompt: PromptMark, *, stroke: int) -> None:
    color = object_color(prompt.object_id)
    if prompt.box_xyxy is not None:
        left, top, right, bottom = (round(value) for value in prompt.box_xyxy)
        for margin, shade in ((stroke + 1, (255, 255, 255)), (stroke, color)):
            for x in (left, right):
                _fill_rectangle(canvas, x - margin, top - margin, x + margin, bottom + margin, shade)
            for y in (top, bottom):
                _fill_rectangle(canvas, left - margin, y - margin, right + margin, y + margin, shade)
    elif prompt.point_xy is not None:
        tile = _point_tile(color, 4 * stroke + 2, prompt.is_positive)
        x, y = (round(value) - tile.shape[0] // 2 for value in prompt.point_xy)
        _paste(canvas, tile, x, y)


def _fill_rectangle(
    canvas: NDArray[np.uint8], left: int, top: int, right: int, bottom: int, color: tuple[int, int, int]
) -> None:
    canvas[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = color


def _draw_label(
    canvas: NDArray[np.uint8],
    object_id: int,
    mask: NDArray[np.bool_],
    box: tuple[int, int, int, int],
    taken: list[tuple[int, int, int, int]],
) -> None:
    """Draw a label above its object; at the top of the frame below a small one, inside a large one; below others."""
    height, width = canvas.shape[:2]
    size = max(11, round(math.hypot(height, width) / 52))
    tile = _label_tile(f"[{object_id}]", object_color(object_id), size)
    tall, wide = tile.shape[:2]
    # The median column, so that a thin part of the object does not move the label.
    cumulative = np.cumsum(np.count_nonzero(mask[:, box[0] : box[2]], axis=0))
    middle = box[0] + int(np.searchsorted(cumulative, cumulative[-1] / 2))
    left = min(max(middle - wide // 2, 0), max(width - wide, 0))
    # These columns may be empty (an object of two parts): then the label is above the box.
    under = mask[box[1] : box[3], left : left + wide].any(axis=1)
    upper = box[1] + int(np.argmax(under))
    top = upper - tall - 2
    if top < 0:
        # A label would cover most of a small object.
        is_small = box[3] - box[1] < _LABELS_IN_OBJECT * tall or box[2] - box[0] < wide
        top = box[3] + 2 if is_small and box[3] + 2 + tall <= height else upper + 2
        top = min(top, max(height - tall, 0))
    # One step per label is enough to find a free position, if there is one.
    for _ in taken:
        for other in taken:
            if left < other[2] and other[0] < left + wide and top < other[3] and other[1] < top + tall:
                top = other[3] + 1
    top = min(top, max(height - tall, 0))
    taken.append((left, top, left + wide, top + tall))
    _paste(canvas, tile, left, top)


@functools.lru_cache(maxsize=256)
def _label_tile(text: str, color: tuple[int, int, int], size: int) -> NDArray[np.uint8]:
    """Draw text on a rounded rectangle as RGBA (H, W, 4), dark on light colours and light on dark ones."""
    font = ImageFont.load_default(size * _SUPERSAMPLING)
    left, top, right, bottom = font.getbbox(text)
    pad = size * _SUPERSAMPLING // 4
    shape = (math.ceil(right - left) + 3 * pad, math.ceil(bottom - top) + 2 * pad)
    tile = Image.new("RGBA", shape, (*color, 0))
    draw = ImageDraw.Draw(tile)
    draw.rounded_rectangle((0, 0, shape[0] - 1, shape[1] - 1), radius=2 * pad, fill=(*color, 255))
    luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
    ink = (20, 20, 20, 255) if luminance > 120 else (255, 255, 255, 255)
    draw.text((1.5 * pad - left, pad - top), text, font=font, fill=ink)
    return _downsample(tile)


@functools.lru_cache(maxsize=256)
def _point_tile(color: tuple[int, int, int], radius: int, is_positive: bool) -> NDArray[np.uint8]:
    """Draw a click as RGBA (H, W, 4): a disc with a white ring and a plus or minus sign."""
    outer, ring, bar = radius * _SUPERSAMPLING, radius * _SUPERSAMPLING // 4, max(1, radius * _SUPERSAMPLING // 7)
    tile = Image.new("RGBA", (2 * outer, 2 * outer), (255, 255, 255, 0))
    draw = ImageDraw.Draw(tile)
    draw.ellipse((0, 0, 2 * outer - 1, 2 * outer - 1), fill=(255, 255, 255, 255))
    draw.ellipse((ring, ring, 2 * outer - 1 - ring, 2 * outer - 1 - ring), fill=(*color, 255))
    arm = outer // 2
    draw.rectangle((outer - arm, outer - bar, outer + arm, outer + bar), fill=(255, 255, 255, 255))
    if is_positive:
        draw.rectangle((outer - bar, outer - arm, outer + bar, outer + arm), fill=(255, 255, 255, 255))
    return _downsample(tile)


def _downsample(tile: Image.Image) -> NDArray[np.uint8]:
    size = (max(1, tile.width // _SUPERSAMPLING), max(1, tile.height // _SUPERSAMPLING))
    return np.asarray(tile.resize(size, Image.Resampling.LANCZOS))


def _paste(canvas: NDArray[np.uint8], tile: NDArray[np.uint8], left: int, top: int) -> None:
    """Blend an RGBA tile into the canvas; parts outside the frame are cropped."""
    height, width = canvas.shape[:2]
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + tile.shape[1], width), min(top + tile.shape[0], height)
    if x1 >= x2 or y1 >= y2:
        return
    piece = tile[y1 - top : y2 - top, x1 - left : x2 - left].astype(np.uint16)
    background = canvas[y1:y2, x1:x2].astype(np.uint16)
    alpha = piece[:, :, 3:]
    canvas[y1:y2, x1:x2] = (piece[:, :, :3] * alpha + background * (255 - alpha) + 127) // 255
