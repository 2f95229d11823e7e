"""Fixtures of the browser tests: a plug-in of pytest that tests/conftest.py loads for all tests.

Playwright and the demo are imported where they are needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from helpers.browser_tab import BrowserTab
    from unipixel.demos.app import Demo


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[tuple[Demo, str]]:
    """A demo server with a tiny model, and its address."""
    from helpers.demo_server import SHORT_ANSWERS, SMALL_LIMITS, serve_demo
    from unipixel.demos.app import NANO_NAME, DemoSettings

    settings = DemoSettings(model_name=NANO_NAME, limits=SMALL_LIMITS, session=SHORT_ANSWERS)
    with serve_demo(checkpoint, settings) as both:
        yield both


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium."""
    from helpers.browser_tab import chromium

    with chromium() as made:
        yield made


@pytest.fixture
def tab(browser: Browser, served: tuple[Demo, str], request: pytest.FixtureRequest) -> Iterator[BrowserTab]:
    """An open page; at the end, a screenshot is kept and the console must have no errors."""
    from helpers.browser_tab import WIDE, BrowserTab, screenshot

    options: dict[str, Any] = getattr(request, "param", {})
    width, height = options.get("size", WIDE)
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=options.get("scheme", "light"),
        permissions=["camera", "clipboard-read", "clipboard-write"],
        accept_downloads=True,
    )
    made = BrowserTab(context, served[1])
    yield made
    screenshot(made.page, re.sub(r"^test_", "", request.node.name))
    context.close()
    # Refusals that a test provokes are answered with 4xx, which the browser logs.
    allowed = options.get("allows", ())
    assert [text for text in made.errors if not any(part in text for part in allowed)] == []


@pytest.fixture(scope="module")
def square_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of a moving square, 160 by 120."""
    from helpers.moving_square import write_clip

    return write_clip(tmp_path_factory.mktemp("clip") / "square.mp4", size=(160, 120))
