"""Responses and errors of the API functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from unipixel.demos.errors import DemoError
from unipixel.demos.sessions.events import Answered, Event, FrameMasked, TextWritten, Tracked, Waiting, WorkCancelled

P = ParamSpec("P")
R = TypeVar("R")


def event_response(event: Event) -> dict[str, Any]:
    """Return an event as a JSON object."""
    if isinstance(event, Waiting):
        return {"state": "waiting", "position": event.position}
    if isinstance(event, TextWritten):
        return {"state": "writing", "text": event.text}
    if isinstance(event, FrameMasked):
        return {"state": "masking", "frame": event.frame_index, "done": event.num_done, "total": event.num_frames}
    if isinstance(event, Answered):
        return {"state": "done", "text": event.text, "new_ids": list(event.new_ids)}
    if isinstance(event, Tracked):
        return {"state": "done", "text": "", "new_ids": list(event.object_ids)}
    if isinstance(event, WorkCancelled):
        return {"state": "cancelled", "reason": event.reason}
    return {"state": "working"}


def error_response(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that the message of a `DemoError` reaches the client."""
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def stream(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            try:
                yield from function(*args, **kwargs)
            except DemoError as error:
                raise gr.Error(str(error), print_exception=False) from error

        return stream  # type: ignore[return-value]

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except DemoError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call
