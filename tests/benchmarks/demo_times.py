"""Times of the demo on a real clip: clicks, following beside `unipixel track`, stopping, the archive of the session.

    python tests/benchmarks/demo_times.py CLIP --point 640,360 [--model MODEL]

The server runs in another process, as `unipixel demo` starts it; every time is taken by the client, over HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx


@contextmanager
def running_demo(*arguments: str) -> Iterator[str]:
    """Start `unipixel demo`, and yield its address when the model is loaded."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.perf_counter()
    command = [sys.executable, "-m", "unipixel.cli", "demo", "--port", str(port), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    address, first = f"http://127.0.0.1:{port}/", None
    try:
        while True:
            try:
                answer = httpx.get(address)
                first = first or time.perf_counter() - start
                if answer.status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        print(f"first page after {first:.1f} s, model loaded after {time.perf_counter() - start:.1f} s")
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def open_session(address: str, clip: Path) -> str:
    """Open a session with a clip, and return its address."""
    event = httpx.post(f"{address}gradio_api/call/open_session", json={"data": []}).json()["event_id"]
    text = httpx.get(f"{address}gradio_api/call/open_session/{event}", timeout=60).text
    key = json.loads(text.partition("data: ")[2].partition("\n")[0])[0]["session"]
    base = f"{address}session/{key}/"
    httpx.post(f"{base}upload?name={clip.name}", content=clip.read_bytes(), timeout=60).raise_for_status()
    httpx.post(f"{base}load", timeout=60).raise_for_status()
    return base


def stream(client: httpx.Client, address: str, body: dict[str, Any]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield the values of a stream with the seconds since the request."""
    start = time.perf_counter()
    with client.stream("POST", address, json=body, timeout=900) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            yield time.perf_counter() - start, json.loads(line)


def click_times(client: httpx.Client, base: str, point: tuple[float, float], *, num_frames: int) -> None:
    """Click on 20 frames that were not encoded before, then refine each object."""
    new, refined = [], []
    for number in range(20):
        frame = (number * 13 + 5) % num_frames
        for times, shift in ((new, 0.0), (refined, 8.0)):
            body = {"object_id": 1 if shift else 0, "frame": frame, "points": [[point[0] + shift, point[1], 1]]}
            start = time.perf_counter()
            client.post(f"{base}prompts", json=body, timeout=60).raise_for_status()
            times.append(time.perf_counter() - start)
        client.post(f"{base}forget", json={"object_id": 1}).raise_for_status()
    for name, times in (("click", new), ("refinement", refined)):
        print(f"{name} to mask: median {statistics.median(times):.2f} s, most {max(times):.2f} s, of {len(times)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--point", default="640,360")
    parser.add_argument("--model", default="unipixel-nano")
    arguments = parser.parse_args()
    x, y = map(float, arguments.point.split(","))
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with running_demo("--model", arguments.model) as address, httpx.Client() as client:
        base = open_session(address, arguments.clip)
        num_frames = client.get(f"{base}state").json()["video"]["num_frames"]
        click_times(client, base, (x, y), num_frames=num_frames)
        client.post(f"{base}prompts", json={"frame": 0, "points": [[x, y, 1]]}, timeout=60).raise_for_status()
        begin = time.perf_counter()
        masked = [seconds for seconds, value in stream(client, f"{base}track", {}) if value["state"] == "masking"]
        followed = time.perf_counter() - begin
        print(
            f"following {len(masked)} frames: first mask {masked[0]:.2f} s, last {masked[-1]:.1f} s of {followed:.1f} s"
        )
        stop_time(client, base, num_frames=num_frames)
        begin = time.perf_counter()
        last = [value for _, value in stream(client, f"{base}export", {"kind": "session"})][-1]
        size = len(client.get(f"{base}download/{last['file']}", timeout=60).content)
        print(f"session archive of {size / 1e6:.1f} MB after {time.perf_counter() - begin:.1f} s")
        client.post(f"{base}delete").raise_for_status()
    print(f"load {os.getloadavg()[0]:.1f}")
    tracked = track_time(arguments.clip, arguments.point, arguments.model)
    print(f"unipixel track: {tracked:.1f} s for tracking and writing; ratio {masked[-1] / tracked:.2f}")


def stop_time(client: httpx.Client, base: str, *, num_frames: int) -> None:
    """Follow from the last frame backwards, stop after ten frames, and check that these are kept."""
    start = 0.0
    done = []
    for _, value in stream(client, f"{base}track", {"frame": num_frames - 1, "direction": "backward"}):
        if value["state"] == "masking":
            done.append(value["frame"])
            if len(done) == 10:
                start = time.perf_counter()
                client.post(f"{base}cancel").raise_for_status()
        elif value["state"] == "cancelled":
            print(f"stop: {time.perf_counter() - start:.2f} s, {len(done)} finished frames")
    frames = client.get(f"{base}masks?first={min(done)}&count={len(done)}").json()["frames"]
    assert {str(index) for index in done} <= set(frames), "finished frames were lost"


def track_time(clip: Path, point: str, model: str) -> float:
    """Run `unipixel track` on the clip, and return its seconds for tracking."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "unipixel.cli", "track", str(clip), "--model", model, "--point", f"1:{point}@0",
            "--out", folder, "--json",
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, check=True, text=True)
        return float(json.loads(result.stdout)["timings_seconds"]["track"])


if __name__ == "__main__":
    main()
