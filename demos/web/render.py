"""What the demo shows: frames with masks, and the HTML of objects, answers, timeline and downloads.

Everything that comes from a visitor or from a model is escaped here, and nowhere else.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.output.overlay import PromptMark, draw_overlay, object_color
from unipixel.tracking.types import ObjectMask

if TYPE_CHECKING:
    from unipixel.demos.sessions.user_session import ObjectInfo, SavedTurn

_REFERENCE = re.compile(r"\[(\d{1,4})\]")
_DOWNLOADS = (
    ("overlay", "Video with masks", "MP4, or PNG of a picture"),
    ("masks", "Masks", "PNG files in a ZIP"),
    ("coco", "COCO annotations", "JSON"),
    ("session", "Whole session", "ZIP"),
)


def frame_jpeg(
    image: NDArray[np.uint8],
    masks: Mapping[int, NDArray[np.bool_]],
    *,
    prompts: Sequence[PromptMark] = (),
    max_side: int | None = None,
    quality: int = 88,
) -> bytes:
    """Return a frame with its objects and prompts as JPEG.

    Args:
        image: uint8 array (H, W, 3), RGB.
        masks: bool (H, W) by object id.
        prompts: Marks on this frame.
        max_side: Longest side of the picture; None keeps its size.
        quality: Of the JPEG, 1 to 95.

    Raises:
        ValueError: A mask's size differs from the frame's.
    """
    objects = {object_id: ObjectMask(mask, 1.0, True) for object_id, mask in masks.items()}
    picture = Image.fromarray(draw_overlay(image, objects, prompts=prompts) if objects or prompts else image)
    if max_side is not None and max(picture.size) > max_side:
        picture.thumbnail((max_side, max_side))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def color_of(object_id: int) -> str:
    """Return an object's colour as `#rrggbb`, that of its mask."""
    return "#{:02x}{:02x}{:02x}".format(*object_color(object_id))


def color_tile(object_id: int, *, size: int = 48) -> NDArray[np.uint8]:
    """Return a tile (size, size, 3) of an object's colour, for an object that was not seen yet."""
    return np.full((size, size, 3), object_color(object_id), dtype=np.uint8)


def chip(object_id: int, *, title: str = "") -> str:
    """Return `[id]` on the colour of its mask, in ink that can be read on it."""
    ink = "#111111" if _luminance(object_color(object_id)) > 0.18 else "#ffffff"
    shown = f' title="{html.escape(title, quote=True)}"' if title else ""
    return f'<span class="up-chip" style="background:{color_of(object_id)};color:{ink}"{shown}>[{object_id}]</span>'


def _luminance(color: tuple[int, int, int]) -> float:
    """Return the relative luminance of WCAG 2.2; above 0.18, black is read more easily than white."""
    linear = [(part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4) for part in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def answer_html(text: str, *, names: Mapping[int, str] | None = None) -> str:
    """Return a text with every `[id]` on the colour of its mask; all else is escaped.

    Args:
        text: Of a visitor or a model.
        names: Names of objects, shown when the pointer rests on an id.
    """
    known, parts, end = names or {}, [], 0
    for found in _REFERENCE.finditer(text):
        object_id = int(found[1])
        parts += [html.escape(text[end : found.start()]), chip(object_id, title=known.get(object_id, ""))]
        end = found.end()
    parts.append(html.escape(text[end:]))
    return "".join(parts).replace("\n", "<br>")


def conversation_html(
    turns: Iterable[SavedTurn],
    *,
    names: Mapping[int, str] | None = None,
    pending: tuple[str, str] | None = None,
    status: str = "",
) -> str:
    """Return questions and answers, oldest first.

    Args:
        turns: What was asked and answered.
        names: Names of objects.
        pending: A question that is being answered, and what is written of its answer.
        status: What is being done.
    """
    rows = [(turn.question, turn.answer, "") for turn in turns]
    if pending is not None:
        rows.append((*pending, status))
    if not rows:
        working = f'<p class="up-status" role="status">{html.escape(status)}</p>' if status else ""
        return (
            '<div class="up-empty"><p><b>No questions yet.</b> Click an object in the picture, then ask, for example '
            "“What is [1] doing?” Or find something by its name with <b>Find</b>.</p></div>" + working
        )
    parts = []
    for question, answer, state in rows:
        parts.append(f'<div class="up-turn up-asked">{answer_html(question, names=names)}</div>')
        written = answer_html(answer, names=names)
        if state:
            written += f'<span class="up-status" role="status">{html.escape(state)}</span>'
        parts.append(f'<div class="up-turn up-answered">{written}</div>')
    if pending is None and status:
        parts.append(f'<p class="up-status" role="status">{html.escape(status)}</p>')
    return f'<div class="up-conversation" aria-live="polite">{"".join(parts)}</div>'


def objects_html(objects: Sequence[ObjectInfo], *, base: str, num_frames: int, revision: int) -> str:
    """Return the list of objects: colour, thumbnail, name, frames where visible, and what can be done.

    Args:
        objects: The objects.
        base: Address of the session's files.
        num_frames: Frames of the video.
        revision: Changes whenever a thumbnail may have changed.
    """
    if not objects:
        return '<div class="up-empty"><p>Objects that you click, or that an answer finds, appear here.</p></div>'
    return f'<ul class="up-objects">{"".join(_object_row(item, base, num_frames, revision) for item in objects)}</ul>'


def _object_row(item: ObjectInfo, base: str, num_frames: int, revision: int) -> str:
    name = html.escape(item.name, quote=True)
    if item.is_waiting:
        seen = "marked; choose Follow, or ask"
    elif num_frames == 1:
        seen = "visible" if item.visible_frames else "not visible"
    else:
        seen = f"visible in {len(item.visible_frames)} of {num_frames} frames"
    picture = f"{html.escape(base, quote=True)}/thumbnail/{item.id}.jpg?rev={revision}"
    return (
        f'<li data-id="{item.id}"><img src="{picture}" alt="" width="48" height="48" loading="lazy">{chip(item.id)}'
        f'<span class="up-object-words"><input class="up-name" value="{name}" maxlength="60" '
        f'placeholder="Name it" aria-label="Name of object {item.id}"><small>{seen}</small></span>'
        f'<button type="button" data-act="select" aria-label="Correct object {item.id}" '
        'title="Further clicks correct this object">Correct</button>'
        f'<button type="button" data-act="forget" aria-label="Forget object {item.id}" '
        'title="Remove this object and its masks">Forget</button></li>'
    )


def live_objects_html(object_ids: Sequence[int]) -> str:
    """Return the list of the objects of a live picture."""
    if not object_ids:
        return '<div class="up-empty"><p>Objects that you click in the live picture appear here.</p></div>'
    rows = "".join(
        f'<li data-id="{object_id}">{chip(object_id)}<span class="up-object-words">object {object_id}</span>'
        f'<button type="button" data-act="forget" aria-label="Forget object {object_id}">Forget</button></li>'
        for object_id in object_ids
    )
    return f'<ul class="up-objects">{rows}</ul>'


def runs_of(frames: Iterable[int]) -> list[tuple[int, int]]:
    """Return first and last frame of every run of consecutive frames."""
    runs: list[tuple[int, int]] = []
    for frame in sorted(frames):
        if runs and frame == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], frame)
        else:
            runs.append((frame, frame))
    return runs


