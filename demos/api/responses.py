"""What the functions of the API return, and how they refuse."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from unipixel.demos.sessions.errors import DemoError
from unipixel.demos.sessions.events import Answered, Event, FrameMasked, TextWritten, Tracked, Waiting, WorkCancelled
from unipixel.demos.sessions.user_session import MediaInfo

P = ParamSpec("P")
R = TypeVar("R")


def facts_of(info: MediaInfo) -> dict[str, Any]:
    """Turn what is known of a video into a value that JSON carries."""
    return asdict(info)


def value_of(event: Event) -> dict[str, Any]:
    """Turn an event into a value that JSON carries."""
    if isinstance(event, Waiting):
        return {"state": "waiting", "place": event.place}
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
    """Give a client the words of a refusal, in place of a bare failure."""
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def streaming(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            try:
                yield from function(*args, **kwargs)
            except DemoError as error:
                raise gr.Error(str(error), print_exception=False) from error

        return streaming  # type: ignore[return-value]

    @wraps(function)
    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except DemoError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return plain
