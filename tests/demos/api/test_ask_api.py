"""The API, through gradio_client, HTTP and MCP."""

from __future__ import annotations

import ast
import asyncio
import base64
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from helpers.demo_server import SHORT_ANSWERS, SMALL_LIMITS, serve_demo
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, clip_frame, write_clip
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image
from pycocotools import mask as coco_mask

from unipixel.demos.app import Demo, DemoSettings

FUNCTIONS = {
    "ask", "cancel", "click", "close_session", "describe", "download", "draw_box", "draw_mask", "forget",
    "live_ask", "live_click", "live_forget", "live_frame", "live_state", "live_stop", "live_watch",
    "load_example", "load_received", "load_video", "masks", "open_session", "rename", "segment",
    "track", "undo",
}  # fmt: skip


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[tuple[Demo, str]]:
    settings = DemoSettings(model_name="tiny", limits=SMALL_LIMITS, session=SHORT_ANSWERS)
    with serve_demo(checkpoint, settings) as both:
        yield both


@pytest.fixture(scope="module")
def address(served: tuple[Demo, str]) -> str:
    return served[1]


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    made = Client(address, verbose=False)
    yield made
    made.close()


@pytest.fixture
def session(client: Client) -> Iterator[str]:
    key = client.predict(api_name="/open_session")["session"]
    yield key
    client.predict(key, api_name="/close_session")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "square.mp4")


@pytest.fixture
def loaded(client: Client, session: str, clip: Path) -> str:
    client.predict(session, handle_file(clip), api_name="/load_video")
    return session


def values(client: Client, *arguments: Any, api_name: str) -> list[dict[str, Any]]:
    job = client.submit(*arguments, api_name=api_name)
    job.result()
    return job.outputs()


def test_every_function_is_named_and_described(client: Client, address: str) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {name.strip("/") for name in endpoints} == FUNCTIONS
    for name, endpoint in endpoints.items():
        assert endpoint["description"], name
        assert all(parameter["python_type"]["type"] for parameter in endpoint["parameters"]), name
    named = {item["parameter_name"]: item for item in endpoints["/click"]["parameters"]}
    assert named["x"]["python_type"]["type"] == "float"
    assert named["object_id"]["parameter_default"] == 0


def test_functions_are_mcp_tools(address: str) -> None:
    tools = {tool["name"]: tool for tool in httpx.get(f"{address}gradio_api/mcp/schema").json()}
    assert {name.removeprefix("unipixel_").lower() for name in tools} >= {"ask", "click", "track"}
    schema = next(tool for name, tool in tools.items() if name.endswith("click"))["inputSchema"]
    assert schema["properties"]["x"]["description"] == "Pixels from the left of the frame."
    assert schema["required"] == ["session", "x", "y"]


def test_video_is_loaded_and_described(client: Client, session: str, clip: Path) -> None:
    info = client.predict(session, handle_file(clip), api_name="/load_video")
    assert (info["width"], info["height"], info["num_frames"], info["is_image"]) == (
        WIDTH,
        HEIGHT,
        NUM_FRAMES,
        False,
    )
    described = client.predict(session, api_name="/describe")
    assert described["video"]["name"] == "square.mp4"
    assert described["objects"] == described["conversation"] == []


def test_upload_leaves_no_file_in_the_cache_of_gradio(served: tuple[Demo, str], loaded: str) -> None:
    cache = Path(os.environ["GRADIO_TEMP_DIR"])
    assert [file for file in cache.rglob("*") if file.is_file()] == []


def test_file_sent_with_post_is_loaded(client: Client, address: str, clip: Path) -> None:
    opened = client.predict(api_name="/open_session")
    sent = httpx.post(address + opened["upload_to"], content=clip.read_bytes())
    assert sent.json() == {"status": "received"}
    info = client.predict(opened["session"], "mine.mp4", api_name="/load_received")
    assert (info["name"], info["num_frames"]) == ("mine.mp4", NUM_FRAMES)


def test_clicked_object_is_tracked_frame_by_frame(client: Client, loaded: str) -> None:
    assert client.predict(loaded, 12, 16, api_name="/click") == 1
    streamed = values(client, loaded, api_name="/track")
    assert [value["frame"] for value in streamed if value["state"] == "masking"] == list(range(NUM_FRAMES))
    assert streamed[-1] == {"state": "done", "text": "", "new_ids": [1]}
    assert client.predict(loaded, api_name="/describe")["objects"][0]["num_known_frames"] == NUM_FRAMES


def test_question_streams_text_and_is_added_to_the_conversation(client: Client, loaded: str) -> None:
    client.predict(loaded, 12, 16, api_name="/click")
    streamed = values(client, loaded, "What is [1] doing?", api_name="/ask")
    assert streamed[-1]["state"] == "done"
    turns = client.predict(loaded, api_name="/describe")["conversation"]
    assert [turn["question"] for turn in turns] == ["What is [1] doing?"]
    assert turns[0]["answer"] == streamed[-1]["text"]


