"""The server, called by the `openai` package as it is."""

from __future__ import annotations

import base64
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient
from helpers.sail_model import recorded_image, recorded_sail
from PIL import Image

import unipixel
from unipixel.cli import main
from unipixel.demos.limits import Limits
from unipixel.demos.serving.chat_server import ChatServer
from unipixel.demos.serving.media_sources import MediaSources
from unipixel.memory.rle import encode_rle
from unipixel.model.generation import GenerationSettings
from unipixel.processing.chat_template import Turn
from unipixel.session.callbacks import Cancelled
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.settings import SessionSettings

KEY, OTHER_KEY = "a-key-of-the-tests-1", "a-key-of-the-tests-2"
PROMPTS = {"points": {"1": [12, 14, 0]}, "return_masks": True}


@pytest.fixture
def address(model: Any, processor: Any, tmp_path: Path) -> Iterator[str]:
    limits = Limits(max_upload_megabytes=0.1, max_frames=10)
    server = ChatServer(
        model,
        processor,
        model_name="tiny",
        sources=MediaSources(
            folders=[tmp_path], hosts=["media.example"], limits=limits, resolver=lambda *_: ["127.0.0.1"]
        ),
        limits=limits,
        settings=SessionSettings(generation=GenerationSettings(max_new_tokens=5)),
        keys=[KEY, OTHER_KEY],
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = uvicorn.Server(uvicorn.Config(server.application, port=port, log_level="error"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    running.should_exit = True
    thread.join(30)


def client_of(address: str, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


def message(url: str, question: str = "What is [1]?") -> Any:
    return [
        {
            "role": "user",
            "content": [{"type": "text", "text": question}, {"type": "video_url", "video_url": {"url": url}}],
        }
    ]


def text_of(chunks: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def data_url(path: Path) -> str:
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


def test_client_gets_the_text_and_masks_of_ask(address: str, clip: Path, model: Any, processor: Any) -> None:
    generation = GenerationSettings(max_new_tokens=5)
    expected = unipixel.ask(
        clip, "What is [1]?", points={1: (12, 14, 0)}, model=model, processor=processor, generation=generation
    )
    chat = client_of(address).chat.completions
    for url in (data_url(clip), f"file://{clip}"):
        answer: Any = chat.create(model="tiny", messages=message(url), extra_body={"unipixel": PROMPTS})
        assert answer.choices[0].message.content == expected.text
        assert answer.choices[0].message.unipixel["objects"] == expected.to_dict()["objects"]
        assert answer.usage.completion_tokens > 0
    chunks: Any = list(
        chat.create(
            model="tiny",
            messages=message(data_url(clip)),
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"unipixel": PROMPTS},
        )
    )
    assert text_of(chunks) == expected.text
    assert chunks[-2].choices[0].delta.unipixel["objects"] == expected.to_dict()["objects"]
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage == answer.usage


def test_client_call_of_the_documentation_runs(address: str, clip: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/serving.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```\n(client = openai.*?)```", text, re.DOTALL)
    local = {
        "http://127.0.0.1:8000": address, 'api_key="none"': f'api_key="{KEY}"', "unipixel-nano": "tiny",
        "/clips/a.mp4": str(clip), "[65, 85, 0]": "[12, 14, 0]",
    }  # fmt: skip
    for documented, used in local.items():
        assert documented in block
        block = block.replace(documented, used)
    names: dict[str, Any] = {"openai": openai}
    exec(compile(block, "docs/serving.md", "exec"), names)
    assert names["answer"].choices[0].message.unipixel["objects"][0]["frames"]


def test_models_health_and_metrics(address: str) -> None:
    assert [item.id for item in client_of(address).models.list()] == ["tiny"]
    assert httpx.get(f"{address}/healthz").text == "ok\n"
    assert httpx.get(f"{address}/metrics").status_code == 401
    metrics = httpx.get(f"{address}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    assert "unipixel_requests_total 0" in metrics


def test_wrong_key_is_refused(address: str, clip: Path) -> None:
    with pytest.raises(openai.AuthenticationError, match="key is missing or wrong"):
        client_of(address, "another-key-entirely").chat.completions.create(model="tiny", messages=message("data:"))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:///etc/passwd", "not in an allowed folder"),
        ("http://other.example/a.mp4", "not on the server's list"),
        ("https://media.example/a.mp4", "private network"),
        ("ftp://media.example/a.mp4", "must begin with"),
        ("data:video/mp4;base64,?", "not base64"),
        ("data:video/mp4;base64," + "A" * 150_000, "exceed the maximum"),
    ],
)
def test_sources_are_refused(address: str, url: str, reason: str) -> None:
    with pytest.raises(openai.APIStatusError, match=reason):
        client_of(address).chat.completions.create(model="tiny", messages=message(url))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"max_tokens": 6}, "max_tokens must be an integer from 1 to 5, got 6"),
        ({"model": "gpt"}, "'gpt' does not exist"),
        ({"tools": []}, "'tools' is not supported"),
        ({"unipixel": {"points": {"a": [1, 2]}}}, "object id must be an integer"),
        ({"unipixel": {"points": {"1": [900, 2]}}}, "900"),
        ({"messages": [{"role": "system", "content": "x"}]}, "role user"),
    ],
)
def test_parameters_are_refused_with_their_value(address: str, clip: Path, fields: Any, reason: str) -> None:
    body = {"model": "tiny", "messages": message(data_url(clip)), **fields}
    answer = httpx.post(
        f"{address}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {KEY}"}, timeout=60
    )
    assert 400 <= answer.status_code < 500
    assert reason in answer.json()["error"]["message"]


