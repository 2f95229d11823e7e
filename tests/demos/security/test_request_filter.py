"""Nothing is served but what belongs to the key that asks for it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.demo_server import SHORT_ANSWERS, SMALL_LIMITS, served_demo
from helpers.tiny_checkpoint import save_checkpoint, write_clip

from unipixel.demos.app import Demo, DemoSettings
from unipixel.demos.security.file_access import named_files
from unipixel.demos.security.request_filter import is_served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, str]]:
    checkpoint = save_checkpoint(tmp_path_factory.mktemp("tiny"))
    settings = DemoSettings(
        model_name="tiny", limits=SMALL_LIMITS, session=SHORT_ANSWERS, users=[("ann", "secret")], has_mcp=False
    )
    with served_demo(checkpoint, settings) as both:
        yield both


@pytest.fixture(scope="module")
def demo(served: tuple[Demo, str]) -> Demo:
    return served[0]


@pytest.fixture(scope="module")
def web(served: tuple[Demo, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served[1]) as client:
        client.post("login", data={"username": "ann", "password": "secret"}).raise_for_status()
        yield client


@pytest.fixture
def key(demo: Demo, tmp_path: Path) -> Iterator[str]:
    user_session = demo.store.open()
    user_session.load(write_clip(tmp_path / "clip.mp4"))
    yield user_session.key
    demo.store.close(user_session.key)


def call(web: httpx.Client, function: str, *arguments: Any) -> str:
    """Call a function as a stranger would, without a library that checks what is sent."""
    started = web.post(f"gradio_api/call/{function}", json={"data": list(arguments)})
    if started.status_code != 200:
        return started.text
    return web.get(f"gradio_api/call/{function}/{started.json()['event_id']}").text


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=%2Fetc%2Fpasswd",
        "gradio_api/file=pyproject.toml",
        "gradio_api/file/etc/passwd",
        "gradio_api/file=https://example.com/",
        "gradio_api/proxy=https://example.com/",
        "gradio_api/stream/a/b/0/playlist.m3u8",
        "gradio_api/vibe-code",
        "gradio_api/runs",
        "gradio_api/deep_link",
        "gradio_api/component_server",
        "gradio_api/custom_component/a/b/c/d",
        "monitoring",
        "docs",
        "openapi.json",
        "static/..%2f..%2fpyproject.toml",
        "static/%2e%2e/%2e%2e/pyproject.toml",
        "static/%252e%252e/pyproject.toml",
        "static/..%5c..%5cpyproject.toml",
        "assets//etc/passwd",
    ],
)
def test_files_and_tools_of_gradio_are_not_served(web: httpx.Client, path: str) -> None:
    assert web.get(path).status_code in (403, 404)


def test_results_in_gradios_own_folder_would_not_be_served(web: httpx.Client) -> None:
    planted = Path(os.environ["GRADIO_TEMP_DIR"]) / "planted.txt"
    planted.write_text("secret")
    try:
        assert web.get(f"gradio_api/file={planted}").status_code == 404
    finally:
        planted.unlink()


@pytest.mark.parametrize(
    "name", ["../session.json", "..%2fsession.json", "/etc/passwd", "%2fetc%2fpasswd", "bank.json"]
)
def test_downloads_are_kinds_and_no_paths(web: httpx.Client, key: str, name: str) -> None:
    assert web.get(f"visit/{key}/download/{name}").status_code in (404, 422)


@pytest.mark.parametrize("part", ["frame/0.jpg", "thumbnail/1.jpg", "result.mp4", "download/session"])
def test_another_key_gets_nothing(web: httpx.Client, key: str, part: str) -> None:
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert web.get(f"visit/{changed}/{part}").status_code == 404
    assert web.get(f"visit/../{part}").status_code == 404


def test_frame_is_served_to_its_key_and_not_to_caches(web: httpx.Client, key: str) -> None:
    answer = web.get(f"visit/{key}/frame/0.jpg")
    assert answer.status_code == 200
    assert answer.headers["cache-control"].startswith("private")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "connect-src 'self'" in answer.headers["content-security-policy"]


def test_picture_of_an_object_that_is_gone_is_none_and_no_fault(web: httpx.Client, key: str) -> None:
    answer = web.get(f"/visit/{key}/thumbnail/7.jpg")
    assert (answer.status_code, answer.content) == (204, b"")


def test_link_in_a_sessions_folder_is_not_followed(web: httpx.Client, demo: Demo, key: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = demo.store.get(key).folder
    (folder / "coco").symlink_to(tmp_path / "secret.txt")
    assert b"secret" not in web.get(f"visit/{key}/download/coco").content


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "http://127.0.0.1:1/clip.mp4", "/dev/zero"])
@pytest.mark.parametrize("function", ["load_video", "describe", "ask"])
def test_call_cannot_name_a_file_of_the_server(web: httpx.Client, key: str, path: str, function: str) -> None:
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    arguments = [key, named] if function == "load_video" else [named] if function == "describe" else [key, named]
    told = call(web, function, *arguments)
    assert "error" in told
    assert "root:" not in told
    cache = Path(os.environ["GRADIO_TEMP_DIR"])
    assert [file for file in cache.rglob("*") if file.is_file()] == []


def test_nothing_is_opened_without_logging_in(served: tuple[Demo, str]) -> None:
    with httpx.Client(base_url=served[1]) as stranger:
        assert stranger.post("gradio_api/call/open_session", json={"data": []}).status_code == 401
        assert stranger.post("gradio_api/upload", files={"files": b"x"}).status_code == 401
        assert stranger.get("config").status_code == 401


def test_upload_above_the_ceiling_is_refused_early(web: httpx.Client, key: str) -> None:
    ceiling = int(SMALL_LIMITS.max_upload_megabytes * 2**20)
    assert web.post(f"visit/{key}/upload", content=b"x" * (ceiling + 2**17)).status_code == 413
    assert web.post(f"visit/{key}/upload", content=b"x" * (ceiling + 1)).status_code == 422
    assert web.post("gradio_api/upload", files={"files": b"x" * (ceiling + 2**17)}).status_code == 413


def test_upload_that_hides_its_size_is_cut_off(web: httpx.Client, demo: Demo, key: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield b"x" * 2**14

    with contextlib.suppress(httpx.TransportError):  # that the server hangs up is as good
        assert web.post(f"visit/{key}/upload", content=endless()).status_code >= 400
    assert demo.store.get(key).info is not None


def test_other_requests_have_a_smaller_ceiling(web: httpx.Client) -> None:
    assert web.post("gradio_api/call/describe", content=b"x" * (5 * 2**20)).status_code == 413


def test_upload_for_an_unknown_key_is_refused(web: httpx.Client) -> None:
    assert web.post(f"visit/{'A' * 43}/upload", content=b"x").status_code == 404


def test_page_events_are_not_callable_by_name(web: httpx.Client) -> None:
    names = set(web.get("gradio_api/info").json()["named_endpoints"])
    assert not [name for name in names if name.startswith("/_")]


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/join", "/visit/KEY/frame/0.jpg", "/theme.css"])
def test_addresses_of_the_page_are_served(path: str) -> None:
    assert is_served(path)


def test_files_are_found_wherever_they_hide_in_a_request() -> None:
    named = {"path": "/a", "meta": {"_type": "gradio.FileData"}}
    assert list(named_files([1, [{"deep": named}], {"video": {"path": "/b", "is_stream": True}}])) == ["/b", "/a"]
    assert list(named_files([{"path": "a plain value"}])) == []
