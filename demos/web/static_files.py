"""Scripts, styles and thumbnails of the pages, served to everybody at `/static/unipixel/`."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath

from fastapi import FastAPI, Request
from fastapi.responses import Response

from unipixel.demos.web.examples import EXAMPLES, example_thumbnail

PREFIX = "static/unipixel"
# Not given to Gradio as `css`, which would change the selectors of media queries.
HEAD_HTML = f'<link rel="stylesheet" href="{PREFIX}/style.css">'
"""For the head of the page."""

_MEDIA_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".jpg": "image/jpeg"}


def add_static_routes(app: FastAPI) -> None:
    """Add the route to an application, before Gradio's own below `/static/`."""

    @app.get(f"/{PREFIX}/{{name}}")
    def static_file(name: str, request: Request) -> Response:
        content = _contents().get(name)
        if content is None:
            return Response("Not found.", status_code=404, media_type="text/plain")
        # Browsers ask each time, so that scripts of one release are never mixed with those of another.
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"cache-control": "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=_MEDIA_TYPES[PurePosixPath(name).suffix], headers=headers)


def thumbnail_address(number: int) -> str:
    """Return the address of the thumbnail of an example, relative to the page; the first has number 1."""
    return f"{PREFIX}/example-{number}.jpg"


@cache
def _contents() -> dict[str, bytes]:
    """Return the files by name; a name that is not listed here is never opened."""
    folder = files("unipixel.demos.web") / "static"
    scripts = {item.name: item.read_bytes() for item in folder.iterdir() if item.name.endswith((".js", ".css"))}
    thumbnails = {
        PurePosixPath(thumbnail_address(number)).name: example_thumbnail(example)
        for number, example in enumerate(EXAMPLES, 1)
    }
    return scripts | thumbnails
