"""Pictures per second that the demo's player shows in Chromium: 720p30, two objects, masks decoded in the browser.

Run: python tests/benchmarks/playback.py [--frames 300] [--runs 3]

Prints, per run: the different frames that were drawn per second of playback, the longest pause between two of them, how
many were drawn with both masks, and the processor seconds of all processes of Chromium per second of playback. A second
pass reads every picture back and prints how many showed another frame than their masks.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.browser_tab import PAGE, WIDE, BrowserTab, chromium, load, wait_until_drawn
from helpers.byte_model import save_checkpoint
from helpers.demo_server import serve_demo
from helpers.numbered_clip import PLAY_AND_READ, serve_known_masks, write_numbered_clip
from playwright.sync_api import CDPSession

from unipixel.demos.app import DemoSettings

_PLAY = f"""async () => {{
    const {{ player }} = {PAGE}, drawn = [];
    player.seek(0);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const note = () => drawn.push([performance.now(), player.frame, player.layers.length]);
    player.addEventListener('frame', note);
    player.play();
    await new Promise((resolve) => player.video.addEventListener('ended', resolve, {{ once: true }}));
    player.removeEventListener('frame', note);
    return drawn;
}}"""


def processor_seconds(session: CDPSession) -> float:
    """Return the processor time that all processes of the browser have used."""
    return float(sum(item["cpuTime"] for item in session.send("SystemInfo.getProcessInfo")["processInfo"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        checkpoint = save_checkpoint(Path(folder) / "checkpoint")
        clip = write_numbered_clip(Path(folder) / "clip.mp4", num_frames=arguments.frames)
        with serve_demo(checkpoint, DemoSettings()) as (_, address):
            tab = BrowserTab(browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]}), address)
            load(tab.page, clip)
            serve_known_masks(tab.page, arguments.frames)
            tab.page.reload()
            wait_until_drawn(tab.page)
            processes = browser.new_browser_cdp_session()
            for _ in range(arguments.runs):
                before = processor_seconds(processes)
                drawn = tab.page.evaluate(_PLAY)
                used = processor_seconds(processes) - before
                seconds = (drawn[-1][0] - drawn[0][0]) / 1000
                frames = len({frame for _, frame, _ in drawn})
                pause = max(after[0] - before[0] for before, after in itertools.pairwise(drawn))
                complete = sum(count == 2 for *_, count in drawn)
                print(
                    f"{frames / seconds:.1f} pictures a second, longest pause {pause:.0f} ms, "
                    f"{complete} of {len(drawn)} with both masks, {used / seconds:.2f} processor seconds per second, "
                    f"load average {os.getloadavg()[0]:.1f}"
                )
            read = tab.page.evaluate(PLAY_AND_READ)
            wrong = sum(number != frame or any(shifts) for number, frame, *shifts in read)
            print(f"{wrong} of {len(read)} pictures were drawn with the masks of another frame")


if __name__ == "__main__":
    main()
