"""The pages in Chromium (`apt-get install chromium`), driven by Playwright."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.demo_server import SHORT_ANSWERS, SMALL_LIMITS, serve_demo
from helpers.moving_square import NUM_FRAMES, write_clip
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from unipixel.demos.app import NANO_NAME, Demo, DemoSettings

pytestmark = pytest.mark.browser

SCREENSHOTS = Path(__file__).resolve().parents[3] / "out" / "screenshots"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]  # fmt: skip
WIDE, PHONE = (1440, 1000), (390, 844)
LONG = 60_000


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[tuple[Demo, str]]:
    settings = DemoSettings(model_name=NANO_NAME, limits=SMALL_LIMITS, session=SHORT_ANSWERS)
    with serve_demo(checkpoint, settings) as both:
        yield both


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "Chromium is missing: apt-get install chromium"
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield made
        made.close()


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
        page.locator(".up-drop small").filter(has_text="MB").wait_for(timeout=LONG)
        return page


@pytest.fixture
def tab(browser: Browser, served: tuple[Demo, str], request: pytest.FixtureRequest) -> Iterator[BrowserTab]:
    options: dict[str, Any] = getattr(request, "param", {})
    width, height = options.get("size", WIDE)
    scheme = options.get("scheme", "light")
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, permissions=["camera"], accept_downloads=True
    )
    made = BrowserTab(context, served[1])
    yield made
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", request.node.name).strip("-").removeprefix("test_")
    made.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
    context.close()
    assert made.errors == []


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "square.mp4", size=(160, 120))


def upload(page: Page, file: Path) -> None:
    page.locator(".up-upload input[type=file]").set_input_files(file)


def load(page: Page, file: Path) -> None:
    upload(page, file)
    page.locator(".up-frame img[src]").first.wait_for(timeout=LONG)


def click_frame(page: Page, x: float, y: float) -> None:
    """Click at a fraction of the frame's width and height."""
    box = page.locator(".up-editor canvas").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


def click_square(page: Page) -> None:
    click_frame(page, 0.08, 0.13)
    page.locator(".up-objects li").first.wait_for(timeout=LONG)


def ask(page: Page, question: str) -> None:
    turns = page.locator(".up-asked").count()
    page.locator("#up-question textarea").fill(question)
    page.locator("#up-ask").click()
    expect(page.locator(".up-asked")).to_have_count(turns + 1, timeout=LONG)
    expect(page.locator("#up-question textarea")).to_have_value("", timeout=LONG)


