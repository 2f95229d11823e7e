"""Clicks of one person while another client sends whatever is expensive: uploads, follows, sessions, bodies, requests.

    python tests/benchmarks/demo_hostile.py CLIP [--seconds 60] [--model MODEL]

The other client has another address of this machine (127.0.0.2), as the server counts clients by address.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

sys.path.append(str(Path(__file__).resolve().parents[1]))
from helpers.demo_process import DemoProcess, call_function, open_session

HOSTILE_ADDRESS = "127.0.0.2"


class HostileClient:
    """Repeats expensive requests in threads until it is stopped.

    Attributes:
        statuses: How often each status was received, by request.
    """

    def __init__(self, address: str, clip: Path) -> None:
        """Open sessions before the first request."""
        self.statuses: Counter[str] = Counter()
        self._address, self._clip = address, clip.read_bytes()
        self._has_ended = threading.Event()
        self._client = httpx.Client(
            transport=httpx.HTTPTransport(local_address=HOSTILE_ADDRESS, limits=httpx.Limits(max_connections=60)),
            timeout=60,
        )
        self._bases = [self._open() for _ in range(4)]
        actions = [self._upload, self._upload, *[self._follow] * 6, self._open_session, self._numbers, self._large]
        self._threads = [threading.Thread(target=self._repeat, args=(action,)) for action in [*actions, self._state]]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and wait for the requests under way."""
        self._has_ended.set()
        for base in self._bases:
            self._client.post(f"{base}cancel")
        for thread in self._threads:
            thread.join(60)

    def _open(self) -> str:
        page = self._client.post(f"{self._address}gradio_api/call/open_session", json={"data": []})
        event = page.json()["event_id"]
        text = self._client.get(f"{self._address}gradio_api/call/open_session/{event}").text
        key = text.partition('"session": "')[2].partition('"')[0]
        base = f"{self._address}session/{key}/"
        self._client.post(f"{base}upload", content=self._clip).raise_for_status()
        self._client.post(f"{base}load").raise_for_status()
        return base

    def _repeat(self, action: Callable[[int], httpx.Response]) -> None:
        number = 0
        while not self._has_ended.is_set():
            number += 1
            with contextlib.suppress(httpx.TransportError):
                self.statuses[f"{action.__name__.strip('_')} {action(number).status_code}"] += 1

    def _upload(self, number: int) -> httpx.Response:
        base = self._bases[number % len(self._bases)]
        self._client.post(f"{base}upload", content=os.urandom(2**22))
        return self._client.post(f"{base}load")

    def _follow(self, number: int) -> httpx.Response:
        base = self._bases[number % len(self._bases)]
        self._client.post(f"{base}prompts", json={"frame": number % 100, "points": [[600, 300, 1]]})
        return self._client.post(f"{base}track", json={})

    def _open_session(self, _: int) -> httpx.Response:
        return self._client.post(f"{self._address}gradio_api/call/open_session", json={"data": []})

    def _numbers(self, _: int) -> httpx.Response:
        body = {"data": [self._bases[0][-44:-1], [1] * 400_000, 3]}
        return self._client.post(f"{self._address}gradio_api/call/click", json=body)

    def _large(self, _: int) -> httpx.Response:
        return self._client.post(f"{self._bases[0]}rename", content=b"x" * 2**22)

    def _state(self, _: int) -> httpx.Response:
        return self._client.get(f"{self._bases[0]}state")


def click_times(base: str, *, seconds: float) -> list[float]:
    """Click on changing frames, twice a second, for some time."""
    times, end, number = [], time.monotonic() + seconds, 0
    with httpx.Client(timeout=120) as client:
        while time.monotonic() < end:
            number += 1
            body = {"frame": number * 7 % 200, "points": [[500 + number % 50, 300, 1]]}
            start = time.perf_counter()
            edit = client.post(f"{base}prompts", json=body)
            times.append(time.perf_counter() - start)
            edit.raise_for_status()
            client.post(f"{base}forget", json={"object_id": edit.json()["object_id"]}).raise_for_status()
            time.sleep(0.5)
    return times


def folder_megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--model", default="unipixel-nano")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        demo = DemoProcess("--model", arguments.model, "--sessions", folder)
        base = open_session(demo.address, arguments.clip)
        alone = click_times(base, seconds=arguments.seconds / 3)
        hostile = HostileClient(demo.address, arguments.clip)
        hostile.start()
        time.sleep(2)
        together = click_times(base, seconds=arguments.seconds)
        hostile.stop()
        largest = folder_megabytes(Path(folder))
        call_function(demo.address, "describe", base.rstrip("/").rpartition("/")[2])
        demo.end(signal.SIGTERM)
    for name, times in (("alone", alone), ("beside the hostile client", together)):
        print(f"{name}: median {statistics.median(times):.2f} s, most {max(times):.2f} s, of {len(times)} clicks")
    print(
        f"ratio of the medians {statistics.median(together) / statistics.median(alone):.1f}; {largest:.0f} MB on disk"
    )
    print(dict(sorted(hostile.statuses.items())))


if __name__ == "__main__":
    main()
