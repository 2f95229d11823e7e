"""The idle view of a session, as values of the page's components."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.sessions.loaded_session import MediaInfo
from unipixel.demos.sessions.session_snapshot import ObjectInfo
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.web.render import (
    NO_DOWNLOADS,
    conversation_html,
    downloads_html,
    error_html,
    objects_html,
    timeline_html,
)

_REVISIONS = itertools.count(1)


@dataclass(frozen=True)
class SessionView:
    """What the page shows of a session that is not working.

    Attributes:
        upload: Value of the upload component.
        editor: Value of the frame editor.
        result: Value of the video with masks.
        objects: HTML of the objects.
        timeline: HTML of the timeline.
        conversation: HTML of the conversation.
        downloads: HTML of the downloads.
        errors: HTML of error messages: question, object, session.
    """

    upload: dict[str, Any]
    editor: dict[str, Any]
    result: dict[str, Any]
    objects: str
    timeline: str
    conversation: str
    downloads: str
    errors: dict[str, str]


def session_path(key: str) -> str:
    """Return the path of a session on the server, relative to the page."""
    return f"session/{key}"


def next_revision() -> int:
    """Return a number that makes the address of an image unique."""
    return next(_REVISIONS)


def session_view(
    user_session: UserSession, *, limits: Limits, errors: dict[str, str] | None = None, selected: int | None = None
) -> SessionView:
    """Return the view of a session.

    Args:
        user_session: The session.
        limits: Limits of uploads.
        errors: Messages by the field of `DemoError`.
        selected: Object that the next click is added to; None for no change.
    """
    messages = errors or {}
    info, objects = user_session.info, user_session.objects()
    base, revision = session_path(user_session.key), next_revision()
    has_masks = any(not item.has_pending_prompts for item in objects)
    return SessionView(
        upload=_upload_value(base, limits=limits, has_media=info is not None, error=messages.get("upload", "")),
        editor=_editor_value(
            user_session.key, info, objects, revision, error=messages.get("prompt", ""), selected=selected
        ),
        result=_result_value(info, base, revision, has_masks=has_masks),
        objects=objects_html(objects, base=base, num_frames=info.num_frames if info else 1, revision=revision),
        timeline=timeline_html(objects, num_frames=info.num_frames, fps=info.fps) if info else "",
        conversation=conversation_html(user_session.history, names={item.id: item.name for item in objects}),
        downloads=downloads_html(base, has_masks=has_masks, link=f"?session={user_session.key}")
        if info
        else NO_DOWNLOADS,
        errors={
            "question": error_html(messages.get("question", "")),
            "object": error_html(messages.get("object", "") or messages.get("name", "")),
            "session": error_html(
                messages.get("session", "") or messages.get("download", "") or messages.get("source", "")
            ),
        },
    )


def _upload_value(base: str, *, limits: Limits, has_media: bool, error: str) -> dict[str, Any]:
    return {
        "base": base,
        "limits": f"At most {limits.max_upload_megabytes:g} MB and {limits.max_seconds:g} seconds.",
        "max_bytes": int(limits.max_upload_megabytes * MEGABYTE),
        "has_media": has_media,
        "error": error[:1].upper() + error[1:],
        "revision": next_revision(),  # equal errors in a row are shown again
    }


def _editor_value(
    key: str, info: MediaInfo | None, objects: list[ObjectInfo], revision: int, *, error: str, selected: int | None
) -> dict[str, Any]:
    value: dict[str, Any] = {
        "session": key,
        "base": session_path(key),
        "revision": revision,
        "media": None,
        "objects": [
            {"id": item.id, "color": item.color, "name": "" if item.name == f"object {item.id}" else item.name}
            for item in objects
        ],
        "error": error[:1].upper() + error[1:],
    }
    if info is not None:
        value["media"] = {
            "width": info.width,
            "height": info.height,
            "num_frames": info.num_frames,
            "fps": info.fps,
        }
        value["media_id"] = f"{info.name} {info.width}x{info.height} {info.num_frames}"
    if selected is not None:
        value["selected"] = selected
    return value


def _result_value(info: MediaInfo | None, base: str, revision: int, *, has_masks: bool) -> dict[str, Any]:
    if info is None or not has_masks:
        return {"kind": "empty"}
    kind = "image" if info.is_image else "video"
    return {"kind": kind, "base": base, "revision": revision, "frame": 0, "shape": f"{info.width} / {info.height}"}
