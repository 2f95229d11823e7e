"""Pictures per second that the demo's player shows in Chromium: 720p30, two objects, masks decoded in the browser.

Run: python tests/benchmarks/playback.py [--frames 300] [--runs 3] [--follow] [--clip CLIP --points 640,360 200,500]

The clip is drawn, and its frames carry their number. Without --follow, the masks are two known discs and the model is
tiny. With --follow, `unipixel demo` runs in another process, follows two clicks with the bundled model, and serves the
masks; --clip takes another video.

Prints, per run: the different frames that were drawn per second of playback, the longest pause between two of them, how
many were drawn with the masks of all visible objects, and the processor seconds of all processes of Chromium per second
of playback. A second pass reads every picture back and prints how many showed another frame than their masks; reading
slows playback down.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

# The checkout precedes the tests, whose folder `unipixel` is not a package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers.browser_tab import PAGE, WIDE, BrowserTab, chromium, load, wait_until_drawn
from helpers.byte_model import save_checkpoint
from helpers.demo_process import DemoProcess, open_session, stream
from helpers.demo_server import serve_demo
from helpers.numbered_clip import PLAY_AND_READ, serve_known_masks, write_numbered_clip
from playwright.sync_api import Browser, CDPSession

from unipixel.demos.app import DemoSettings
from unipixel.memory.rle import decode_rle, mask_box

_PLAY = f"""async () => {{
    const {{ player, session }} = {PAGE}, drawn = [];
    player.seek(0);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const note = () => drawn.push([performance.now(), player.frame,
        player.layers.length === Object.keys(session.masks.masksAt(player.frame)).length]);
    player.addEventListener('frame', note);
    player.play();
    await new Promise((resolve) => player.video.addEventListener('ended', resolve, {{ once: true }}));
    player.removeEventListener('frame', note);
    return drawn;
}}"""
# Frames by the number that the picture shows, with the boxes of the masks that were drawn on it.
_PLAY_AND_READ_BOXES = PLAY_AND_READ.replace(
    "drawn.push([number, player.frame, ...shifts])",
    "drawn.push([number, player.frame, player.layers.map(({ id, x, y, width, height, margin }) =>"
    " [id, x + margin, y + margin, x + width - margin, y + height - margin])])",
)


@contextmanager
def page_with_known_masks(browser: Browser, folder: Path, num_frames: int) -> Iterator[BrowserTab]:
    """Yield a page that shows the numbered clip with two discs as masks."""
    clip = write_numbered_clip(folder / "clip.mp4", num_frames=num_frames)
    with serve_demo(save_checkpoint(folder / "checkpoint"), DemoSettings()) as (_, address):
        tab = BrowserTab(browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]}), address)
        load(tab.page, clip)
        serve_known_masks(tab.page, num_frames)
        tab.page.reload()
        wait_until_drawn(tab.page)
        yield tab


@contextmanager
def page_with_followed_objects(
    browser: Browser, clip: Path, points: list[tuple[float, float]]
) -> Iterator[tuple[BrowserTab, dict[str, Any]]]:
    """Yield a page of a server in another process after it has followed some clicks, and the masks by frame."""
    demo = DemoProcess()
    try:
        base = open_session(demo.address, clip)
        for x, y in points:
            httpx.post(f"{base}prompts", json={"points": [[x, y, 1]]}, timeout=60).raise_for_status()
        last = [value for _, value in stream(f"{base}track", {})][-1]
        assert last["state"] == "done", last
        frames: dict[str, Any] = {}
        num_frames = httpx.get(f"{base}state").json()["video"]["num_frames"]
        for first in range(0, num_frames, 256):
            frames |= httpx.get(f"{base}masks?first={first}&count=256", timeout=60).json()["frames"]
        address = f"{demo.address}?session={base.rstrip('/').rpartition('/')[2]}"
        tab = BrowserTab(browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]}), address)
        wait_until_drawn(tab.page)
        yield tab, frames
    finally:
        demo.end(signal.SIGTERM)


def processor_seconds(session: CDPSession) -> float:
    """Return the processor time that all processes of the browser have used."""
    return float(sum(item["cpuTime"] for item in session.send("SystemInfo.getProcessInfo")["processInfo"]))


def print_runs(browser: Browser, tab: BrowserTab, runs: int) -> None:
    """Play the video from the beginning, several times."""
    processes = browser.new_browser_cdp_session()
    for _ in range(runs):
        before = processor_seconds(processes)
        drawn = tab.page.evaluate(_PLAY)
        used = processor_seconds(processes) - before
        seconds = (drawn[-1][0] - drawn[0][0]) / 1000
        frames = len({frame for _, frame, _ in drawn})
        pause = max(after[0] - before[0] for before, after in itertools.pairwise(drawn))
        complete = sum(is_complete for *_, is_complete in drawn)
        print(
            f"{frames / seconds:.1f} pictures a second, longest pause {pause:.0f} ms, "
            f"{complete} of {len(drawn)} with all masks, {used / seconds:.2f} processor seconds per second, "
            f"load average {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def num_wrong(read: list[tuple[int, int, list[list[int]]]], frames: dict[str, Any]) -> int:
    """Return how many pictures were not drawn with the masks that the server has of the frame which they show."""
    wrong = 0
    for number, frame, boxes in read:
        masks = {int(key): counts for key, counts in frames.get(str(number), {}).items() if counts}
        expected = {key: mask_box(decode_rle({"size": [720, 1280], "counts": counts})) for key, counts in masks.items()}
        wrong += number != frame or {box[0]: tuple(box[1:]) for box in boxes} != expected
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--points", nargs="+", default=["320,400", "900,400"])
    arguments = parser.parse_args()
    points = [(float(x), float(y)) for x, y in (text.split(",") for text in arguments.points)]
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        if not (arguments.follow or arguments.clip):
            with page_with_known_masks(browser, Path(folder), arguments.frames) as tab:
                print_runs(browser, tab, arguments.runs)
                read = tab.page.evaluate(PLAY_AND_READ)
                wrong = sum(number != frame or any(shifts) for number, frame, *shifts in read)
                print(f"{wrong} of {len(read)} pictures were drawn with the masks of another frame")
            return
        clip = arguments.clip or write_numbered_clip(Path(folder) / "clip.mp4", num_frames=arguments.frames)
        with page_with_followed_objects(browser, clip, points) as (tab, frames):
            print_runs(browser, tab, arguments.runs)
            if arguments.clip is None:
                read = tab.page.evaluate(_PLAY_AND_READ_BOXES)
                print(f"{num_wrong(read, frames)} of {len(read)} pictures were drawn with the masks of another frame")


if __name__ == "__main__":
    main()
