"""The JSON values of the routes and of the named functions: sessions, objects, changes, masks, events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import TypedDict

from unipixel.demos.errors import PromptError
from unipixel.demos.export.downloads import FILE_NAMES
from unipixel.demos.sessions.events import (
    Answered,
    Event,
    Exported,
    Exporting,
    FrameMasked,
    TextWritten,
    Tracked,
    Waiting,
    WorkCancelled,
)
from unipixel.demos.sessions.loaded_session import MediaInfo
from unipixel.demos.sessions.prompt_editing import ObjectEdit
from unipixel.demos.sessions.session_snapshot import ObjectInfo
from unipixel.demos.sessions.session_store import view_key
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.storage.saved_session import RESULTS_FOLDER
from unipixel.memory.records import MaskRecord
from unipixel.tracking.types import ObjectMask

MAX_FRAMES_PER_CHUNK = 256
_MAX_DISPLAY_CHARS = 40

Counts = dict[str, str | None]
"""Compressed COCO run lengths by object id; None where the object is not visible."""


class VideoJson(TypedDict):
    """The video or image of a session; see `MediaInfo`."""

    id: str
    name: str
    width: int
    height: int
    num_frames: int
    fps: float | None
    duration_seconds: float
    is_image: bool
    is_playable: bool
    has_sound: bool


class PromptJson(TypedDict):
    """A click, a box, or a mask (which has no coordinates)."""

    kind: str
    frame: int
    coords: list[float]
    is_positive: bool


class ObjectJson(TypedDict):
    """An object; `known` and `visible` are runs of frames, both ends included."""

    id: int
    name: str
    color: str
    source: str
    has_pending_prompts: bool
    num_known_frames: int
    known: list[list[int]]
    visible: list[list[int]]
    low_confidence: str
    prompts: list[PromptJson]


class TurnJson(TypedDict):
    """One question with its answer."""

    question: str
    answer: str


class SessionJson(TypedDict):
    """Everything about a session except its masks."""

    revision: int
    is_busy: bool
    is_read_only: bool
    can_undo: bool
    can_redo: bool
    video: VideoJson | None
    objects: list[ObjectJson]
    conversation: list[TurnJson]
    models: dict[str, str]
    limits: dict[str, float]
    files: list[str]


class EditJson(TypedDict):
    """A change of one object; `is_complete` means that `masks` has all masks of the object."""

    revision: int
    object_id: int
    object: ObjectJson | None
    masks: dict[str, Counts]
    is_complete: bool
    score: float | None
    can_undo: bool
    can_redo: bool


class PreviewJson(TypedDict):
    """What a click would select; `is_ready` is false where nothing was segmented, so as not to delay other work."""

    is_ready: bool
    counts: str | None


class MaskChunk(TypedDict):
    """Masks of consecutive frames, by frame and object id; frames without any known mask are left out."""

    revision: int
    size: list[int]
    first: int
    count: int
    frames: dict[str, Counts]


def session_json(user_session: UserSession, *, is_read_only: bool = False) -> SessionJson:
    """Return the state of a session."""
    lifecycle = user_session.lifecycle
    limits = lifecycle.context.limits
    info = user_session.info
    folder = lifecycle.folder / RESULTS_FOLDER
    state: SessionJson = {
        "revision": 0,
        "is_busy": lifecycle.is_busy,
        "is_read_only": is_read_only,
        "can_undo": False,
        "can_redo": False,
        "video": None,
        "objects": [object_json(item) for item in user_session.objects()],
        "conversation": [{"question": turn.question, "answer": turn.answer} for turn in user_session.history],
        "models": lifecycle.context.model_names,
        "limits": {
            "max_upload_megabytes": limits.max_upload_megabytes,
            "max_seconds": limits.max_seconds,
            "max_question_chars": limits.max_question_chars,
            "max_name_chars": limits.max_name_chars,
            "max_objects": limits.max_objects,
        },
        "files": [name for name in FILE_NAMES if (folder / name).is_file()],
    }
    if info is not None:
        loaded = lifecycle.loaded()
        state["revision"] = loaded.revision
        state["video"] = video_json(info, media_id=loaded.media_id)
        state["can_undo"], state["can_redo"] = bool(loaded.undo), bool(loaded.redo)
    return state


def video_json(info: MediaInfo, *, media_id: str) -> VideoJson:
    """Return the properties of a video or image."""
    return {
        "id": media_id,
        "name": info.name,
        "width": info.width,
        "height": info.height,
        "num_frames": info.num_frames,
        "fps": info.fps,
        "duration_seconds": info.duration_seconds,
        "is_image": info.is_image,
        "is_playable": info.media_type is not None,
        "has_sound": info.has_sound,
    }


def object_json(item: ObjectInfo) -> ObjectJson:
    """Return the properties of an object; a long name is cut for display."""
    name = item.name if len(item.name) <= _MAX_DISPLAY_CHARS else item.name[: _MAX_DISPLAY_CHARS - 1].rstrip() + "…"
    return {
        "id": item.id,
        "name": name,
        "color": item.color,
        "source": item.source,
        "has_pending_prompts": item.has_pending_prompts,
        "num_known_frames": len(item.known_frames),
        "known": runs(item.known_frames),
        "visible": runs(item.visible_frames),
        "low_confidence": item.low_confidence,
        "prompts": [
            {
                "kind": prompt.kind,
                "frame": prompt.frame_index,
                "coords": list(prompt.coords),
                "is_positive": prompt.is_positive,
            }
            for prompt in item.prompts
        ],
    }


def edit_json(user_session: UserSession, edit: ObjectEdit | None) -> EditJson:
    """Return a change of a session; None if nothing was changed."""
    loaded = user_session.lifecycle.loaded()
    object_id = 0 if edit is None else edit.object_id
    known = loaded.snapshot.records_of(object_id)
    frames = known if edit is None or edit.frames is None else [index for index in edit.frames if index in known]
    found = next((item for item in user_session.objects() if item.id == object_id), None)
    return {
        "revision": loaded.revision,
        "object_id": object_id,
        "object": None if found is None else object_json(found),
        "masks": {str(index): {str(object_id): known[index].counts} for index in sorted(frames)},
        "is_complete": edit is not None and edit.frames is None,
        "score": None if edit is None else edit.score,
        "can_undo": bool(loaded.undo),
        "can_redo": bool(loaded.redo),
    }


def preview_json(mask: ObjectMask | None) -> PreviewJson:
    """Return the mask that a click would give; None if it was not computed."""
    if mask is None:
        return {"is_ready": False, "counts": None}
    return {"is_ready": True, "counts": MaskRecord.of(mask.mask if mask.visible else None, score=mask.score).counts}


def mask_chunk(user_session: UserSession, *, first: int, count: int) -> MaskChunk:
    """Return the masks of consecutive frames.

    Raises:
        PromptError: The first frame does not exist, or the count is out of range.
        NoVideoError: There is no video yet.
    """
    loaded = user_session.lifecycle.loaded()
    num_frames = loaded.info.num_frames
    if not 0 <= first < num_frames:
        raise PromptError(f"frame indices range from 0 to {num_frames - 1}, got {first}")
    if not 1 <= count <= MAX_FRAMES_PER_CHUNK:
        raise PromptError(f"count must be 1 to {MAX_FRAMES_PER_CHUNK} frames, got {count}")
    revision, frames = loaded.revision, {}
    for index in range(first, min(first + count, num_frames)):
        if records := loaded.snapshot.records_at(index):
            frames[str(index)] = {str(key): record.counts for key, record in records.items()}
    size = [loaded.info.height, loaded.info.width]
    return {"revision": revision, "size": size, "first": first, "count": count, "frames": frames}


def event_json(event: Event) -> dict[str, Any]:
    """Return an event; see docs/demo.md for its fields."""
    if isinstance(event, Waiting):
        return {"state": "waiting", "position": event.position}
    if isinstance(event, TextWritten):
        return {"state": "writing", "text": event.text}
    if isinstance(event, FrameMasked):
        return {
            "state": "masking",
            "frame": event.frame_index,
            "done": event.num_done,
            "total": event.num_frames,
            "seconds_left": round(event.seconds_left, 1),
            "masks": {str(key): counts for key, counts in event.counts.items()},
        }
    if isinstance(event, Exporting):
        return {"state": "exporting", "done": event.num_done, "total": event.num_frames}
    if isinstance(event, Exported):
        return {"state": "done", "file": event.file_name}
    if isinstance(event, Answered):
        return {
            "state": "done",
            "text": event.text,
            "object_ids": list(event.named_ids),
            "new_ids": list(event.new_ids),
        }
    if isinstance(event, Tracked):
        return {"state": "done", "text": "", "object_ids": list(event.object_ids), "new_ids": []}
    if isinstance(event, WorkCancelled):
        return {"state": "cancelled", "reason": event.reason}
    return {"state": "working"}


def links_json(user_session: UserSession, *, is_read_only: bool, key: str) -> dict[str, str]:
    """Return the addresses of the session's page; only the private one can change the session."""
    if is_read_only:
        return {"view": f"?view={key}"}
    return {"private": f"?session={user_session.key}", "view": f"?view={view_key(user_session.key)}"}


def runs(frames: Sequence[int]) -> list[list[int]]:
    """Return ascending numbers as runs [first, last]."""
    found: list[list[int]] = []
    for frame in frames:
        if found and frame == found[-1][1] + 1:
            found[-1][1] = frame
        else:
            found.append([frame, frame])
    return found
