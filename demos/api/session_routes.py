"""HTTP routes of a session: state, uploads, prompts, masks, work, exports. docs/demo.md describes them.

Every path contains a session's key, which is checked in every request; no response may be stored in a shared cache.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from unipixel.demos.api.brush_mask import read_brush_mask
from unipixel.demos.api.request_bodies import (
    ExampleBody,
    ExportBody,
    NameBody,
    ObjectBody,
    PreviewBody,
    PromptsBody,
    QueryBody,
    QuestionBody,
    TrackBody,
    describe_error,
)
from unipixel.demos.api.session_json import (
    EditJson,
    MaskChunk,
    PreviewJson,
    SessionJson,
    edit_json,
    event_json,
    links_json,
    mask_chunk,
    preview_json,
    session_json,
)
from unipixel.demos.errors import DemoError, PromptError
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.background_work import EventStream
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.prompt_editing import ObjectEdit
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.web.examples import EXAMPLES, example_file
from unipixel.processing.visual_prompts import MaskPrompt

NO_STORE = {"cache-control": "private, no-store"}
_POLL_SECONDS = 0.02
_CHANGES_SECONDS = 20.0
# A waiting page learns of changes at most twice a second.
_CHANGES_POLL_SECONDS = 0.5


class SessionRoutes:
    """The routes that read and change a session."""

    def __init__(self, store: SessionStore, upload_receiver: UploadReceiver, live: LiveStore, *, scratch: Path) -> None:
        """Create the routes.

        Args:
            store: The sessions.
            upload_receiver: Receives uploads.
            live: The live sessions, which are removed with their sessions.
            scratch: A private folder for examples.
        """
        self._store, self._upload_receiver, self._live, self._scratch = store, upload_receiver, live, scratch

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        app.add_exception_handler(DemoError, _demo_error_response)
        app.add_exception_handler(RequestValidationError, _validation_error_response)
        app.add_exception_handler(HTTPException, _http_error_response)
        for name in ("state", "changes", "masks", "times", "links"):
            app.get(f"/session/{{key}}/{name}")(getattr(self, name))
        for name in (
            "upload", "load", "example", "prompts", "preview", "mask", "undo", "redo", "rename", "forget", "track",
            "ask", "segment", "cancel", "export", "delete",
        ):  # fmt: skip
            app.post(f"/session/{{key}}/{name}")(getattr(self, name))

    def state(self, key: str) -> SessionJson:
        """Return everything about a session except its masks."""
        user_session, is_read_only = self._store.read(key)
        return session_json(user_session, is_read_only=is_read_only)

    async def changes(
        self, key: str, after: int = 0, wait: Annotated[float, Query(ge=0, le=_CHANGES_SECONDS)] = _CHANGES_SECONDS
    ) -> dict[str, Any]:
        """Wait until the revision of a session differs from a given one, at most for some seconds."""
        user_session, _ = await run_in_threadpool(self._store.read, key)
        deadline = asyncio.get_running_loop().time() + wait
        while True:
            lifecycle = user_session.lifecycle
            revision = lifecycle.revision
            if revision != after or lifecycle.is_closed or asyncio.get_running_loop().time() >= deadline:
                return {"revision": revision, "is_busy": lifecycle.is_busy, "is_closed": lifecycle.is_closed}
            await asyncio.sleep(_CHANGES_POLL_SECONDS)

    def masks(self, key: str, first: int = 0, count: int = 64) -> MaskChunk:
        """Return the masks of consecutive frames."""
        return mask_chunk(self._store.read(key)[0], first=first, count=count)

    def times(self, key: str) -> dict[str, list[float]]:
        """Return the presentation times of all frames."""
        return {"seconds": self._store.read(key)[0].times()}

    def links(self, key: str) -> dict[str, str]:
        """Return the addresses of the session's page."""
        user_session, is_read_only = self._store.read(key)
        return links_json(user_session, is_read_only=is_read_only, key=key)

    async def upload(
        self, key: str, request: Request, name: Annotated[str, Query(max_length=1000)] = "upload"
    ) -> dict[str, str]:
        """Receive a file, which `load` opens."""
        user_session = await run_in_threadpool(self._store.get, key)
        declared = request.headers.get("content-length", "")
        num_bytes = int(declared) if declared.isdigit() else None
        await self._upload_receiver.receive(user_session, name, request.stream(), num_bytes=num_bytes)
        return {"status": "received"}

    def load(self, key: str) -> SessionJson:
        """Open the received file; what was in the session before is removed."""
        user_session = self._store.get(key)
        with self._upload_receiver.taken(user_session) as received:
            user_session.load(received.path, name=received.name)
        return session_json(user_session)

    def example(self, key: str, body: ExampleBody) -> SessionJson:
        """Open an example."""
        user_session = self._store.get(key)
        load_example(user_session, body.number, self._scratch)
        return session_json(user_session)

    def prompts(self, key: str, body: PromptsBody) -> EditJson:
        """Add clicks or a box to an object, and segment it on their frame."""
        prompts = body.prompts()
        if not prompts:
            raise PromptError("give points, a box, or both")
        return self._edit(key, lambda session: session.prompts.add(body.object_id, prompts))

    def preview(self, key: str, body: PreviewBody) -> PreviewJson:
        """Segment what a click would select, without storing it."""
        return preview_json(self._store.get(key).prompts.preview(body.object_id, body.prompt()))

    async def mask(self, key: str, request: Request, object_id: int = 0, frame: int = 0) -> EditJson:
        """Add a mask to an object: a PNG, transparent outside the object."""
        png = await request.body()

        def edit(session: UserSession) -> ObjectEdit:
            info = session.lifecycle.loaded().info
            return session.prompts.add(
                object_id, [MaskPrompt(read_brush_mask(png, size=(info.width, info.height)), frame)]
            )

        return await run_in_threadpool(self._edit, key, edit)

    def undo(self, key: str) -> EditJson:
        """Undo the last change of an object."""
        return self._edit(key, lambda session: session.prompts.undo())

    def redo(self, key: str) -> EditJson:
        """Redo what was undone last."""
        return self._edit(key, lambda session: session.prompts.redo())

    def rename(self, key: str, body: NameBody) -> EditJson:
        """Name an object."""
        return self._edit(key, lambda session: session.prompts.rename(body.object_id, body.name))

    def forget(self, key: str, body: ObjectBody) -> EditJson:
        """Remove an object."""
        return self._edit(key, lambda session: session.prompts.forget(body.object_id))

    async def track(self, key: str, body: TrackBody) -> StreamingResponse:
        """Track objects through a range of frames."""
        frames, object_ids = body.frames(), body.object_ids
        user_session = await run_in_threadpool(self._store.get, key)
        return await self._stream(user_session, lambda session: session.track(frames, object_ids=object_ids))

    async def ask(self, key: str, body: QuestionBody) -> StreamingResponse:
        """Ask about the video."""
        user_session = await run_in_threadpool(self._store.get, key)
        return await self._stream(user_session, lambda session: session.ask(body.question))

    async def segment(self, key: str, body: QueryBody) -> StreamingResponse:
        """Segment and track what a phrase refers to."""
        user_session = await run_in_threadpool(self._store.get, key)
        return await self._stream(user_session, lambda session: session.segment(body.query))

    def cancel(self, key: str) -> dict[str, str]:
        """Stop the work and the export of a session."""
        self._store.get(key).lifecycle.cancel()
        return {"status": "cancelled"}

    async def export(self, key: str, body: ExportBody) -> StreamingResponse:
        """Write a file of results; a view key is sufficient."""
        request = body.request()
        user_session, _ = await run_in_threadpool(self._store.read, key)
        return await self._stream(user_session, lambda session: session.export(request))

    def delete(self, key: str) -> dict[str, str]:
        """Remove a session with everything in it."""
        user_session = self._store.get(key)
        self._live.close(key)
        self._upload_receiver.discard(user_session)
        self._store.close(key)
        return {"status": "deleted"}

    def _edit(self, key: str, edit: Callable[[UserSession], ObjectEdit | None]) -> EditJson:
        user_session = self._store.get(key)
        return edit_json(user_session, edit(user_session))

    async def _stream(
        self, user_session: UserSession, begin: Callable[[UserSession], EventStream]
    ) -> StreamingResponse:
        stream = await run_in_threadpool(begin, user_session)
        return StreamingResponse(
            _event_lines(stream, user_session), media_type="application/x-ndjson", headers=NO_STORE
        )