def test_command_refuses_a_public_address_without_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0", "--model", "no-such-model"]) == 2
    assert "--api-key FILE" in capsys.readouterr().err


def test_client_that_disconnects_stops_the_work(address: str, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class EndlessSession:
        def prompt(self, *_: Any) -> None:
            pass

        def ask(self, question: str, *, on_text: Any, should_stop: Any) -> None:
            while not should_stop():
                time.sleep(0.01)
            raise Cancelled("cancelled")

    monkeypatch.setattr("unipixel.demos.serving.chat_server.open_session", lambda *_, **__: EndlessSession())
    client = client_of(address).with_options(timeout=2)
    with pytest.raises(openai.APITimeoutError, match="timed out"):
        client.chat.completions.create(model="tiny", messages=message(data_url(clip)))
    metrics, headers = "", {"Authorization": f"Bearer {KEY}"}
    while "unipixel_cancelled_requests_total 1" not in metrics:
        metrics = httpx.get(f"{address}/metrics", headers=headers).text


@pytest.fixture
def slow_answer(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Generation of "A cup [1] is beside <|seg|>, end." that waits for the event before the word "is"."""
    may_continue = threading.Event()

    def ask(self: Conversation, turn: Turn, *, on_text: Any = None) -> Reply:
        pieces = ["A", " cup", " [", "1", "]", " is", " beside", " <|seg|>", ", end", "."]
        for piece in pieces if "slow" in turn.question else []:
            if piece == " is":
                # `should_stop` is asked at every token.
                while not may_continue.wait(0.01):
                    on_text("")
            on_text(piece)
        text = "".join(pieces) if "slow" in turn.question else "Short."
        return Reply(text, torch.ones(text.count("<|seg|>"), 2, 32), 3, num_generated_tokens=4)

    monkeypatch.setattr(Conversation, "ask", ask)
    return may_continue


def test_text_arrives_while_it_is_generated(address: str, clip: Path, slow_answer: threading.Event) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": message(data_url(clip), "How slow is [1]?")}
    stream: Any = client_of(address).chat.completions.create(**asked, stream=True, extra_body={"unipixel": PROMPTS})
    chunks, text = [], ""
    for chunk in stream:
        chunks.append(chunk)
        text = text_of(chunks)
        if text == "A cup [1]":
            assert not slow_answer.is_set()
            slow_answer.set()
    assert text == "A cup [1] is beside [2], end."
    assert [item["id"] for item in chunks[-1].choices[0].delta.unipixel["objects"]] == [1, 2]
    assert all(chunk.id == chunks[0].id for chunk in chunks)
    whole = client_of(address).chat.completions.create(**asked, extra_body={"unipixel": PROMPTS})
    assert whole.choices[0].message.content == text


def test_text_ends_before_a_stop_text(address: str, clip: Path, slow_answer: threading.Event) -> None:
    slow_answer.set()
    asked: dict[str, Any] = {"model": "tiny", "messages": message(data_url(clip), "How slow is [1]?")}
    asked |= {"stop": ["cup [1] was", "is be"], "extra_body": {"unipixel": PROMPTS}}
    assert client_of(address).chat.completions.create(**asked).choices[0].message.content == "A cup [1] "
    assert text_of(client_of(address).chat.completions.create(**asked, stream=True)) == "A cup [1] "


def test_closed_stream_stops_the_generation(address: str, clip: Path, slow_answer: threading.Event) -> None:
    stream: Any = client_of(address).chat.completions.create(
        model="tiny",
        messages=message(data_url(clip), "How slow is [1]?"),
        stream=True,
        extra_body={"unipixel": PROMPTS},
    )
    assert next(iter(stream)).choices[0].delta.role == "assistant"
    stream.close()
    metrics, headers = "", {"Authorization": f"Bearer {KEY}"}
    while "unipixel_cancelled_requests_total 1" not in metrics:
        metrics = httpx.get(f"{address}/metrics", headers=headers).text
    assert not slow_answer.is_set()


def test_other_client_is_answered_while_a_long_answer_is_generated(
    address: str, clip: Path, slow_answer: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unipixel.demos.sessions.work_queue._TURN_SECONDS", 0.0)
    asked: dict[str, Any] = {"model": "tiny", "extra_body": {"unipixel": PROMPTS}}
    url = data_url(clip)
    stream: Any = client_of(address).chat.completions.create(
        **asked, messages=message(url, "How slow is [1]?"), stream=True
    )
    chunks = [next(iter(stream))]
    short = client_of(address, OTHER_KEY).chat.completions.create(**asked, messages=message(url, "What is [1]?"))
    assert short.choices[0].message.content == "Short."
    slow_answer.set()
    chunks += list(stream)
    assert text_of(chunks) == "A cup [1] is beside [2], end."


def test_pixel_sail_answers_about_an_image_with_a_mask_prompt(tmp_path: Path) -> None:
    model, processor = recorded_sail()
    Image.fromarray(recorded_image("case_refer")).save(tmp_path / "photo.png")
    mask = np.zeros((75, 110), dtype=bool)
    mask[20:50, 30:70] = True
    generation = GenerationSettings(max_new_tokens=5)
    expected = unipixel.ask(
        tmp_path / "photo.png", "What is [1]?", masks={1: mask}, model=model, processor=processor, generation=generation
    )
    limits = Limits()
    server = ChatServer(
        model,
        processor,
        model_name="sail",
        sources=MediaSources(folders=[tmp_path], hosts=[], limits=limits),
        limits=limits,
        settings=SessionSettings(generation=generation),
    )
    parts = [
        {"type": "text", "text": "What is [1]?"},
        {"type": "image_url", "image_url": {"url": f"file://{tmp_path}/photo.png"}},
    ]
    body = {"model": "sail", "messages": [{"role": "user", "content": parts}]}
    extension = {"masks": {"1": encode_rle(mask)}, "return_masks": True}
    with TestClient(server.application, base_url="http://localhost") as client:
        answer = client.post("/v1/chat/completions", json={**body, "unipixel": extension}).json()
        refused = client.get("/v1/models", headers={"Host": "pages.example"})
    message = answer["choices"][0]["message"]
    assert message["content"] == expected.text
    assert message["unipixel"]["objects"] == expected.to_dict()["objects"]
    assert refused.status_code == 403
