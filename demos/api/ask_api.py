"""The actions of a session as named functions, for `gradio_client`, HTTP, and agents over MCP.

Names, types and docstrings of the functions are shown to clients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from unipixel.demos.api.responses import error_response, event_response
from unipixel.demos.errors import QuestionError
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.web.brush_mask import read_brush_mask
from unipixel.demos.web.examples import EXAMPLES, example_file
from unipixel.demos.web.views import session_path
from unipixel.memory.rle import encode_rle

DownloadKind = Literal["masks", "coco", "overlay", "session", "timeline"]


class AskApi:
    """The functions; each takes the key of a session, which `open_session` returns."""

    def __init__(self, store: SessionStore, upload_receiver: UploadReceiver, *, scratch: Path) -> None:
        """Create the functions.

        Args:
            store: The sessions.
            upload_receiver: Receives files that are sent without gradio_client.
            scratch: A private folder for examples.
        """
        self._store, self._upload_receiver, self._scratch = store, upload_receiver, scratch

    def register(self) -> None:
        """Register the functions; called within `gr.Blocks`."""
        for function in (
            self.open_session, self.close_session, self.load_video, self.load_received, self.load_example,
            self.describe, self.click, self.draw_box, self.draw_mask, self.undo, self.rename, self.forget, self.ask,
            self.segment, self.track, self.cancel, self.masks, self.download,
        ):  # fmt: skip
            gr.api(error_response(function), api_name=function.__name__, concurrency_limit=None)

    def open_session(self) -> dict[str, str]:
        """Open a session. Keep its key secret: anyone who knows it can see and change the session.

        Returns:
            `session`, the key; `upload_to`, where the content of a file can be sent with POST before `load_received`;
            `page`, where a person can view the session.
        """
        key = self._store.open().key
        return {"session": key, "upload_to": f"{session_path(key)}/upload?name=clip.mp4", "page": f"?session={key}"}

    def close_session(self, session: str) -> str:
        """Remove a session with all its files.

        Args:
            session: Key of the session.
        """
        self._store.close(session)
        return "closed"

    def load_video(self, session: str, video: gr.FileData) -> dict[str, Any]:
        """Load an uploaded video or image; the previous one is removed with its objects and conversation.

        Args:
            session: Key of the session.
            video: The file: `handle_file(path)` of gradio_client. Network addresses are refused.
        """
        path = Path(str(video["path"]))  # type: ignore[index]
        try:
            info = self._store.get(session).load(path, name=path.name)
        finally:
            path.unlink(missing_ok=True)
        return asdict(info)

    def load_received(self, session: str, name: str = "clip.mp4") -> dict[str, Any]:
        """Load the file that was sent to `upload_to`.

        Args:
            session: Key of the session.
            name: Display name of the file.
        """
        with self._upload_receiver.taken(session) as received:
            return asdict(self._store.get(session).load(received.path, name=name))

    def load_example(self, session: str, number: int = 1) -> dict[str, Any]:
        """Load an example that the bundled model can answer: 1 and 2 are a video, 3 is an image.

        Args:
            session: Key of the session.
            number: Number of the example, from 1.
        """
        if not 1 <= number <= len(EXAMPLES):
            raise QuestionError(f"there is no example {number}: choose 1 to {len(EXAMPLES)}")
        example = EXAMPLES[number - 1]
        path = example_file(example, self._scratch)
        return asdict(self._store.get(session).load(path, name=example.name, is_trusted=True))

    def describe(self, session: str) -> dict[str, Any]:
        """Return everything about a session except its masks: video, objects, conversation.

        Args:
            session: Key of the session.
        """
        user_session = self._store.get(session)
        return {
            "video": None if user_session.info is None else asdict(user_session.info),
            "objects": [asdict(item) for item in user_session.objects()],
            "conversation": [{"question": turn.question, "answer": turn.answer} for turn in user_session.history],
            "is_busy": user_session.lifecycle.is_busy,
        }

    def click(
        self, session: str, x: float, y: float, frame: int = 0, object_id: int = 0, is_positive: bool = True
    ) -> int:
        """Click on an object, and return its id; it is tracked by `track`, or when a question is asked.

        Args:
            session: Key of the session.
            x: Pixels from the left of the frame.
            y: Pixels from the top of the frame.
            frame: Index of the frame, from 0.
            object_id: A known object to correct; 0 creates a new one.
            is_positive: False for a click on what does not belong to the object.
        """
        return self._store.get(session).prompts.add_point(object_id, x, y, frame, is_positive=is_positive)

    def draw_box(
        self, session: str, left: float, top: float, right: float, bottom: float, frame: int = 0, object_id: int = 0
    ) -> int:
        """Draw a box around an object, and return its id.

        Args:
            session: Key of the session.
            left: Left edge in pixels from the left of the frame.
            top: Top edge in pixels from the top of the frame.
            right: Right edge in pixels from the left of the frame.
            bottom: Bottom edge in pixels from the top of the frame.
            frame: Index of the frame, from 0.
            object_id: A known object to correct; 0 creates a new one.
        """
        return self._store.get(session).prompts.add_box(object_id, (left, top, right, bottom), frame)

    def draw_mask(self, session: str, png: str, frame: int = 0, object_id: int = 0) -> int:
        """Provide a mask of an object, and return the object's id.

        Args:
            session: Key of the session.
            png: A PNG in base64 of the frame's size, transparent outside the object.
            frame: Index of the frame, from 0.
            object_id: A known object to correct; 0 creates a new one.
        """
        user_session = self._store.get(session)
        info = user_session.lifecycle.loaded().info
        mask = read_brush_mask(png, size=(info.width, info.height))
        return user_session.prompts.add_mask(object_id, mask, frame)

    def undo(self, session: str) -> int:
        """Undo the last click, box or mask; returns the id of its object, 0 if there is nothing to undo.

        Args:
            session: Key of the session.
        """
        return self._store.get(session).prompts.undo() or 0

    def rename(self, session: str, object_id: int, name: str) -> str:
        """Name an object.

        Args:
            session: Key of the session.
            object_id: The object.
            name: Its name; empty for the default.
        """
        self._store.get(session).prompts.rename(object_id, name)
        return name

    def forget(self, session: str, object_id: int) -> int:
        """Remove an object with its masks.

        Args:
            session: Key of the session.
            object_id: The object.
        """
        self._store.get(session).prompts.forget(object_id)
        return object_id

    def ask(self, session: str, question: str) -> Iterator[dict[str, Any]]:
        """Ask about the video; `[1]` in the question refers to object 1. Streams progress, then the answer.

        Every value has a `state`: `waiting` (with `position`), `working`, `writing` (with `text`), `masking` (with
        `frame`, `done`, `total`), `cancelled` (with `reason`), and at last `done` with `text` and `new_ids`.

        Args:
            session: Key of the session.
            question: The question.
        """
        yield from map(event_response, self._store.get(session).ask(question))

    def segment(self, session: str, query: str) -> Iterator[dict[str, Any]]:
        """Segment and track what a phrase such as "the blue circle" refers to. Streams the same values as `ask`.

        Args:
            session: Key of the session.
            query: A noun phrase, or a question about it.
        """
        yield from map(event_response, self._store.get(session).segment(query))

    def track(self, session: str) -> Iterator[dict[str, Any]]:
        """Track every object with new clicks, boxes or masks. Streams the same values as `ask`.

        Args:
            session: Key of the session.
        """
        yield from map(event_response, self._store.get(session).track())

    def cancel(self, session: str) -> str:
        """Cancel the work of a session.

        Args:
            session: Key of the session.
        """
        self._store.get(session).lifecycle.cancel()
        return "cancelled"

    def masks(self, session: str, frame: int = 0) -> dict[str, Any]:
        """Return the masks of one frame as COCO run-length encodings, by object id.

        Args:
            session: Key of the session.
            frame: Index of the frame, from 0.
        """
        masks = self._store.get(session).masks_at(frame)
        return {str(object_id): encode_rle(mask) for object_id, mask in masks.items()}

    def download(self, session: str, kind: DownloadKind) -> str:
        """Create a file of results, and return its address on this server, for a GET request.

        Args:
            session: Key of the session.
            kind: masks (PNG files in a ZIP), coco (JSON), overlay (MP4, or PNG for an image), timeline, or session.
        """
        self._store.get(session).download(kind)
        return f"{session_path(session)}/download/{kind}"
