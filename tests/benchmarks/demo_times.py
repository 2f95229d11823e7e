"""Times of the demo on a real clip: clicks, following beside `unipixel track`, stopping, the archive of the session.

    python tests/benchmarks/demo_times.py CLIP --point 640,360 [--model MODEL]

The server runs in another process, as `unipixel demo` starts it; every time is taken by the client, over HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

sys.path.append(str(Path(__file__).resolve().parents[1]))
from helpers.demo_process import DemoProcess, open_session, stream


def click_times(client: httpx.Client, base: str, point: tuple[float, float], *, num_frames: int) -> None:
    """Click on 20 frames that were not encoded before, then refine each object."""
    new: list[float] = []
    refined: list[float] = []
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
    demo = DemoProcess("--model", arguments.model)
    print(f"first page after {demo.seconds_to_page:.1f} s, model loaded after {demo.seconds_to_model:.1f} s")
    with httpx.Client() as client:
        base = open_session(demo.address, arguments.clip)
        num_frames = client.get(f"{base}state").json()["video"]["num_frames"]
        click_times(client, base, (x, y), num_frames=num_frames)
        client.post(f"{base}prompts", json={"frame": 0, "points": [[x, y, 1]]}, timeout=60).raise_for_status()
        begin = time.perf_counter()
        masked = [seconds for seconds, value in stream(f"{base}track", {}) if value["state"] == "masking"]
        followed = time.perf_counter() - begin
        print(
            f"following {len(masked)} frames: first mask {masked[0]:.2f} s, last {masked[-1]:.1f} s of {followed:.1f} s"
        )
        times_beside_follow(client, base, open_session(demo.address, arguments.clip), demo.address, (x, y))
        stop_time(client, base, num_frames=num_frames)
        begin = time.perf_counter()
        last = [value for _, value in stream(f"{base}export", {"kind": "session"})][-1]
        size = len(client.get(f"{base}download/{last['file']}", timeout=60).content)
        print(f"session archive of {size / 1e6:.1f} MB after {time.perf_counter() - begin:.1f} s")
        client.post(f"{base}delete").raise_for_status()
    demo.end(signal.SIGTERM)
    print(f"load {os.getloadavg()[0]:.1f}")
    tracked = track_time(arguments.clip, arguments.point, arguments.model)
    print(f"unipixel track: {tracked:.1f} s for tracking and writing; ratio {masked[-1] / tracked:.2f}")


def times_beside_follow(client: httpx.Client, base: str, other: str, address: str, point: tuple[float, float]) -> None:
    """Click, and request pages and pictures, in another session while an object is followed."""
    follow = threading.Thread(target=lambda: list(stream(f"{base}track", {"frame": 0})))
    follow.start()
    requests: dict[str, Callable[[int], httpx.Response]] = {
        "click": lambda number: client.post(
            f"{other}prompts", json={"frame": 5 + 11 * number, "points": [[*point, 1]]}, timeout=60
        ),
        "page": lambda _: client.get(address),
        "state": lambda _: client.get(f"{other}state"),
        "picture": lambda number: client.get(f"{other}frame/{11 * number}.jpg"),
    }
    times: dict[str, list[float]] = {name: [] for name in requests}
    for number in range(16):
        for name, send in requests.items():
            start = time.perf_counter()
            send(number).raise_for_status()
            times[name].append(time.perf_counter() - start)
            time.sleep(0.1)
    assert follow.is_alive(), "the clip is too short for this measurement"
    client.post(f"{base}cancel").raise_for_status()
    follow.join()
    shown = [f"{name} {statistics.median(found):.3f} (most {max(found):.3f})" for name, found in times.items()]
    print(f"beside a follow, median seconds of 16: {', '.join(shown)}")


def stop_time(client: httpx.Client, base: str, *, num_frames: int) -> None:
    """Follow from the last frame backwards, stop after ten frames, and check that these are kept."""
    start = 0.0
    done = []
    for _, value in stream(f"{base}track", {"frame": num_frames - 1, "direction": "backward"}):
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
            "--out", f"{folder}/out", "--json",
        ]  # fmt: skip
        result = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        return float(json.loads(result.stdout)["timings_seconds"]["track"])


if __name__ == "__main__":
    main()