def load_example(user_session: UserSession, number: int, scratch: Path) -> None:
    """Load an example into a session.

    Raises:
        PromptError: There is no such example.
    """
    if not 1 <= number <= len(EXAMPLES):
        raise PromptError(f"there is no example {number}: choose 1 to {len(EXAMPLES)}", field="upload")
    example = EXAMPLES[number - 1]
    user_session.load(example_file(example, scratch), name=example.name, is_trusted=True)


async def _event_lines(stream: EventStream, user_session: UserSession) -> AsyncIterator[str]:
    """Yield the events of work as lines; no thread waits meanwhile."""
    try:
        while not stream.is_ended:
            event = stream.poll()
            if event is None:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            value = event_json(event)
            if value["state"] in ("done", "cancelled"):
                value["revision"] = user_session.lifecycle.revision
            yield _line(value)
    except DemoError as error:
        yield _line(refusal(error))
    finally:
        stream.close()


def refusal(error: DemoError) -> dict[str, Any]:
    """Return the last value of a stream whose work was refused."""
    return {"state": "refused", "reason": str(error), "field": error.field}


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


async def _demo_error_response(_: Request, error: Any) -> JSONResponse:
    """Return the message that the page shows."""
    return JSONResponse({"error": str(error), "field": error.field}, status_code=error.status, headers=NO_STORE)


async def _validation_error_response(_: Request, error: Any) -> JSONResponse:
    message, field = describe_error(error)
    return JSONResponse({"error": message, "field": field}, status_code=422, headers=NO_STORE)


async def _http_error_response(_: Request, error: Any) -> JSONResponse:
    """Return an error of the framework, such as a body that cannot be parsed, in the same form."""
    content = {"error": str(error.detail), "field": "session"}
    return JSONResponse(content, status_code=error.status_code, headers={**NO_STORE, **(error.headers or {})})
