"""A self-contained HTML page of samples: animated frames, mask outlines, questions and answers."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from unipixel.train.datasets.samples import Clip, PromptAnnotation, Sample

# Bright and far apart in hue; objects use them in turn.
OUTLINES = (
    (255, 64, 64),
    (64, 255, 64),
    (80, 140, 255),
    (255, 220, 40),
    (255, 80, 255),
    (40, 240, 240),
    (255, 150, 40),
    (255, 255, 255),
)
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 24px; background: #f4f4f2; color: #222; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); gap: 18px; }
article { background: #fff; border-radius: 8px; padding: 12px; box-shadow: 0 1px 4px #0002; }
img { width: 100%; border-radius: 4px; image-rendering: pixelated; }
h2 { font-size: 13px; color: #666; font-weight: 500; margin: 8px 0; }
p { margin: 6px 0; white-space: pre-line; }
.q { font-weight: 600; } .a { color: #05603a; } .legend span { padding: 0 5px; border-radius: 3px; margin-right: 4px; }
@media (prefers-color-scheme: dark) {
  body { background: #1c1c1e; color: #eee; } article { background: #2a2a2c; } .a { color: #7ddba8; }
}
"""


def draw_outlines(clip: Clip, *, scale: int = 1) -> NDArray[np.uint8]:
    """Return the frames with the outline of every mask.

    Args:
        clip: The clip.
        scale: Integer factor by which frames are enlarged, so that outlines stay thin.

    Returns:
        Frames (N, H * scale, W * scale, 3), uint8.

    Raises:
        ValueError: The scale is below 1.
    """
    if scale < 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    frames = clip.frames.repeat(scale, axis=1).repeat(scale, axis=2)
    for row, masks in enumerate(clip.masks):
        large = masks.repeat(scale, axis=1).repeat(scale, axis=2)
        inner = large.copy()
        inner[:, 1:] &= large[:, :-1]
        inner[:, :-1] &= large[:, 1:]
        inner[:, :, 1:] &= large[:, :, :-1]
        inner[:, :, :-1] &= large[:, :, 1:]
        frames[large & ~inner] = OUTLINES[row % len(OUTLINES)]
    return frames


def _draw_prompt(image: Image.Image, prompt: PromptAnnotation, colour: tuple[int, int, int], *, scale: int) -> None:
    drawing = ImageDraw.Draw(image)
    if prompt.point is not None:
        x, y = (value * scale for value in prompt.point)
        drawing.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour, outline=(0, 0, 0), width=2)
    if prompt.box_xyxy is not None:
        left, top, right, bottom = (value * scale for value in prompt.box_xyxy)
        drawing.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=2)


def animated_image(sample: Sample) -> str:
    """Encode a sample's frames, outlines and prompts as an animated WebP image.

    Args:
        sample: The sample.

    Returns:
        A `data:` URL for an `img` element.
    """
    clip = sample.clip
    scale = max(1, round(320 / max(clip.frames.shape[1:3])))
    images = [Image.fromarray(frame) for frame in draw_outlines(clip, scale=scale)]
    for object_id, prompt in sample.prompts.items():
        colour = OUTLINES[clip.object_ids.index(object_id) % len(OUTLINES)]
        _draw_prompt(images[prompt.frame], prompt, colour, scale=scale)
    # Sparse frames of a long clip would be too fast at their true rate.
    span = clip.timestamps_seconds[-1] - clip.timestamps_seconds[0]
    duration = int(np.clip(1000 * span / max(len(images) - 1, 1), 60, 350))
    buffer = io.BytesIO()
    images[0].save(
        buffer, format="WEBP", save_all=True, append_images=images[1:], duration=duration, loop=0, quality=82
    )
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _legend(sample: Sample) -> str:
    parts = []
    for row, object_id in enumerate(sample.clip.object_ids):
        name = f"[{object_id}]"
        if sample.scene is not None:
            obj = sample.scene.objects[row]
            name += f" {obj.texture} {obj.colour} {obj.shape}"
        if object_id in sample.prompts:
            prompt = sample.prompts[object_id]
            name += f", {prompt.kind} on frame {prompt.frame}"
        red, green, blue = OUTLINES[row % len(OUTLINES)]
        parts.append(f'<span style="background:rgb({red},{green},{blue});color:#000">{html.escape(name)}</span>')
    return f'<p class="legend">{" ".join(parts)}</p>'


def _article(sample: Sample) -> str:
    clip = sample.clip
    height, width = clip.frames.shape[1:3]
    head = (
        f"{sample.task} · seed {sample.seed} · {width} x {height} · {len(clip.frames)} of "
        f"{clip.num_source_frames} frames at {clip.fps:g} per second"
    )
    lines = []
    for turn in sample.turns:
        targets = f" (masks: {', '.join(f'[{target}]' for target in turn.target_ids)})" if turn.target_ids else ""
        lines.append(f'<p class="q">{html.escape(turn.question)}</p>')
        lines.append(f'<p class="a">{html.escape(turn.answer + targets)}</p>')
    return (
        f'<article><img alt="{html.escape(head)}" src="{animated_image(sample)}">'
        f"<h2>{html.escape(head)}</h2>{''.join(lines)}{_legend(sample)}</article>"
    )


def gallery_page(samples: Sequence[Sample], *, title: str = "Synthetic samples") -> str:
    """Return an HTML page of samples that needs no other file.

    Args:
        samples: The samples.
        title: Heading of the page.
    """
    articles = "\n".join(_article(sample) for sample in samples)
    heading = html.escape(title)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{heading}</h1><main>\n{articles}\n</main></body></html>\n"
    )
