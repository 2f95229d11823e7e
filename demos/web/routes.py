"""The demo's own addresses, beside Gradio's: uploads, frames, thumbnails, the masked video, downloads, live pictures.

A session's key stands in each of them and is checked each time; there is no cache that others could read.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse

from unipixel.demos.security.download_access import MEDIA_TYPES, open_download
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.errors import DemoError, DownloadError, UnknownObjectError, UnknownSessionError
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.web.overlay_video import overlay_video
from unipixel.demos.web.render import color_tile, frame_jpeg

_PRIVATE = {"cache-control": "private, no-store"}
# The page adds a revision to the address of a picture, so that what is kept is never out of date.
_KEPT = {"cache-control": "private, max-age=600"}


def add_routes(app: FastAPI, *, store: SessionStore, upload_receiver: UploadReceiver, live: LiveStore) -> None:
    """Add the addresses to an application.

    Args:
        app: The application.
        store: The visitors.
        upload_receiver: Takes uploads.
        live: Live sessions.
    """
    app.add_exception_handler(DemoError, _tell)

    @app.get("/monitoring/summary")
    def summary() -> dict[str, dict[str, str]]:
        # Gradio's list of functions asks for figures that are not gathered here; a refusal would fill the console.
        return {"functions": {}}

    @app.post("/visit/{key}/upload")
    async def upload(key: str, request: Request, name: str = "upload") -> dict[str, str]:
        await run_in_threadpool(store.get, key)
        await upload_receiver.receive(key, name, request.stream())
        return {"status": "received"}

    @app.get("/visit/{key}/frame/{index}.jpg")
    def frame(key: str, index: int, masks: str = "yes") -> Response:
        user_session = store.get(key)
        image = user_session.frame(index)
        shown = {} if masks == "no" else user_session.masks_at(index)
        marks = user_session.prompts_at(index) if masks == "yes" else []
        return Response(frame_jpeg(image, shown, prompts=marks), media_type="image/jpeg", headers=_KEPT)

    @app.get("/visit/{key}/thumbnail/{object_id}.jpg")
    def thumbnail(key: str, object_id: int) -> Response:
        try:
            picture = store.get(key).thumbnail(object_id)
        except UnknownObjectError:
            # Undone or forgotten before the page came to ask for its picture: no picture is no fault.
            return Response(status_code=204, headers=_PRIVATE)
        pixels = color_tile(object_id) if picture is None else picture
        return Response(frame_jpeg(pixels, {}), media_type="image/jpeg", headers=_KEPT)

    @app.get("/visit/{key}/result.mp4")
    def result(key: str) -> Response:
        return Response(overlay_video(store.get(key)), media_type="video/mp4", headers=_PRIVATE)

    @app.get("/visit/{key}/download/{kind}")
    def download(key: str, kind: str) -> StreamingResponse:
        path = store.get(key).download(kind)
        # Opened by its name within the session's folder, where no link is followed.
        file = open_download(store, key, path.name)
        size = os.fstat(file.fileno()).st_size
        headers = {"content-disposition": f'attachment; filename="{path.name}"', "content-length": str(size)}
        return StreamingResponse(_blocks(file), media_type=MEDIA_TYPES[path.suffix], headers={**_PRIVATE, **headers})

    @app.post("/live/{key}/frame")
    async def live_frame(key: str, request: Request) -> Response:
        return await _live_frame(live, key, await request.body())

    @app.get("/live/{key}/newest.jpg")
    async def live_newest(key: str, after: int = -1) -> Response:
        user_session = live.get(key)
        for _ in range(100):
            if user_session.num_shown > after:
                break
            await asyncio.sleep(0.05)
        return _live_picture(user_session.picture, user_session.num_shown)


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(2**18):
            yield block


async def _live_frame(live: LiveStore, key: str, body: bytes) -> Response:
    """Follow the objects into a picture from the visitor's camera; while the model works it is dropped."""
    user_session = live.get(key)
    await run_in_threadpool(user_session.show, body)
    return _live_picture(user_session.picture, user_session.num_shown)


def _live_picture(picture: bytes | None, number: int) -> Response:
    if picture is None:
        return Response(status_code=204, headers=_PRIVATE)
    return Response(picture, media_type="image/jpeg", headers={**_PRIVATE, "x-frame": str(number)})


async def _tell(_: Request, error: Any) -> JSONResponse:
    """Answer a refusal in the words that the page shows."""
    missing = isinstance(error, UnknownSessionError | DownloadError)
    body = {"error": str(error), "field": getattr(error, "field", "session")}
    return JSONResponse(body, status_code=404 if missing else 422, headers=_PRIVATE)
