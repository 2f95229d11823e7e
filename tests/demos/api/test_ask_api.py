"""The API, through gradio_client, HTTP and MCP."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client
from helpers.demo_server import SHORT_ANSWERS, SMALL_LIMITS, serve_demo
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, clip_frame, write_clip
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from PIL import Image
from pycocotools import mask as coco_mask

from unipixel.demos.app import Demo, DemoSettings

FUNCTIONS = {
    "add_prompts", "ask", "cancel", "click", "close_session", "describe", "draw_box", "draw_mask", "export", "forget",
    "links", "live_ask", "live_click", "live_draw_box", "live_forget", "live_frame", "live_rename", "live_state",
    "live_stop", "live_watch", "load_example", "load_received", "masks", "masks_of_frames", "open_session", "redo",
    "rename", "segment", "track", "undo",
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
def loaded(client: Client, session: str, clip: Path, address: str) -> str:
    httpx.post(f"{address}session/{session}/upload", content=clip.read_bytes()).raise_for_status()
    client.predict(session, "square.mp4", api_name="/load_received")
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
        assert all(parameter["python_type"]["description"] for parameter in endpoint["parameters"]), name
        assert all(value["python_type"]["type"] != "Any" for value in endpoint["returns"]), name
    named = {item["parameter_name"]: item for item in endpoints["/click"]["parameters"]}
    assert named["x"]["python_type"]["type"] == "float"
    assert named["object_id"]["parameter_default"] == 0


def test_video_is_loaded_and_described(client: Client, loaded: str) -> None:
    described = client.predict(loaded, api_name="/describe")
    video = described["video"]
    assert (video["name"], video["width"], video["height"]) == ("square.mp4", WIDTH, HEIGHT)
    assert (video["num_frames"], video["is_image"], video["is_playable"]) == (NUM_FRAMES, False, True)
    assert described["objects"] == described["conversation"] == []


def test_upload_leaves_no_file_in_the_cache_of_gradio(served: tuple[Demo, str], loaded: str) -> None:
    cache = Path(os.environ["GRADIO_TEMP_DIR"])
    assert [file for file in cache.rglob("*") if file.is_file()] == []


def test_click_returns_its_mask_and_is_tracked_frame_by_frame(client: Client, loaded: str) -> None:
    edit = client.predict(loaded, 12, 16, api_name="/click")
    assert (edit["object_id"], list(edit["masks"]), edit["is_complete"]) == (1, ["0"], False)
    streamed = values(client, loaded, api_name="/track")
    assert [value["frame"] for value in streamed if value["state"] == "masking"] == list(range(NUM_FRAMES))
    assert (streamed[-1]["state"], streamed[-1]["object_ids"]) == ("done", [1])
    assert client.predict(loaded, api_name="/describe")["objects"][0]["known"] == [[0, NUM_FRAMES - 1]]


def test_several_prompts_are_added_in_one_request(client: Client, loaded: str) -> None:
    prompts = [
        {"object_id": 1, "frame": 0, "points": [[12, 16, 1], [50, 5, 0]]},
        {"object_id": 2, "frame": 3, "box": [20, 8, 36, 24]},
    ]
    edits = client.predict(loaded, prompts, api_name="/add_prompts")
    assert [(edit["object_id"], list(edit["masks"])) for edit in edits] == [(1, ["0"]), (2, ["3"])]
    assert len(edits[0]["object"]["prompts"]) == 2
    with pytest.raises(Exception, match=r"prompts\[0\] has neither points nor a box"):
        client.predict(loaded, [{"frame": 1}], api_name="/add_prompts")


def test_question_streams_text_and_is_added_to_the_conversation(client: Client, loaded: str) -> None:
    client.predict(loaded, 12, 16, api_name="/click")
    streamed = values(client, loaded, "What is [1] doing?", api_name="/ask")
    assert streamed[-1]["state"] == "done"
    turns = client.predict(loaded, api_name="/describe")["conversation"]
    assert [turn["question"] for turn in turns] == ["What is [1] doing?"]
    assert turns[0]["answer"] == streamed[-1]["text"]


def test_box_and_mask_add_objects_and_undo_removes_one(client: Client, loaded: str) -> None:
    assert client.predict(loaded, 4, 8, 20, 24, api_name="/draw_box")["object_id"] == 1
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[8:24, 4:20] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    assert client.predict(loaded, base64.b64encode(buffer.getvalue()).decode(), api_name="/draw_mask")["object_id"] == 2
    undone = client.predict(loaded, api_name="/undo")
    assert (undone["object_id"], undone["object"], undone["can_redo"]) == (2, None, True)
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
    chunk = client.predict(loaded, 0, 4, api_name="/masks_of_frames")
    assert sorted(chunk["frames"]) == ["0", "1", "2", "3"]
    assert chunk["frames"]["0"]["1"] == masks["1"]["counts"]


def test_object_is_renamed_and_removed(client: Client, loaded: str) -> None:
    client.predict(loaded, 12, 16, api_name="/click")
    client.predict(loaded, 1, "square", api_name="/rename")
    assert client.predict(loaded, api_name="/describe")["objects"][0]["name"] == "square"
    client.predict(loaded, 1, api_name="/forget")
    assert client.predict(loaded, api_name="/describe")["objects"] == []
    client.predict(loaded, api_name="/undo")
    assert client.predict(loaded, api_name="/describe")["objects"][0]["name"] == "square"
    client.predict(loaded, api_name="/redo")
    assert client.predict(loaded, api_name="/describe")["objects"] == []


def test_downloads_are_served_to_the_key(client: Client, address: str, loaded: str) -> None:
    client.predict(loaded, 12, 16, api_name="/click")
    values(client, loaded, api_name="/track")
    responses = {}
    for kind in ("masks", "coco", "overlay", "session", "timeline"):
        last = values(client, loaded, kind, api_name="/export")[-1]
        responses[kind] = httpx.get(address + last["address"], timeout=60)
        assert responses[kind].status_code == 200, kind
        assert responses[kind].headers["cache-control"] == "private, no-store"
    assert zipfile.ZipFile(io.BytesIO(responses["masks"].content)).testzip() is None
    assert "annotations" in json.loads(responses["coco"].content)
    assert responses["overlay"].content[4:8] == b"ftyp"


def test_example_is_loaded(client: Client, session: str) -> None:
    assert client.predict(session, 3, api_name="/load_example")["video"]["is_image"] is True


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        ("ask", (" ",), "empty"),
        ("ask", ("Where is [4]?",), r"names \[4\]"),
        ("click", (999, 5), "999"),
        ("click", ("abc", 5), "x must be a finite number, got 'abc'"),
        ("click", (5, 5, 1.5), "frame must be an integer, got 1.5"),
        ("masks", (999,), "range from 0 to 5, got 999"),
        ("masks_of_frames", (0, 0), "count must be 1 to 256"),
        ("track", (9,), "not in the range 0 to 5"),
        ("export", ("coco",), "no object has a mask yet"),
        ("forget", (7,), "7"),
        ("load_example", (9,), "choose 1 to 3"),
    ],
)
def test_error_messages_reach_the_client(
    client: Client, loaded: str, function: str, arguments: tuple[Any, ...], words: str
) -> None:
    with pytest.raises(Exception, match=words):
        client.predict(loaded, *arguments, api_name=f"/{function}")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e999", "true", "null", "[1]"])
def test_coordinate_that_is_not_a_finite_number_is_refused(address: str, loaded: str, value: str) -> None:
    body = f'{{"data": ["{loaded}", {value}, 5, 0, 0, true]}}'
    headers = {"content-type": "application/json"}
    started = httpx.post(f"{address}gradio_api/call/click", content=body, headers=headers).json()
    response = httpx.get(f"{address}gradio_api/call/click/{started['event_id']}").text
    assert "x must be a finite number" in response


def test_loop_over_a_job_ends_with_the_refusal(client: Client, loaded: str) -> None:
    job = client.submit(loaded, api_name="/track")
    assert list(job)[-1]["state"] == "refused"
    with pytest.raises(Exception, match="there is no object to track"):
        job.result()


def test_wrong_number_of_arguments_is_named(address: str, loaded: str) -> None:
    event = httpx.post(f"{address}gradio_api/call/click", json={"data": [loaded, 1]}).json()["event_id"]
    assert "click takes 3 to 6 arguments, got 2" in httpx.get(f"{address}gradio_api/call/click/{event}").text


def test_arguments_with_defaults_may_be_left_out(address: str, loaded: str) -> None:
    event = httpx.post(f"{address}gradio_api/call/click", json={"data": [loaded, 12, 16]}).json()["event_id"]
    text = httpx.get(f"{address}gradio_api/call/click/{event}").text
    assert text.startswith("event: complete")
    assert json.loads(text.partition("data: ")[2])[0]["object_id"] == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("call/nothing", {"data": []}),
        ("call/v2/nothing", {}),
        ("run/nothing", {"data": []}),
        ("queue/join", {"data": [], "fn_index": 999, "session_hash": "a"}),
        ("queue/join", {"data": [], "fn_index": -1, "session_hash": "a"}),
    ],
)
def test_unknown_function_is_not_found_and_leaves_no_error_in_the_log(
    address: str, path: str, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    answer = httpx.post(f"{address}gradio_api/{path}", json=body)
    assert (answer.status_code, "there is no such function" in answer.text) == (404, True)
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("content", [b"x", b"\xff\xfe", b"[" * 60_000])
def test_body_that_is_not_json_is_refused_in_one_line(address: str, loaded: str, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{address}session/{loaded}/prompts", content=content, headers=headers)
    assert 400 <= answer.status_code < 500
    assert list(answer.json()) == ["error", "field"]


def test_view_key_reads_and_changes_nothing(client: Client, loaded: str) -> None:
    view = client.predict(loaded, api_name="/links")["view"].partition("=")[2]
    assert client.predict(view, api_name="/describe")["is_read_only"] is True
    with pytest.raises(Exception, match="only shows the session"):
        client.predict(view, 12, 16, api_name="/click")


def test_view_key_downloads_results(client: Client, loaded: str, address: str) -> None:
    client.predict(loaded, 12, 16, api_name="/click")
    view = client.predict(loaded, api_name="/links")["view"].partition("=")[2]
    last = values(client, view, "coco", api_name="/export")[-1]
    by_function = httpx.get(address + last["address"]).raise_for_status().json()
    lines = httpx.post(f"{address}session/{view}/export", json={"kind": "coco"}).raise_for_status().text.splitlines()
    file = json.loads(lines[-1])["file"]
    assert httpx.get(f"{address}session/{view}/download/{file}").json() == by_function
    assert len(by_function["annotations"]) == 1


def test_preview_returns_the_mask_that_the_click_then_gives_and_changes_nothing(
    client: Client, loaded: str, address: str
) -> None:
    base = f"{address}session/{loaded}/"
    click = {"point": [30, 20, 1], "frame": 0}
    assert httpx.post(f"{base}preview", json=click).json() == {"is_ready": False, "counts": None}, "not encoded yet"
    client.predict(loaded, 12, 16, api_name="/click")
    before = httpx.get(f"{base}state").json()
    new = httpx.post(f"{base}preview", json=click).raise_for_status().json()
    refined = httpx.post(f"{base}preview", json={**click, "object_id": 1}).raise_for_status().json()
    assert httpx.get(f"{base}state").json() == before
    for object_id, found in ((0, new), (1, refined)):
        edit = client.predict(loaded, 30, 20, 0, object_id, api_name="/click")
        assert found == {"is_ready": True, "counts": edit["masks"]["0"][str(edit["object_id"])]}


@pytest.mark.parametrize(
    ("click", "message"),
    [
        ({"point": [-1, 20, 1]}, "outside"),
        ({"point": [30, 20, 1], "object_id": 7}, r"there is no object \[7\]"),
        ({"point": [30, 20, 0]}, "negative"),
        ({"point": [30, 20, 2]}, "point"),
    ],
)
def test_preview_of_an_impossible_click_is_refused(
    client: Client, loaded: str, address: str, click: dict[str, Any], message: str
) -> None:
    client.predict(loaded, 12, 16, api_name="/click")
    response = httpx.post(f"{address}session/{loaded}/preview", json=click)
    assert 400 <= response.status_code < 500
    assert re.search(message, response.json()["error"])


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
    assert client.predict(session, 1, "cup", api_name="/live_rename") == "cup"
    objects = client.predict(session, frame, api_name="/live_frame")["objects"]
    assert [(item["id"], item["name"]) for item in objects] == [(1, "cup")]
    assert client.predict(session, 20, 8, 36, 24, api_name="/live_draw_box") == 2
    assert isinstance(client.predict(session, "What is [1] doing?", api_name="/live_ask"), str)
    assert client.predict(session, 1, api_name="/live_forget") == 1
    assert client.predict(session, api_name="/live_state")["num_frames"] == 2
    assert client.predict(session, api_name="/live_stop") == "stopped"


def test_source_that_is_not_allowed_is_refused(client: Client, session: str) -> None:
    with pytest.raises(Exception, match="list of allowed sources"):
        client.predict(session, "rtsp://127.0.0.1:8554/camera", api_name="/live_watch")


def test_session_is_used_through_mcp(address: str, clip: Path) -> None:
    async def work() -> None:
        async with (
            streamablehttp_client(f"{address}gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as agent,
        ):
            await agent.initialize()
            tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
            assert set(tools) == FUNCTIONS
            properties = tools["click"].inputSchema["properties"]
            assert properties["x"]["description"] == "Pixels from the left of the frame."
            assert tools["click"].inputSchema["required"] == ["session", "x", "y"]

            async def call(name: str, **arguments: Any) -> Any:
                answer = await agent.call_tool(name, arguments)
                text = answer.content[0].text  # type: ignore[union-attr]
                assert not answer.isError, text
                if isinstance(answer.structuredContent, dict) and "result" not in answer.structuredContent:
                    assert json.loads(text) == answer.structuredContent
                return answer.structuredContent

            opened = await call("open_session")
            httpx.post(address + opened["upload_to"], content=clip.read_bytes()).raise_for_status()
            key = opened["session"]
            assert (await call("load_received", session=key))["video"]["num_frames"] == NUM_FRAMES
            assert (await call("click", session=key, x=12, y=16))["object_id"] == 1
            answered = await call("ask", session=key, question="What is [1] doing?")
            assert answered["state"] == "done"
            refused = await agent.call_tool("click", {"session": key, "x": 999, "y": 1})
            assert refused.isError
            assert "outside the frame" in refused.content[0].text  # type: ignore[union-attr]
            turns = (await call("describe", session=key))["conversation"]
            assert [turn["question"] for turn in turns] == ["What is [1] doing?"]

    asyncio.run(work())


def test_client_calls_of_the_documentation_run(
    address: str, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[3] / "docs/demo.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```pycon\n(.*?)```", text, re.DOTALL)
    lines = [line[4:] for line in block.splitlines() if line.startswith((">>> ", "... "))]
    # The loop of the documentation ends before the next statement.
    code = "\n".join(lines).replace("http://127.0.0.1:7860/", address).replace("65, 85", "10, 12")
    names: dict[str, Any] = {}
    exec(compile(code, "docs/demo.md", "exec"), names)
    assert names["job"].result() is not None
    assert "done" in capsys.readouterr().out