@pytest.mark.parametrize(
    "tab", [{"size": WIDE}, {"size": PHONE, "scheme": "dark"}], indirect=True, ids=["wide-light", "phone-dark"]
)
def test_first_page_explains_itself_and_fits_the_window(tab: BrowserTab) -> None:
    page = tab.page
    expect(page.get_by_text("Drop a video or an image here")).to_be_visible()
    expect(page.get_by_text("The bundled model was trained on synthetic shapes only.")).to_be_visible()
    expect(page.get_by_text("No questions yet.").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(
    "tab",
    [{"size": WIDE}, {"size": WIDE, "scheme": "dark"}, {"size": PHONE, "scheme": "light"}],
    indirect=True,
    ids=["wide-light", "wide-dark", "phone-light"],
)
def test_upload_click_question_and_follow_up(tab: BrowserTab, clip: Path) -> None:
    page = tab.page
    load(page, clip)
    click_square(page)
    expect(page.locator(".up-objects li")).to_contain_text("choose Track")
    ask(page, "What is [1] doing?")
    expect(page.locator(".up-asked .up-chip")).to_have_text("[1]")
    expect(page.locator(".up-objects li")).to_contain_text(f"of {NUM_FRAMES} frames")
    expect(page.locator(".up-timeline")).to_be_visible()
    page.wait_for_function("document.querySelector('.up-result video')?.readyState >= 2", timeout=LONG)
    ask(page, "Where is [1]?")
    expect(page.locator(".up-answered")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_id_has_the_color_of_its_mask(tab: BrowserTab) -> None:
    page = tab.page
    page.get_by_role("button", name="What colour is [1]?").click()
    page.locator(".up-objects .up-chip").wait_for(timeout=LONG)
    colors = page.locator(".up-chip").evaluate_all("all => all.map((chip) => getComputedStyle(chip).backgroundColor)")
    assert set(colors) == {"rgb(86, 180, 233)"}
    page.wait_for_function("document.querySelector('.up-result video')?.readyState >= 2", timeout=LONG)
    assert int(page.locator(".up-result").get_attribute("data-frames") or 0) >= 1, "no mask was shown during the work"


def test_objects_are_drawn_named_corrected_and_removed(tab: BrowserTab, clip: Path) -> None:
    page = tab.page
    load(page, clip)
    click_square(page)
    page.get_by_role("radio", name="New object").click()
    page.get_by_role("radio", name="Box").click()
    click_frame(page, 0.3, 0.3)
    click_frame(page, 0.6, 0.7)
    expect(page.locator(".up-objects li")).to_have_count(2, timeout=LONG)
    page.get_by_role("radio", name="New object").click()
    page.get_by_role("radio", name="Brush").click()
    box = page.locator(".up-editor canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.6 * box["height"], steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Use drawn mask").click()
    expect(page.locator(".up-objects li")).to_have_count(3, timeout=LONG)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".up-objects li")).to_have_count(2, timeout=LONG)
    page.get_by_label("Name of object 1").fill("square")
    page.get_by_label("Name of object 1").press("Enter")
    expect(page.get_by_role("radio", name="[1] square")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Correct object 1").click()
    expect(page.get_by_role("radio", name="[1] square")).to_have_attribute("aria-checked", "true")
    page.get_by_role("button", name="Remove object 2").click()
    expect(page.locator(".up-objects li")).to_have_count(1, timeout=LONG)


def test_keys_change_the_frame_and_click(tab: BrowserTab, clip: Path) -> None:
    page = tab.page
    load(page, clip)
    frame = page.locator(".up-frame").first
    frame.focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".up-frame-slider output")).to_contain_text("2 / 5")
    page.keyboard.press("Home")
    expect(page.locator(".up-frame-slider output")).to_contain_text("0 / 5")
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(".up-objects li")).to_have_count(1, timeout=LONG)
    page.keyboard.press("Control+z")
    expect(page.locator(".up-objects li")).to_have_count(0, timeout=LONG)


def test_results_are_downloaded_and_the_session_is_restored_after_reload(tab: BrowserTab, clip: Path) -> None:
    page = tab.page
    load(page, clip)
    click_square(page)
    ask(page, "What is [1] doing?")
    with page.expect_download(timeout=LONG) as waiting:
        page.locator(".up-download", has_text="COCO").click()
    assert b"annotations" in Path(waiting.value.path()).read_bytes()
    link = page.get_by_label("Link to this session").input_value()
    assert len(link.split("session=")[1]) == 43
    page.reload()
    expect(page.locator(".up-asked")).to_have_count(1, timeout=LONG)
    expect(page.locator(".up-objects li")).to_have_count(1)
    other = tab.open(link)
    expect(other.locator(".up-asked")).to_have_count(1, timeout=LONG)
    ask(page, "And now?")


def test_image_is_loaded_and_tracked(tab: BrowserTab, tmp_path: Path) -> None:
    page = tab.page
    pixels = np.full((90, 120, 3), 200, np.uint8)
    pixels[20:60, 30:80] = (200, 60, 40)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    load(page, tmp_path / "image.png")
    expect(page.locator(".up-frame-slider")).to_be_hidden()
    click_square(page)
    page.locator("#up-track").click()
    page.locator(".up-result img").wait_for(timeout=LONG)
    expect(page.locator(".up-objects li small")).to_contain_text("visible")


def test_two_sessions_are_isolated(tab: BrowserTab, clip: Path, browser: Browser, served: tuple[Demo, str]) -> None:
    load(tab.page, clip)
    click_square(tab.page)
    context = browser.new_context()
    other = BrowserTab(context, served[1])
    expect(other.page.locator(".up-objects li")).to_have_count(0)
    load(other.page, clip)
    click_square(other.page)
    other.page.get_by_role("button", name="Remove object 1").click()
    expect(other.page.locator(".up-objects li")).to_have_count(0, timeout=LONG)
    expect(tab.page.locator(".up-objects li")).to_have_count(1)
    assert other.errors == []
    context.close()


