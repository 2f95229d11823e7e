"""The page "Live": tracking and questions on a webcam or a network source, in one component that a script fills."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from unipixel.demos.web.widgets import page_widget

if TYPE_CHECKING:
    from unipixel.demos.security.network_sources import SourceRules
    from unipixel.demos.sessions.live_store import LiveStore
    from unipixel.demos.sessions.session_store import SessionStore


class LivePage:
    """The component of the page; all state is in the live sessions."""

    def __init__(self, store: SessionStore, live: LiveStore, *, sources: SourceRules) -> None:
        """Create the page.

        Args:
            store: The sessions, whose keys open live sessions.
            live: The live sessions.
            sources: Network sources that may be watched.
        """
        self._sources = sources

    def build(self, key: gr.State) -> None:
        """Create the component; called within `gr.Blocks`.

        Args:
            key: Contains the session's key.
        """
        view = page_widget("live_page.js", "LivePage", classes="up-live")
        key.change(self._config, [key], [view], show_progress="hidden", api_visibility="private", queue=False)

    def _config(self, key: str) -> dict[str, Any]:
        return {"session": key, "has_sources": bool(self._sources.allowed)}
