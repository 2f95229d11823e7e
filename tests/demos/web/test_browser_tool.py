"""The workspace of the page in Chromium: player, tools, objects, conversation, with a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser_tab import (
    LONG,
    PAGE,
    PHONE,
    BrowserTab,
    ask,
    click_picture,
    drag_picture,
    follow,
    load,
    objects_of,
    position_in,
    upload,
    wait_until_idle,
)
from helpers.moving_square import NUM_FRAMES, write_clip
from playwright.sync_api import Route, expect

from unipixel.memory.rle import encode_rle

pytestmark = pytest.mark.browser

REFUSED = {"allows": ("status of 4",)}


def test_video_becomes_the_page_and_the_first_view_folds_away(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    expect(page.locator(".up-workspace")).to_be_hidden()
    load(page, square_clip)
    expect(page.locator(".up-drop")).to_be_hidden()
    stage, picture, rail = (page.locator(name).bounding_box() for name in (".up-stage", ".up-picture", ".up-rail"))
    assert stage is not None
    assert picture is not None
    assert rail is not None
    assert stage["width"] > 0.95 * 1440
    assert rail["y"] < stage["y"] + stage["height"] + 30
    assert picture["width"] / picture["height"] == pytest.approx(160 / 120, abs=0.02)
    page.get_by_role("button", name="Open another video or an example").click()
    expect(page.locator(".up-drop")).to_be_visible()
    page.get_by_role("button", name="Back to the video").click()
    expect(page.locator(".up-drop")).to_be_hidden()


def test_page_says_which_model_does_what(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    line = page.locator(".up-models")
    expect(line).to_contain_text("Masks and answers: unipixel-nano, trained on drawn shapes only")
    page.evaluate(
        f"{PAGE}.session.state.models = {{ answers: 'unipixel-nano', segments: 'facebook/sam2.1-hiera-tiny' }};"
        f"{PAGE}.session.changed()"
    )
    expect(line).to_contain_text("Clicks and following: facebook/sam2.1-hiera-tiny. Answers: unipixel-nano, trained on")


def test_click_shows_an_object_and_follow_is_the_one_primary_button(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    expect(page.locator(".up-row-state")).to_have_text("not followed yet")
    expect(page.locator(".up-primary")).to_have_count(1)
    expect(page.locator(".up-primary")).to_have_text("Follow")
    assert [item["known"] for item in objects_of(page)] == [[[0, 0]]], "only the clicked frame is known"
    follow(page)
    expect(page.locator(".up-row-state")).to_contain_text(f"{NUM_FRAMES} frames")
    assert [item["known"] for item in objects_of(page)] == [[[0, NUM_FRAMES - 1]]]
    expect(page.locator(".up-primary")).to_have_count(0)


def test_shift_and_not_this_exclude_and_box_and_brush_add_prompts(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    page.keyboard.down("Shift")
    click_picture(page, 0.6, 0.6)
    page.keyboard.up("Shift")
    page.get_by_role("radio", name="Not this").click()
    click_picture(page, 0.7, 0.7)
    assert [mark["is_positive"] for mark in objects_of(page)[0]["prompts"]] == [True, False, False]
    page.get_by_role("button", name="+ New object").click()
    page.get_by_role("radio", name="Box").click()
    drag_picture(page, (0.3, 0.3), (0.6, 0.7))
    page.get_by_role("button", name="+ New object").click()
    page.mouse.click(*position_in(page, 0.2, 0.2))
    click_picture(page, 0.4, 0.5)
    kinds = [[mark["kind"] for mark in item["prompts"]] for item in objects_of(page)]
    assert kinds == [["point"] * 3, ["box"], ["box"]]


def test_brushed_mask_is_visible_after_use_and_grows_with_the_next_stroke(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    page.get_by_role("radio", name="Brush").click()
    page.get_by_label("Size of the brush").fill("90")
    drag_picture(page, (0.5, 0.4), (0.7, 0.5))
    area = f"{PAGE}.player.layers.map((layer) => layer.width * layer.height)"
    page.wait_for_function(f"{area}.length === 1", timeout=LONG)
    first = page.evaluate(area)[0]
    drag_picture(page, (0.5, 0.7), (0.9, 0.7))
    page.wait_for_function(f"{area}[0] > {first}", timeout=LONG)


def test_undo_and_redo_work_by_button_and_by_key(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".up-row[data-id]")).to_have_count(0, timeout=LONG)
    page.get_by_role("button", name="Redo").click()
    expect(page.locator(".up-row[data-id]")).to_have_count(1, timeout=LONG)
    page.keyboard.press("Control+z")
    expect(page.locator(".up-row[data-id]")).to_have_count(0, timeout=LONG)
    page.keyboard.press("Control+Shift+Z")
    expect(page.locator(".up-row[data-id]")).to_have_count(1, timeout=LONG)


def test_objects_are_named_selected_and_removed(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    page.get_by_role("button", name="+ New object").click()
    click_picture(page, 0.7, 0.7)
    page.get_by_label("Name of object 1").fill("square")
    page.get_by_label("Name of object 1").press("Enter")
    page.wait_for_function(f"{PAGE}.session.object(1).name === 'square'", timeout=LONG)
    page.get_by_role("button", name="Select object 1").click()
    expect(page.locator(".up-row-selected")).to_have_attribute("data-id", "1")
    page.get_by_role("button", name="Remove object 2").click()
    expect(page.locator(".up-row[data-id]")).to_have_count(1, timeout=LONG)


PREVIEW = f"{PAGE}.tools.preview"


def test_hovering_shows_what_a_click_would_give_and_stores_nothing(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    sent: list[Any] = []
    counts = encode_rle(np.pad(np.ones((60, 80), bool), ((0, 60), (0, 80))))["counts"]

    def answer(route: Route) -> None:
        sent.append(route.request.post_data_json)
        route.fulfill(json={"is_ready": True, "counts": counts})

    page.route("**/preview", answer)
    load(page, square_clip)
    page.evaluate(f"{PREVIEW}.limit = 1e9")
    hover = page.locator(".up-hover")
    page.mouse.move(*position_in(page, 0.5, 0.5))
    expect(hover).to_be_hidden()
    assert sent == [], "nothing was clicked on this frame: it may not be encoded"
    click_picture(page, 0.08, 0.13)
    before = objects_of(page)
    page.mouse.move(*position_in(page, 0.5, 0.5))
    expect(hover).to_be_visible(timeout=LONG)
    assert sent[-1]["object_id"] == 1
    assert sent[-1]["point"] == pytest.approx([80, 60, 1], abs=1)
    drawn = "(canvas) => [...canvas.getContext('2d').getImageData(canvas.width / 4, canvas.height / 4, 1, 1).data]"
    assert hover.evaluate(drawn)[3] > 50
    page.mouse.move(5, 5)
    expect(hover).to_be_hidden()
    assert objects_of(page) == before
    assert page.evaluate(f"{PAGE}.session.state.can_undo") is True


def test_hovering_shows_nothing_while_the_server_is_slow_and_with_touch(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url) if "/preview" in request.url else None)
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    page.evaluate(f"Object.assign({PREVIEW}, {{ limit: 0, times: [1] }})")
    page.mouse.move(*position_in(page, 0.5, 0.5))
    page.mouse.move(*position_in(page, 0.6, 0.5))
    page.evaluate(f"Object.assign({PREVIEW}, {{ limit: 1e9 }})")
    touch = "(node) => node.dispatchEvent(new PointerEvent('pointermove', { pointerType: 'touch', bubbles: true }))"
    page.locator(".up-marks").evaluate(touch)
    expect(page.locator(".up-hover")).to_be_hidden()
    assert requests == []


def test_text_of_users_is_never_interpreted_as_html(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    attack = "<img src=x onerror=window.wasRun=1>"
    page.get_by_label("Name of object 1").fill(attack)
    page.get_by_label("Name of object 1").press("Enter")
    page.wait_for_function(f"{PAGE}.session.object(1).name.startsWith('<img')", timeout=LONG)
    ask(page, f"{attack} [1]?")
    expect(page.locator(".up-asked")).to_contain_text(attack)
    assert page.locator(".up-turns img, .up-labels img").count() == 0
    assert page.evaluate("window.wasRun") is None


def test_keys_change_the_frame_and_click(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    page.locator(".up-picture").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".up-time")).to_have_attribute("data-frame", "2", timeout=LONG)
    page.keyboard.press("End")
    expect(page.locator(".up-time")).to_have_attribute("data-frame", str(NUM_FRAMES - 1), timeout=LONG)
    page.keyboard.press("Home")
    expect(page.locator(".up-time")).to_have_attribute("data-frame", "0", timeout=LONG)
    for key in ("Shift+ArrowLeft", "Shift+ArrowUp", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(".up-row[data-id]")).to_have_count(1, timeout=LONG)


def test_timelines_are_sliders_for_keyboard_and_pointer(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    track = page.get_by_role("slider", name="Timeline of object 1")
    track.focus()
    page.keyboard.press("ArrowRight")
    expect(track).to_have_attribute("aria-valuenow", "1", timeout=LONG)
    page.keyboard.press("End")
    expect(track).to_have_attribute("aria-valuetext", f"frame {NUM_FRAMES - 1}, not known", timeout=LONG)
    ruler = page.get_by_role("slider", name="Position in the video")
    box = ruler.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.5 * box["height"])
    expect(ruler).to_have_attribute("aria-valuenow", str(NUM_FRAMES // 2), timeout=LONG)


def test_follow_from_here_follows_one_direction_in_a_range(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    page.locator(".up-picture").focus()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".up-time")).to_have_attribute("data-frame", "2", timeout=LONG)
    click_picture(page, 0.2, 0.13)
    page.get_by_role("button", name="More ways to follow").click()
    page.get_by_role("radio", name="Forward").check()
    page.get_by_role("button", name="Follow from here").click()
    wait_until_idle(page)
    assert objects_of(page)[0]["known"] == [[2, NUM_FRAMES - 1]]


def test_answer_streams_and_its_ids_jump_to_the_object(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    click_picture(page, 0.08, 0.13)
    ask(page, "What is [1] doing?")
    chip = page.locator(".up-asked").get_by_role("button", name="Show object 1")
    color = "getComputedStyle(node).backgroundColor"
    assert chip.evaluate(f"(node) => {color}") == "rgb(86, 180, 233)"
    page.get_by_role("button", name="+ New object").click()
    chip.click()
    expect(page.locator(".up-row-selected")).to_have_attribute("data-id", "1")
    ask(page, "Where is [1]?")
    expect(page.locator(".up-answered")).to_have_count(2)


@pytest.mark.parametrize("tab", [REFUSED], indirect=True, ids=["unknown"])
def test_question_about_an_unknown_object_shows_an_error_and_keeps_the_question(
    tab: BrowserTab, square_clip: Path
) -> None:
    page = tab.page
    load(page, square_clip)
    page.get_by_label("Question or phrase").fill("What is [7] doing?")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.get_by_role("alert").filter(has_text="[7]")).to_be_visible(timeout=LONG)
    expect(page.get_by_label("Question or phrase")).to_have_value("What is [7] doing?")


@pytest.mark.parametrize("tab", [REFUSED], indirect=True, ids=["busy"])
def test_message_about_a_refused_click_does_not_move_the_picture(tab: BrowserTab, square_clip: Path) -> None:
    page = tab.page
    load(page, square_clip)
    busy = {"error": "work is in progress: wait until it is done, or stop it", "field": "session"}
    page.route("**/prompts", lambda route: route.fulfill(status=409, json=busy))
    before = page.locator(".up-picture").bounding_box()
    page.mouse.click(*position_in(page, 0.5, 0.5))
    expect(page.locator(".up-message")).to_contain_text("Work is in progress", timeout=LONG)
    assert page.locator(".up-picture").bounding_box() == before


def test_stop_ends_the_work_and_keeps_what_is_done(tab: BrowserTab) -> None:
    page = tab.page
    # Clicked by the page itself at the first mask, since the tiny model is quicker than Playwright.
    press = "() => document.querySelector('.up-stop').click()"
    page.evaluate(f"{PAGE}.session.addEventListener('masked', {press}, {{ once: true }})")
    page.get_by_role("button", name="Click the star and ask its colour").click()
    expect(page.locator(".up-message")).to_contain_text("Stopped", timeout=LONG)
    wait_until_idle(page)
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    assert objects_of(page)[0]["num_known_frames"] >= 1


@pytest.mark.parametrize("tab", [{"size": PHONE}], indirect=True, ids=["phone"])
def test_phone_shows_video_objects_and_the_bar_to_ask_on_one_screen(tab: BrowserTab) -> None:
    page = tab.page
    page.get_by_role("button", name="Click the star and ask its colour").click()
    page.locator(".up-answered").wait_for(timeout=LONG)
    wait_until_idle(page)
    for name in (".up-picture", ".up-row[data-id]", ".up-ask-bar"):
        box = page.locator(name).first.bounding_box()
        assert box is not None, name
        assert box["y"] >= 0, name
        assert box["y"] + box["height"] <= PHONE[1], name
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("tab", [REFUSED], indirect=True, ids=["refused"])
@pytest.mark.parametrize(
    ("kind", "words"), [("no video", "video"), ("too large", "the maximum is 1 MB"), ("too long", "seconds")]
)
def test_refused_upload_shows_the_reason(tab: BrowserTab, tmp_path: Path, kind: str, words: str) -> None:
    file = tmp_path / "clip.mp4"
    if kind == "no video":
        file.write_text("not a video")
    elif kind == "too large":
        file.write_bytes(b"x" * 2**21)
    else:
        write_clip(file, num_frames=60)
    upload(tab.page, file)
    expect(tab.page.locator(".up-intro .up-error")).to_contain_text(words, timeout=LONG)
    expect(tab.page.locator(".up-intro .up-status")).to_be_hidden()
