"""Every action of the demo as a named function, for `gradio_client`, plain HTTP, and agents over MCP.

The names, types and first lines of what is here are what a client sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from unipixel.demos.api.responses import error_response, facts_of, value_of
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.errors import QuestionError
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.web.brush_mask import read_brush_mask
from unipixel.demos.web.examples import EXAMPLES, example_file
from unipixel.demos.web.views import base_of
from unipixel.memory.rle import encode_rle

DownloadKind = Literal["masks", "coco", "overlay", "session", "timeline"]


class Api:
    """The functions; each takes the key of a session, which `open_session` returns."""

    def __init__(self, store: SessionStore, upload_receiver: UploadReceiver, *, scratch: Path) -> None:
        """Keep what the functions need.

        Args:
            store: The visitors.
            upload_receiver: Where files arrive that are sent without gradio_client.
            scratch: A private folder for examples.
        """
        self._store, self._upload_receiver, self._scratch = store, upload_receiver, scratch

    def register(self) -> None:
        """Make every function callable; called within `gr.Blocks`."""
        for function in (
            self.open_session, self.close_session, self.load_video, self.load_received, self.load_example,
            self.describe, self.click, self.draw_box, self.draw_mask, self.undo, self.rename, self.forget, self.ask,
            self.find, self.follow, self.cancel, self.masks, self.download,
        ):  # fmt: skip
            gr.api(error_response(function), api_name=function.__name__, concurrency_limit=None)

    def open_session(self) -> dict[str, str]:
        """Open a session. Keep its key secret: whoever knows it sees and changes the session.

        Returns:
            `session`, the key; `upload_to`, where the bytes of a file may be sent with POST before `load_received`;
            `page`, where a person may look at the session.
        """
        key = self._store.open().key
        return {"session": key, "upload_to": f"{base_of(key)}/upload?name=clip.mp4", "page": f"?session={key}"}

    def close_session(self, session: str) -> str:
        """Remove a session with all its files.

        Args:
            session: Key of the session.
        """
        self._store.close(session)
        return "closed"

    def load_video(self, session: str, video: gr.FileData) -> dict[str, Any]:
        """Take an uploaded video or image; objects and conversation of the one before are forgotten.

        Args:
            session: Key of the session.
            video: The file: `handle_file(path)` of gradio_client. Addresses are refused.
        """
        path = Path(str(video["path"]))  # type: ignore[index]
        try:
            info = self._store.get(session).load(path, name=path.name)
        finally:
            path.unlink(missing_ok=True)
        return facts_of(info)

    def load_received(self, session: str, name: str = "clip.mp4") -> dict[str, Any]:
        """Take the file whose bytes were sent to `upload_to`.

        Args:
            session: Key of the session.
            name: What to call it.
        """
        with self._upload_receiver.taken(session) as received:
            return facts_of(self._store.get(session).load(received.path, name=name))

    def load_example(self, session: str, number: int = 1) -> dict[str, Any]:
        """Take an example that the bundled model can answer: 1 and 2 are a clip, 3 is a picture.

        Args:
            session: Key of the session.
            number: Which one, from 1.
        """
        if not 1 <= number <= len(EXAMPLES):
            raise QuestionError(f"there is no example {number}: choose 1 to {len(EXAMPLES)}")
        example = EXAMPLES[number - 1]
        path = example_file(example, self._scratch)
        return facts_of(self._store.get(session).load(path, name=example.name, is_trusted=True))

    def describe(self, session: str) -> dict[str, Any]:
        """Tell everything about a session but its masks: video, objects, conversation.

        Args:
            session: Key of the session.
        """
        user_session = self._store.get(session)
        return {
            "video": None if user_session.info is None else facts_of(user_session.info),
            "objects": [asdict(item) for item in user_session.objects()],
            "conversation": [{"question": turn.question, "answer": turn.answer} for turn in user_session.history],
            "is_busy": user_session.is_busy,
        }

    def click(
        self, session: str, x: float, y: float, frame: int = 0, object_id: int = 0, is_positive: bool = True
    ) -> int:
        """Click on an object, and return its id; it is followed by `follow`, or when a question is asked.

        Args:
            session: Key of the session.
            x: Pixels from the left of the frame.
            y: Pixels from its top.
            frame: Index of the frame, from 0.
            object_id: A known object to correct; 0 makes a new one.
            is_positive: False for a click on what does not belong to the object.
        """
        user_session = self._store.get(session)
        chosen = object_id or user_session.next_id()
        user_session.point(chosen, x, y, frame, is_positive=is_positive)
        return chosen

    def draw_box(
        self, session: str, left: float, top: float, right: float, bottom: float, frame: int = 0, object_id: int = 0
    ) -> int:
        """Draw a box around an object, and return its id.

        Args:
            session: Key of the session.
            left: Pixels from the left of the frame to the box.
            top: Pixels from the top of the frame to the box.
            right: Pixels from the left of the frame to the box's right edge.
            bottom: Pixels from the top of the frame to the box's lower edge.
            frame: Index of the frame, from 0.
            object_id: A known object to correct; 0 makes a new one.
        """
        user_session = self._store.get(session)
        chosen = object_id or user_session.next_id()
        user_session.box(chosen, (left, top, right, bottom), frame)
        return chosen

    def draw_mask(self, session: str, png: str, frame: int = 0, object_id: int = 0) -> int:
        """Give an object's mask, and return its id.

        Args:
            session: Key of the session.
            png: A PNG in base64 of the frame's size, transparent where the object is not.
            frame: Index of the frame, from 0.
            object_id: A known object to correct; 0 makes a new one.
        """
        user_session = self._store.get(session)
        chosen = object_id or user_session.next_id()
        info = user_session.info
        mask = read_brush_mask(png, size=(info.width, info.height) if info else (0, 0))
        user_session.mask(chosen, mask, frame)
        return chosen

    def undo(self, session: str) -> int:
        """Take the last click, box or mask back; returns its object's id, 0 where there was none.

        Args:
            session: Key of the session.
        """
        return self._store.get(session).undo() or 0

    def rename(self, session: str, object_id: int, name: str) -> str:
        """Call an object something.

        Args:
            session: Key of the session.
            object_id: The object.
            name: Its name; empty for none.
        """
        self._store.get(session).rename(object_id, name)
        return name

    def forget(self, session: str, object_id: int) -> int:
        """Forget an object with its masks.

        Args:
            session: Key of the session.
            object_id: The object.
        """
        self._store.get(session).forget(object_id)
        return object_id

    def ask(self, session: str, question: str) -> Iterator[dict[str, Any]]:
        """Ask about the video; `[1]` in the question names object 1. Streams progress, then the answer.

        Every value has a `state`: `waiting` (with `place`), `working`, `writing` (with `text`), `masking` (with
        `frame`, `done`, `total`), `cancelled` (with `reason`), and at last `done` with `text` and `new_ids`.

        Args:
            session: Key of the session.
            question: What to ask.
        """
        yield from map(value_of, self._store.get(session).ask(question))

    def find(self, session: str, query: str) -> Iterator[dict[str, Any]]:
        """Find what words mean, such as "the blue circle", and follow it. Streams the values that `ask` does.

        Args:
            session: Key of the session.
            query: A noun phrase, or a question about it.
        """
        yield from map(value_of, self._store.get(session).segment(query))

    def follow(self, session: str) -> Iterator[dict[str, Any]]:
        """Follow every object that was clicked, without a question. Streams the values that `ask` does.

        Args:
            session: Key of the session.
        """
        yield from map(value_of, self._store.get(session).track())

    def cancel(self, session: str) -> str:
        """Stop what is being done for a session, at once.

        Args:
            session: Key of the session.
        """
        self._store.get(session).cancel()
        return "cancelled"

    def masks(self, session: str, frame: int = 0) -> dict[str, Any]:
        """Return the masks on one frame as COCO run lengths, by object id.

        Args:
            session: Key of the session.
            frame: Index of the frame, from 0.
        """
        found = self._store.get(session).masks_at(frame)
        return {str(object_id): encode_rle(mask) for object_id, mask in found.items()}

    def download(self, session: str, kind: DownloadKind) -> str:
        """Make a file of results, and return its address on this server, to be fetched with GET.

        Args:
            session: Key of the session.
            kind: masks (PNG files in a ZIP), coco (JSON), overlay (MP4, or PNG of a picture), timeline, or session.
        """
        self._store.get(session).download(kind)
        return f"{base_of(session)}/download/{kind}"
