"""Latency of the demo in a browser: page, first mask, first answer, follow-up.

Run: python tests/benchmarks/demo.py [--model unipixel-nano] [--repeats 3]

Needs Chromium (`apt-get install chromium`). Prints the median of each figure in seconds, and the number of errors in
the browser's console. The video is the sample video; times are measured from the click on the first example.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

# The checkout precedes the tests, whose folder `unipixel` is not a package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers.browser_tab import PAGE, WIDE, BrowserTab, ask, chromium, wait_until_idle
from helpers.demo_server import serve_demo
from playwright.sync_api import Browser

from unipixel.demos.app import DemoSettings

GOALS = {"page interactive": 3.0, "first mask": 3.0, "first answer": 10.0, "follow-up": 3.0}
LONG = 180_000


def measure(browser: Browser, address: str) -> tuple[dict[str, float], int]:
    """Return the latencies of one session in seconds, and the number of errors in the console."""
    context = browser.new_context(viewport={"width": WIDE[0], "height": WIDE[1]})
    seconds = {}
    started = time.perf_counter()
    tab = BrowserTab(context, address)
    seconds["page interactive"] = time.perf_counter() - started
    started = time.perf_counter()
    tab.page.locator(".up-example").first.click()
    tab.page.wait_for_function(f"{PAGE}.player.layers.length === 1", timeout=LONG)
    seconds["first mask"] = time.perf_counter() - started
    tab.page.wait_for_function(f"{PAGE}.session.state.conversation.length === 1", timeout=LONG)
    seconds["first answer"] = time.perf_counter() - started
    wait_until_idle(tab.page)
    started = time.perf_counter()
    ask(tab.page, "What shape is [1]?")
    seconds["follow-up"] = time.perf_counter() - started
    context.close()
    return seconds, len(tab.errors)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="unipixel-nano")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    measurements, num_errors = [], 0
    settings = DemoSettings(model_name=arguments.model)
    with serve_demo(arguments.model, settings) as (_, address), chromium() as browser:
        for _ in range(arguments.repeats):
            seconds, errors = measure(browser, address)
            measurements.append(seconds)
            num_errors += errors
    for name, goal in GOALS.items():
        median = statistics.median(seconds[name] for seconds in measurements)
        print(f"{name:18} {median:6.2f} s   (goal: under {goal:g} s)")
    print(f"console errors     {num_errors:6d}     (goal: 0)")


if __name__ == "__main__":
    main()
