"""HTTP routes of a live session: frames, prompts, questions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.concurrency import iterate_in_threadpool, run_in_threadpool
from fastapi.responses import Response, StreamingResponse

from unipixel.demos.api.live_json import LiveJson, live_json
from unipixel.demos.api.request_bodies import AddressBody, NameBody, ObjectBody, PromptsBody, QuestionBody
from unipixel.demos.api.session_routes import NO_STORE, refusal
from unipixel.demos.errors import DemoError, PromptError
from unipixel.demos.security.network_sources import SourceRules
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.demos.sessions.session_store import SessionStore

_POLL_SECONDS, _MAX_POLLS = 0.05, 100


class LiveRoutes:
    """The routes of live sessions; each takes the private key of a session."""

    def __init__(self, store: SessionStore, live: LiveStore, *, sources: SourceRules) -> None:
        """Create the routes.

        Args:
            store: The sessions, whose keys open live sessions.
            live: The live sessions.
            sources: Network sources that may be watched.
        """
        self._store, self._live, self._sources = store, live, sources

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        app.get("/live/{key}/state")(self.state)
        app.get("/live/{key}/newest.jpg", response_model=None)(self.newest)
        app.post("/live/{key}/frame", response_model=None)(self.frame)
        for name in ("start", "stop", "watch", "prompts", "rename", "forget", "ask"):
            app.post(f"/live/{{key}}/{name}", response_model=None)(getattr(self, name))

    def state(self, key: str) -> LiveJson:
        """Return the objects, and what is watched."""
        return live_json(self._open(key))

    def start(self, key: str) -> LiveJson:
        """Remove everything and wait for frames of the camera."""
        user_session = self._open(key)
        user_session.reset()
        user_session.mode = "camera"
        return live_json(user_session)

    def stop(self, key: str) -> dict[str, str]:
        """End the live session and remove everything in it."""
        self._store.get(key)
        self._live.close(key)
        return {"status": "stopped"}

    def watch(self, key: str, body: AddressBody) -> LiveJson:
        """Watch a network source that the operator of the server allows."""
        user_session = self._open(key)
        video = self._sources.open(body.address)
        user_session.watch(video, on_end=video.close)
        user_session.mode = "source"
        return live_json(user_session)

    def prompts(self, key: str, body: PromptsBody) -> dict[str, Any]:
        """Add clicks or a box on the latest frame to an object."""
        if not body.points and body.box is None:
            raise PromptError("give points, a box, or both")
        user_session = self._open(key)
        object_id = user_session.add_prompts(body.object_id, points=body.points, box_xyxy=body.box)
        return {"object_id": object_id, **live_json(user_session)}

    def rename(self, key: str, body: NameBody) -> LiveJson:
        """Name an object."""
        user_session = self._open(key)
        user_session.rename(body.object_id, body.name)
        return live_json(user_session)

    def forget(self, key: str, body: ObjectBody) -> LiveJson:
        """Remove an object."""
        user_session = self._open(key)
        user_session.forget(body.object_id)
        return live_json(user_session)

    async def ask(self, key: str, body: QuestionBody) -> StreamingResponse:
        """Ask about the latest frames."""
        user_session = await run_in_threadpool(self._open, key)
        answer = user_session.ask(body.question)
        return StreamingResponse(_answer_lines(answer), media_type="application/x-ndjson", headers=NO_STORE)

    async def frame(self, key: str, request: Request) -> Response:
        """Track the objects in a frame of the camera, and return the newest frame with masks."""
        user_session = await run_in_threadpool(self._get, key)
        await run_in_threadpool(user_session.add_frame, await request.body())
        return _jpeg_response(user_session)

    async def newest(self, key: str, after: int = -1) -> Response:
        """Return the newest frame with masks, as soon as there is one after a given number."""
        user_session = await run_in_threadpool(self._get, key)
        for _ in range(_MAX_POLLS):
            if user_session.num_frames > after:
                break
            await asyncio.sleep(_POLL_SECONDS)
        return _jpeg_response(user_session)

    def _open(self, key: str) -> LiveUserSession:
        client = self._store.get(key).lifecycle.client
        return self._live.open(key, client=client)

    def _get(self, key: str) -> LiveUserSession:
        self._store.get(key)
        return self._live.get(key)


async def _answer_lines(answer: Iterator[str]) -> AsyncIterator[str]:
    text = ""
    try:
        async for text in iterate_in_threadpool(answer):
            yield json.dumps({"state": "writing", "text": text}, ensure_ascii=False) + "\n"
        yield json.dumps({"state": "done", "text": text}, ensure_ascii=False) + "\n"
    except DemoError as error:
        yield json.dumps(refusal(error), ensure_ascii=False) + "\n"


def _jpeg_response(user_session: LiveUserSession) -> Response:
    jpeg = user_session.latest_jpeg
    if jpeg is None:
        return Response(status_code=204, headers=NO_STORE)
    headers = {**NO_STORE, "x-frame": str(user_session.num_frames)}
    return Response(jpeg, media_type="image/jpeg", headers=headers)
