from __future__ import annotations

from unipixel.demos.web.render import error_html


def test_message_is_escaped_and_begins_with_a_capital() -> None:
    shown = error_html("<img src=x onerror=alert(1)> & more")
    assert shown == ('<p class="up-error" role="alert">&lt;img src=x onerror=alert(1)&gt; &amp; more</p>')
    assert error_html("a new session was opened").endswith(">A new session was opened</p>")


def test_no_message_is_empty() -> None:
    assert error_html("") == ""
