"""Gradio's blocks with one more check: a request names no file but one that was uploaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.blocks import BlockFunction
from gradio.state_holder import SessionState

from unipixel.demos.sessions.errors import UploadError


class FileCheckedBlocks(gr.Blocks):
    """Blocks that refuse files of the server, and addresses, in place of uploads.

    A value `{"path": ..., "meta": {"_type": "gradio.FileData"}}` in any argument makes Gradio copy that file into
    its cache, or fetch that address, before our code sees it. An application that is mounted rather than launched
    skips Gradio's own check of the path.
    """

    async def preprocess_data(
        self, block_fn: BlockFunction, inputs: list[Any], state: SessionState | None, explicit_call: bool = False
    ) -> list[Any]:
        """Check what a request names, then do what Gradio does.

        Raises:
            UploadError: A path in the request was not uploaded to this server.
        """
        for path in named_files(inputs):
            if path not in self.upload_file_set:
                raise UploadError("that is no uploaded file: upload it, addresses and files of the server are refused")
        return list(await super().preprocess_data(block_fn, inputs, state, explicit_call))


def named_files(value: Any) -> Iterator[Any]:
    """Yield every path and stream that a request's values name."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if "meta" in item or "orig_name" in item or "is_stream" in item:
                yield item.get("path")
            pending += item.values()
        elif isinstance(item, list | tuple):
            pending += item
