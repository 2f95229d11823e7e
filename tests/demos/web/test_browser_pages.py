"""First view, sharing, downloads, images, Live and accessibility of the pages in Chromium."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from helpers.browser_tab import (
    LONG,
    PAGE,
    PHONE,
    WIDE,
    BrowserTab,
    ask,
    canvas_pixel,
    click_picture,
    drag_picture,
    follow,
    load,
    objects_of,
    screenshot,
    upload,
    wait_until_drawn,
    wait_until_open,
)
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from unipixel.demos.app import Demo

pytestmark = pytest.mark.browser

SIZES_AND_SCHEMES = [
    pytest.param({"size": size, "scheme": scheme}, id=f"{name}-{scheme}")
    for name, size in (("wide", WIDE), ("phone", PHONE))
    for scheme in ("light", "dark")
]


def serious_violations(page: Page) -> list[str]:
    """Return what axe-core rates serious or critical: the rule and the elements."""
    found = Axe().run(page).response["violations"]
    return [
        f"{item['id']}: {[node['html'][:120] for node in item['nodes']]}"
        for item in found
        if item["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("tab", SIZES_AND_SCHEMES, indirect=True)
def test_pages_are_accessible(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    found = {"first view": serious_violations(page)}
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    follow(page)
    ask(page, "What is [1] doing?")
    found["workspace"] = serious_violations(page)
    for menu in ("Effects", "Download", "Share and delete", "More ways to follow"):
        page.get_by_role("button", name=menu).click()
        page.locator(".up-menu:visible").wait_for()
        found[menu] = serious_violations(page)
        page.keyboard.press("Tab")
        page.keyboard.press("Escape")
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start webcam").wait_for()
    found["live"] = serious_violations(page)
    assert {name: items for name, items in found.items() if items} == {}


def test_first_view_explains_itself(tab: BrowserTab) -> None:
    page = tab.page
    expect(page.get_by_text("Drop a video or an image here")).to_be_visible()
    expect(page.get_by_text("The bundled model was trained on synthetic shapes only")).to_be_visible()
    images = page.locator(".up-example img")
    assert images.evaluate_all("all => all.map((image) => image.naturalWidth)") == [320, 320, 320]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_everything_is_served_by_the_demo_itself(tab: BrowserTab, square_clip: Path) -> None:
    addresses: list[str] = []
    tab.page.on("request", lambda request: addresses.append(request.url))
    tab.page.reload()
    wait_until_open(tab.page)
    load(tab.page, square_clip)
    assert addresses
    assert [item for item in addresses if not item.startswith((tab.address, "blob:", "data:"))] == []


def test_results_are_downloaded_and_the_session_is_opened_again(
    tab: BrowserTab, square_clip: Path, tmp_path: Path
) -> None:
    page = tab.page
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    page.get_by_role("radio", name="Brush").click()
    page.get_by_label("Size of the brush").fill("90")
    drag_picture(page, (0.2, 0.2), (0.3, 0.3))
    follow(page)
    page.get_by_role("button", name="Download").click()
    with page.expect_download(timeout=LONG) as coco:
        page.locator(".up-menu-list button", has_text="Annotations").click()
    assert b"annotations" in Path(coco.value.path()).read_bytes()
    with page.expect_download(timeout=LONG) as archive:
        page.locator(".up-menu-list button", has_text="Session").click()
    archive.value.save_as(tmp_path / "session.zip")
    other = tab.open(tab.address)
    upload(other, tmp_path / "session.zip")
    wait_until_drawn(other)
    known = [item["known"] for item in objects_of(page)]
    other.wait_for_function(f"{PAGE}.session.state.objects.length === 1", timeout=LONG)
    assert [item["known"] for item in objects_of(other)] == known


def test_session_is_restored_after_reload_and_shown_by_a_link_that_changes_nothing(
    tab: BrowserTab, square_clip: Path
) -> None:
    page = tab.page
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    ask(page, "What is [1] doing?")
    page.get_by_role("button", name="Share and delete").click()
    page.get_by_label("Link to show").wait_for(timeout=LONG)
    view = page.get_by_label("Link to show").input_value()
    private = page.get_by_label("Private link to go on").input_value()
    assert private.split("session=")[1] not in view
    page.reload()
    wait_until_open(page)
    expect(page.locator(".up-asked")).to_have_count(1, timeout=LONG)
    viewer = tab.open(view)
    wait_until_drawn(viewer)
    expect(viewer.locator(".up-asked")).to_have_count(1, timeout=LONG)
    for name in (".up-ask-bar", ".up-open", ".up-follow", ".up-tools [data-tool]", ".up-new"):
        assert viewer.locator(f"{name}:visible").count() == 0, name
    viewer.get_by_role("button", name="Download").click()
    with viewer.expect_download(timeout=LONG) as archive:
        viewer.locator(".up-menu-list button", has_text="Session").click()
    assert Path(archive.value.path()).read_bytes().startswith(b"PK")
    other = tab.open(private)
    wait_until_drawn(other)
    expect(other.locator(".up-row[data-id]")).to_have_count(1, timeout=LONG)


def test_second_tab_shows_what_the_first_one_changes(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    other = tab.open(page.url)
    wait_until_drawn(other)
    page.bring_to_front()
    click_picture(page, 0.08, 0.13)
    other.bring_to_front()
    expect(other.locator(".up-row[data-id]")).to_have_count(1, timeout=LONG)
    page.bring_to_front()
    page.get_by_role("button", name="Remove object 1").click()
    other.bring_to_front()
    expect(other.locator(".up-row[data-id]")).to_have_count(0, timeout=LONG)


@pytest.mark.parametrize("tab", [{"allows": ("status of 404",)}], indirect=True, ids=["deleted"])
def test_everything_is_deleted_at_once(tab: BrowserTab, square_clip: Path, served: tuple[Demo, str]) -> None:
    page = tab.page
    load(page, square_clip)
    key = page.url.split("session=")[1]
    folder = served[0].store.get(key).lifecycle.folder
    page.get_by_role("button", name="Share and delete").click()
    page.get_by_role("button", name="Delete everything…").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("Drop a video or an image here")).to_be_visible(timeout=LONG)
    assert key not in page.url
    assert not folder.exists()


def test_effects_are_shown_in_the_player(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    page.get_by_role("radio", name="Brush").click()
    page.get_by_label("Size of the brush").fill("90")
    drag_picture(page, (0.6, 0.6), (0.8, 0.8))
    page.wait_for_function(f"{PAGE}.player.layers.length === 1", timeout=LONG)
    inside, square = (0.7, 0.7), (0.08, 0.13)
    page.get_by_label("Look of object 1").select_option("keep")
    plain, red = canvas_pixel(page, *inside), canvas_pixel(page, *square)
    assert red[0] > red[2] + 80, "the square is red"
    page.get_by_role("button", name="Effects").click()
    page.get_by_role("radio", name="Greyscale").check()
    grey = canvas_pixel(page, *square)
    assert max(grey[:3]) - min(grey[:3]) < 8
    assert canvas_pixel(page, *inside) == plain
    page.get_by_role("radio", name="Spotlight").check()
    assert max(canvas_pixel(page, *square)[:3]) < 0.4 * max(red[:3])
    page.get_by_role("radio", name="Cut out").check()
    assert canvas_pixel(page, *square)[3] == 0
    assert canvas_pixel(page, *inside)[3] == 255
    page.get_by_label("Look of object 1").select_option("hide")
    assert canvas_pixel(page, *inside)[3] == 0
    page.get_by_role("radio", name="Original").check()
    page.get_by_label("Look of object 1").select_option("color")
    assert canvas_pixel(page, *inside)[2] > plain[2] + 40, "the object has its blue color"


def test_image_is_one_picture_without_frames(tab: BrowserTab, tmp_path: Path) -> None:
    page = tab.page
    pixels = np.full((90, 120, 3), 200, np.uint8)
    pixels[20:60, 30:80] = (200, 60, 40)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    load(page, tmp_path / "image.png")
    click_picture(page, 0.4, 0.4)
    expect(page.locator(".up-row[data-id]")).to_have_count(1)
    for name in (".up-ruler", ".up-playback", ".up-follow", ".up-track"):
        assert page.locator(f"{name}:visible").count() == 0, name
    assert "frame" not in page.locator(".up-workspace").inner_text().lower()


def test_live_page_tracks_in_the_camera(tab: BrowserTab) -> None:
    page = tab.page
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start webcam").click()
    page.locator(".up-live img").wait_for(timeout=LONG)
    expect(page.locator(".up-live .up-rate")).to_contain_text("frames per second", timeout=LONG)
    page.locator(".up-live-picture").click(position={"x": 60, "y": 60})
    objects = page.locator(".up-live-objects li[data-id]")
    expect(objects).to_have_count(1, timeout=LONG)
    page.get_by_role("button", name="Refine object 1").click()
    page.locator(".up-live [data-tool=negative]").click()
    page.locator(".up-live-picture").click(position={"x": 200, "y": 150})
    page.locator(".up-live").get_by_label("Name of object 1").fill("ball")
    page.locator(".up-live").get_by_label("Name of object 1").press("Enter")
    page.get_by_label("Question about the live video").fill("What is [1] doing?")
    page.locator(".up-live .up-ask").click()
    expect(page.locator(".up-live .up-answered")).to_have_count(1, timeout=LONG)
    expect(page.locator(".up-live").get_by_label("Name of object 1")).to_have_value("ball")
    screenshot(page, "live-running")
    page.locator(".up-live").get_by_role("button", name="Remove object 1").click()
    expect(objects).to_have_count(0, timeout=LONG)
    page.locator(".up-live").get_by_role("button", name="Stop").click()
    expect(page.locator(".up-live img")).to_be_hidden(timeout=LONG)


def test_link_of_an_unknown_session_opens_a_new_one(tab: BrowserTab) -> None:
    page = tab.open(f"{tab.address}?session={'A' * 43}")
    expect(page.get_by_role("alert").filter(has_text="A new session was opened")).to_be_visible(timeout=LONG)


def test_list_of_api_functions_opens(tab: BrowserTab) -> None:
    tab.page.get_by_role("button", name="Use via API").click()
    expect(tab.page.get_by_text("load_received").filter(visible=True).first).to_be_visible(timeout=LONG)


def test_two_sessions_are_isolated(
    tab: BrowserTab, square_clip: Path, browser: Browser, served: tuple[Demo, str]
) -> None:
    load(tab.page, square_clip)
    click_picture(tab.page, 0.08, 0.13)
    context = browser.new_context()
    other = BrowserTab(context, served[1])
    load(other.page, square_clip)
    expect(other.page.locator(".up-row[data-id]")).to_have_count(0)
    click_picture(other.page, 0.08, 0.13)
    other.page.get_by_role("button", name="Remove object 1").click()
    expect(other.page.locator(".up-row[data-id]")).to_have_count(0, timeout=LONG)
    expect(tab.page.locator(".up-row[data-id]")).to_have_count(1)
    assert other.errors == []
    context.close()


def test_closed_tab_is_noticed(tab: BrowserTab, square_clip: Path, served: tuple[Demo, str]) -> None:
    load(tab.page, square_clip)
    lifecycle = served[0].store.get(tab.page.url.split("session=")[1]).lifecycle
    assert lifecycle.num_pages == 1
    tab.page.goto("about:blank")
    for _ in range(200):
        if lifecycle.num_pages == 0:
            break
        tab.page.wait_for_timeout(100)
    assert lifecycle.num_pages == 0
