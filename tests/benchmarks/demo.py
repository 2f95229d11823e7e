"""Latency of the demo in a browser: page, first masks, first answer, follow-up.

Run: python tests/benchmarks/demo.py [--model unipixel-nano] [--repeats 3]

Needs Chromium (`apt-get install chromium`). Prints the median of each figure in seconds, and the number of errors in
the browser's console. The video is the sample video; times are measured from the click on the first example.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

# The checkout precedes the tests, whose folder `unipixel` is not a package.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from helpers.demo_server import serve_demo

from unipixel.demos.app import DemoSettings

FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
GOALS = {"page interactive": 3.0, "first masks": 3.0, "first answer": 10.0, "follow-up": 3.0}
LONG = 180_000


def measure(browser: Browser, address: str) -> tuple[dict[str, float], int]:
    """Return the latencies of one session in seconds, and the number of errors in the console."""
    errors: list[str] = []
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(LONG)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    seconds = {}
    started = time.perf_counter()
    page.goto(address)
    page.locator(".up-drop small").filter(has_text="MB").wait_for()
    seconds["page interactive"] = time.perf_counter() - started
    started = time.perf_counter()
    page.get_by_role("button", name="What colour is [1]?").click()
    page.locator(".up-result img[src]").wait_for()
    seconds["first masks"] = time.perf_counter() - started
    expect(page.locator("#up-stop")).to_be_disabled(timeout=LONG)
    expect(page.locator(".up-answered")).to_have_count(1, timeout=LONG)
    page.locator(".up-timeline").wait_for()
    seconds["first answer"] = time.perf_counter() - started
    page.locator("#up-question textarea").fill("What shape is [1]?")
    started = time.perf_counter()
    page.locator("#up-ask").click()
    expect(page.locator("#up-question textarea")).to_have_value("", timeout=LONG)
    seconds["follow-up"] = time.perf_counter() - started
    context.close()
    return seconds, len(errors)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="unipixel-nano")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    program = shutil.which("chromium")
    if program is None:
        raise FileNotFoundError("Chromium is missing: apt-get install chromium")
    measurements, num_errors = [], 0
    with (
        serve_demo(arguments.model, DemoSettings(model_name=arguments.model)) as (_, address),
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        for _ in range(arguments.repeats):
            seconds, errors = measure(browser, address)
            measurements.append(seconds)
            num_errors += errors
        browser.close()
    for name, goal in GOALS.items():
        median = statistics.median(seconds[name] for seconds in measurements)
        print(f"{name:18} {median:6.2f} s   (goal: under {goal:g} s)")
    print(f"console errors     {num_errors:6d}     (goal: 0)")


if __name__ == "__main__":
    main()
