"""HTTP routes of the demo beside those of Gradio: uploads, frames, thumbnails, videos, downloads, live frames.

Every path contains a session's key, which is checked in every request; no response may be stored in a shared cache.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from unipixel.demos.errors import DemoError, DownloadError, UnknownObjectError, UnknownSessionError
from unipixel.demos.frame_images import color_tile, frame_jpeg
from unipixel.demos.security.download_access import MEDIA_TYPES, open_download
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.live_user_session import LiveUserSession
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.web.overlay_video import overlay_video

_NO_STORE = {"cache-control": "private, no-store"}
# The page adds a revision to the address of an image, so that a cached image is never outdated.
_PRIVATE_CACHE = {"cache-control": "private, max-age=600"}


def add_routes(app: FastAPI, *, store: SessionStore, upload_receiver: UploadReceiver, live: LiveStore) -> None:
    """Add the routes to an application.

    Args:
        app: The application.
        store: The sessions.
        upload_receiver: Receives uploads.
        live: The live sessions.
    """
    app.add_exception_handler(DemoError, _error_response)

    @app.get("/monitoring/summary")
    def summary() -> dict[str, dict[str, str]]:
        # Gradio's list of functions requests statistics, which the demo does not collect; a 404 would be logged as
        # an error in the browser's console.
        return {"functions": {}}

    @app.post("/session/{key}/upload")
    async def upload(key: str, request: Request, name: str = "upload") -> dict[str, str]:
        await run_in_threadpool(store.get, key)
        await upload_receiver.receive(key, name, request.stream())
        return {"status": "received"}

    @app.get("/session/{key}/frame/{index}.jpg")
    def frame(key: str, index: int, masks: str = "yes") -> Response:
        user_session = store.get(key)
        image = user_session.frame(index)
        visible = {} if masks == "no" else user_session.masks_at(index)
        marks = user_session.prompts_at(index) if masks == "yes" else []
        return Response(frame_jpeg(image, visible, prompts=marks), media_type="image/jpeg", headers=_PRIVATE_CACHE)

    @app.get("/session/{key}/thumbnail/{object_id}.jpg")
    def thumbnail(key: str, object_id: int) -> Response:
        try:
            image = store.get(key).thumbnail(object_id)
        except UnknownObjectError:
            # Not an error: the object was removed after the page listed it.
            return Response(status_code=204, headers=_NO_STORE)
        pixels = color_tile(object_id) if image is None else image
        return Response(frame_jpeg(pixels, {}), media_type="image/jpeg", headers=_PRIVATE_CACHE)

    @app.get("/session/{key}/result.mp4")
    def result(key: str) -> Response:
        return Response(overlay_video(store.get(key)), media_type="video/mp4", headers=_NO_STORE)

    @app.get("/session/{key}/download/{kind}")
    def download(key: str, kind: str) -> StreamingResponse:
        path = store.get(key).download(kind)
        # Opened by name in the session's folder, without following links.
        file = open_download(store, key, path.name)
        size = os.fstat(file.fileno()).st_size
        headers = {"content-disposition": f'attachment; filename="{path.name}"', "content-length": str(size)}
        return StreamingResponse(_blocks(file), media_type=MEDIA_TYPES[path.suffix], headers={**_NO_STORE, **headers})

    @app.post("/live/{key}/frame")
    async def live_frame(key: str, request: Request) -> Response:
        user_session = live.get(key)
        await run_in_threadpool(user_session.add_frame, await request.body())
        return _live_response(user_session)

    @app.get("/live/{key}/newest.jpg")
    async def live_newest(key: str, after: int = -1) -> Response:
        user_session = live.get(key)
        for _ in range(100):
            if user_session.num_frames > after:
                break
            await asyncio.sleep(0.05)
        return _live_response(user_session)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(2**18):
            yield block


def _live_response(user_session: LiveUserSession) -> Response:
    jpeg = user_session.latest_jpeg
    if jpeg is None:
        return Response(status_code=204, headers=_NO_STORE)
    headers = {**_NO_STORE, "x-frame": str(user_session.num_frames)}
    return Response(jpeg, media_type="image/jpeg", headers=headers)


async def _error_response(_: Request, error: Any) -> JSONResponse:
    """Return the message that the page shows."""
    is_missing = isinstance(error, UnknownSessionError | DownloadError)
    body = {"error": str(error), "field": getattr(error, "field", "session")}
    return JSONResponse(body, status_code=404 if is_missing else 422, headers=_NO_STORE)
