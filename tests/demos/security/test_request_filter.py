"""Requests: which paths and files are served, size limits, headers, and log-in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.demo_server import SHORT_ANSWERS, SMALL_LIMITS, serve_demo
from helpers.moving_square import write_clip

from unipixel.demos.app import Demo, DemoSettings
from unipixel.demos.security.file_access import file_paths
from unipixel.demos.security.request_filter import is_served


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[tuple[Demo, str]]:
    settings = DemoSettings(
        model_name="tiny", limits=SMALL_LIMITS, session=SHORT_ANSWERS, users=[("ann", "secret")], has_mcp=False
    )
    with serve_demo(checkpoint, settings) as both:
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
    """Call a function without a client library, which would validate the arguments."""
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
def test_files_and_developer_tools_of_gradio_are_not_served(web: httpx.Client, path: str) -> None:
    assert web.get(path).status_code in (403, 404)


def test_files_in_the_cache_of_gradio_are_not_served(web: httpx.Client) -> None:
    cached = Path(os.environ["GRADIO_TEMP_DIR"]) / "cached.txt"
    cached.write_text("secret")
    try:
        assert web.get(f"gradio_api/file={cached}").status_code == 404
    finally:
        cached.unlink()


@pytest.mark.parametrize(
    "name", ["../session.json", "..%2fsession.json", "/etc/passwd", "%2fetc%2fpasswd", "bank.json"]
)
def test_download_of_a_path_is_refused(web: httpx.Client, key: str, name: str) -> None:
    assert web.get(f"session/{key}/download/{name}").status_code in (404, 422)


@pytest.mark.parametrize("part", ["frame/0.jpg", "thumbnail/1.jpg", "result.mp4", "download/session"])
def test_wrong_key_is_refused(web: httpx.Client, key: str, part: str) -> None:
    changed = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert web.get(f"session/{changed}/{part}").status_code == 404
    assert web.get(f"session/../{part}").status_code == 404


def test_frame_has_security_headers_and_is_not_in_shared_caches(web: httpx.Client, key: str) -> None:
    answer = web.get(f"session/{key}/frame/0.jpg")
    assert answer.status_code == 200
    assert answer.headers["cache-control"].startswith("private")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "connect-src 'self'" in answer.headers["content-security-policy"]


def test_thumbnail_of_a_removed_object_is_empty(web: httpx.Client, key: str) -> None:
    answer = web.get(f"/session/{key}/thumbnail/7.jpg")
    assert (answer.status_code, answer.content) == (204, b"")


def test_link_in_the_folder_of_a_session_is_not_followed(
    web: httpx.Client, demo: Demo, key: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = demo.store.get(key).lifecycle.folder
    (folder / "coco").symlink_to(tmp_path / "secret.txt")
    assert b"secret" not in web.get(f"session/{key}/download/coco").content


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "http://127.0.0.1:1/clip.mp4", "/dev/zero"])
@pytest.mark.parametrize("function", ["load_video", "describe", "ask"])
def test_call_cannot_refer_to_a_file_of_the_server(web: httpx.Client, key: str, path: str, function: str) -> None:
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    arguments = [key, named] if function == "load_video" else [named] if function == "describe" else [key, named]
    response = call(web, function, *arguments)
    assert "error" in response
    assert "root:" not in response
    cache = Path(os.environ["GRADIO_TEMP_DIR"])
    assert [file for file in cache.rglob("*") if file.is_file()] == []


def test_requests_without_log_in_are_refused(served: tuple[Demo, str]) -> None:
    with httpx.Client(base_url=served[1]) as client:
        assert client.post("gradio_api/call/open_session", json={"data": []}).status_code == 401
        assert client.post("gradio_api/upload", files={"files": b"x"}).status_code == 401
        assert client.get("config").status_code == 401


def test_upload_above_the_limit_is_refused(web: httpx.Client, key: str) -> None:
    ceiling = int(SMALL_LIMITS.max_upload_megabytes * 2**20)
    assert web.post(f"session/{key}/upload", content=b"x" * (ceiling + 2**17)).status_code == 413
    assert web.post(f"session/{key}/upload", content=b"x" * (ceiling + 1)).status_code == 422
    assert web.post("gradio_api/upload", files={"files": b"x" * (ceiling + 2**17)}).status_code == 413


def test_upload_without_a_declared_size_is_cut_off(web: httpx.Client, demo: Demo, key: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield b"x" * 2**14

    with contextlib.suppress(httpx.TransportError):  # the server may close the connection instead
        assert web.post(f"session/{key}/upload", content=endless()).status_code >= 400
    assert demo.store.get(key).info is not None


def test_other_requests_have_a_smaller_limit(web: httpx.Client) -> None:
    assert web.post("gradio_api/call/describe", content=b"x" * (5 * 2**20)).status_code == 413


def test_upload_for_an_unknown_key_is_refused(web: httpx.Client) -> None:
    assert web.post(f"session/{'A' * 43}/upload", content=b"x").status_code == 404


def test_page_events_are_not_callable_by_name(web: httpx.Client) -> None:
    names = set(web.get("gradio_api/info").json()["named_endpoints"])
    assert not [name for name in names if name.startswith("/_")]


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/join", "/session/KEY/frame/0.jpg", "/theme.css"])
def test_paths_of_the_page_are_served(path: str) -> None:
    assert is_served(path)


def test_file_paths_are_found_at_any_depth() -> None:
    named = {"path": "/a", "meta": {"_type": "gradio.FileData"}}
    assert list(file_paths([1, [{"deep": named}], {"video": {"path": "/b", "is_stream": True}}])) == ["/b", "/a"]
    assert list(file_paths([{"path": "a string"}])) == []
