"""Requests: which paths and files are served, size limits, headers, and log-in."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers.demo_server import SHORT_ANSWERS, SMALL_LIMITS, serve_demo
from helpers.moving_square import write_clip

from unipixel.demos.app import Demo, DemoSettings
from unipixel.demos.requests.body_limits import BodyRules
from unipixel.demos.requests.client_limits import ClientLimits
from unipixel.demos.requests.request_filter import is_served
from unipixel.demos.security.file_access import file_paths


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[tuple[Demo, str]]:
    settings = DemoSettings(model_name="tiny", limits=SMALL_LIMITS, session=SHORT_ANSWERS, users=[("ann", "secret")])
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


@pytest.mark.parametrize(
    "part", ["frame/0.jpg", "thumbnail/1.jpg", "video", "state", "masks", "times", "links", "download/session.zip"]
)
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
    (folder / "results").mkdir()
    (folder / "results" / "coco.json").symlink_to(tmp_path / "secret.txt")
    assert b"secret" not in web.get(f"session/{key}/download/coco.json").content


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "http://127.0.0.1:1/clip.mp4", "/dev/zero"])
@pytest.mark.parametrize("function", ["load_received", "describe", "ask"])
def test_call_cannot_refer_to_a_file_of_the_server(web: httpx.Client, key: str, path: str, function: str) -> None:
    named = {"path": path, "meta": {"_type": "gradio.FileData"}}
    arguments = [named] if function == "describe" else [key, named]
    response = call(web, function, *arguments)
    assert "error" in response
    assert "root:" not in response
    cache = Path(os.environ["GRADIO_TEMP_DIR"])
    assert [file for file in cache.rglob("*") if file.is_file()] == []


def test_requests_without_log_in_are_refused(served: tuple[Demo, str]) -> None:
    with httpx.Client(base_url=served[1]) as client:
        assert client.post("gradio_api/call/open_session", json={"data": []}).status_code == 401
        assert client.get("config").status_code == 401
        for method, path in (
            ("POST", "gradio_api/cancel"),
            ("POST", "gradio_api/reset"),
            ("GET", "gradio_api/heartbeat/abc"),
            ("GET", "gradio_api/info"),
            ("POST", "gradio_api/mcp/"),
            ("GET", f"session/{'A' * 43}/state"),
        ):
            assert client.request(method, path, json={} if method == "POST" else None).status_code == 401


def test_upload_without_a_session_is_not_served(web: httpx.Client) -> None:
    assert web.post("gradio_api/upload", files={"files": b"x"}).status_code == 404


def test_name_and_password_are_accepted_with_each_request(served: tuple[Demo, str]) -> None:
    with httpx.Client(base_url=served[1], auth=("ann", "secret")) as client:
        opened = client.post("gradio_api/call/open_session", json={"data": []})
        assert opened.status_code == 200
        result = client.get(f"gradio_api/call/open_session/{opened.json()['event_id']}").text
        assert "event: complete" in result


def test_upload_above_the_limit_is_refused(web: httpx.Client, key: str) -> None:
    ceiling = int(SMALL_LIMITS.max_upload_megabytes * 2**20)
    assert web.post(f"session/{key}/upload", content=b"x" * (ceiling + 2**17)).status_code == 413
    assert web.post(f"session/{key}/upload", content=b"x" * (ceiling + 1)).status_code == 413


def test_upload_without_a_declared_size_is_cut_off(web: httpx.Client, demo: Demo, key: str) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield b"x" * 2**14

    with contextlib.suppress(httpx.TransportError):  # the server may close the connection instead
        assert web.post(f"session/{key}/upload", content=endless()).status_code >= 400
    assert demo.store.get(key).info is not None


@pytest.mark.parametrize("has_ended", [False, True])
def test_upload_that_stops_is_refused_without_an_error_in_the_log(
    served: tuple[Demo, str], web: httpx.Client, key: str, caplog: pytest.LogCaptureFixture, has_ended: bool
) -> None:
    demo, address = served
    demo.application._rules = BodyRules(max_upload_bytes=1000, idle_seconds=0.2)
    try:
        with socket.create_connection(("127.0.0.1", httpx.URL(address).port)) as connection:
            cookie = "; ".join(f"{name}={value}" for name, value in web.cookies.items())
            lines = [
                f"POST /session/{key}/upload HTTP/1.1",
                "Host: localhost",
                f"Cookie: {cookie}",
                "Content-Length: 9",
            ]
            connection.sendall("\r\n".join([*lines, "", "x"]).encode())
            if not has_ended:
                assert connection.recv(2**16).startswith(b"HTTP/1.1 408 ")
        while list(demo.store.get(key).lifecycle.folder.glob("received-*")):
            time.sleep(0.01)
    finally:
        demo.application._rules = BodyRules(max_upload_bytes=int(SMALL_LIMITS.max_upload_megabytes * 2**20))
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_other_requests_have_a_smaller_limit(web: httpx.Client) -> None:
    assert web.post("gradio_api/call/describe", content=b"x" * (2**16 + 1)).status_code == 413


def test_body_of_many_numbers_is_refused_before_the_function(web: httpx.Client, key: str) -> None:
    numbers = {"data": [key, [1] * 20_000, 3], "session_hash": "abc", "fn_index": 0}
    answer = web.post("gradio_api/queue/join", json=numbers)
    assert (answer.status_code, "too many values" in answer.text) == (413, True)


@pytest.mark.parametrize("path", ["gradio_api/queue/data?session_hash=none", "gradio_api/call/click/none"])
def test_unknown_id_of_the_queue_is_answered_without_an_error_in_the_log(
    web: httpx.Client, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert web.get(path).status_code == 404
    assert caplog.text == ""


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://evil.example", "null"])
def test_pages_of_other_origins_are_refused(web: httpx.Client, key: str, origin: str) -> None:
    answer = web.post(f"session/{key}/cancel", headers={"origin": origin})
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert web.get("config", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_the_own_origin_is_accepted_without_headers_for_others(
    served: tuple[Demo, str], web: httpx.Client, key: str
) -> None:
    answer = web.post(f"session/{key}/cancel", headers={"origin": served[1].rstrip("/")})
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "10.0.0.1"])
def test_other_host_names_are_refused(web: httpx.Client, demo: Demo, host: str) -> None:
    demo.application.hosts = {"localhost", "127.0.0.1"}
    try:
        assert web.get("config", headers={"host": host}).status_code in (400, 421)
        assert web.get("config").status_code == 200
    finally:
        demo.application.hosts = None


def test_password_guessing_is_slowed_down(served: tuple[Demo, str], demo: Demo) -> None:
    with httpx.Client(base_url=served[1]) as client:
        attempts = [client.post("login", data={"username": "ann", "password": "x"}).status_code for _ in range(8)]
        assert attempts[:5] == [400] * 5
        assert attempts[-1] == 429
        right = client.post("login", data={"username": "ann", "password": "secret"})
        assert "too many failed attempts" in right.text
        with httpx.Client(base_url=served[1], auth=("ann", "secret")) as other:
            assert other.get("config").status_code == 429
    demo.application._limits = ClientLimits(max_open=64)


def test_upload_for_an_unknown_key_is_refused(web: httpx.Client) -> None:
    assert web.post(f"session/{'A' * 43}/upload", content=b"x").status_code == 404


def test_page_events_are_not_callable_by_name(web: httpx.Client) -> None:
    names = set(web.get("gradio_api/info").json()["named_endpoints"])
    assert not [name for name in names if name.startswith("/_")]


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/join", "/session/KEY/state", "/theme.css"])
def test_paths_of_the_page_are_served(path: str) -> None:
    assert is_served(path)


def test_file_paths_are_found_at_any_depth() -> None:
    named = {"path": "/a", "meta": {"_type": "gradio.FileData"}}
    assert list(file_paths([1, [{"deep": named}], {"video": {"path": "/b", "is_stream": True}}])) == ["/b", "/a"]
    assert list(file_paths([{"path": "a string"}])) == []
