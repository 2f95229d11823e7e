"""The actions of the live page as named functions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

import gradio as gr

from unipixel.demos.api.responses import error_response
from unipixel.demos.errors import SourceError
from unipixel.demos.security.network_sources import SourceRules
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.demos.sessions.session_store import SessionStore


class LiveApi:
    """The functions; each takes the key of a session, which `open_session` returns."""

    def __init__(self, store: SessionStore, live: LiveStore, *, sources: SourceRules) -> None:
        """Create the functions.

        Args:
            store: The sessions, whose keys open live sessions.
            live: The live sessions.
            sources: Network sources that may be watched.
        """
        self._store, self._live, self._sources = store, live, sources

    def register(self) -> None:
        """Register the functions; called within `gr.Blocks`."""
        for function in (
            self.live_frame, self.live_click, self.live_forget, self.live_ask, self.live_watch, self.live_state,
            self.live_stop,
        ):  # fmt: skip
            gr.api(error_response(function), api_name=function.__name__, concurrency_limit=None)

    def live_frame(self, session: str, jpeg: str) -> dict[str, Any]:
        """Track the objects in the next frame of a camera; the frame is dropped while the model works.

        Args:
            session: Key of the session.
            jpeg: The frame as JPEG in base64, at most 640 pixels a side.
        """
        try:
            data = base64.b64decode(jpeg.partition(",")[2] or jpeg, validate=True)
        except (binascii.Error, ValueError) as error:
            raise SourceError("the frame must be a JPEG in base64") from error
        user_session = self._open(session)
        is_tracked = user_session.add_frame(data)
        return {**_state(user_session), "is_tracked": is_tracked}

    def live_click(self, session: str, x: float, y: float, object_id: int = 0, is_positive: bool = True) -> int:
        """Click on an object of the latest frame, and return its id; it is tracked from now on.

        Args:
            session: Key of the session.
            x: Pixels from the left of the frame.
            y: Pixels from the top of the frame.
            object_id: A known object to correct; 0 creates a new one.
            is_positive: False for a click on what does not belong to the object.
        """
        return self._open(session).add_point(object_id, x, y, is_positive=is_positive)

    def live_forget(self, session: str, object_id: int) -> int:
        """Remove an object.

        Args:
            session: Key of the session.
            object_id: The object.
        """
        self._open(session).forget(object_id)
        return object_id

    def live_ask(self, session: str, question: str) -> Iterator[str]:
        """Ask about the latest frames. Streams the answer so far, and at last the complete answer.

        Args:
            session: Key of the session.
            question: The question; `[1]` refers to object 1.
        """
        yield from self._open(session).ask(question)

    def live_watch(self, session: str, address: str) -> str:
        """Watch a network source that the operator of the server allows.

        Args:
            session: Key of the session.
            address: Such as `rtsp://camera.example:554/yard`.
        """
        user_session = self._open(session)
        video = self._sources.open(address)
        user_session.watch(video, on_end=video.close)
        return "watching"

    def live_state(self, session: str) -> dict[str, Any]:
        """Return the tracked and the visible objects, the frame counts and the frame rate.

        Args:
            session: Key of the session.
        """
        return _state(self._open(session))

    def live_stop(self, session: str) -> str:
        """End the live session and remove everything in it.

        Args:
            session: Key of the session.
        """
        self._store.get(session)
        self._live.close(session)
        return "stopped"

    def _open(self, session: str) -> LiveUserSession:
        self._store.get(session)
        return self._live.open(session)


def _state(user_session: LiveUserSession) -> dict[str, Any]:
    return {
        "objects": user_session.object_ids,
        "visible": user_session.visible_ids,
        "num_frames": user_session.num_frames,
        "num_dropped": user_session.num_dropped,
        "frames_per_second": round(user_session.frames_per_second, 2),
        "error": user_session.error,
    }
