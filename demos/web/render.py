"""The HTML of objects, conversation, timeline and downloads.

Text of users and of the model is escaped in this module and nowhere else.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from unipixel.output.overlay import object_color

if TYPE_CHECKING:
    from unipixel.demos.sessions.saved_session import SavedTurn
    from unipixel.demos.sessions.session_snapshot import ObjectInfo

_REFERENCE = re.compile(r"\[(\d{1,4})\]")
_DOWNLOADS = (
    ("overlay", "Video with masks", "MP4, or PNG for an image"),
    ("masks", "Masks", "PNG files in a ZIP"),
    ("coco", "COCO annotations", "JSON"),
    ("session", "Complete session", "ZIP"),
)


def color_of(object_id: int) -> str:
    """Return the color of an object's masks as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*object_color(object_id))


def chip(object_id: int, *, title: str = "") -> str:
    """Return `[id]` on the color of its masks, with readable contrast."""
    text_color = "#111111" if _luminance(object_color(object_id)) > 0.18 else "#ffffff"
    attribute = f' title="{html.escape(title, quote=True)}"' if title else ""
    style = f"background:{color_of(object_id)};color:{text_color}"
    return f'<span class="up-chip" style="{style}"{attribute}>[{object_id}]</span>'


def _luminance(color: tuple[int, int, int]) -> float:
    """Return the relative luminance of WCAG 2.2; above 0.18, black has more contrast than white."""
    linear = [(part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4) for part in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def answer_html(text: str, *, names: Mapping[int, str] | None = None) -> str:
    """Return a text with every `[id]` on the color of its masks; everything else is escaped.

    Args:
        text: A question or an answer.
        names: Names of objects, for the tooltips of ids.
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
        turns: Completed turns.
        names: Names of objects.
        pending: A question in progress, and its answer so far.
        status: Progress of the work.
    """
    rows = [(turn.question, turn.answer, "") for turn in turns]
    if pending is not None:
        rows.append((*pending, status))
    if not rows:
        status_html = f'<p class="up-status" role="status">{html.escape(status)}</p>' if status else ""
        return (
            '<div class="up-empty"><p><b>No questions yet.</b> Click an object in the frame and ask, for example '
            "“What is [1] doing?”, or segment objects by a phrase with <b>Segment</b>.</p></div>" + status_html
        )
    parts = []
    for question, answer, state in rows:
        parts.append(f'<div class="up-turn up-asked">{answer_html(question, names=names)}</div>')
        answer_part = answer_html(answer, names=names)
        if state:
            answer_part += f'<span class="up-status" role="status">{html.escape(state)}</span>'
        parts.append(f'<div class="up-turn up-answered">{answer_part}</div>')
    if pending is None and status:
        parts.append(f'<p class="up-status" role="status">{html.escape(status)}</p>')
    return f'<div class="up-conversation" aria-live="polite">{"".join(parts)}</div>'


def objects_html(objects: Sequence[ObjectInfo], *, base: str, num_frames: int, revision: int) -> str:
    """Return the list of objects: color, thumbnail, name, visible frames, buttons.

    Args:
        objects: The objects.
        base: Path of the session, relative to the page.
        num_frames: Number of frames of the video.
        revision: Changes whenever a thumbnail may have changed.
    """
    if not objects:
        return '<div class="up-empty"><p>Objects that you click or that an answer contains appear here.</p></div>'
    return f'<ul class="up-objects">{"".join(_object_row(item, base, num_frames, revision) for item in objects)}</ul>'


def _object_row(item: ObjectInfo, base: str, num_frames: int, revision: int) -> str:
    name = html.escape(item.name, quote=True)
    if item.has_pending_prompts:
        visibility = "not tracked yet: choose Track, or ask"
    elif num_frames == 1:
        visibility = "visible" if item.visible_frames else "not visible"
    else:
        visibility = f"visible in {len(item.visible_frames)} of {num_frames} frames"
    thumbnail = f"{html.escape(base, quote=True)}/thumbnail/{item.id}.jpg?rev={revision}"
    return (
        f'<li data-id="{item.id}"><img src="{thumbnail}" alt="" width="48" height="48" loading="lazy">{chip(item.id)}'
        f'<span class="up-object-text"><input class="up-name" value="{name}" maxlength="60" '
        f'placeholder="Name" aria-label="Name of object {item.id}"><small>{visibility}</small></span>'
        f'<button type="button" data-act="select" aria-label="Correct object {item.id}" '
        'title="Add clicks to this object">Correct</button>'
        f'<button type="button" data-act="forget" aria-label="Remove object {item.id}" '
        'title="Remove this object and its masks">Remove</button></li>'
    )


def live_objects_html(object_ids: Sequence[int]) -> str:
    """Return the list of the objects of a live session."""
    if not object_ids:
        return '<div class="up-empty"><p>Objects that you click in the live video appear here.</p></div>'
    rows = "".join(
        f'<li data-id="{object_id}">{chip(object_id)}<span class="up-object-text">object {object_id}</span>'
        f'<button type="button" data-act="forget" aria-label="Remove object {object_id}">Remove</button></li>'
        for object_id in object_ids
    )
    return f'<ul class="up-objects">{rows}</ul>'


def runs_of(frames: Iterable[int]) -> list[tuple[int, int]]:
    """Return the first and last frame of every run of consecutive frames."""
    runs: list[tuple[int, int]] = []
    for frame in sorted(frames):
        if runs and frame == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], frame)
        else:
            runs.append((frame, frame))
    return runs


