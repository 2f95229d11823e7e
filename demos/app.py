"""The demo as an ASGI application: Gradio's pages and API, further routes, and a filter of requests."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
from fastapi import FastAPI

from unipixel.demos.api.ask_api import AskApi
from unipixel.demos.api.live_api import LiveApi
from unipixel.demos.errors import DemoError, UnknownSessionError
from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.security.file_access import FileCheckedBlocks
from unipixel.demos.security.network_sources import SourceRules
from unipixel.demos.security.request_filter import RequestFilter
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.web.ask_page import AskPage
from unipixel.demos.web.live_page import LivePage
from unipixel.demos.web.render import error_html
from unipixel.demos.web.routes import add_routes
from unipixel.demos.web.widgets import panel, read_text, static_html

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.session.settings import SessionSettings

_SWEEP_SECONDS = 30.0
_FONTS = ["ui-sans-serif", "system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"]
_MONO_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
_HEAD = (
    '<div class="up-head"><h1>UniPixel</h1><p>Click an object in a video, ask about it, and see it tracked through '
    "every frame.</p></div>"
)
NANO_NAME = "unipixel-nano"
# Settings that Gradio reads from the environment only: no analytics, and no growing table of requests.
_GRADIO_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "16",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
}


@dataclass(frozen=True)
class DemoSettings:
    """Settings of a demo server.

    Attributes:
        model_name: Value of `--model`.
        limits: Limits of the sessions.
        session: Settings of the sessions; None for the defaults.
        users: Names and passwords; empty for no log-in.
        folder: Where sessions are saved; None for a temporary folder.
        sources: Network sources that users may watch.
        allows_private_sources: Whether sources in private networks are allowed.
        has_mcp: Whether the API is also served as tools over MCP.
    """

    model_name: str = NANO_NAME
    limits: Limits = field(default_factory=Limits)
    session: SessionSettings | None = None
    users: Sequence[tuple[str, str]] = ()
    folder: Path | None = None
    sources: tuple[str, ...] = ()
    allows_private_sources: bool = False
    has_mcp: bool = True


class Demo:
    """The sessions, pages and routes of a demo. Use it in a `with` block, which removes its temporary files.

    Attributes:
        store: The user sessions.
        live: The live sessions.
        application: The ASGI application.
    """

    def __init__(self, model: UniPixel, processor: Processor, settings: DemoSettings | None = None) -> None:
        """Build the application; nothing is served yet.

        Args:
            model: The model that all sessions share.
            processor: Prepares the model's inputs.
            settings: Settings of the server; None for the defaults.

        Raises:
            OSError: A folder cannot be created.
            ValueError: A source is not a valid address.
        """
        self.settings = settings or DemoSettings()
        limits = self.settings.limits
        self._scratch = tempfile.TemporaryDirectory(prefix="unipixel-demo-")
        scratch = Path(self._scratch.name)
        cache = scratch / "gradio"
        cache.mkdir(mode=0o700)
        os.environ.update(_GRADIO_SETTINGS, GRADIO_TEMP_DIR=str(cache))
        self.store = SessionStore(
            model,
            processor,
            limits=limits,
            folder=self.settings.folder,
            settings=self.settings.session,
            model_name=self.settings.model_name,
        )
        generation = self.settings.session.generation if self.settings.session else None
        self.live = LiveStore(model, processor, limits=limits, generation=generation)
        self._sources = SourceRules(allowed=self.settings.sources, allows_private=self.settings.allows_private_sources)
        self._upload_receiver = UploadReceiver(scratch, max_megabytes=limits.max_upload_megabytes)
        self._tab_keys: dict[str, str] = {}
        self._tabs_lock = threading.Lock()
        self._has_ended = threading.Event()
        self.application = self._build_application(self._build_pages(scratch))

    def close(self) -> None:
        """End all sessions and remove the temporary files."""
        self._has_ended.set()
        self.live.close_all()
        self.store.close_all()
        self._scratch.cleanup()

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build_pages(self, scratch: Path) -> gr.Blocks:
        page = AskPage(self.store, self._upload_receiver, limits=self.settings.limits, scratch=scratch)
        live_page = LivePage(self.store, self.live, sources=self._sources)
        with FileCheckedBlocks(title="UniPixel", analytics_enabled=False, delete_cache=(60, 600)) as blocks:
            static_html(_HEAD)
            key = gr.State("")
            notice = panel()
            with gr.Tabs():
                with gr.Tab("Ask about a video"):
                    page.build(key, is_nano=Path(self.settings.model_name).name == NANO_NAME)
                with gr.Tab("Live"):
                    live_page.build(key)

            def on_load(request: gr.Request) -> Iterator[dict[Any, Any]]:
                yield self._on_load(page, key, notice, request)

            blocks.load(on_load, None, [key, notice, *page.outputs], api_visibility="private", show_progress="hidden")
            blocks.unload(self._on_unload)
            AskApi(self.store, self._upload_receiver, scratch=scratch).register()
            LiveApi(self.store, self.live, sources=self._sources).register()
        # Not limited by Gradio: `WorkQueue` limits the work and reports the position in the queue.
        return blocks.queue(default_concurrency_limit=None)

    def _on_load(self, page: AskPage, key: gr.State, notice: gr.HTML, request: gr.Request) -> dict[Any, Any]:
        """Open a session for a page, or the session in the address of the page."""
        message = ""
        user_session = None
        requested = str(request.query_params.get("session", ""))
        try:
            if requested:
                try:
                    user_session = self.store.get(requested)
                except UnknownSessionError:
                    message = "The session of this link is unknown or has expired. A new session was opened."
            user_session = user_session or self.store.open()
        except DemoError as error:
            return {notice: error_html(str(error))}
        with self._tabs_lock:
            self._tab_keys[str(request.session_hash)] = user_session.key
        return {key: user_session.key, notice: error_html(message), **page.show(user_session)}

    def _on_unload(self, request: gr.Request) -> None:
        """Offload a session whose last tab was closed; its link stays valid."""
        with self._tabs_lock:
            key = self._tab_keys.pop(str(request.session_hash), None)
            is_open = key in self._tab_keys.values()
        if key is None or is_open:
            return
        self._upload_receiver.discard(key)
        self.live.close(key)
        with contextlib.suppress(DemoError):
            self.store.offload(key)

    def _build_application(self, blocks: gr.Blocks) -> Any:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=self._lifespan)
        add_routes(app, store=self.store, upload_receiver=self._upload_receiver, live=self.live)
        limits = self.settings.limits
        theme = gr.themes.Default(
            primary_hue="blue",
            neutral_hue="slate",
            font=[gr.themes.Font(name) for name in _FONTS],
            font_mono=[gr.themes.Font(name) for name in _MONO_FONTS],
        )
        gr.mount_gradio_app(
            app,
            blocks,
            path="/",
            auth=list(self.settings.users) or None,
            allowed_paths=[],
            blocked_paths=[str(self.store.folder)],
            max_file_size=int(limits.max_upload_megabytes * MEGABYTE),
            mcp_server=self.settings.has_mcp,
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            theme=theme,
            css=read_text("style.css"),
        )
        return RequestFilter(app, max_upload_bytes=int(limits.max_upload_megabytes * MEGABYTE))

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=self._sweep, name="unipixel-sweep", daemon=True).start()
        yield
        self._has_ended.set()

    def _sweep(self) -> None:
        while not self._has_ended.wait(_SWEEP_SECONDS):
            self.store.sweep()
