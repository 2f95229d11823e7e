"""Serves the demo with uvicorn."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable

import torch
import uvicorn

from unipixel.demos.app import Demo


def check_port(host: str, port: int) -> None:
    """Check that the server can listen on a port, before the model is loaded.

    Raises:
        OSError: The port is in use or not permitted.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise OSError(f"cannot listen on {host}, port {port}: {error.strerror or error}; choose --port") from error


def limit_torch_threads() -> None:
    """Reserve one core for pages, decoding and rendering, if there are several.

    The threads of a matrix product wait for the slowest of them, which is the one that shares its core.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def serve(demo: Demo, *, host: str, port: int, announce: Callable[[str], None], is_shared: bool = False) -> None:
    """Serve until Ctrl-C.

    Args:
        demo: The demo.
        host: Address to listen on.
        port: Port to listen on.
        announce: Called with a message that contains the address, when the server listens.
        is_shared: Whether to open a public address with Gradio's tunnel.

    Raises:
        OSError: The tunnel cannot be opened.
    """
    config = uvicorn.Config(
        demo.application,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=2,
        # Paths contain the keys of sessions, which must not be logged.
        access_log=False,
    )

    def on_start() -> None:
        announce(f"The demo is at http://{f'[{host}]' if ':' in host else host}:{port}/")
        if is_shared:
            announce(f"The public address is {open_tunnel(port)}")

    _AnnouncingServer(config, on_start).run()


class _AnnouncingServer(uvicorn.Server):
    """Calls a function when it listens."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start
        # Pages keep connections open; closing them at shutdown is not an error.
        logging.getLogger("uvicorn.error").addFilter(lambda _: not self.should_exit)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call the function."""
        await super().startup(sockets)
        if self.started:
            self._on_start()


def open_tunnel(port: int) -> str:
    """Open Gradio's tunnel to a port of this machine, and return its public address.

    Raises:
        OSError: The servers of Gradio cannot be reached.
    """
    from gradio import networking

    try:
        return str(networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None))
    except (RuntimeError, ValueError, AttributeError) as error:
        raise OSError(f"cannot open a public address: {error}") from error
