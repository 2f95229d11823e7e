"""Seconds until commands answer: wrong input, the first tracked frame, the README's first command, the demo.

    python tests/benchmarks/startup.py [--repeats 3] [--only wrong track readme demo] [--json]

Each command runs in a new process; the values are the minimum of the repeats. The machine should be idle.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from unipixel.assets import sample_path

UNIPIXEL = [sys.executable, "-m", "unipixel.cli"]
POINT = ["--point", "1:65,85@0"]
# Wrong input, with the sample clip where it is right.
WRONG = (
    ["track", "nope.mp4", *POINT],
    ["track", "CLIP", "--point", "1:65,@0"],
    ["track", "CLIP", "--point", "1:9999,1@0"],
    ["track", "CLIP", *POINT, "--model", "nope"],
    ["track", "CLIP", *POINT, "--device", "tpu"],
    ["ask", "nope.mp4", "What is it?"],
    ["ask", "CLIP", "What is [1]?", "--point", "1:9999,1@0"],
    ["ask", "CLIP", "What is it?", "--segmenter", "nope"],
    ["segment", "nope.mp4", "it"],
    ["stream", "nope.mp4", "it"],
    ["chat", "nope.mp4"],
    ["demo", "--port", "0"],
    ["demo", "--model", "nope"],
    ["score", "nope", "nope"],
    ["train", "nope"],
    ["check", "nope.jsonl"],
    ["eval", "synthetic", "--model", "nope"],
    ["synth", "--style", "nope"],
)
MAX_DEMO_SECONDS = 120.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    for row in arguments.only:
        for _ in range(arguments.repeats):
            for name, seconds in ROWS[row]().items():
                figures[name] = min(round(seconds, 2), figures.get(name, seconds))
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, seconds in figures.items():
        print(f"{seconds:7.2f} s  {name}")


def measure_wrong_input() -> dict[str, float]:
    """Return the seconds of each command of `WRONG`."""
    figures = {}
    for argv in WRONG:
        command = [str(sample_path()) if text == "CLIP" else text for text in argv]
        seconds, code = _run(command)
        if code != 2:
            raise RuntimeError(f"{' '.join(argv)} should be refused with status 2, got {code}")
        figures[f"unipixel {' '.join(argv)}"] = seconds
    return figures


def measure_track() -> dict[str, float]:
    """Return the seconds in which `track` starts, tracks one frame and ends."""
    from unipixel.video.open import open_video

    with tempfile.TemporaryDirectory() as folder:
        from PIL import Image

        frame = Path(folder) / "frame.png"
        Image.fromarray(next(iter(open_video(str(sample_path())))).image).save(frame)
        return {"unipixel track, one frame": _succeed(["track", str(frame), *POINT])}


def measure_readme() -> dict[str, float]:
    """Return the seconds of the README's first command after installation."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", str(Path(folder) / "result")]
        command = ["ask", str(sample_path()), "What colour is [1]?", *POINT, *out]
        return {"the README's first command": _succeed(command)}


def measure_demo() -> dict[str, float]:
    """Return the seconds until the demo has a page, and until its model is loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    server = subprocess.Popen([*UNIPIXEL, "demo", "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        figures: dict[str, float] = {}
        while time.perf_counter() - start < MAX_DEMO_SECONDS and server.poll() is None:
            status = _status(f"http://127.0.0.1:{port}/")
            if status is not None:
                figures.setdefault("unipixel demo, first page", time.perf_counter() - start)
            if status == 200:
                return figures | {"unipixel demo, model loaded": time.perf_counter() - start}
            time.sleep(0.05)
        raise RuntimeError(f"the demo did not answer within {MAX_DEMO_SECONDS:g} s, its status is {server.poll()}")
    finally:
        server.terminate()
        server.wait()


def _status(address: str) -> int | None:
    """Return the status of a page: 503 while the model is being loaded, None if nothing answers."""
    try:
        with urllib.request.urlopen(address, timeout=5) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        return int(error.code)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def _succeed(argv: list[str]) -> float:
    seconds, code = _run(argv)
    if code:
        raise RuntimeError(f"unipixel {' '.join(argv)} failed with status {code}")
    return seconds


def _run(argv: list[str]) -> tuple[float, int]:
    start = time.perf_counter()
    finished = subprocess.run([*UNIPIXEL, *argv], capture_output=True, check=False)
    return time.perf_counter() - start, finished.returncode


ROWS: dict[str, Callable[[], dict[str, float]]] = {
    "wrong": measure_wrong_input,
    "track": measure_track,
    "readme": measure_readme,
    "demo": measure_demo,
}

if __name__ == "__main__":
    main()
