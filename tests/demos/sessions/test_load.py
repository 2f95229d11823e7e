"""A demo server under load: concurrent sessions are isolated, and memory is constant."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from gradio_client import Client
from helpers.demo_server import SHORT_ANSWERS, serve_demo
from helpers.moving_square import NUM_FRAMES, write_clip

from unipixel.assets import sample_path
from unipixel.demos.app import NANO_NAME, Demo, DemoSettings
from unipixel.demos.limits import Limits

NUM_SESSIONS = 8
# All sessions are of one address, which may send two files at a time.
UPLOADING = threading.Semaphore(2)
LIMITS = Limits(max_sessions=NUM_SESSIONS, max_saved_sessions=32, max_seconds=30)


SETTINGS = DemoSettings(model_name=NANO_NAME, limits=LIMITS, session=SHORT_ANSWERS, has_mcp=False)


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[tuple[Demo, str]]:
    with serve_demo(checkpoint, SETTINGS) as both:
        yield both


@pytest.fixture(scope="module")
def served_nano() -> Iterator[tuple[Demo, str]]:
    with serve_demo(sample_path().parent / "models" / NANO_NAME, SETTINGS) as both:
        yield both


def use_session(client: Client, address: str, clip: Path, number: int, *, turns: int = 1) -> int:
    """Upload a clip of a distinct length, click, ask; return the number of turns that were queued."""
    key = client.predict(api_name="/open_session")["session"]
    with UPLOADING:
        httpx.post(f"{address}session/{key}/upload", content=clip.read_bytes(), timeout=60).raise_for_status()
    info = client.predict(key, f"session-{number}.mp4", api_name="/load_received")
    assert info["video"]["num_frames"] == NUM_FRAMES + number
    for _ in range(number % 3 + 1):
        client.predict(key, 12, 16, api_name="/click")
    num_waits = 0
    for turn in range(turns):
        job = client.submit(key, f"Session {number}, turn {turn}: what is [1] doing?", api_name="/ask")
        job.result()
        values = job.outputs()
        assert values[-1]["state"] == "done"
        num_waits += any(value["state"] == "waiting" for value in values)
        assert all(value["total"] == NUM_FRAMES + number for value in values if value["state"] == "masking")
    described = client.predict(key, api_name="/describe")
    assert described["video"]["name"] == f"session-{number}.mp4"
    assert len(described["objects"]) >= number % 3 + 1
    assert [turn["question"].split(",")[0] for turn in described["conversation"]] == [f"Session {number}"] * turns
    client.predict(key, api_name="/close_session")
    return num_waits


def test_eight_concurrent_sessions_are_answered_and_isolated(served: tuple[Demo, str], tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{number}.mp4", num_frames=NUM_FRAMES + number) for number in range(NUM_SESSIONS)]
    demo, address = served

    def run(number: int) -> int:
        client = Client(address, verbose=False)
        try:
            return use_session(client, address, clips[number], number, turns=2)
        finally:
            client.close()

    # The model is occupied until every session has asked its first question.
    with ThreadPoolExecutor(NUM_SESSIONS) as pool, demo.store._context.queue.slot():
        futures = [pool.submit(run, number) for number in range(NUM_SESSIONS)]
        while demo.store.num_waiting < NUM_SESSIONS and not any(future.done() for future in futures):
            time.sleep(0.01)
    assert all(future.result() >= 1 for future in futures)
    assert demo.store.num_waiting == 0


def measured_growth(served: tuple[Demo, str], clip: Path, *, num_sessions: int) -> int:
    """Return by how many bytes the process grows over a number of sessions, after two to warm up."""
    client = Client(served[1], verbose=False)
    for _ in range(2):
        use_session(client, served[1], clip, 0)
    gc.collect()
    before = psutil.Process().memory_info().rss
    for _ in range(num_sessions):
        use_session(client, served[1], clip, 0)
    client.close()
    gc.collect()
    grown = int(psutil.Process().memory_info().rss - before)
    print(f"{num_sessions} sessions: {grown / 2**20:.1f} MiB")
    return grown


def test_memory_is_constant_over_three_sessions(served: tuple[Demo, str], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    assert measured_growth(served, clip, num_sessions=3) < 48 * 2**20
    assert served[0].store.num_known == 0
    assert [file for file in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if file.is_file()] == []


@pytest.mark.slow
def test_memory_is_constant_over_two_hundred_sessions(served_nano: tuple[Demo, str], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    assert measured_growth(served_nano, clip, num_sessions=200) < 96 * 2**20