def timeline_html(objects: Sequence[ObjectInfo], *, num_frames: int, fps: float | None) -> str:
    """Return a line per object that shows on which frames it is visible; empty for a picture.

    Args:
        objects: The objects.
        num_frames: Frames of the video.
        fps: Frames per second, for the scale.
    """
    followed = [item for item in objects if not item.is_waiting]
    if num_frames < 2:
        return ""
    if not followed:
        return (
            '<div class="up-empty"><p>The timeline shows where each object is visible, once it is followed.</p></div>'
        )
    rows = "".join(_timeline_row(item, num_frames) for item in followed)
    length = f"{num_frames / fps:.1f} s" if fps else f"{num_frames} frames"
    return (
        f'<div class="up-timeline" data-frames="{num_frames}">{rows}'
        f'<div class="up-scale"><span>0</span><span>{length}</span></div></div>'
    )


def _timeline_row(item: ObjectInfo, num_frames: int) -> str:
    runs = runs_of(item.visible_frames)
    said = ", ".join(f"{first} to {last}" for first, last in runs) or "none"
    bars = "".join(
        f'<rect x="{first}" y="0" width="{last - first + 1}" height="10" fill="{color_of(item.id)}"/>'
        for first, last in runs
    )
    return (
        f'<div class="up-line">{chip(item.id, title=item.name)}<svg viewBox="0 0 {num_frames} 10" '
        f'preserveAspectRatio="none" role="img" aria-label="Object {item.id}: visible on frames {said}">'
        f'<title>frames {said}</title><rect class="up-ground" x="0" y="0" width="{num_frames}" height="10"/>'
        f"{bars}</svg></div>"
    )


def downloads_html(base: str, *, has_masks: bool, link: str) -> str:
    """Return links to the results and the link that restores the session.

    Args:
        base: Address of the session's files.
        has_masks: Whether there is anything to download but the session.
        link: Restores the session.
    """
    address = html.escape(base, quote=True)
    shown = [row for row in _DOWNLOADS if has_masks or row[0] == "session"]
    links = "".join(
        f'<a class="up-download" href="{address}/download/{kind}" download>{title} <small>{form}</small></a>'
        for kind, title, form in shown
    )
    hint = "" if has_masks else "<p class='up-fine'>Masks can be downloaded once an object was followed.</p>"
    told = '<p class="up-download-told" role="status" hidden></p>'
    return (
        f'<div class="up-downloads">{links}</div>{told}{hint}<label class="up-link">Link to this session '
        f'<input readonly value="{html.escape(link, quote=True)}" aria-label="Link to this session">'
        "</label><p class='up-fine'>Whoever has the link sees and changes the session.</p>"
    )


NO_DOWNLOADS = (
    '<div class="up-empty"><p>Masks, annotations and the masked video can be taken along from here.</p></div>'
)


def error_html(message: str) -> str:
    """Return an error's words for the place beside its field; nothing for no error."""
    if not message:
        return ""
    return f'<p class="up-error" role="alert">{html.escape(message[:1].upper() + message[1:])}</p>'
