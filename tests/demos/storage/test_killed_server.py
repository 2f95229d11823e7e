"""A server that is killed at random moments keeps everything that it acknowledged."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.demo_process import DemoProcess, open_session, stream
from helpers.moving_square import write_clip

NUM_KILLS, NUM_FRAMES = 20, 40


class Editor(threading.Thread):
    """Changes a session until the server is gone, and records what the server acknowledged."""

    def __init__(self, base: str, seen: dict[str, Any]) -> None:
        super().__init__()
        self._base, self._seen, self._random = base, seen, random.Random(seen["number"])

    def run(self) -> None:
        try:
            while True:
                self._seen["number"] += 1
                change = self._random.choice([self._click, self._click, self._rename, self._track, self._ask])
                self._seen["under_way"] = change.__name__
                change()
                self._seen["under_way"] = ""
        except (httpx.TransportError, httpx.HTTPStatusError):
            return

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = httpx.post(self._base + path, json=body, timeout=60)
        answer.raise_for_status()
        edit: dict[str, Any] = answer.json()
        return edit

    def _click(self) -> None:
        if self._seen["num_prompts"] >= 28:
            return
        body = {
            "object_id": 1,
            "frame": self._random.randrange(NUM_FRAMES),
            "points": [[self._random.uniform(0, 55), self._random.uniform(0, 39), 1]],
        }
        edit = self._post("prompts", body)
        self._seen["num_prompts"] = len(edit["object"]["prompts"])
        self._seen["masks"].update({index: counts["1"] for index, counts in edit["masks"].items()})

    def _rename(self) -> None:
        if self._seen["num_prompts"]:
            self._post("rename", {"object_id": 1, "name": f"name {self._seen['number']}"})
            self._seen["name"] = self._seen["number"]

    def _track(self) -> None:
        if not self._seen["num_prompts"]:
            return
        frame = next(iter(self._seen["masks"]))
        for _, value in stream(f"{self._base}track", {"frame": int(frame), "object_ids": [1]}):
            if value["state"] == "masking":
                self._seen["masks"][str(value["frame"])] = value["masks"]["1"]

    def _ask(self) -> None:
        if self._seen["num_turns"] >= 5:
            return
        masks: dict[str, str | None] = {}
        for _, value in stream(f"{self._base}ask", {"question": "What is there?"}):
            if value["state"] == "masking" and "1" in value["masks"]:
                masks[str(value["frame"])] = value["masks"]["1"]
            elif value["state"] == "done":
                # Masks of a question are valid when it is answered.
                self._seen["num_turns"] += 1
                self._seen["masks"].update(masks)


def check_kept(base: str, seen: dict[str, Any]) -> None:
    """Compare a session with what was acknowledged; what was under way may be there or not."""
    state = httpx.get(f"{base}state", timeout=60).json()
    objects = {item["id"]: item for item in state["objects"]}
    assert len(state["conversation"]) in (seen["num_turns"], seen["num_turns"] + 1)
    seen["num_turns"] = len(state["conversation"])
    if not seen["num_prompts"]:
        return
    assert len(objects[1]["prompts"]) in (seen["num_prompts"], seen["num_prompts"] + 1)
    seen["num_prompts"] = len(objects[1]["prompts"])
    if seen["name"]:
        assert int(objects[1]["name"].removeprefix("name ")) in (seen["name"], seen["number"])
    frames = httpx.get(f"{base}masks?first=0&count={NUM_FRAMES}", timeout=60).json()["frames"]
    assert set(seen["masks"]) <= {index for index, masks in frames.items() if "1" in masks}
    changed = [index for index, counts in seen["masks"].items() if frames[index]["1"] != counts]
    # Masks that a change replaced before the end, without having been acknowledged.
    assert len(changed) <= {"_track": NUM_FRAMES, "_ask": NUM_FRAMES, "_click": 1}.get(seen["under_way"], 0)
    seen["masks"] = {index: masks["1"] for index, masks in frames.items() if "1" in masks}


def check_log(demo: DemoProcess) -> None:
    """Check that a server wrote what it announces, and nothing else."""
    lines = demo.log.splitlines()
    assert lines[0].startswith("The demo is at ")
    assert lines[1:] == ["The model is loaded"]


@pytest.mark.slow
def test_everything_acknowledged_is_there_after_twenty_kills(checkpoint: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    clip = write_clip(tmp_path / "clip.mp4", num_frames=NUM_FRAMES)
    (temporary := tmp_path / "temporary").mkdir()
    arguments = ("--model", str(checkpoint), "--sessions", str(tmp_path / "sessions"))
    path, seen = "", {"number": 0, "num_prompts": 0, "num_turns": 0, "name": 0, "masks": {}, "under_way": ""}
    for number in range(NUM_KILLS + 1):
        demo = DemoProcess(*arguments, temporary=temporary)
        # That of a killed server was removed when this one started.
        assert len(list(temporary.glob("unipixel-demo-*"))) == 1
        if path:
            check_kept(demo.address + path, seen)
        else:
            path = open_session(demo.address, clip).removeprefix(demo.address)
        editor = Editor(demo.address + path, seen)
        editor.start()
        time.sleep(chance.uniform(0.1, 4))
        is_killed = number % 2 == 0
        demo.end(signal.SIGKILL if is_killed else signal.SIGTERM)
        editor.join()
        assert demo.process.returncode == (-signal.SIGKILL if is_killed else 128 + signal.SIGTERM)
        assert len(list(temporary.glob("unipixel-demo-*"))) == is_killed
        check_log(demo)
    folder = next(entry for entry in (tmp_path / "sessions").iterdir() if entry.is_dir())
    demo = DemoProcess(*arguments, temporary=temporary)
    check_kept(demo.address + path, seen)
    demo.end(signal.SIGTERM)
    kinds = sorted(entry.name.partition("-")[0] for entry in folder.iterdir())
    assert kinds == ["memory", "session.json", "upload"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_during_work_ends_the_server_and_removes_its_folders(
    checkpoint: Path, tmp_path: Path, number: signal.Signals
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=400)
    (temporary := tmp_path / "temporary").mkdir()
    demo = DemoProcess("--model", str(checkpoint), temporary=temporary)
    bases = [open_session(demo.address, clip) for _ in range(2)]
    httpx.post(f"{bases[0]}prompts", json={"points": [[12, 16, 1]]}).raise_for_status()
    requests = [
        threading.Thread(target=read_to_the_end, args=arguments)
        for arguments in (
            ("POST", f"{bases[0]}track", {}),
            ("POST", f"{bases[1]}ask", {"question": "What is there?"}),
            ("GET", f"{bases[0]}changes?after={2**60}", None),
            ("GET", f"{demo.address}gradio_api/heartbeat/abc", None),
        )
    ]
    for request in requests:
        request.start()
    time.sleep(0.5)
    assert demo.end(number) < 10
    for request in requests:
        request.join()
    expected = 130 if number == signal.SIGINT else 128 + number
    assert demo.process.returncode == expected
    assert list(temporary.glob("unipixel-demo-*")) == []
    lines = demo.log.splitlines()
    assert lines[2:] == (["unipixel: interrupted"] if number == signal.SIGINT else [])


def read_to_the_end(method: str, address: str, body: dict[str, Any] | None) -> None:
    """Send a request whose answer the end of the server cuts off."""
    with contextlib.suppress(httpx.TransportError), httpx.stream(method, address, json=body, timeout=60) as response:
        for _ in response.iter_bytes():
            pass
