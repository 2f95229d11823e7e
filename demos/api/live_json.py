"""The JSON values of live sessions."""

from __future__ import annotations

from typing_extensions import TypedDict

from unipixel.demos.sessions.live_user_session import LiveObject, LiveUserSession


class LiveJson(TypedDict):
    """The state of a live session."""

    objects: list[LiveObject]
    visible: list[int]
    num_frames: int
    num_dropped: int
    frames_per_second: float
    mode: str
    error: str


class LiveFrame(LiveJson):
    """The state after a frame, and whether objects were tracked in it."""

    is_tracked: bool


def live_json(user_session: LiveUserSession) -> LiveJson:
    """Return the state of a live session."""
    return {
        "objects": user_session.objects(),
        "visible": user_session.visible_ids,
        "num_frames": user_session.num_frames,
        "num_dropped": user_session.num_dropped,
        "frames_per_second": round(user_session.frames_per_second, 2),
        "mode": user_session.mode,
        "error": user_session.error,
    }
