"""Pages of the demo in Chromium (`apt-get install chromium`), driven by Playwright."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

SCREENSHOTS = Path(__file__).resolve().parents[2] / "out" / "screenshots"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]  # fmt: skip
WIDE, PHONE = (1440, 900), (390, 844)
LONG = 60_000
PAGE = "document.querySelector('.up-tool').page"
"""The object that static/ask_page.js creates."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium for the block."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


class BrowserTab:
    """A page and the errors of its console."""

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.context, self.address = context, address
        self.errors: list[str] = []
        self.page = self.open(address)

    def open(self, address: str) -> Page:
        page = self.context.new_page()
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        wait_until_open(page)
        return page


def wait_until_open(page: Page) -> None:
    """Wait until the page has received the state of its session."""
    page.wait_for_function(
        "document.querySelector('.up-tool')?.page?.session.state.limits.max_upload_megabytes", timeout=LONG
    )


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.png")


def upload(page: Page, file: Path) -> None:
    page.locator(".up-drop input[type=file]").set_input_files(file)


def load(page: Page, file: Path) -> None:
    upload(page, file)
    wait_until_drawn(page)


def wait_until_drawn(page: Page) -> None:
    """Wait until the player shows a frame."""
    page.locator(".up-workspace").wait_for(timeout=LONG)
    page.wait_for_function(f"{PAGE}.player.info && {PAGE}.player.lastDrawn > 0", timeout=LONG)


def position_in(page: Page, x: float, y: float) -> tuple[float, float]:
    """Return the position on the screen of a fraction of the picture's width and height."""
    box = page.locator(".up-picture").bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def click_picture(page: Page, x: float, y: float) -> None:
    """Click at a fraction of the picture's width and height, and wait until its answer has arrived."""
    before = page.evaluate(f"{PAGE}.session.revision")
    page.mouse.click(*position_in(page, x, y))
    page.wait_for_function(f"{PAGE}.session.revision > {before} && !{PAGE}.session.pendingMarks.length", timeout=LONG)


def drag_picture(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag between two fractions of the picture, and wait until the answer has arrived."""
    before = page.evaluate(f"{PAGE}.session.revision")
    page.mouse.move(*position_in(page, *start))
    page.mouse.down()
    page.mouse.move(*position_in(page, *end), steps=4)
    page.mouse.up()
    page.wait_for_function(f"{PAGE}.session.revision > {before} && !{PAGE}.session.pendingMarks.length", timeout=LONG)


def wait_until_idle(page: Page) -> None:
    page.wait_for_function(f"!{PAGE}.session.work && !{PAGE}.session.state.is_busy", timeout=LONG)


def follow(page: Page) -> None:
    page.get_by_role("button", name="Follow", exact=True).click()
    wait_until_idle(page)


def ask(page: Page, question: str) -> None:
    turns = page.locator(".up-asked").count()
    page.get_by_label("Question or phrase").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".up-asked")).to_have_count(turns + 1, timeout=LONG)
    wait_until_idle(page)


def objects_of(page: Page) -> list[dict[str, Any]]:
    """Return the objects that the page knows."""
    return list(page.evaluate(f"{PAGE}.session.state.objects"))


def canvas_pixel(page: Page, x: float, y: float) -> list[int]:
    """Return red, green, blue and alpha of the drawn picture at a fraction of its width and height."""
    return list(
        page.evaluate(
            f"""([x, y]) => {{
                const {{ canvas }} = {PAGE}.player;
                const context = canvas.getContext('2d');
                return [...context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data];
            }}""",
            [x, y],
        )
    )
