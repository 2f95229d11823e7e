"""Display of a result: a light HTML page for notebooks, one frame as an image, or on matplotlib axes."""

from __future__ import annotations

import base64
import html
import io
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.output.overlay import draw_overlay, object_color
from unipixel.output.saving import has_frames, iterate_frames
from unipixel.output.writers import OverlayVideoWriter
from unipixel.video.frame import Frame

if TYPE_CHECKING:
    from unipixel.output.result import Result

MAX_HTML_BYTES = 2_000_000
"""Limit of the size of the page; the video in it is reduced, or left out."""

_POSTER_SIDE, _POSTER_QUALITY = 640, 80
# Longer side in pixels and x264 quality of the attempts to make the video small enough.
_VIDEO_ATTEMPTS = ((480, 27), (320, 32), (192, 36))
_MAX_VIDEO_FRAMES = 300
_MAX_LISTED_OBJECTS = 50


def draw_frame(result: Result, frame_index: int | None = None) -> NDArray[np.uint8]:
    """Return a frame (H, W, 3) with its masks and prompts.

    Args:
        result: The result; if its video can no longer be read, the masks are drawn on black.
        frame_index: The frame; None is the first one that shows an object.

    Raises:
        ValueError: The video has no such frame.
    """
    index = _first_visible_frame(result) if frame_index is None else frame_index
    if has_frames(result) and result.source is not None:
        image = result.source.read([index])[0].image
    elif not 0 <= index < (result.video.num_frames or 1):
        raise ValueError(f"frame {index} is outside the video: allowed are 0 to {(result.video.num_frames or 1) - 1}")
    else:
        image = np.zeros((result.video.height, result.video.width, 3), dtype=np.uint8)
    marks = [mark for mark in result.prompts if mark.frame_index == index]
    return draw_overlay(image, result.masks_on(index), prompts=marks)


def plot_result(result: Result, frame_index: int | None = None, *, axes: Any = None) -> Any:
    """Draw a frame on matplotlib axes, and return them.

    Args:
        result: The result.
        frame_index: See `draw_frame`.
        axes: The axes; None creates a figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The video has no such frame.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("matplotlib is missing: pip install 'unipixel-agent[plot]'") from error
    if axes is None:
        _, axes = pyplot.subplots()
    axes.imshow(draw_frame(result, frame_index))
    axes.set_axis_off()
    if result.text:
        axes.set_title(result.text, wrap=True)
    return axes


def show_result(result: Result, frame_index: int | None = None) -> None:
    """Show the page of `to_html` in a notebook, else a frame in the image viewer of the system.

    Args:
        result: The result.
        frame_index: Frame of the image; see `draw_frame`.

    Raises:
        ValueError: The video has no such frame.
    """
    # In a notebook IPython is loaded already; without one it is not needed.
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None and frame_index is None:
        ipython.display.display(result)
        return
    Image.fromarray(draw_frame(result, frame_index)).show()


def to_html(result: Result) -> str:
    """Return a page with question, answer, objects, and the clip with its masks, of less than 2 MB."""
    lines = [f"<p><b>{html.escape(result.question)}</b></p>"] if result.question else []
    lines += [f"<p>{html.escape(result.text)}</p>"] if result.text else []
    poster = _data_url("image/jpeg", _poster(draw_frame(result)))
    video = _overlay_bytes(result)
    if video is None:
        lines.append(f'<img src="{poster}" style="max-width:100%">')
    else:
        lines.append(
            f'<video controls loop muted playsinline poster="{poster}" src="{_data_url("video/mp4", video)}" '
            'style="max-width:100%"></video>'
        )
    objects = [result.objects[object_id] for object_id in sorted(result.objects)]
    for item in objects[:_MAX_LISTED_OBJECTS]:
        color = "#{:02x}{:02x}{:02x}".format(*object_color(item.id))
        lines.append(f'<div><span style="color:{color}">&#9632;</span> {html.escape(item.describe()[:300])}</div>')
    if len(objects) > _MAX_LISTED_OBJECTS:
        lines.append(f"<div>and {len(objects) - _MAX_LISTED_OBJECTS} more objects</div>")
    if result.is_partial:
        lines.append("<div>partial result: the work was interrupted</div>")
    return "\n".join(["<div>", *lines, "</div>"])


def _first_visible_frame(result: Result) -> int:
    visible = [
        next((frame.frame_index for frame in item.frames if frame.visible), None) for item in result.objects.values()
    ]
    return min((index for index in visible if index is not None), default=0)


def _overlay_bytes(result: Result) -> bytes | None:
    """Return the clip with its masks as a small MP4; None for an image, without frames, or if it stays too large."""
    if result.video.is_image or not has_frames(result):
        return None
    limit = MAX_HTML_BYTES * 3 // 4 - 300_000
    for side, crf in _VIDEO_ATTEMPTS:
        content = _encode(result, side=side, crf=crf)
        if content and len(content) <= limit:
            return content
    return None


def _encode(result: Result, *, side: int, crf: int) -> bytes:
    step = max(1, -(-(result.video.num_frames or 1) // _MAX_VIDEO_FRAMES))
    fps = (result.video.fps or 24.0) / step
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "overlay.mp4"
        with OverlayVideoWriter(path, fps=fps, crf=crf) as writer:
            for frame in iterate_frames(result):
                if frame.index % step == 0:
                    image = draw_overlay(frame.image, result.masks_on(frame.index))
                    writer.write(Frame(frame.index, frame.timestamp_seconds, _shrunk(image, side)), {})
        return path.read_bytes() if path.is_file() else b""


def _shrunk(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(image)
    picture.thumbnail((side, side))
    return np.asarray(picture)


def _poster(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_shrunk(image, _POSTER_SIDE)).save(buffer, format="JPEG", quality=_POSTER_QUALITY)
    return buffer.getvalue()


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
