"""Scenes rasterized in sampled frames, with their labels, ready to be rendered and described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unipixel.train.datasets.synthetic.attributes import Split
from unipixel.train.datasets.synthetic.drawing.occlusion import (
    Layer,
    Visibility,
    compute_visibility,
    rasterize_object,
)
from unipixel.train.datasets.synthetic.drawing.rendering import (
    apply_camera_effects,
    composite_layer,
    render_background,
    sample_materials,
)
from unipixel.train.datasets.synthetic.labels import SceneLabels, label_scene
from unipixel.train.datasets.synthetic.scene import Scene, sample_scene

MIN_SIDE = 32
"""Shortest side of a frame in pixels."""


@dataclass(frozen=True)
class RasterizedScene:
    """A scene in N frames of a given size.

    Attributes:
        scene: Its contents.
        labels: Its ground truth.
        layers: Coverage of each object; empty where it is no longer needed.
        view: Visible masks and areas.
        indices: Indices (N,) of the frames in the full clip.
        times: Times (N,) of the frames, 0 to 1.
        height: Height in pixels.
        width: Width in pixels.
    """

    scene: Scene
    labels: SceneLabels
    layers: Sequence[Layer]
    view: Visibility
    indices: NDArray[np.int64]
    times: NDArray[np.float64]
    height: int
    width: int

    @classmethod
    def sample(
        cls,
        rng: np.random.Generator,
        *,
        split: Split,
        render_size: tuple[int, int] | int | None,
        num_frames: int | None,
        interaction_rate: float,
        event_rate: float,
        is_part: bool = False,
    ) -> RasterizedScene | None:
        """Sample a scene; None where an object is visible in fewer than three frames.

        Args:
            rng: Source of randomness.
            split: Decides which combinations may be shown.
            render_size: As for `sample_frame_size`.
            num_frames: Number N of frames; None for all.
            interaction_rate: As for `sample_scene`.
            event_rate: As for `sample_scene`.
            is_part: Whether the frames are those of a random part of the clip, with a random stride.
        """
        height, width = sample_frame_size(rng, render_size)
        shorter = min(height, width)
        scene = sample_scene(
            rng,
            split=split,
            frame=(width / shorter, height / shorter),
            interaction_rate=interaction_rate,
            event_rate=event_rate,
        )
        indices = sample_frame_indices(scene.num_frames, num_frames, part_rng=rng if is_part else None)
        times = indices / (scene.num_frames - 1)
        layers = [rasterize_object(obj, times, pixels_per_unit=shorter) for obj in scene.objects]
        view = compute_visibility(layers, num_frames=len(indices), height=height, width=width)
        labels = label_scene(scene, view, times, shorter=shorter)
        if (labels.is_visible.sum(axis=1) < min(3, len(indices))).any():
            return None
        return cls(scene, labels, layers, view, indices, times, height, width)

    def render(self, rng: np.random.Generator, *, split: Split) -> NDArray[np.uint8]:
        """Render the frames (N, H, W, 3).

        Args:
            rng: Source of randomness.
            split: Decides which photographs may be shown.
        """
        materials = sample_materials(rng, self.scene, self.layers)
        frames = render_background(
            rng,
            split=split,
            times=self.times,
            height=self.height,
            width=self.width,
            avoid=np.array([material.base for material in materials]),
        )
        for layer, material in zip(self.layers, materials, strict=True):
            composite_layer(frames, layer, material)
        return apply_camera_effects(rng, frames)


def sample_frame_size(rng: np.random.Generator, render_size: tuple[int, int] | int | None) -> tuple[int, int]:
    """Choose the height and width of a clip.

    Args:
        rng: Source of randomness.
        render_size: (height, width); the length of the shorter side, for a random aspect ratio; or None for a random
            size from 128 to 640 pixels.

    Returns:
        Height and width in pixels.

    Raises:
        ValueError: A side is shorter than `MIN_SIDE`.
    """
    if isinstance(render_size, tuple):
        height, width = render_size
    else:
        aspect = float(np.exp(rng.uniform(-1, 1) * np.log(16 / 9))) if rng.random() < 0.7 else 1.0
        if render_size is None:
            longest = int(640 / max(aspect, 1 / aspect))
            shorter = int(rng.integers(128, longest + 1))
        else:
            shorter = render_size
        height = shorter if aspect >= 1 else round(shorter / aspect)
        width = round(shorter * aspect) if aspect >= 1 else shorter
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"a frame must have at least {MIN_SIDE} x {MIN_SIDE} pixels, got {height} x {width}")
    return height, width


def sample_frame_indices(
    num_source: int, num_frames: int | None, *, part_rng: np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Choose evenly spaced frames.

    Args:
        num_source: Frames of the full clip.
        num_frames: Number N of frames, or None for all.
        part_rng: Chooses a part of the clip and a stride; without it the first and the last frame are included.

    Returns:
        Increasing indices (N,); all frames where the clip has no more than `num_frames`.
    """
    if num_frames is None or num_frames >= num_source:
        return np.arange(num_source)
    if part_rng is not None:
        stride = int(part_rng.integers(1, max(1, (num_source - 1) // max(num_frames - 1, 1)) + 1))
        return int(part_rng.integers(num_source - stride * (num_frames - 1))) + stride * np.arange(num_frames)
    if num_frames == 1:
        return np.array([num_source // 2])
    return np.round(np.arange(num_frames) * (num_source - 1) / (num_frames - 1)).astype(np.int64)
