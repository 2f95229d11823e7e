"""HTML of messages that the server renders; text is escaped here and nowhere else."""

from __future__ import annotations

import html


def error_html(message: str) -> str:
    """Return an error message for a panel; empty for no error."""
    if not message:
        return ""
    return f'<p class="up-error" role="alert">{html.escape(message[:1].upper() + message[1:])}</p>'
