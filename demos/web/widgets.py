"""Custom components of the pages: `gr.HTML` with a script.

They are built by functions, since Gradio writes a stub file beside every module that defines a component class.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import gradio as gr


@cache
def read_text(name: str) -> str:
    """Return a script or style sheet of this package."""
    return (files("unipixel.demos.web") / name).read_text(encoding="utf-8")


def script_widget(script: str, *, classes: str, label: str, elem_classes: str = "") -> gr.HTML:
    """Return a component that a script renders from a dictionary.

    Args:
        script: File name of the script.
        classes: CSS class of the element that the script fills.
        label: Label of the region for screen readers.
        elem_classes: CSS classes of the component.
    """
    return gr.HTML(
        value={},
        html_template=f'<section class="{classes}" aria-label="{label}"></section>',
        js_on_load=read_text(script),
        apply_default_css=False,
        elem_classes=elem_classes,
    )


def panel(value: str = "", *, max_height: int | None = None, elem_classes: str = "") -> gr.HTML:
    """Return a component for HTML that the server renders; clicks on its buttons trigger the event `act`.

    Args:
        value: HTML; text of users and of the model is escaped.
        max_height: Maximum height in pixels, above which it scrolls to its end; None for no maximum.
        elem_classes: CSS classes of the component.
    """
    return gr.HTML(
        value=value,
        js_on_load=read_text("panels.js"),
        apply_default_css=False,
        autoscroll=max_height is not None,
        max_height=max_height,
        elem_classes=elem_classes,
    )


def static_html(text: str, *, elem_classes: str = "") -> gr.HTML:
    """Return a component for constant HTML."""
    return gr.HTML(text, apply_default_css=False, js_on_load=None, elem_classes=elem_classes)
