"""The actions of the live page as named functions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator
from typing import Any

from unipixel.demos.api.live_json import LiveFrame, LiveJson, live_json
from unipixel.demos.api.responses import check_integer_value, check_number
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

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """All functions, in the order in which they are shown."""
        return [
            self.live_frame, self.live_click, self.live_draw_box, self.live_rename, self.live_forget, self.live_ask,
            self.live_watch, self.live_state, self.live_stop,
        ]  # fmt: skip

    def live_frame(self, session: str, jpeg: str) -> LiveFrame:
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
        return {**live_json(user_session), "is_tracked": is_tracked}

    def live_click(self, session: str, x: float, y: float, object_id: int = 0, is_positive: bool = True) -> int:
        """Click on an object of the latest frame, and return its id; it is tracked from now on.

        Args:
            session: Key of the session.
            x: Pixels from the left of the frame.
            y: Pixels from the top of the frame.
            object_id: A known object to correct; 0 creates a new one.
            is_positive: False for a click on what does not belong to the object.
        """
        chosen = check_integer_value(object_id, "object_id")
        return self._open(session).add_point(
            chosen, check_number(x, "x"), check_number(y, "y"), is_positive=bool(is_positive)
        )

    def live_draw_box(
        self, session: str, left: float, top: float, right: float, bottom: float, object_id: int = 0
    ) -> int:
        """Draw a box around an object of the latest frame, and return its id; it is tracked from now on.

        Args:
            session: Key of the session.
            left: Left edge in pixels from the left of the frame.
            top: Top edge in pixels from the top of the frame.
            right: Right edge in pixels from the left of the frame.
            bottom: Bottom edge in pixels from the top of the frame.
            object_id: A known object to correct; 0 creates a new one.
        """
        edges = {"left": left, "top": top, "right": right, "bottom": bottom}
        x1, y1, x2, y2 = (check_number(value, name) for name, value in edges.items())
        chosen = check_integer_value(object_id, "object_id")
        return self._open(session).add_prompts(chosen, box_xyxy=(x1, y1, x2, y2))

    def live_rename(self, session: str, object_id: int, name: str) -> str:
        """Name an object.

        Args:
            session: Key of the session.
            object_id: The object.
            name: Its name; empty for the default.
        """
        self._open(session).rename(check_integer_value(object_id, "object_id"), str(name))
        return str(name)

    def live_forget(self, session: str, object_id: int) -> int:
        """Remove an object.

        Args:
            session: Key of the session.
            object_id: The object.
        """
        number = check_integer_value(object_id, "object_id")
        self._open(session).forget(number)
        return number

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

    def live_state(self, session: str) -> LiveJson:
        """Return the tracked and the visible objects, the frame counts and the frame rate.

        Args:
            session: Key of the session.
        """
        return live_json(self._open(session))

    def live_stop(self, session: str) -> str:
        """End the live session and remove everything in it.

        Args:
            session: Key of the session.
        """
        self._store.get(session)
        self._live.close(session)
        return "stopped"

    def _open(self, session: str) -> LiveUserSession:
        client = self._store.get(session).lifecycle.client
        return self._live.open(session, client=client)
