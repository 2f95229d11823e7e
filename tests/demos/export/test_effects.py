"""Effects, on drawn images whose masks are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unipixel.demos.errors import DownloadError
from unipixel.demos.export.effects import EffectSettings, apply_effects
from unipixel.tracking.types import ObjectMask

HEIGHT, WIDTH = 60, 80
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
LEFT, RIGHT = (np.zeros((HEIGHT, WIDTH), dtype=bool) for _ in range(2))
LEFT[10:40, 5:30] = True
RIGHT[20:50, 45:75] = True
OBJECTS = {1: ObjectMask(LEFT, 1.0, True), 2: ObjectMask(RIGHT, 1.0, True)}


def test_without_effects_nothing_changes() -> None:
    assert np.array_equal(apply_effects(IMAGE, OBJECTS, EffectSettings()), IMAGE)


@pytest.mark.parametrize("effect", ["blur", "pixelate", "darken", "greyscale"])
def test_effect_on_the_background_changes_only_the_background(effect: Any) -> None:
    result = apply_effects(IMAGE, OBJECTS, EffectSettings(background=effect))
    inside = LEFT | RIGHT
    assert np.array_equal(result[inside], IMAGE[inside])
    assert (result[~inside] != IMAGE[~inside]).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("effect", ["blur", "pixelate", "color", "outline"])
def test_effect_on_one_object_changes_only_that_object(effect: Any) -> None:
    # A label is drawn beside a coloured object.
    shown = IMAGE if effect in ("blur", "pixelate") else None
    result = apply_effects(IMAGE, OBJECTS, EffectSettings(objects={1: effect}))
    assert (result[LEFT] != IMAGE[LEFT]).any()
    assert np.array_equal(result[RIGHT], IMAGE[RIGHT])
    if shown is not None:
        assert np.array_equal(result[~LEFT], shown[~LEFT])


def test_values_of_each_effect_are_as_defined() -> None:
    darkened = apply_effects(IMAGE, {}, EffectSettings(background="darken"))
    assert np.array_equal(darkened, (IMAGE * np.float32(0.3)).astype(np.uint8))
    grey = apply_effects(IMAGE, {}, EffectSettings(background="greyscale")).astype(int)
    assert (grey[..., 0] == grey[..., 1]).all()
    luma = IMAGE @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey[..., 0] - luma).max() <= 1
    blocks = apply_effects(IMAGE, {}, EffectSettings(background="pixelate"))
    assert len(np.unique(blocks.reshape(-1, 3), axis=0)) <= (HEIGHT // 2) * (WIDTH // 2)
    blurred = apply_effects(IMAGE, {}, EffectSettings(background="blur"))
    assert blurred.std() < 0.6 * IMAGE.std()


def test_hidden_object_is_background() -> None:
    result = apply_effects(IMAGE, OBJECTS, EffectSettings(background="darken", objects={2: "hide"}))
    assert np.array_equal(result[LEFT], IMAGE[LEFT])
    assert np.array_equal(result[RIGHT], (IMAGE[RIGHT] * np.float32(0.3)).astype(np.uint8))


def test_transparent_background_has_the_masks_as_alpha() -> None:
    result = apply_effects(IMAGE, OBJECTS, EffectSettings(background="transparent"))
    assert result.shape == (HEIGHT, WIDTH, 4)
    assert np.array_equal(result[..., 3] == 255, LEFT | RIGHT)
    assert np.array_equal(result[..., :3], IMAGE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"background": "swirl"}, "effect on the background must be one of keep, blur, .*, got 'swirl'"),
        ({"objects": {1: "darken"}}, "effect on an object must be one of keep, color, .*, got 'darken'"),
        ({"default": None}, "effect on an object must be one of"),
    ],
)
def test_unknown_effect_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        EffectSettings(**values)