def test_box_and_mask_add_objects_and_undo_removes_one(client: Client, loaded: str) -> None:
    assert client.predict(loaded, 4, 8, 20, 24, api_name="/draw_box") == 1
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[8:24, 4:20] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert client.predict(loaded, base64.b64encode(buffer.getvalue()).decode(), api_name="/draw_mask") == 2
    assert client.predict(loaded, api_name="/undo") == 2
    assert [item["id"] for item in client.predict(loaded, api_name="/describe")["objects"]] == [1]


def test_masks_are_coco_run_length_encodings(client: Client, loaded: str) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[8:24, 4:20] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    client.predict(loaded, base64.b64encode(buffer.getvalue()).decode(), api_name="/draw_mask")
    values(client, loaded, api_name="/track")
    masks = client.predict(loaded, 0, api_name="/masks")
    for rle in masks.values():
        assert coco_mask.decode(rle).shape == (HEIGHT, WIDTH)


def test_object_is_renamed_and_removed(client: Client, loaded: str) -> None:
    client.predict(loaded, 12, 16, api_name="/click")
    client.predict(loaded, 1, "square", api_name="/rename")
    assert client.predict(loaded, api_name="/describe")["objects"][0]["name"] == "square"
    client.predict(loaded, 1, api_name="/forget")
    assert client.predict(loaded, api_name="/describe")["objects"] == []


def test_downloads_are_served_to_the_key(client: Client, address: str, loaded: str) -> None:
    client.predict(loaded, 12, 16, api_name="/click")
    values(client, loaded, api_name="/track")
    responses = {}
    for kind in ("masks", "coco", "overlay", "session", "timeline"):
        responses[kind] = httpx.get(address + client.predict(loaded, kind, api_name="/download"), timeout=60)
        assert responses[kind].status_code == 200, kind
        assert responses[kind].headers["cache-control"] == "private, no-store"
    assert zipfile.ZipFile(io.BytesIO(responses["masks"].content)).testzip() is None
    assert "annotations" in json.loads(responses["coco"].content)
    assert responses["overlay"].content[4:8] == b"ftyp"


def test_example_is_loaded(client: Client, session: str) -> None:
    assert client.predict(session, 3, api_name="/load_example")["is_image"] is True


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("ask", (" ",), "empty"),
        ("ask", ("Where is [4]?",), r"names \[4\]"),
        ("click", (999, 5), "999"),
        ("forget", (7,), "7"),
        ("load_example", (9,), "choose 1 to 3"),
    ],
)
def test_error_messages_reach_the_client(
    client: Client, loaded: str, function: str, arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(Exception, match=words):
        client.predict(loaded, *arguments, api_name=f"/{function}")


def test_unknown_session_is_refused(client: Client) -> None:
    with pytest.raises(Exception, match="unknown or has expired"):
        client.predict("A" * 43, api_name="/describe")


def test_cancel_stops_the_work(served: tuple[Demo, str], client: Client, loaded: str) -> None:
    client.predict(loaded, 12, 16, api_name="/click")
    job = client.submit(loaded, "What is [1] doing?", api_name="/ask")
    client.predict(loaded, api_name="/cancel")
    job.result()
    assert job.outputs()[-1]["state"] in ("cancelled", "done")
    assert not served[0].store.get(loaded).lifecycle.is_busy


def test_live_frames_are_tracked_and_questions_answered(client: Client, session: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(clip_frame(0)).save(buffer, "JPEG")
    frame = base64.b64encode(buffer.getvalue()).decode()
    assert client.predict(session, frame, api_name="/live_frame")["is_tracked"] is True
    assert client.predict(session, 12, 16, api_name="/live_click") == 1
    assert client.predict(session, frame, api_name="/live_frame")["objects"] == [1]
    assert isinstance(client.predict(session, "What is [1] doing?", api_name="/live_ask"), str)
    assert client.predict(session, 1, api_name="/live_forget") == 1
    assert client.predict(session, api_name="/live_state")["num_frames"] == 2
    assert client.predict(session, api_name="/live_stop") == "stopped"


def test_source_that_is_not_allowed_is_refused(client: Client, session: str) -> None:
    with pytest.raises(Exception, match="list of allowed sources"):
        client.predict(session, "rtsp://127.0.0.1:8554/camera", api_name="/live_watch")


def test_session_is_used_through_mcp(address: str, clip: Path) -> None:
    async def work() -> tuple[dict[str, Any], str]:
        async with (
            streamablehttp_client(f"{address}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as agent,
        ):
            await agent.initialize()

            async def call(name: str, **arguments: Any) -> str:
                answer = await agent.call_tool(name, arguments)
                text = answer.content[0].text  # type: ignore[union-attr]
                assert not answer.isError, text
                return str(text)

            opened = ast.literal_eval(await call("open_session"))
            httpx.post(address + opened["upload_to"], content=clip.read_bytes()).raise_for_status()
            key = opened["session"]
            await call("load_received", session=key)
            await call("click", session=key, x=12, y=16)
            answered = await call("ask", session=key, question="What is [1] doing?")
            refused = await agent.call_tool("load_video", {"session": key, "video": "http://127.0.0.1:1/a.mp4"})
            assert refused.isError
            return ast.literal_eval(await call("describe", session=key)), answered

    described, answered = asyncio.run(work())
    assert [turn["question"] for turn in described["conversation"]] == ["What is [1] doing?"]
    assert "done" in answered
