"""Screenshots of every step in Chromium with the bundled model, in two sizes and two color schemes, to be looked at.

They are written to out/screenshots; no error may appear in the console.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from helpers.browser_tab import (
    LONG,
    PAGE,
    PHONE,
    SCREENSHOTS,
    WIDE,
    BrowserTab,
    ask,
    click_picture,
    drag_picture,
    position_in,
    screenshot,
    upload,
    wait_until_drawn,
    wait_until_idle,
)
from helpers.demo_server import serve_demo
from playwright.sync_api import Browser

from unipixel.demos.app import NANO_NAME, Demo, DemoSettings

pytestmark = pytest.mark.browser

SIZES = {"wide": WIDE, "phone": PHONE}


@pytest.fixture(scope="module")
def served_nano() -> Iterator[tuple[Demo, str]]:
    with serve_demo(NANO_NAME, DemoSettings(model_name=NANO_NAME)) as both:
        yield both


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", ["wide", "phone"])
def test_every_step_is_shown(
    browser: Browser, served_nano: tuple[Demo, str], tmp_path: Path, size: str, scheme: Literal["light", "dark"]
) -> None:
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, permissions=["camera"]
    )
    tab = BrowserTab(context, served_nano[1])
    page, steps = tab.page, iter(range(1, 100))

    for outdated in SCREENSHOTS.glob(f"step-*-{size}-{scheme}.png"):
        outdated.unlink()

    def keep(name: str) -> None:
        page.wait_for_timeout(250)  # what the browser still draws
        screenshot(page, f"step-{next(steps):02d}-{name}-{size}-{scheme}")

    keep("first view")
    page.get_by_role("button", name="Click the star and ask its colour").click()
    page.locator(".up-progress-on").wait_for(timeout=LONG)
    page.wait_for_function(f"({PAGE}.session.work?.done ?? 0) > 20", timeout=LONG)
    keep("answering and following")
    wait_until_idle(page)
    keep("answered")
    page.wait_for_function(f"!{PAGE}.player.isPlaying", timeout=LONG)
    page.locator(".up-picture").focus()
    page.keyboard.press("Home")
    page.wait_for_function(f"{PAGE}.player.frame === 0", timeout=LONG)
    page.get_by_role("button", name="+ New object").click()
    click_picture(page, 0.8, 0.47)
    keep("clicked")
    page.get_by_role("button", name="+ New object").click()
    page.evaluate(f"{PAGE}.tools.preview.limit = 1e9")  # machines that run tests may be slow
    for step in range(20):
        page.mouse.move(*position_in(page, 0.1 + 0.001 * step, 0.56))
        page.wait_for_timeout(100)
    keep("hover")
    page.get_by_role("button", name="Select object 2").click()
    page.keyboard.down("Shift")
    click_picture(page, 0.82, 0.2)
    page.keyboard.up("Shift")
    keep("excluded")
    page.get_by_role("button", name="+ New object").click()
    page.get_by_role("radio", name="Box").click()
    drag_picture(page, (0.72, 0.8), (0.87, 0.99))
    keep("box")
    page.get_by_role("button", name="+ New object").click()
    page.get_by_role("radio", name="Brush").click()
    drag_picture(page, (0.06, 0.55), (0.1, 0.55))
    keep("brushed")
    page.get_by_role("button", name="Follow", exact=True).click()
    page.wait_for_function(f"({PAGE}.session.work?.done ?? 0) > 30", timeout=LONG)
    keep("following")
    wait_until_idle(page)
    keep("followed")
    page.get_by_role("button", name="Play (Space)").click()
    page.wait_for_timeout(1500)
    keep("playing")
    page.get_by_role("button", name="Pause (Space)").click()
    ask(page, "What is [2] next to?")
    keep("asked")
    for menu in ("More ways to follow", "Download", "Share and delete"):
        page.get_by_role("button", name=menu).click()
        keep(f"menu {menu}")
        if menu == "Share and delete":
            view = page.get_by_label("Link to show").input_value()
        page.keyboard.press("Tab")
        page.keyboard.press("Escape")
    for effect in ("Spotlight", "Blurred", "Pixelated", "Greyscale", "Cut out"):
        page.get_by_role("button", name="Effects").click()
        page.get_by_role("radio", name=effect).check()
        if effect == "Spotlight":
            keep("menu effects")
        page.keyboard.press("Escape")
        keep(f"effect {effect}")
    for look in ("outline", "keep", "blur", "pixelate", "hide"):
        page.get_by_label("Look of object 2").select_option(look)
        keep(f"look {look}")
    viewer = tab.open(view)
    wait_until_drawn(viewer)
    page, editor = viewer, page
    keep("view only")
    page = editor
    viewer.close()
    page.get_by_role("button", name="Open another video or an example").click()
    keep("open another")
    (tmp_path / "clip.mp4").write_text("not a video")
    page.get_by_role("button", name="Image: find the green square").click()
    page.wait_for_function(
        f"{PAGE}.session.video.is_image && {PAGE}.session.state.conversation.length === 1", timeout=LONG
    )
    wait_until_drawn(page)
    wait_until_idle(page)
    keep("image")
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start webcam").wait_for(timeout=LONG)
    keep("live")
    page.get_by_role("button", name="Start webcam").click()
    page.locator(".up-live img").wait_for(timeout=LONG)
    page.locator(".up-live-picture").click(position={"x": 120, "y": 90})
    page.locator(".up-live-objects li[data-id]").wait_for(timeout=LONG)
    keep("live tracking")
    page.locator(".up-live").get_by_role("button", name="Stop").click()
    assert tab.errors == []
    page.get_by_role("tab", name="Ask about a video").click()
    page.get_by_role("button", name="Open another video or an example").click()
    upload(page, tmp_path / "clip.mp4")
    page.locator(".up-intro .up-error:not([hidden])").wait_for(timeout=LONG)
    keep("refused upload")
    context.close()
