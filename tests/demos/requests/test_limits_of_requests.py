"""Bodies, hosts, origins, and the limits of clients, without a server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from unipixel.demos.requests.body_limits import BodyRules, RefusedBodyError, check_values, read_body
from unipixel.demos.requests.client_limits import ClientLimits
from unipixel.demos.requests.clients import client_of, set_user
from unipixel.demos.requests.hosts import is_allowed_host, is_same_origin
from unipixel.demos.requests.login import Login

RULES = BodyRules(max_upload_bytes=1000, max_bytes=100, max_picture_bytes=400, idle_seconds=0.05, total_seconds=0.1)
UPLOAD, MASK, OTHER = "/session/KEY/upload", "/session/KEY/mask", "/session/KEY/prompts"


def messages(parts: list[bytes], *, seconds: float = 0.0, ends: bool = True) -> Any:
    """A client that sends parts of a body, each after some time."""
    pending = list(parts)

    async def receive() -> dict[str, Any]:
        if not pending:
            await asyncio.sleep(60)
        await asyncio.sleep(seconds)
        body = pending.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(pending) or not ends}

    return receive


async def received(path: str, parts: list[bytes], headers: dict[bytes, bytes] | None = None, **options: Any) -> bytes:
    """Read a body as an application does."""
    receive = await read_body(path, headers or {}, messages(parts, **options), RULES)
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message.get("more_body", False):
            return body


class TestBodies:
    @pytest.mark.parametrize(("path", "size"), [(OTHER, 100), (MASK, 400), (UPLOAD, 1000)])
    def test_body_up_to_its_ceiling_is_received(self, path: str, size: int) -> None:
        assert asyncio.run(received(path, [b"x" * 60, b"y" * (size - 60)])) == b"x" * 60 + b"y" * (size - 60)
        with pytest.raises(RefusedBodyError, match=f"at most {size} bytes") as caught:
            asyncio.run(received(path, [b"x" * size, b"y"]))
        assert caught.value.status == 413

    @pytest.mark.parametrize("declared", [b"101", b"-1", b"1e9", b"x"])
    def test_declared_size_is_checked_first(self, declared: bytes) -> None:
        with pytest.raises(RefusedBodyError, match="at most 100 bytes"):
            asyncio.run(received(OTHER, [b""], {b"content-length": declared}))

    @pytest.mark.parametrize(
        ("path", "parts", "options"),
        [
            (OTHER, [b"x"], {"ends": False}),
            (OTHER, [b"x"] * 50, {"seconds": 0.02}),
            (UPLOAD, [b"x"], {"ends": False}),
            (UPLOAD, [b"x"] * 50, {"seconds": 0.02}),
        ],
    )
    def test_slow_body_is_refused(self, path: str, parts: list[bytes], options: dict[str, Any]) -> None:
        with pytest.raises(RefusedBodyError, match=r"took too long|too slow") as caught:
            asyncio.run(received(path, parts, **options))
        assert caught.value.status == 408

    def test_values_are_counted_at_any_depth(self) -> None:
        assert check_values(json.dumps([[1, [2]], {"a": 3}]).encode(), 8)
        assert not check_values(json.dumps([[1, [2]], {"a": 3}]).encode(), 6)
        assert check_values(b"no json", 1)
        assert check_values(b"[" * 100_000, 1)


class TestHosts:
    @pytest.mark.parametrize(
        ("host", "is_allowed"),
        [
            (b"localhost:7860", True),
            (b"127.0.0.1", True),
            (b"127.0.0.2:7860", True),
            (b"[::1]:7860", True),
            (b"LOCALHOST.", True),
            (b"evil.example", False),
            (b"localhost.evil.example", False),
            (b"10.0.0.1", False),
            (b"localhost@evil.example", False),
            (b"[::1", False),
            (b"", False),
        ],
    )
    def test_only_names_of_the_server_are_allowed(self, host: bytes, is_allowed: bool) -> None:
        assert is_allowed_host(host, {"localhost", "127.0.0.1", "::1"}) == is_allowed

    @pytest.mark.parametrize(
        ("headers", "is_same"),
        [
            ({b"host": b"a.example"}, True),
            ({b"host": b"a.example", b"origin": b"https://a.example"}, True),
            ({b"host": b"a.example:7860", b"origin": b"http://a.example:7860"}, True),
            ({b"host": b"a.example:7860", b"origin": b"http://a.example:3000"}, False),
            ({b"host": b"a.example", b"origin": b"https://b.example"}, False),
            ({b"host": b"a.example", b"origin": b"null"}, False),
            ({b"host": b"a.example", b"origin": b"http://a.example:x"}, False),
            ({b"host": b"a.example", b"sec-fetch-site": b"cross-site"}, False),
            ({b"host": b"a.example", b"sec-fetch-site": b"same-site", b"sec-fetch-mode": b"no-cors"}, False),
            ({b"host": b"a.example", b"sec-fetch-site": b"cross-site", b"sec-fetch-mode": b"navigate"}, True),
        ],
    )
    def test_requests_of_other_pages_are_recognised(self, headers: dict[bytes, bytes], is_same: bool) -> None:
        assert is_same_origin(headers) == is_same


class TestClients:
    @pytest.mark.parametrize(
        ("address", "client"),
        [
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("testclient", "testclient"),
        ],
    )
    def test_client_is_an_address_or_the_network_of_one_customer(self, address: str, client: str) -> None:
        scope: dict[str, Any] = {"client": (address, 1)}
        assert client_of(scope) == client
        set_user(scope, "ann")
        assert client_of(scope) == "user ann"

    def test_requests_at_a_time_and_per_second_are_bounded(self) -> None:
        seconds = ManualClock()
        limits = ClientLimits(max_open=2, max_per_second=1, max_burst=3, clock=lambda: seconds.now)
        assert [limits.begin("a"), limits.begin("a")] == [None, None]
        assert "2 requests of yours are open" in str(limits.begin("a"))
        assert limits.begin("b") is None
        limits.end("a")
        limits.end("a")
        assert limits.begin("a") is None
        limits.end("a")
        assert "more than 1 requests per second" in str(limits.begin("a"))
        seconds.now += 1
        assert limits.begin("a") is None

    def test_wrong_passwords_make_the_next_attempt_wait_longer_and_longer(self) -> None:
        seconds = ManualClock()
        limits = ClientLimits(max_open=2, num_free_attempts=2, clock=lambda: seconds.now)
        waits = []
        for _ in range(13):
            limits.count_attempt("a", has_succeeded=False)
            waits.append(limits.seconds_to_wait("a"))
        assert waits[:5] == [0, 1, 2, 4, 8]
        assert waits[-1] == 900
        assert limits.seconds_to_wait("b") == 0
        seconds.now += 900
        limits.count_attempt("a", has_succeeded=True)
        limits.count_attempt("a", has_succeeded=False)
        assert limits.seconds_to_wait("a") == 0

    @pytest.mark.parametrize(
        ("value", "user"),
        [
            (b"Basic YW5uOnNlY3JldA==", "ann"),
            (b"Basic YW5uOndyb25n", None),
            (b"Basic Ym9iOg==", None),
            (b"Basic ***", None),
            (b"Bearer YW5uOnNlY3JldA==", None),
        ],
    )
    def test_user_is_recognised_by_name_and_password(self, value: bytes, user: str | None) -> None:
        login = Login({"ann": "secret"}, user_of_token={"token": "eve"}.get)
        assert login.user_of({b"authorization": value}) == user
        assert login.user_of({b"cookie": b"a=b; access-token-1=token"}) == "eve"
        assert login.user_of({b"cookie": b"access-token-1=other"}) is None


class ManualClock:
    """A clock that a test moves."""

    now = 0.0
