"""What the page shows of a session, as values of its components."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.sessions.user_session import MediaInfo, UserSession
from unipixel.demos.web.render import (
    NO_DOWNLOADS,
    conversation_html,
    downloads_html,
    error_html,
    objects_html,
    timeline_html,
)

_NEXT_REVISION = itertools.count(1)


@dataclass(frozen=True)
class View:
    """Everything that the page shows of one session at one moment.

    Attributes:
        upload: Value of the upload.
        stage: Value of the picture.
        result: Value of the masked video.
        objects: HTML of the list of objects.
        timeline: HTML of the timeline.
        conversation: HTML of the conversation.
        downloads: HTML of the downloads.
        errors: HTML by place: question, object, session.
    """

    upload: dict[str, Any]
    stage: dict[str, Any]
    result: dict[str, Any]
    objects: str
    timeline: str
    conversation: str
    downloads: str
    errors: dict[str, str]


def base_of(key: str) -> str:
    """Return the address of a session's files, relative to the page."""
    return f"visit/{key}"


def next_revision() -> int:
    """Return a number that no picture's address carried before."""
    return next(_NEXT_REVISION)


def view_of(
    user_session: UserSession, *, limits: Limits, errors: dict[str, str] | None = None, selected: int | None = None
) -> View:
    """Return what the page shows of a session that does not work.

    Args:
        user_session: The session.
        limits: What is told about uploads.
        errors: Messages by field.
        selected: Object that the next click belongs to; None leaves the choice.
    """
    told = errors or {}
    info, objects, base, revision = (
        user_session.info,
        user_session.objects(),
        base_of(user_session.key),
        next_revision(),
    )
    names = {item.id: item.name for item in objects}
    followed = [item for item in objects if not item.is_waiting]
    return View(
        upload=upload_value(base, limits=limits, has_media=info is not None, error=told.get("upload", "")),
        stage=_stage(user_session, info, revision, error=told.get("prompt", ""), selected=selected),
        result=_result(info, base, revision, has_masks=bool(followed)),
        objects=objects_html(objects, base=base, num_frames=info.num_frames if info else 1, revision=revision),
        timeline=timeline_html(objects, num_frames=info.num_frames, fps=info.fps) if info else "",
        conversation=conversation_html(user_session.history, names=names),
        downloads=downloads_html(base, has_masks=bool(followed), link=f"?session={user_session.key}")
        if info
        else NO_DOWNLOADS,
        errors={
            "question": error_html(told.get("question", "")),
            "object": error_html(told.get("object", "") or told.get("name", "")),
            "session": error_html(told.get("session", "") or told.get("download", "") or told.get("source", "")),
        },
    )


def upload_value(base: str, *, limits: Limits, has_media: bool, error: str) -> dict[str, Any]:
    """Return the value of the upload, which tells what may be uploaded."""
    return {
        "base": base,
        "limits": f"At most {limits.max_upload_megabytes:g} MB and {limits.max_seconds:g} seconds.",
        "max_bytes": int(limits.max_upload_megabytes * MEGABYTE),
        "has_media": has_media,
        "error": error[:1].upper() + error[1:],
        "stamp": next_revision(),  # two equal errors in a row are told twice
    }


def _stage(
    user_session: UserSession, info: MediaInfo | None, revision: int, *, error: str, selected: int | None
) -> dict[str, Any]:
    value: dict[str, Any] = {
        "session": user_session.key,
        "base": base_of(user_session.key),
        "revision": revision,
        "media": None,
        "objects": [
            {"id": item.id, "color": item.color, "name": "" if item.name == f"object {item.id}" else item.name}
            for item in user_session.objects()
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


def _result(info: MediaInfo | None, base: str, revision: int, *, has_masks: bool) -> dict[str, Any]:
    if info is None or not has_masks:
        return {"kind": "empty"}
    kind = "picture" if info.is_image else "video"
    return {"kind": kind, "base": base, "revision": revision, "frame": 0, "shape": f"{info.width} / {info.height}"}
