"""`unipixel demo` in a process, and a client for the routes of a session."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx


class DemoProcess:
    """A demo server that can be killed.

    Attributes:
        address: Its address.
        process: The process.
        seconds_to_page: Seconds until the first page was there.
        seconds_to_model: Seconds until the model was loaded.
    """

    def __init__(self, *arguments: str, temporary: Path | None = None) -> None:
        """Start the server, and wait until the model is loaded.

        Args:
            arguments: Further arguments of `unipixel demo`.
            temporary: Its folder for temporary files; None for that of the system.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.address, self.seconds_to_page = f"http://127.0.0.1:{port}/", 0.0
        start = time.perf_counter()
        command = [sys.executable, "-m", "unipixel.cli", "demo", "--port", str(port), *arguments]
        environment = os.environ if temporary is None else {**os.environ, "TMPDIR": str(temporary)}
        # A file, since a pipe that nobody reads would stop a server that writes much.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - for the time of the process
        self.process = subprocess.Popen(command, stderr=self._log, stdout=self._log, env=environment)
        while True:
            try:
                status = httpx.get(self.address, timeout=30).status_code
                self.seconds_to_page = self.seconds_to_page or time.perf_counter() - start
                if status == 200:
                    break
            except httpx.TransportError:
                if self.process.poll() is not None:
                    raise RuntimeError(f"the server ended: {self.log}") from None
            time.sleep(0.1)
        self.seconds_to_model = time.perf_counter() - start

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        self._log.seek(0)
        return self._log.read()

    def end(self, number: int) -> float:
        """Send a signal, and return the seconds until the process has ended."""
        start = time.perf_counter()
        self.process.send_signal(number)
        self.process.wait(60)
        return time.perf_counter() - start


def call_function(address: str, name: str, *arguments: Any) -> Any:
    """Call a named function of the API, and return its last value."""
    started = httpx.post(f"{address}gradio_api/call/{name}", json={"data": list(arguments)}, timeout=60)
    started.raise_for_status()
    text = httpx.get(f"{address}gradio_api/call/{name}/{started.json()['event_id']}", timeout=300).text
    kind, _, rest = text.rpartition("event: ")[2].partition("\n")
    data = json.loads(rest.partition("data: ")[2].partition("\n")[0])
    if kind.strip() != "complete":
        raise RuntimeError(f"{name} was refused: {data}")
    return data[0]


def open_session(address: str, clip: Path) -> str:
    """Open a session with a clip, and return its address."""
    base = f"{address}session/{call_function(address, 'open_session')['session']}/"
    httpx.post(f"{base}upload?name={clip.name}", content=clip.read_bytes(), timeout=120).raise_for_status()
    httpx.post(f"{base}load", timeout=120).raise_for_status()
    return base


def stream(address: str, body: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield the values of a stream with the seconds since the request."""
    start = time.perf_counter()
    with httpx.stream("POST", address, json=body, timeout=900) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            yield time.perf_counter() - start, json.loads(line)
