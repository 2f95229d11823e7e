"""The player draws each picture with the masks of the very same frame: by clips whose frames carry their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.browser_tab import LONG, PAGE, BrowserTab, load, wait_until_drawn
from helpers.numbered_clip import PLAY_AND_READ, serve_known_masks, write_numbered_clip

from unipixel.memory.rle import encode_rle

pytestmark = pytest.mark.browser

NUM_FRAMES = 100


@pytest.mark.parametrize("start", [0, 15], ids=["from-zero", "from-half-a-second"])
@pytest.mark.parametrize("has_video_frame", [True, False], ids=["exact", "without-video-frame"])
def test_picture_and_masks_are_of_the_same_frame(
    tab: BrowserTab, tmp_path: Path, start: int, *, has_video_frame: bool
) -> None:
    page = tab.page
    load(page, write_numbered_clip(tmp_path / "numbered.mp4", num_frames=NUM_FRAMES, start=start))
    serve_known_masks(page, NUM_FRAMES)
    if not has_video_frame:  # pages that are not served over https
        page.add_init_script("delete window.VideoFrame")
    page.reload()
    wait_until_drawn(page)
    page.wait_for_function(f"{PAGE}.player.layers.length === 2", timeout=LONG)
    drawn = page.evaluate(PLAY_AND_READ)
    assert len(drawn) > NUM_FRAMES // 4
    # A slow machine shows a picture without masks rather than with those of another frame.
    shifts = [tuple(item[2:]) for item in drawn]
    assert set(shifts) <= {(0, 0), ()}
    assert shifts.count((0, 0)) > len(drawn) // 2
    wrong = [(number, frame) for number, frame, *_ in drawn if number != frame]
    # Without VideoFrame, the browser may already hold the next picture when it reports a frame.
    assert wrong == [] if has_video_frame else len(wrong) <= len(drawn) // 10


def test_steps_and_jumps_show_the_chosen_frame(tab: BrowserTab, tmp_path: Path) -> None:
    page = tab.page
    load(page, write_numbered_clip(tmp_path / "numbered.mp4", num_frames=NUM_FRAMES))
    chosen = [0, 1, 2, 3, 2, 1, 59, 60, 61, 60, 59, 99, 98, 37, 0]
    shown = page.evaluate(
        f"""async (frames) => {{
            const {{ player }} = {PAGE}, context = player.canvas.getContext('2d'), numbers = [];
            for (const frame of frames) {{
                const isShown = new Promise((resolve) => {{
                    const check = () => {{
                        if (player.frame !== frame) return;
                        player.removeEventListener('frame', check);
                        resolve();
                    }};
                    player.addEventListener('frame', check);
                }});
                player.seek(frame);
                await isShown;
                const row = context.getImageData(0, 20, 488, 1).data;
                let number = 0;
                for (let bar = 0; bar < 12; bar += 1) if (row[4 * (24 + 40 * bar)] > 127) number |= 1 << bar;
                numbers.push(number);
            }}
            return numbers;
        }}""",
        chosen,
    )
    assert shown == chosen


def test_run_lengths_are_decoded_to_the_same_masks(tab: BrowserTab) -> None:
    generator = np.random.default_rng(0)
    cases = []
    for _ in range(60):
        height, width = (int(size) for size in generator.integers(1, 40, 2))
        mask = generator.random((height, width)) < generator.choice([0, 0.02, 0.5, 0.98, 1])
        rows = mask.astype(int).tolist()
        cases.append({"counts": encode_rle(mask)["counts"], "width": width, "height": height, "rows": rows})
    wrong = tab.page.evaluate(
        """async (cases) => {
            const { decodeRegion } = await import(new URL('static/unipixel/run_lengths.js', document.baseURI).href);
            return cases.filter(({ counts, width, height, rows }) => {
                const region = decodeRegion(counts, width, height);
                const found = rows.map((row) => row.map(() => 0));
                region?.pixels.forEach((value, at) => {
                    const row = Math.floor(at / region.width);
                    found[region.y + row][region.x + at - row * region.width] = value;
                });
                return JSON.stringify(found) !== JSON.stringify(rows);
            }).length;
        }""",
        cases,
    )
    assert wrong == 0
