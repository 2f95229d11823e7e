"""A clip whose frames carry their number as bars, and masks of two objects that are known for each frame."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page, Route

from helpers.browser_tab import PAGE
from unipixel.memory.rle import encode_rle

WIDTH, HEIGHT, FPS = 1280, 720, 30
NUM_BARS, BAR_WIDTH, BAR_STEP, BAR_TOP, BAR_BOTTOM = 12, 32, 40, 4, 36
COLORS = {1: "#56b4e9", 2: "#e69f00"}


def numbered_frame(index: int) -> NDArray[np.uint8]:
    """Return a frame, uint8 (720, 1280, 3), over a pattern that moves; its bars are the bits of its number."""
    rows, columns = np.arange(HEIGHT) // 8, np.arange(WIDTH) // 6
    pattern = (np.add.outer(rows, columns) % 256).astype(np.uint8)
    frame = np.stack([pattern, np.roll(pattern, 3 * index, axis=1), 255 - pattern], axis=-1)
    frame[: BAR_BOTTOM + 4] = 0
    for bar in range(NUM_BARS):
        if index >> bar & 1:
            frame[BAR_TOP:BAR_BOTTOM, 8 + bar * BAR_STEP : 8 + bar * BAR_STEP + BAR_WIDTH] = 255
    return frame


def write_numbered_clip(path: Path, *, num_frames: int, start: int = 0) -> Path:
    """Write the clip as H.264, 720p at 30 frames per second; `start` frames late, as some cameras write it."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "23", "g": "60", "preset": "veryfast"}
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(index), format="rgb24")
            frame.pts, frame.time_base = start + index, Fraction(1, FPS)
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode(None))
    return path


def left_of(object_id: int, index: int) -> int:
    """Return the left edge of an object's mask on a frame; it has 400 by 400 pixels."""
    return 40 + 2 * index if object_id == 1 else 840 - 2 * index


def mask_of(object_id: int, index: int) -> NDArray[np.bool_]:
    """Return an object's mask, bool (720, 1280): a disc."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (x - left_of(object_id, index) - 199.5) ** 2 + (y - 380) ** 2 <= 199.5**2


def serve_known_masks(page: Page, num_frames: int) -> None:
    """Let the page receive the two objects with their masks, in place of those of its session."""
    counts = {
        index: {str(key): encode_rle(mask_of(key, index))["counts"] for key in COLORS} for index in range(num_frames)
    }
    objects = [
        {
            "id": key, "name": f"object {key}", "color": color, "source": "mask", "has_pending_prompts": False,
            "num_known_frames": num_frames, "known": [[0, num_frames - 1]], "visible": [[0, num_frames - 1]],
            "prompts": [],
        }
        for key, color in COLORS.items()
    ]  # fmt: skip

    def state(route: Route) -> None:
        body = route.fetch().json()
        route.fulfill(json={**body, "objects": objects})

    def masks(route: Route) -> None:
        found = re.search(r"first=(\d+)&count=(\d+)", route.request.url)
        assert found is not None
        first, count = int(found[1]), int(found[2])
        frames = {index: counts[index] for index in range(first, min(first + count, num_frames))}
        chunk = {"revision": 1, "size": [HEIGHT, WIDTH], "first": first, "count": count, "frames": frames}
        route.fulfill(body=json.dumps(chunk), content_type="application/json")

    page.route("**/state", state)
    page.route("**/masks?*", masks)
    page.route("**/thumbnail/*", lambda route: route.fulfill(status=204))


# Returns, for every frame that is drawn until the end of the video: the number that the bars of the picture show, the
# index that the page knows, and by how many pixels each mask differs from its place on that frame.
PLAY_AND_READ = f"""async () => {{
    const {{ player }} = {PAGE}, context = player.canvas.getContext('2d', {{ willReadFrequently: true }}), drawn = [];
    const read = () => {{
        const row = context.getImageData(0, {(BAR_TOP + BAR_BOTTOM) // 2}, {NUM_BARS * BAR_STEP + 8}, 1).data;
        let number = 0;
        for (let bar = 0; bar < {NUM_BARS}; bar += 1) {{
            if (row[4 * (8 + bar * {BAR_STEP} + {BAR_WIDTH // 2})] > 127) number |= 1 << bar;
        }}
        const shifts = player.layers.map(({{ id, x, margin }}) =>
            x + margin - (id === 1 ? 40 + 2 * player.frame : 840 - 2 * player.frame));
        drawn.push([number, player.frame, ...shifts]);
    }};
    player.addEventListener('frame', read);
    player.play();
    await new Promise((resolve) => player.video.addEventListener('ended', resolve, {{ once: true }}));
    player.removeEventListener('frame', read);
    return drawn;
}}"""
