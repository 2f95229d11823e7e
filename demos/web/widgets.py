"""The page's own components: `gr.HTML` with a script of ours.

They are made by functions: Gradio writes a stub file beside every module that defines a component class.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import gradio as gr


@cache
def read_text(name: str) -> str:
    """Return a script or style sheet that is installed beside this module."""
    return (files("unipixel.demos.web") / name).read_text(encoding="utf-8")


def script_widget(script: str, *, classes: str, label: str, elem_classes: str = "") -> gr.HTML:
    """Return a component that a script builds and keeps; its value is a dictionary that the script reads.

    Args:
        script: Name of the script.
        classes: Class of the element that the script fills.
        label: Names the region for screen readers.
        elem_classes: Classes of the component on the page.
    """
    return gr.HTML(
        value={},
        html_template=f'<section class="{classes}" aria-label="{label}"></section>',
        js_on_load=read_text(script),
        apply_default_css=False,
        elem_classes=elem_classes,
    )


def panel(value: str = "", *, max_height: int | None = None, elem_classes: str = "") -> gr.HTML:
    """Return a component for HTML that the server renders; clicks in it become the event `act`.

    Args:
        value: HTML, escaped where it holds others' words.
        max_height: In pixels; more is scrolled, and what is new stays in sight.
        elem_classes: Classes of the component on the page.
    """
    return gr.HTML(
        value=value,
        js_on_load=read_text("panels.js"),
        apply_default_css=False,
        autoscroll=max_height is not None,
        max_height=max_height,
        elem_classes=elem_classes,
    )


def words(text: str, *, elem_classes: str = "") -> gr.HTML:
    """Return HTML of our own that does not change."""
    return gr.HTML(text, apply_default_css=False, js_on_load=None, elem_classes=elem_classes)
