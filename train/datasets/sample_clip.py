"""The bundled sample clip: four synthetic objects in four seconds.

    python -m unipixel.train.datasets.sample_clip [FILE.mp4]

All positions are constants, so that the clip is the same on every machine; the bytes of the file also depend on the
version of x264.
"""

from __future__ import annotations

import argparse
import colorsys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unipixel.assets import sample_path
from unipixel.train.datasets.samples import Clip
from unipixel.train.datasets.synthetic.attributes import COLOUR_RANGES
from unipixel.train.datasets.synthetic.drawing.backgrounds import smooth_noise
from unipixel.train.datasets.synthetic.drawing.occlusion import compute_visibility, rasterize_object
from unipixel.train.datasets.synthetic.drawing.rendering import composite_layer
from unipixel.train.datasets.synthetic.drawing.textures import Material
from unipixel.train.datasets.synthetic.motion import MotionPlan, Trajectory
from unipixel.train.datasets.synthetic.scene import NUM_TIMES, Scene, SceneObject

WIDTH, HEIGHT, FPS, NUM_FRAMES = 320, 240, 20, 80
CRF = 20
"""Quality of x264, at which masks match the pixels of outlines in a tenth of the allowed 300 kB."""

_TOP_COLOUR, _BOTTOM_COLOUR = (0.80, 0.78, 0.82), (0.58, 0.60, 0.67)


def sample_scene() -> Scene:
    """Return the contents of the clip, the farthest object first.

    A striped red star moves right; a blue circle starts behind it and overtakes it. A large green square is still, and
    a spotted yellow heart moves up behind it.
    """
    objects = (
        _object("heart yellow spotted", 0.17, MotionPlan("line", "up"), start=(1.06, 0.88), end=(1.09, 0.12)),
        _object("square green plain", 0.29, MotionPlan("still"), start=(1.08, 0.47), end=(1.08, 0.47)),
        _object("star red striped", 0.2, MotionPlan("line", "right"), start=(0.27, 0.36), end=(0.62, 0.35)),
        _object("circle blue plain", 0.15, MotionPlan("line", "right"), start=(0.11, 0.55), end=(0.8, 0.57)),
    )
    return Scene((WIDTH / HEIGHT, 1.0), objects, NUM_FRAMES, float(FPS))


def sample_clip() -> Clip:
    """Render the clip; objects 1 to 4 are star, circle, square and heart."""
    scene = sample_scene()
    times = np.linspace(0, 1, scene.num_frames)
    layers = [rasterize_object(obj, times, pixels_per_unit=HEIGHT) for obj in scene.objects]
    view = compute_visibility(layers, num_frames=scene.num_frames, height=HEIGHT, width=WIDTH)
    frames = np.repeat(_background()[None], scene.num_frames, axis=0)
    for layer, obj in zip(layers, scene.objects, strict=True):
        composite_layer(frames, layer, _material(obj))
    return Clip(
        frames=(np.clip(frames, 0, 1) * 255 + 0.5).astype(np.uint8),
        masks=view.masks,
        object_ids=(4, 3, 1, 2),
        frame_indices=tuple(range(scene.num_frames)),
        timestamps_seconds=tuple(index / scene.fps for index in range(scene.num_frames)),
        num_source_frames=scene.num_frames,
        fps=scene.fps,
    )


def write_sample(path: Path) -> None:
    """Write the clip as an MP4 file.

    Raises:
        OSError: The file cannot be written.
    """
    from unipixel.output.writers import OverlayVideoWriter
    from unipixel.video.frame import Frame

    clip = sample_clip()
    with OverlayVideoWriter(path, fps=clip.fps, crf=CRF) as writer:
        for index, (image, seconds) in enumerate(zip(clip.frames, clip.timestamps_seconds, strict=True)):
            writer.write(Frame(index, seconds, image), {})


def main() -> None:
    """Write the clip to a file, by default to the package's assets."""
    parser = argparse.ArgumentParser(description="Write the bundled sample clip.")
    parser.add_argument("path", type=Path, nargs="?", default=sample_path(), help="file to write")
    path = parser.parse_args().path
    write_sample(path)
    print(f"{path}: {path.stat().st_size} bytes")


def _object(
    words: str, extent: float, plan: MotionPlan, *, start: tuple[float, float], end: tuple[float, float]
) -> SceneObject:
    shape, colour, texture = words.split()
    steps = np.linspace(0, 1, NUM_TIMES)[:, None]
    centres = np.array(start) * (1 - steps) + np.array(end) * steps
    is_present = np.ones(NUM_TIMES, bool)
    path = Trajectory(centres, np.full(NUM_TIMES, extent), np.zeros(NUM_TIMES), is_present, None)
    return SceneObject(shape, colour, texture, extent, plan, path)


def _material(obj: SceneObject) -> Material:
    """Return a material in the middle of the colour's range, with darker stripes and spots."""
    limits = COLOUR_RANGES[obj.colour]
    hue, saturation, value = (sum(ends) / 2 for ends in (limits.hue, limits.saturation, limits.value))
    base = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    red, green, blue = (0.42 * channel for channel in base)
    return Material(
        texture=obj.texture,
        base=base,
        second=(red, green, blue),
        period=0.3,
        duty=0.38,
        phase=(0.0, 0.35),
        pattern_angle=0.6,
        outline=None,
        shading=0.15,
    )


def _background() -> NDArray[np.float32]:
    """Return a smooth background (H, W, 3), 0 to 1, darker towards the bottom."""
    clouds = smooth_noise(np.random.default_rng(3), height=HEIGHT, width=WIDTH, cells=3)
    ramp = np.linspace(0, 1, HEIGHT, dtype=np.float32)[:, None, None]
    weight = 0.65 * ramp + 0.35 * clouds
    low, high = np.asarray(_TOP_COLOUR, np.float32), np.asarray(_BOTTOM_COLOUR, np.float32)
    return np.asarray(low + (high - low) * weight, np.float32)


if __name__ == "__main__":
    main()
