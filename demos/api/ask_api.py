"""The actions of a session as named functions, for `gradio_client`, HTTP, and agents over MCP.

Names, types and docstrings of the functions are shown to clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from typing_extensions import TypedDict

from unipixel.demos.api.brush_mask import decode_base64, read_brush_mask
from unipixel.demos.api.responses import check_integer_value, check_number, event_values
from unipixel.demos.api.session_json import (
    EditJson,
    MaskChunk,
    SessionJson,
    edit_json,
    links_json,
    mask_chunk,
    session_json,
)
from unipixel.demos.api.session_routes import load_example
from unipixel.demos.errors import PromptError
from unipixel.demos.export.downloads import DownloadRequest
from unipixel.demos.export.effects import BackgroundEffect, EffectSettings, ObjectEffect
from unipixel.demos.requests.clients import client_of_request
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.memory.rle import encode_rle
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.session.range_tracking import FrameRange
from unipixel.tracking.propagation import Direction

ExportKind = Literal["masks", "coco", "overlay", "effects", "session", "timeline"]


class OpenedSession(TypedDict):
    """A new session."""

    session: str
    upload_to: str
    page: str
    view: str


class PromptSet(TypedDict, total=False):
    """Prompts of one object on one frame: `points` as x, y and 1 or 0, and `box` as left, top, right, bottom."""

    object_id: int
    frame: int
    points: list[list[float]]
    box: list[float]


class RunLengths(TypedDict):
    """A mask as COCO run lengths; `size` is height and width."""

    size: list[int]
    counts: str


class Progress(TypedDict, total=False):
    """A value of a stream; `state` says which of the other fields it has, see docs/demo.md."""

    state: str
    position: int
    text: str
    frame: int
    done: int
    total: int
    seconds_left: float
    masks: dict[str, str | None]
    reason: str
    field: str
    object_ids: list[int]
    new_ids: list[int]
    file: str
    address: str


class AskApi:
    """The functions; each takes the key of a session, which `open_session` returns."""

    def __init__(self, store: SessionStore, upload_receiver: UploadReceiver, *, scratch: Path) -> None:
        """Create the functions.

        Args:
            store: The sessions.
            upload_receiver: Receives files.
            scratch: A private folder for examples.
        """
        self._store, self._upload_receiver, self._scratch = store, upload_receiver, scratch

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """All functions, in the order in which they are shown."""
        return [
            self.open_session, self.close_session, self.load_received, self.load_example, self.describe, self.links,
            self.click, self.draw_box, self.draw_mask, self.add_prompts, self.undo, self.redo, self.rename, self.forget,
            self.track, self.ask, self.segment, self.cancel, self.masks, self.masks_of_frames, self.export,
        ]  # fmt: skip

    def open_session(self, request: gr.Request) -> OpenedSession:
        """Open a session. Keep its key secret: anyone who knows it can see and change the session.

        Returns:
            `session`, the key; `upload_to`, where the content of a file is sent with POST before `load_received`;
            `page`, where a person can view and change the session, and `view`, where it can only be viewed.
        """
        user_session = self._store.open(client_of_request(request))
        links = links_json(user_session, is_read_only=False, key=user_session.key)
        address = f"session/{user_session.key}/upload?name=clip.mp4"
        return {
            "session": user_session.key,
            "upload_to": address,
            "page": links["private"],
            "view": links["view"],
        }

    def close_session(self, session: str) -> str:
        """Remove a session with all its files.

        Args:
            session: Key of the session.
        """
        self._upload_receiver.discard(self._store.get(session))
        self._store.close(session)
        return "closed"

    def load_received(self, session: str, name: str = "clip.mp4") -> SessionJson:
        """Load the file that was sent to `upload_to`: a video, an image, or an exported session.

        What was in the session before is removed.

        Args:
            session: Key of the session.
            name: Display name of the file.
        """
        user_session = self._store.get(session)
        with self._upload_receiver.taken(user_session) as received:
            user_session.load(received.path, name=name)
        return session_json(user_session)

    def load_example(self, session: str, number: int = 1) -> SessionJson:
        """Load an example that the bundled model can answer: 1 and 2 are a video, 3 is an image.

        Args:
            session: Key of the session.
            number: Number of the example, from 1.
        """
        user_session = self._store.get(session)
        load_example(user_session, check_integer_value(number, "number"), self._scratch)
        return session_json(user_session)

    def describe(self, session: str) -> SessionJson:
        """Return everything about a session except its masks: video, objects, conversation.

        Args:
            session: Key or view key of the session.
        """
        user_session, is_read_only = self._store.read(session)
        return session_json(user_session, is_read_only=is_read_only)

    def links(self, session: str) -> dict[str, str]:
        """Return the addresses of the session's page: `private` to go on, `view` only to show it.

        Args:
            session: Key or view key of the session.
        """
        user_session, is_read_only = self._store.read(session)
        return links_json(user_session, is_read_only=is_read_only, key=session)

    def click(
        self, session: str, x: float, y: float, frame: int = 0, object_id: int = 0, is_positive: bool = True
    ) -> EditJson:
        """Click on an object, and return its mask on that frame; `track` follows it through the video.

        Args:
            session: Key of the session.
            x: Pixels from the left of the frame.
            y: Pixels from the top of the frame.
            frame: Index of the frame, from 0.
            object_id: A known object to correct; 0 creates a new one.
            is_positive: False for a click on what does not belong to the object.
        """
        index = check_integer_value(frame, "frame")
        point = PointPrompt(check_number(x, "x"), check_number(y, "y"), index, bool(is_positive))
        return self._add(session, object_id, [point])

    def draw_box(
        self, session: str, left: float, top: float, right: float, bottom: float, frame: int = 0, object_id: int = 0
    ) -> EditJson:
        """Draw a box around an object, and return its mask on that frame.

        Args:
            session: Key of the session.
            left: Left edge in pixels from the left of the frame.
            top: Top edge in pixels from the top of the frame.
            right: Right edge in pixels from the left of the frame.
            bottom: Bottom edge in pixels from the top of the frame.
            frame: Index of the frame, from 0.
            object_id: A known object to correct; 0 creates a new one.
        """
        edges = {"left": left, "top": top, "right": right, "bottom": bottom}
        x1, y1, x2, y2 = (check_number(value, name) for name, value in edges.items())
        return self._add(session, object_id, [BoxPrompt((x1, y1, x2, y2), check_integer_value(frame, "frame"))])

    def draw_mask(self, session: str, png: str, frame: int = 0, object_id: int = 0) -> EditJson:
        """Provide a mask of an object on a frame.

        Args:
            session: Key of the session.
            png: A PNG in base64 of the frame's size, transparent outside the object.
            frame: Index of the frame, from 0.
            object_id: A known object to correct; 0 creates a new one.
        """
        info = self._store.get(session).lifecycle.loaded().info
        mask = read_brush_mask(decode_base64(str(png)), size=(info.width, info.height))
        return self._add(session, object_id, [MaskPrompt(mask, check_integer_value(frame, "frame"))])

    def add_prompts(self, session: str, prompts: list[PromptSet]) -> list[EditJson]:
        """Add clicks and boxes to several objects, or on several frames, in one request.

        Args:
            session: Key of the session.
            prompts: One entry for each object and frame; entries before a refused one are kept.
        """
        edits = []
        for number, entry in enumerate(prompts):
            if not isinstance(entry, dict) or not isinstance(entry.get("points", []), list):
                raise PromptError(f"prompts[{number}] must have points or a box, got {entry!r:.60}")
            index = check_integer_value(entry.get("frame", 0), f"prompts[{number}].frame")
            found: list[VisualPrompt] = []
            if (box := entry.get("box")) is not None:
                x1, y1, x2, y2 = _numbers(box, 4, f"prompts[{number}].box")
                found.append(BoxPrompt((x1, y1, x2, y2), index))
            for point in entry.get("points", []):
                x, y, label = _numbers(point, 3, f"prompts[{number}].points")
                found.append(PointPrompt(x, y, index, label > 0))
            if not found:
                raise PromptError(f"prompts[{number}] has neither points nor a box")
            edits.append(self._add(session, entry.get("object_id", 0), found))
        return edits

    def undo(self, session: str) -> EditJson:
        """Undo the last click, box, mask, name or removal; `object_id` is 0 if there is nothing to undo.

        Args:
            session: Key of the session.
        """
        user_session = self._store.get(session)
        return edit_json(user_session, user_session.prompts.undo())

    def redo(self, session: str) -> EditJson:
        """Redo what was undone last; `object_id` is 0 if there is nothing to redo.

        Args:
            session: Key of the session.
        """
        user_session = self._store.get(session)
        return edit_json(user_session, user_session.prompts.redo())

    def rename(self, session: str, object_id: int, name: str) -> EditJson:
        """Name an object.

        Args:
            session: Key of the session.
            object_id: The object.
            name: Its name; empty for the default.
        """
        user_session = self._store.get(session)
        number = check_integer_value(object_id, "object_id")
        return edit_json(user_session, user_session.prompts.rename(number, str(name)))

    def forget(self, session: str, object_id: int) -> EditJson:
        """Remove an object with its masks; it can be undone.

        Args:
            session: Key of the session.
            object_id: The object.
        """
        user_session = self._store.get(session)
        return edit_json(user_session, user_session.prompts.forget(check_integer_value(object_id, "object_id")))

    def track(
        self,
        session: str,
        frame: int = -1,
        direction: Direction = "both",
        first: int = 0,
        last: int = -1,
        stride: int = 1,
    ) -> Iterator[Progress]:
        """Track objects through the video. Streams the same values as `ask`; `cancel` keeps the finished frames.

        Args:
            session: Key of the session.
            frame: Frame from whose masks tracking starts; -1 for the prompted frames of each object.
            direction: `both`, `forward` or `backward` from there.
            first: First frame to track.
            last: Last frame to track; -1 for that of the video.
            stride: Track every so many frames only.
        """
        values = {"frame": frame, "first": first, "last": last, "stride": stride}
        start, begin, end, step = (check_integer_value(value, name) for name, value in values.items())
        frames = FrameRange(None if start < 0 else start, direction, begin, None if end < 0 else end, step)
        yield from event_values(self._store.get(session).track(frames))

    def ask(self, session: str, question: str) -> Iterator[Progress]:
        """Ask about the video; `[1]` in the question refers to object 1. Streams progress, then the answer.

        Every value has a `state`: `waiting` (with `position`), `working`, `writing` (with `text`), `masking` (with
        `frame`, `done`, `total`, `seconds_left` and `masks`), and at last `done` (with `text`, `object_ids` and
        `new_ids`), `cancelled` or `refused` (with `reason`).

        Args:
            session: Key of the session.
            question: The question.
        """
        yield from event_values(self._store.get(session).ask(str(question)))

    def segment(self, session: str, query: str) -> Iterator[Progress]:
        """Segment and track what a phrase such as "the blue circle" refers to. Streams the same values as `ask`.

        Args:
            session: Key of the session.
            query: A noun phrase, or a question about it.
        """
        yield from event_values(self._store.get(session).segment(str(query)))

    def cancel(self, session: str) -> str:
        """Stop the work and the export of a session.

        Args:
            session: Key of the session.
        """
        self._store.get(session).lifecycle.cancel()
        return "cancelled"

    def masks(self, session: str, frame: int = 0) -> dict[str, RunLengths]:
        """Return the masks of the objects that are visible on one frame, by object id.

        Args:
            session: Key or view key of the session.
            frame: Index of the frame, from 0.
        """
        user_session, _ = self._store.read(session)
        index, info = check_integer_value(frame, "frame"), user_session.lifecycle.loaded().info
        if not 0 <= index < info.num_frames:
            raise PromptError(f"frame indices range from 0 to {info.num_frames - 1}, got {index}")
        masks = user_session.masks_at(index)
        return {str(object_id): _run_lengths(encode_rle(mask)) for object_id, mask in masks.items()}

    def masks_of_frames(self, session: str, first: int = 0, count: int = 256) -> MaskChunk:
        """Return the masks of consecutive frames; ask again with a higher `first` for the rest of a long video.

        Args:
            session: Key or view key of the session.
            first: First frame.
            count: Number of frames, at most 256.
        """
        start, number = check_integer_value(first, "first"), check_integer_value(count, "count")
        return mask_chunk(self._store.read(session)[0], first=start, count=number)

    def export(
        self,
        session: str,
        kind: ExportKind,
        background: BackgroundEffect = "keep",
        objects: ObjectEffect = "keep",
    ) -> Iterator[Progress]:
        """Write a file of results. Streams `exporting` (with `done` and `total`), and at last `done` with `address`.

        Args:
            session: Key or view key of the session.
            kind: masks (PNG files in a ZIP), coco (JSON), overlay (MP4, or PNG for an image), effects (MP4, WebM with
                alpha for a transparent background, or PNG), timeline (JSON), or session (a ZIP that can be loaded).
            background: For effects: what becomes of everything outside the objects.
            objects: For effects: what becomes of the objects.
        """
        request = DownloadRequest(str(kind), EffectSettings(background, default=objects))
        for value in event_values(self._store.read(session)[0].export(request)):
            if "file" in value:
                value["address"] = f"session/{session}/download/{value['file']}"
            yield value

    def _add(self, session: str, object_id: Any, prompts: list[VisualPrompt]) -> EditJson:
        user_session = self._store.get(session)
        edit = user_session.prompts.add(check_integer_value(object_id, "object_id"), prompts)
        return edit_json(user_session, edit)


def _numbers(values: Any, count: int, name: str) -> list[float]:
    if not isinstance(values, list | tuple) or len(values) != count:
        raise PromptError(f"{name} needs {count} numbers, got {values!r:.60}")
    return [check_number(value, name) for value in values]


def _run_lengths(rle: dict[str, Any]) -> RunLengths:
    return {"size": rle["size"], "counts": rle["counts"]}
