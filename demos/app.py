"""The demo as an ASGI application: Gradio's pages and API, further routes, and a filter of requests."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import gradio as gr
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from starlette.routing import Mount

from unipixel.demos.api.ask_api import AskApi
from unipixel.demos.api.live_api import LiveApi
from unipixel.demos.api.live_routes import LiveRoutes
from unipixel.demos.api.mcp_tools import make_mcp_server
from unipixel.demos.api.media_routes import MediaRoutes
from unipixel.demos.api.responses import error_response
from unipixel.demos.api.session_routes import SessionRoutes
from unipixel.demos.errors import DemoError, UnknownSessionError
from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.requests.clients import client_of_request
from unipixel.demos.requests.login import gradio_login
from unipixel.demos.requests.queue_ids import QueueIds, refuse_unknown_functions
from unipixel.demos.requests.request_filter import RequestFilter
from unipixel.demos.security.file_access import FileCheckedBlocks
from unipixel.demos.security.network_sources import SourceRules
from unipixel.demos.security.upload_receiver import UploadReceiver
from unipixel.demos.sessions.live_store import LiveStore
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.storage.server_folder import make_temporary_folder
from unipixel.demos.web.ask_page import AskPage
from unipixel.demos.web.live_page import LivePage
from unipixel.demos.web.render import error_html
from unipixel.demos.web.static_files import HEAD_HTML, add_static_routes
from unipixel.demos.web.widgets import panel, static_html

if TYPE_CHECKING:
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.session.settings import SessionSettings

_SWEEP_SECONDS = 10.0
# Requests that wait for a session or for the model occupy a thread.
_MAX_THREADS = 256
_MCP_PATH = "/gradio_api/mcp"
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
        segmenter_name: Name of the model that segments clicks and tracks; None for the model itself.
        hosts: Host names under which the server may be called; None for any.
    """

    model_name: str = NANO_NAME
    limits: Limits = field(default_factory=Limits)
    session: SessionSettings | None = None
    users: Sequence[tuple[str, str]] = ()
    folder: Path | None = None
    sources: tuple[str, ...] = ()
    allows_private_sources: bool = False
    has_mcp: bool = True
    segmenter_name: str | None = None
    hosts: tuple[str, ...] | None = None


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
        self._scratch = make_temporary_folder()
        scratch = self._scratch.path
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
            segmenter_name=self.settings.segmenter_name,
        )
        self.live = LiveStore(model, processor, limits=limits, settings=self.settings.session)
        self._sources = SourceRules(allowed=self.settings.sources, allows_private=self.settings.allows_private_sources)
        self._upload_receiver = UploadReceiver(self.store)
        self._tabs: dict[str, UserSession] = {}
        self._tabs_lock = threading.Lock()
        self._has_ended = threading.Event()
        ask_api = AskApi(self.store, self._upload_receiver, scratch=scratch)
        self._functions = [*ask_api.functions, *LiveApi(self.store, self.live, sources=self._sources).functions]
        self._mcp = make_mcp_server(self._functions) if self.settings.has_mcp else None
        self.application = self._build_application(self._build_pages(scratch), scratch)

    def close(self) -> None:
        """End all sessions and remove the temporary files."""
        self._has_ended.set()
        self.live.close_all()
        self.store.close_all()
        self._scratch.close(removes_files=True)

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
            for function in self._functions:
                gr.api(error_response(function), api_name=function.__name__, concurrency_limit=None)
        # Not limited by Gradio: `WorkQueue` limits the work and reports the position in the queue.
        return blocks.queue(default_concurrency_limit=None)

    def _on_load(self, page: AskPage, key: gr.State, notice: gr.HTML, request: gr.Request) -> dict[Any, Any]:
        """Open a session for a page, or the session in the address of the page."""
        message, key_of_page, is_read_only = "", "", False
        user_session = None
        requested = str(request.query_params.get("session", "") or request.query_params.get("view", ""))
        try:
            if requested:
                try:
                    user_session, is_read_only = self.store.read(requested)
                    key_of_page = requested
                except UnknownSessionError:
                    message = "The session of this link is unknown or has expired. A new session was opened."
            if user_session is None:
                user_session = self.store.open(client_of_request(request))
                key_of_page = user_session.key
        except DemoError as error:
            return {notice: error_html(str(error))}
        with self._tabs_lock:
            self._tabs[str(request.session_hash)] = user_session
        self.store.attach(user_session)
        shown = page.show(user_session, is_read_only=is_read_only, key=key_of_page)
        return {key: key_of_page, notice: error_html(message), **shown}

    def _on_unload(self, request: gr.Request) -> None:
        """Offload a session some time after its last page was closed; its link stays valid."""
        with self._tabs_lock:
            user_session = self._tabs.pop(str(request.session_hash), None)
        if user_session is not None:
            self.store.detach(user_session)

    async def _list_tools(self) -> list[dict[str, Any]]:
        """Return the tools in the form that Gradio's list of functions requests."""
        tools = [] if self._mcp is None else await self._mcp.list_tools()
        return [
            {
                "name": tool.name,
                "description": tool.description or "",
                "inputSchema": tool.inputSchema,
                "meta": {"file_data_present": False, "headers": []},
                "endpoint_name": f"/{tool.name}",
            }
            for tool in tools
        ]

    def _build_application(self, blocks: gr.Blocks, scratch: Path) -> RequestFilter:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=self._lifespan)
        SessionRoutes(self.store, self._upload_receiver, self.live, scratch=scratch).add_to(app)
        MediaRoutes(self.store).add_to(app)
        LiveRoutes(self.store, self.live, sources=self._sources).add_to(app)
        add_static_routes(app)
        # Gradio's list of functions requests statistics, which the demo does not collect; a 404 would be logged as an
        # error in the browser's console.
        app.get("/monitoring/summary")(lambda: {"functions": {}})
        app.get(f"{_MCP_PATH}/schema")(self._list_tools)
        if self._mcp is not None:
            app.add_api_route(_MCP_PATH, lambda: RedirectResponse(f"{_MCP_PATH}/"), methods=["GET", "POST", "DELETE"])
            app.mount(_MCP_PATH, self._mcp.streamable_http_app())
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
            mcp_server=False,
            show_error=False,
            footer_links=["api"],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            theme=theme,
            head=HEAD_HTML,
        )
        gradio_app: Any = next(route.app for route in reversed(app.routes) if isinstance(route, Mount))
        refuse_unknown_functions(gradio_app)
        users = self.settings.users
        return RequestFilter(
            app,
            max_upload_bytes=int(limits.max_upload_megabytes * MEGABYTE),
            max_requests_per_client=limits.max_requests_per_client,
            hosts=self.settings.hosts,
            login=gradio_login(gradio_app, dict(users)) if users else None,
            queue_ids=QueueIds(blocks),
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=self._sweep, name="unipixel-sweep", daemon=True).start()
        anyio.to_thread.current_default_thread_limiter().total_tokens = _MAX_THREADS
        async with contextlib.AsyncExitStack() as stack:
            if self._mcp is not None:
                await stack.enter_async_context(self._mcp.session_manager.run())
            yield
        self._has_ended.set()

    def _sweep(self) -> None:
        while not self._has_ended.wait(_SWEEP_SECONDS):
            self.store.sweep()
            self.live.sweep()
