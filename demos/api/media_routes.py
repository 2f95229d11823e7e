"""HTTP routes for the media of a session: video, frames, thumbnails, files of results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, Literal

from fastapi import FastAPI
from fastapi.responses import FileResponse, Response, StreamingResponse

from unipixel.demos.api.session_routes import NO_STORE
from unipixel.demos.errors import DownloadError, UnknownObjectError
from unipixel.demos.frame_images import color_tile, frame_jpeg
from unipixel.demos.security.download_access import MEDIA_TYPES, open_download
from unipixel.demos.sessions.session_store import SessionStore

# The page adds a revision to the address of an image, so that a cached image is never outdated.
_PRIVATE_CACHE = {"cache-control": "private, max-age=600"}


class MediaRoutes:
    """The routes that return media; a view key is sufficient for all of them."""

    def __init__(self, store: SessionStore) -> None:
        """Create the routes.

        Args:
            store: The sessions.
        """
        self._store = store

    def add_to(self, app: FastAPI) -> None:
        """Add the routes to an application."""
        app.get("/session/{key}/video", response_model=None)(self.video)
        app.get("/session/{key}/frame/{index}.jpg", response_model=None)(self.frame)
        app.get("/session/{key}/thumbnail/{object_id}.jpg", response_model=None)(self.thumbnail)
        app.get("/session/{key}/download/{name}", response_model=None)(self.download)

    def video(self, key: str) -> FileResponse:
        """Return the video with its sound in a format that browsers play, or a range of its bytes."""
        user_session, _ = self._store.read(key)
        path, media_type = user_session.playback_file()
        if not path.is_file():
            raise DownloadError("the video was removed: open the session again")
        return FileResponse(path, media_type=media_type, headers=NO_STORE)

    def frame(self, key: str, index: int, masks: Literal["yes", "no"] = "yes") -> Response:
        """Return a frame as JPEG, with or without masks and prompts."""
        user_session, _ = self._store.read(key)
        image = user_session.frame(index)
        visible = {} if masks == "no" else user_session.masks_at(index)
        marks = user_session.prompts_at(index) if masks == "yes" else []
        return Response(frame_jpeg(image, visible, prompts=marks), media_type="image/jpeg", headers=_PRIVATE_CACHE)

    def thumbnail(self, key: str, object_id: int) -> Response:
        """Return a picture of an object as JPEG."""
        try:
            image = self._store.read(key)[0].thumbnail(object_id)
        except UnknownObjectError:
            # Not an error: the object was removed after the page listed it.
            return Response(status_code=204, headers=NO_STORE)
        pixels = color_tile(object_id) if image is None else image
        return Response(frame_jpeg(pixels, {}), media_type="image/jpeg", headers=_PRIVATE_CACHE)

    def download(self, key: str, name: str) -> StreamingResponse:
        """Return a file of results that was exported before."""
        # Opened by name in the session's folder, without following links.
        file = open_download(self._store, key, name)
        headers = {
            "content-disposition": f'attachment; filename="{name}"',
            "content-length": str(os.fstat(file.fileno()).st_size),
        }
        media_type = MEDIA_TYPES[os.path.splitext(name)[1]]
        return StreamingResponse(_blocks(file), media_type=media_type, headers={**NO_STORE, **headers})


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while block := file.read(2**18):
            yield block
