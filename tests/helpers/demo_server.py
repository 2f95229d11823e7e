"""A demo server on a free port, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from unipixel.demos.app import Demo, DemoSettings
from unipixel.demos.limits import Limits
from unipixel.demos.server import DemoServer, TimedProtocol
from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.session.settings import SessionSettings

SMALL_LIMITS = Limits(max_sessions=12, max_sessions_per_client=64, max_seconds=5, max_upload_megabytes=1, max_objects=6)
# Random weights do not generate an end-of-sequence token.
SHORT_ANSWERS = SessionSettings(num_frames=4, generation=GenerationSettings(max_new_tokens=12))


@contextmanager
def serve_demo(checkpoint: Path | str, settings: DemoSettings) -> Iterator[tuple[Demo, str]]:
    """Serve a demo for the block; yields the demo and its address."""
    model, processor = UniPixel.from_pretrained(checkpoint), Processor.from_pretrained(checkpoint)
    with Demo(model, processor, settings) as demo:
        config = uvicorn.Config(
            demo.application, port=0, http=TimedProtocol, log_level="error", timeout_graceful_shutdown=1
        )
        server = DemoServer(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            yield demo, f"http://127.0.0.1:{_port(server, thread)}/"
        finally:
            server.should_exit = True
            thread.join(10)


def _port(server: uvicorn.Server, thread: threading.Thread) -> int:
    while thread.is_alive():
        if server.started:
            return int(server.servers[0].sockets[0].getsockname()[1])
        time.sleep(0.05)
    raise RuntimeError("the server did not start")