def timeline_html(objects: Sequence[ObjectInfo], *, num_frames: int, fps: float | None) -> str:
    """Return one row per object with the frames on which it is visible; empty for an image.

    Args:
        objects: The objects.
        num_frames: Number of frames of the video.
        fps: Frames per second, for the scale; None to show frames instead of seconds.
    """
    tracked = [item for item in objects if not item.has_pending_prompts]
    if num_frames < 2:
        return ""
    if not tracked:
        return (
            '<div class="up-empty"><p>The timeline shows the frames on which each tracked object is visible.</p></div>'
        )
    rows = "".join(_timeline_row(item, num_frames) for item in tracked)
    length = f"{num_frames / fps:.1f} s" if fps else f"{num_frames} frames"
    return (
        f'<div class="up-timeline" data-frames="{num_frames}">{rows}'
        f'<div class="up-timeline-scale"><span>0</span><span>{length}</span></div></div>'
    )


def _timeline_row(item: ObjectInfo, num_frames: int) -> str:
    runs = runs_of(item.visible_frames)
    frames = ", ".join(f"{first} to {last}" for first, last in runs) or "none"
    bars = "".join(
        f'<rect x="{first}" y="0" width="{last - first + 1}" height="10" fill="{color_of(item.id)}"/>'
        for first, last in runs
    )
    return (
        f'<div class="up-timeline-row">{chip(item.id, title=item.name)}<svg viewBox="0 0 {num_frames} 10" '
        f'preserveAspectRatio="none" role="img" aria-label="Object {item.id}: visible on frames {frames}">'
        f"<title>frames {frames}</title>"
        f'<rect class="up-row-background" x="0" y="0" width="{num_frames}" height="10"/>{bars}</svg></div>'
    )


def downloads_html(base: str, *, has_masks: bool, link: str) -> str:
    """Return the links to downloads and the link that restores the session.

    Args:
        base: Path of the session, relative to the page.
        has_masks: Whether there are masks to download.
        link: Address that restores the session.
    """
    address = html.escape(base, quote=True)
    available = [row for row in _DOWNLOADS if has_masks or row[0] == "session"]
    links = "".join(
        f'<a class="up-download" href="{address}/download/{kind}" download>{title} <small>{form}</small></a>'
        for kind, title, form in available
    )
    hint = "" if has_masks else "<p class='up-fine'>Masks can be downloaded after an object was tracked.</p>"
    status = '<p class="up-download-status" role="status" hidden></p>'
    return (
        f'<div class="up-downloads">{links}</div>{status}{hint}<label class="up-link">Link to this session '
        f'<input readonly value="{html.escape(link, quote=True)}" aria-label="Link to this session">'
        "</label><p class='up-fine'>Anyone with the link can see and change the session.</p>"
    )


NO_DOWNLOADS = '<div class="up-empty"><p>Masks, annotations and the video with masks can be downloaded here.</p></div>'


def error_html(message: str) -> str:
    """Return an error message for the element beside its field; empty for no error."""
    if not message:
        return ""
    return f'<p class="up-error" role="alert">{html.escape(message[:1].upper() + message[1:])}</p>'
