"""Serves the demo until it is interrupted."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable

import torch
import uvicorn

from unipixel.demos.app import Demo


def check_port(host: str, port: int) -> None:
    """Check that a port can be listened on, before a model is loaded for it.

    Raises:
        OSError: It is taken, or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise OSError(f"cannot listen on {host}, port {port}: {error.strerror or error}; choose --port") from error


def limit_torch_threads() -> None:
    """Let PyTorch leave one core to pages, decoding and drawing, where there are several.

    Threads that wait for each other at every product wait longest where one of them must share its core.
    """
    torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def serve(demo: Demo, *, host: str, port: int, announce: Callable[[str], None], is_shared: bool = False) -> None:
    """Serve until Ctrl-C.

    Args:
        demo: What to serve.
        host: Address to listen on.
        port: Port to listen on.
        announce: Told where the demo is, once it can be reached.
        is_shared: Whether Gradio's tunnel makes it public.

    Raises:
        OSError: The tunnel cannot be made.
    """
    config = uvicorn.Config(
        demo.application,
        host=host,
        port=port,
        log_level="warning",
        timeout_graceful_shutdown=2,
        # Keys stand in addresses: they do not belong into a log.
        access_log=False,
    )

    def notify() -> None:
        announce(f"The demo is at http://{f'[{host}]' if ':' in host else host}:{port}/")
        if is_shared:
            announce(f"It is shared at {open_tunnel(port)}")

    _AnnouncingServer(config, notify).run()


class _AnnouncingServer(uvicorn.Server):
    """Says where it is once it listens."""

    def __init__(self, config: uvicorn.Config, notify: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = notify
        # Pages hold connections open: that they are cut off at the end is no error worth a trace.
        logging.getLogger("uvicorn.error").addFilter(lambda _: not self.should_exit)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self.started:
            self._tell()


def open_tunnel(port: int) -> str:
    """Open Gradio's tunnel to a port of this machine, and return its public address.

    Raises:
        OSError: There is no way to Gradio's servers.
    """
    from gradio import networking

    try:
        return str(networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None))
    except (RuntimeError, ValueError, AttributeError) as error:
        raise OSError(f"the public address could not be made: {error}") from error
