"""Effects on the background and on the objects of a frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from unipixel.demos.errors import DownloadError
from unipixel.output.overlay import draw_overlay
from unipixel.tracking.types import ObjectMask

BackgroundEffect = Literal["keep", "blur", "pixelate", "darken", "greyscale", "transparent"]
ObjectEffect = Literal["keep", "color", "outline", "blur", "pixelate", "hide"]
Pixels = NDArray[np.uint8]

_DARKENED = 0.3
# Relative to the longer side of the frame.
_BLUR_RADIUS = 1 / 60
_BLOCK_SIDE = 1 / 50


@dataclass(frozen=True)
class EffectSettings:
    """What becomes of the background and of each object.

    Attributes:
        background: Effect on everything outside the objects.
        objects: Effect on single objects by id; `hide` treats one as background.
        default: Effect on all other objects.
    """

    background: BackgroundEffect = "keep"
    objects: Mapping[int, ObjectEffect] = field(default_factory=dict)
    default: ObjectEffect = "keep"

    def __post_init__(self) -> None:
        _check(self.background, get_args(BackgroundEffect), "effect on the background")
        for effect in (self.default, *self.objects.values()):
            _check(effect, get_args(ObjectEffect), "effect on an object")

    @property
    def has_alpha(self) -> bool:
        """Whether the result is transparent outside the objects."""
        return self.background == "transparent"

    def effect_on(self, object_id: int) -> ObjectEffect:
        """Return the effect on an object."""
        return self.objects.get(object_id, self.default)


def apply_effects(image: Pixels, objects: Mapping[int, ObjectMask], settings: EffectSettings) -> Pixels:
    """Return a frame with effects.

    Where objects overlap, the lower id is in front.

    Args:
        image: uint8 (H, W, 3).
        objects: Masks (H, W) by object id.
        settings: The effects.

    Returns:
        uint8 (H, W, 3), or (H, W, 4) with alpha.
    """
    shown = {key: item for key, item in objects.items() if item.visible and settings.effect_on(key) != "hide"}
    union = np.zeros(image.shape[:2], dtype=bool)
    for item in shown.values():
        union |= item.mask
    result = image.copy()
    if settings.background not in ("keep", "transparent"):
        changed = _FILTERS[settings.background](image)
        result[~union] = changed[~union]
    for key in sorted(shown, reverse=True):
        effect, mask = settings.effect_on(key), shown[key].mask
        pixels = _FILTERS[effect](image) if effect in _FILTERS else image
        result[mask] = pixels[mask]
    for effect, opacity in (("color", 0.45), ("outline", 0.0)):
        drawn = {key: item for key, item in shown.items() if settings.effect_on(key) == effect}
        if drawn:
            result = draw_overlay(result, drawn, opacity=opacity)
    return np.dstack([result, union.astype(np.uint8) * 255]) if settings.has_alpha else result


def _blur(image: Pixels) -> Pixels:
    radius = max(image.shape[:2]) * _BLUR_RADIUS
    return np.asarray(Image.fromarray(image).filter(ImageFilter.BoxBlur(radius)).filter(ImageFilter.BoxBlur(radius)))


def _pixelate(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    side = max(2, round(max(height, width) * _BLOCK_SIDE))
    small = (max(1, width // side), max(1, height // side))
    source = Image.fromarray(image)
    return np.asarray(source.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.NEAREST))


def _darken(image: Pixels) -> Pixels:
    return (image * np.float32(_DARKENED)).astype(np.uint8)


def _greyscale(image: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


_FILTERS: dict[str, Callable[[Pixels], Pixels]] = {
    "blur": _blur,
    "pixelate": _pixelate,
    "darken": _darken,
    "greyscale": _greyscale,
}


def _check(value: Any, allowed: tuple[str, ...], what: str) -> None:
    if value not in allowed:
        raise DownloadError(f"the {what} must be one of {', '.join(allowed)}, got {value!r:.40}")
