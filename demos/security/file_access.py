"""Gradio blocks with one more check: a request can refer to uploaded files only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.state_holder import SessionState

from unipixel.demos.errors import UploadError


class FileCheckedBlocks(gr.Blocks):
    """Blocks that refuse paths of the server and network addresses in place of uploads.

    A value `{"path": ..., "meta": {"_type": "gradio.FileData"}}` in any argument makes Gradio copy that file to its
    cache, or fetch that address, before the function is called. Gradio's own check of the path is skipped for an
    application that is mounted rather than launched.
    """

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: SessionState | None, explicit_call: bool = False
    ) -> list[Any]:
        """Check the paths in a request, then preprocess it.

        Raises:
            UploadError: A path in the request was not uploaded to this server.
        """
        for path in file_paths(inputs):
            if path not in self.upload_file_set:
                raise UploadError("the file was not uploaded: network addresses and paths of the server are refused")
        return list(await super().preprocess_data(block_fn, inputs, state, explicit_call))


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
