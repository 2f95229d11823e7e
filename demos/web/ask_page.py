"""The page "Ask about a video": one component that a script fills.

The script in `static/ask_page.js` talks to the HTTP routes of the session; Gradio opens the session and hands its key
over.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from unipixel.demos.web.examples import EXAMPLES
from unipixel.demos.web.static_files import thumbnail_address
from unipixel.demos.web.widgets import page_widget

if TYPE_CHECKING:
    from unipixel.demos.limits import Limits
    from unipixel.demos.security.upload_receiver import UploadReceiver
    from unipixel.demos.sessions.session_store import SessionStore
    from unipixel.demos.sessions.user_session import UserSession

# Parts between backquotes are shown as code.
_NANO_NOTE = (
    "The bundled model was trained on synthetic shapes only: it answers the examples, but its answers about your own "
    "videos are not reliable. For those, start a larger model: `unipixel demo --model PolyU-ChenLab/UniPixel-3B`"
)
Updates = dict[Any, Any]


class AskPage:
    """The component of the page; all state is in the user sessions.

    Attributes:
        outputs: Components that may change.
    """

    def __init__(self, store: SessionStore, upload_receiver: UploadReceiver, *, limits: Limits, scratch: Path) -> None:
        """Create the page.

        Args:
            store: The sessions.
            upload_receiver: Receives uploads.
            limits: Limits of the sessions.
            scratch: A private folder for examples.
        """
        self.outputs: list[Any] = []
        self._is_nano = False

    def build(self, key: gr.State, *, is_nano: bool) -> None:
        """Create the component; called within `gr.Blocks`.

        Args:
            key: Contains the session's key.
            is_nano: Whether the model is the bundled one, which was trained on synthetic shapes only.
        """
        self._is_nano = is_nano
        self._page = page_widget("ask_page.js", "AskPage", classes="up-tool")
        self.outputs = [self._page]

    def show(self, user_session: UserSession, *, is_read_only: bool = False, key: str | None = None) -> Updates:
        """Return the value of the component for a session.

        Args:
            user_session: The session.
            is_read_only: Whether the page was opened by a link that only shows the session.
            key: Key of the page's requests, which is another one for such a link; None for the session's key.
        """
        return {self._page: self._config(key or user_session.key)}

    def _config(self, key: str) -> dict[str, Any]:
        examples = [
            {
                "title": example.title,
                "image": thumbnail_address(number),
                "point": None if example.point is None else list(example.point),
                "method": example.method,
                "text": example.text,
            }
            for number, example in enumerate(EXAMPLES, 1)
        ]
        return {"session": key, "examples": examples, "note": _NANO_NOTE if self._is_nano else ""}