def test_work_is_cancelled(tab: BrowserTab) -> None:
    page = tab.page
    page.get_by_role("button", name="What colour is [1]?").click()
    page.locator(".up-result img").wait_for(timeout=LONG)
    page.locator("#up-stop").click()
    expect(page.get_by_text("Stopped: cancelled by the user.")).to_be_visible(timeout=LONG)
    expect(page.locator("#up-stop")).to_be_disabled()


def test_question_without_a_video_shows_an_error_beside_the_upload(tab: BrowserTab) -> None:
    page = tab.page
    page.locator("#up-question textarea").fill("What is [1] doing?")
    page.locator("#up-ask").click()
    expect(page.locator(".up-upload .up-error")).to_contain_text("There is no video yet", timeout=LONG)


def test_question_about_an_unknown_object_shows_an_error_beside_the_question(tab: BrowserTab, clip: Path) -> None:
    page = tab.page
    load(page, clip)
    page.locator("#up-question textarea").fill("What is [7] doing?")
    page.locator("#up-ask").click()
    expect(page.get_by_role("alert").filter(has_text="[7]")).to_be_visible(timeout=LONG)
    expect(page.locator("#up-question textarea")).to_have_value("What is [7] doing?")


@pytest.mark.parametrize(
    ("kind", "words"), [("no video", "video"), ("too large", "the maximum is 1 MB"), ("too long", "seconds")]
)
def test_refused_upload_shows_the_reason(tab: BrowserTab, tmp_path: Path, clip: Path, kind: str, words: str) -> None:
    file = tmp_path / "clip.mp4"
    if kind == "no video":
        file.write_text("not a video")
    elif kind == "too large":
        file.write_bytes(b"x" * 2**21)
    else:
        write_clip(file, num_frames=60)
    upload(tab.page, file)
    expect(tab.page.locator(".up-upload .up-error")).to_contain_text(words, timeout=LONG)
    expect(tab.page.locator(".up-upload .up-status")).to_be_hidden()


def test_live_page_tracks_in_the_camera(tab: BrowserTab) -> None:
    page = tab.page
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start webcam").click()
    page.locator(".up-live img").wait_for(timeout=LONG)
    expect(page.locator(".up-live output")).to_contain_text("frames per second", timeout=LONG)
    page.locator(".up-live img").click(position={"x": 60, "y": 60})
    live_objects = page.get_by_role("tabpanel").last.locator(".up-objects li")
    expect(live_objects).to_have_count(1, timeout=LONG)
    page.locator("#up-live-question textarea").fill("What is [1] doing?")
    page.locator("#up-live-ask").click()
    expect(page.locator("#up-live-question textarea")).to_have_value("", timeout=LONG)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "live_running.png")
    # The page is as wide as the window, however little it contains.
    page_box = page.locator(".gradio-container").bounding_box()
    assert page_box is not None
    assert page_box["width"] == WIDE[0]
    page.locator(".up-live [data-stop]").click()
    expect(page.locator(".up-live img")).to_be_hidden(timeout=LONG)


def test_link_of_an_unknown_session_opens_a_new_one(tab: BrowserTab) -> None:
    page = tab.open(f"{tab.address}?session={'A' * 43}")
    expect(page.get_by_role("alert").filter(has_text="A new session was opened")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Segment the blue circle").click()
    expect(page.locator(".up-answered")).to_have_count(1, timeout=LONG)


def test_list_of_api_functions_opens(tab: BrowserTab) -> None:
    tab.page.get_by_role("button", name="Use via API").click()
    expect(tab.page.get_by_text("load_received").first).to_be_visible(timeout=LONG)


def test_closed_tab_frees_its_memory(tab: BrowserTab, clip: Path, served: tuple[Demo, str]) -> None:
    load(tab.page, clip)
    key = tab.page.url.split("session=")[1]
    user_session = served[0].store.get(key)
    assert user_session.lifecycle.is_loaded
    tab.page.goto("about:blank")
    for _ in range(100):
        if not user_session.lifecycle.is_loaded:
            break
        tab.page.wait_for_timeout(100)
    assert not user_session.lifecycle.is_loaded
