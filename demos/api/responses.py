"""Responses, errors and checked values of the API functions."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, ParamSpec, TypeVar, get_args, get_type_hints

import gradio as gr

from unipixel.demos.api.session_json import event_json
from unipixel.demos.errors import DemoError, PromptError
from unipixel.demos.sessions.background_work import EventStream

P = ParamSpec("P")
R = TypeVar("R")


def event_values(stream: EventStream) -> Iterator[Any]:
    """Yield the events of work as JSON objects; a refusal is yielded before it is raised."""
    try:
        for event in stream:
            yield event_json(event)
    except DemoError as error:
        # A loop over the values of a job ends silently when an error is raised.
        yield {"state": "refused", "reason": str(error), "field": error.field}
        raise
    finally:
        stream.close()


def check_number(value: Any, name: str) -> float:
    """Return a value of a request after checking that it is a finite number.

    Raises:
        PromptError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PromptError(f"{name} must be a finite number, got {value!r:.60}")
    return float(value)


def check_integer_value(value: Any, name: str) -> int:
    """Return a value of a request after checking that it is an integer.

    Raises:
        PromptError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
        raise PromptError(f"{name} must be an integer, got {value!r:.60}")
    return int(value)


def error_response(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that the message of a `DemoError` reaches the client."""
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def stream(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            try:
                yield from function(*args, **kwargs)
            except DemoError as error:
                raise gr.Error(str(error), print_exception=False) from error

        return _with_result_type(stream)  # type: ignore[arg-type]

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except DemoError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return _with_result_type(call)


def _with_result_type(function: Callable[P, R]) -> Callable[P, R]:
    """Set the type of the result, for a stream that of its values, as Gradio reads it: not as a string."""
    result = get_type_hints(function)["return"]
    if inspect.isgeneratorfunction(function):
        (result,) = get_args(result)
    function.__signature__ = inspect.signature(function).replace(return_annotation=result)  # type: ignore[attr-defined]
    return function
