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


def page_widget(script: str, name: str, *, classes: str) -> gr.HTML:
    """Return a component that a class of a script fills when the component receives its value.

    Args:
        script: File name of the script in the folder `static`.
        name: Name of the class; it is constructed with the element and the value.
        classes: CSS class of the element that the class fills.
    """
    return gr.HTML(
        value={},
        html_template=f'<div class="{classes}" data-page="{script}#{name}"></div>',
        js_on_load=read_text("mount_page.js"),
        apply_default_css=False,
    )


def panel(value: str = "") -> gr.HTML:
    """Return a component for HTML that the server renders; text of users and of the model is escaped."""
    return gr.HTML(value=value, apply_default_css=False, js_on_load=None)


def static_html(text: str, *, elem_classes: str = "") -> gr.HTML:
    """Return a component for constant HTML."""
    return gr.HTML(text, apply_default_css=False, js_on_load=None, elem_classes=elem_classes)
