"""Serves the demo until it is interrupted."""

from __future__ import annotations

import logging
import secrets
import socket

import uvicorn

from unipixel.demos.app import Demo

_LOG = logging.getLogger(__name__)


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


def serve(demo: Demo, *, host: str, port: int, is_shared: bool = False, root_path: str = "") -> None:
    """Serve until Ctrl-C.

    Args:
        demo: What to serve.
        host: Address to listen on.
        port: Port to listen on.
        is_shared: Whether Gradio's tunnel makes it public.
        root_path: Where a proxy serves it.

    Raises:
        OSError: The tunnel cannot be made.
    """
    config = uvicorn.Config(
        demo.application,
        host=host,
        port=port,
        log_level="warning",
        root_path=root_path.rstrip("/"),
        timeout_graceful_shutdown=2,
        # Keys stand in addresses: they do not belong into a log.
        access_log=False,
    )
    server = _AnnouncingServer(config, announce=lambda: _announce(host, port, is_shared))
    server.run()


class _AnnouncingServer(uvicorn.Server):
    """Says where it is once it listens."""

    def __init__(self, config: uvicorn.Config, *, announce: object) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then say so."""
        await super().startup(sockets)
        if self.started and callable(self._announce):
            self._announce()


def _announce(host: str, port: int, is_shared: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    _LOG.warning("The demo is at http://%s:%d/", shown, port)
    if is_shared:
        _LOG.warning("It is shared at %s", open_tunnel(port))


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
