"""Gradio blocks without files in requests, and with descriptions of the parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.state_holder import SessionState

from unipixel.demos.api.descriptions import parameter_descriptions


class FileCheckedBlocks(gr.Blocks):
    """Blocks that refuse references to files in requests.

    A value `{"path": ..., "meta": {"_type": "gradio.FileData"}}` in any argument makes Gradio copy that file to its
    cache, or fetch that address, before the function is called. Gradio's own check of the path is skipped for an
    application that is mounted rather than launched. The demo receives files on another route.
    """

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: SessionState | None, explicit_call: bool = False
    ) -> list[Any]:
        """Check that there are no files, add the defaults of arguments that were left out, and preprocess a request.

        Raises:
            gr.Error: A request refers to a file, or has too few or too many arguments.
        """
        if next(file_paths(inputs), None) is not None:
            raise gr.Error(
                "files are sent to the address `upload_to` of the session: network addresses and paths of the server "
                "are refused",
                print_exception=False,
            )
        given, defaults = len(inputs), _defaults(block_fn.fn)
        maximum, minimum = len(block_fn.inputs), len(block_fn.inputs) - len(defaults)
        if not minimum <= given <= maximum:
            counts = f"{maximum}" if minimum == maximum else f"{minimum} to {maximum}"
            raise gr.Error(
                f"{block_fn.api_name or 'this function'} takes {counts} arguments, got {given}", print_exception=False
            )
        complete = [*inputs, *defaults[given - minimum :]]
        return list(await super().preprocess_data(block_fn, complete, state, explicit_call))

    def get_api_info(self, all_endpoints: bool = False, page: str | None = None) -> Any:
        """Return the description of the API, with the texts about the parameters from the docstrings."""
        info = super().get_api_info(all_endpoints=all_endpoints, page=page)
        for block_fn in self.fns.values():
            endpoint = info["named_endpoints"].get(f"/{block_fn.api_name}")
            if endpoint is None or block_fn.fn is None:
                continue
            texts = parameter_descriptions(block_fn.fn)
            for parameter in endpoint["parameters"]:
                text = texts.get(parameter["parameter_name"], "")
                parameter["label"] = text
                parameter["python_type"] = {**parameter["python_type"], "description": text}
        return info


def _defaults(function: Callable[..., Any] | None) -> list[Any]:
    """Return the default values of the parameters of a function, from the first one that has one."""
    if function is None:
        return []
    parameters = inspect.signature(function).parameters.values()
    return [parameter.default for parameter in parameters if parameter.default is not parameter.empty]


def file_paths(value: Any) -> Iterator[Any]:
    """Yield the path of every file and stream in the values of a request."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if "meta" in item or "orig_name" in item or "is_stream" in item:
                yield item.get("path")
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item
