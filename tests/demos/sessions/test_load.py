"""Many visitors at once: each is answered, none is mixed up, and memory stays flat."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from gradio_client import Client
from helpers.demo_server import SHORT_ANSWERS, served_demo
from helpers.tiny_checkpoint import NUM_FRAMES, save_checkpoint, write_clip

from unipixel.assets import sample_path
from unipixel.demos.app import NANO_NAME, Demo, DemoSettings
from unipixel.demos.limits import Limits

NUM_VISITORS = 8
LIMITS = Limits(max_sessions=NUM_VISITORS, max_saved_sessions=32, max_seconds=30)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, str]]:
    bundled = sample_path().parent / "models" / NANO_NAME
    checkpoint = bundled if bundled.is_dir() else save_checkpoint(tmp_path_factory.mktemp("tiny"))
    settings = DemoSettings(model_name=NANO_NAME, limits=LIMITS, session=SHORT_ANSWERS, has_mcp=False)
    with served_demo(checkpoint, settings) as both:
        yield both


def visit(
    client: Client, address: str, clip: Path, number: int, *, turns: int = 1, meet: threading.Barrier | None = None
) -> int:
    """Come with a clip of a length of one's own, click, ask; return how often one had to wait in line."""
    key = client.predict(api_name="/open_session")["session"]
    httpx.post(f"{address}visit/{key}/upload", content=clip.read_bytes(), timeout=60).raise_for_status()
    facts = client.predict(key, f"visitor-{number}.mp4", api_name="/load_received")
    assert facts["num_frames"] == NUM_FRAMES + number
    for _ in range(number % 3 + 1):
        client.predict(key, 12, 16, api_name="/click")
    if meet is not None:
        meet.wait(60)
    num_waits = 0
    for turn in range(turns):
        job = client.submit(key, f"Visitor {number}, turn {turn}: what is [1] doing?", api_name="/ask")
        job.result(timeout=300)
        told = job.outputs()
        assert told[-1]["state"] == "done"
        num_waits += any(value["state"] == "waiting" for value in told)
        assert all(value["total"] == NUM_FRAMES + number for value in told if value["state"] == "masking")
    seen = client.predict(key, api_name="/describe")
    assert seen["video"]["name"] == f"visitor-{number}.mp4"
    assert len(seen["objects"]) >= number % 3 + 1
    assert [turn["question"].split(",")[0] for turn in seen["conversation"]] == [f"Visitor {number}"] * turns
    client.predict(key, api_name="/close_session")
    return num_waits


def test_eight_visitors_at_once_are_all_answered_and_none_is_mixed_up(served: tuple[Demo, str], tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{number}.mp4", num_frames=NUM_FRAMES + number) for number in range(NUM_VISITORS)]
    meet = threading.Barrier(NUM_VISITORS)

    def come(number: int) -> int:
        client = Client(served[1], verbose=False)
        try:
            return visit(client, served[1], clips[number], number, turns=2, meet=meet)
        finally:
            client.close()

    with ThreadPoolExecutor(NUM_VISITORS) as pool:
        waits = list(pool.map(come, range(NUM_VISITORS)))
    assert sum(waits) >= NUM_VISITORS // 2, "nobody was told a place in the queue"
    assert served[0].store.num_waiting == 0


def measured_growth(served: tuple[Demo, str], clip: Path, *, num_requests: int) -> int:
    """Bytes by which the process grows over a number of visits, after some that warm it up."""
    client = Client(served[1], verbose=False)
    for _ in range(3):
        visit(client, served[1], clip, 0)
    gc.collect()
    before = psutil.Process().memory_info().rss
    for _ in range(num_requests):
        visit(client, served[1], clip, 0)
    client.close()
    gc.collect()
    grown = int(psutil.Process().memory_info().rss - before)
    print(f"{num_requests} visits: {grown / 2**20:.1f} MiB more")
    return grown


def test_memory_is_flat_over_twenty_visits(served: tuple[Demo, str], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    assert measured_growth(served, clip, num_requests=20) < 48 * 2**20
    assert served[0].store.num_known == 0
    assert [file for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if file.is_file()] == []


@pytest.mark.slow
def test_memory_is_flat_over_two_hundred_visits(served: tuple[Demo, str], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    assert measured_growth(served, clip, num_requests=200) < 96 * 2**20
