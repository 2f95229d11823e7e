"""Network sources: which addresses are allowed."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from helpers.moving_square import HEIGHT, WIDTH, write_clip

from unipixel.demos.errors import SourceError
from unipixel.demos.security.network_sources import AllowedSource, SourceRules, is_private

PUBLIC = "93.184.216.34"
ALLOWED = ("rtsp://camera.example:554/yard", "http://video.example/live/", "https://video.example/live/")


def resolved_to(*ips: str) -> SourceRules:
    """Rules with the list above, where every host has these IP addresses."""
    return SourceRules(ALLOWED, resolver=lambda host, port: ips)


class TestAllowList:
    def test_nothing_is_allowed_by_default(self) -> None:
        for address in ("rtsp://camera.example/yard", "http://video.example/live/a", "http://127.0.0.1/"):
            with pytest.raises(SourceError, match="not on the server's list of allowed sources") as caught:
                SourceRules().check(address)
            assert caught.value.field == "source"

    @pytest.mark.parametrize(
        ("address", "opened"),
        [
            ("rtsp://camera.example/yard", f"rtsp://{PUBLIC}:554/yard"),
            ("RTSP://Camera.Example:554/yard/2?a=b", f"rtsp://{PUBLIC}:554/yard/2?a=b"),
            ("rtsp://me:pass@camera.example/yard", f"rtsp://me:pass@{PUBLIC}:554/yard"),
            ("http://video.example/live/a.mp4", f"http://{PUBLIC}:80/live/a.mp4"),
            # The certificate is for the name.
            ("https://video.example/live/a.mp4", "https://video.example:443/live/a.mp4"),
            ("rtsp://camera.example./yard", f"rtsp://{PUBLIC}:554/yard"),
        ],
    )
    def test_listed_address_is_opened_by_ip_address(self, address: str, opened: str) -> None:
        assert resolved_to(PUBLIC).check(address) == opened

    @pytest.mark.parametrize(
        "address",
        [
            "rtsp://camera.example/garden",
            "rtsp://camera.example/yard2",
            "rtsp://camera.example:8554/yard",
            "rtsps://camera.example/yard",
            "rtsp://other.example/yard",
            "rtsp://camera.example.evil.example/yard",
            "rtsp://camera.example@evil.example/yard",
            "http://camera.example/yard",
        ],
    )
    def test_address_outside_the_list_is_refused(self, address: str) -> None:
        with pytest.raises(SourceError, match="not on the server's list of allowed sources"):
            resolved_to(PUBLIC).check(address)

    @pytest.mark.parametrize(
        "address",
        [
            "file:///etc/passwd",
            "/etc/passwd",
            "camera.example/yard",
            "concat:rtsp://camera.example/yard",
            "ftp://camera.example/yard",
            "rtmp://camera.example/yard",
            "data:text/plain,x",
            "rtsp:camera.example/yard",
            "rtsp:///yard",
            "",
            "0",
            "-",
        ],
    )
    def test_other_schemes_are_refused(self, address: str) -> None:
        with pytest.raises(SourceError, match=r"address|source|scheme|rtsp"):
            resolved_to(PUBLIC).check(address)

    @pytest.mark.parametrize(
        "address",
        [
            "rtsp://camera.example/yard/../garden",
            "rtsp://camera.example/yard/%2e%2e/garden",
            "rtsp://camera.example/yard/%2E./garden",
            "rtsp://camera.example/yard/%252e%252e/garden",
            "rtsp://camera.example//yard",
            "rtsp://camera.example/yard\\..\\garden",
            "rtsp://camera.example\\@evil.example/yard",
            "rtsp://a@b@camera.example/yard",
            "rtsp://camera.example/yard@evil.example",
            "rtsp://camera.example/yard#@evil.example",
            "rtsp://camera.example/yard\r\nHost: evil.example",
            "rtsp://camera.example/ yard",
            "rtsp://camera.example\t/yard",
            "rtsp://ca\u200bmera.example/yard",
            "rtsp://camera\uff0eexample/yard",
            "rtsp://camera.example:99999/yard",
            "rtsp://camera.example:5a4/yard",
            "rtsp://[camera.example/yard",
            "rtsp://camera.example/" + "y" * 3000,
        ],
    )
    def test_ambiguous_address_is_refused(self, address: str) -> None:
        with pytest.raises(SourceError, match=r"address|ambiguous|source|rtsp"):
            resolved_to(PUBLIC).check(address)

    @pytest.mark.parametrize(
        "entry", ["camera.example", "file:///tmp", "rtsp://a:b@camera.example/", "http://x/?a=b", ""]
    )
    def test_invalid_entry_is_refused_when_the_server_starts(self, entry: str) -> None:
        with pytest.raises(ValueError, match="the allowed source"):
            SourceRules([entry])

    def test_entry_without_a_path_covers_its_whole_server(self) -> None:
        entry = AllowedSource.parse("rtsp://camera.example")
        assert (entry.port, entry.path) == (554, "/")
        assert entry.covers("rtsp", "camera.example", 554, "/any/where")


class TestPrivateNetworks:
    @pytest.mark.parametrize(
        "ip",
        [
            "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
            "0.0.0.0", "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
            "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1",
        ],
    )  # fmt: skip
    def test_private_address_of_a_public_name_is_refused(self, ip: str) -> None:
        assert is_private(ipaddress.ip_address(ip))
        with pytest.raises(SourceError, match="is in a private network"):
            resolved_to(ip).check("rtsp://camera.example/yard")
        with pytest.raises(SourceError, match="is in a private network"):
            resolved_to(PUBLIC, ip).check("rtsp://camera.example/yard")

    @pytest.mark.parametrize("ip", [PUBLIC, "8.8.8.8", "2606:2800:220:1::1"])
    def test_public_address_is_not_private(self, ip: str) -> None:
        assert not is_private(ipaddress.ip_address(ip))

    def test_link_local_address_with_a_zone_is_private(self) -> None:
        with pytest.raises(SourceError, match="private network"):
            resolved_to("fe80::1%eth0").check("rtsp://camera.example/yard")

    def test_name_is_resolved_once(self) -> None:
        """A second resolution could give another address than the one that was checked."""
        answers = iter([[PUBLIC], ["127.0.0.1"]])
        rules = SourceRules(ALLOWED, resolver=lambda host, port: next(answers))
        assert rules.check("rtsp://camera.example/yard") == f"rtsp://{PUBLIC}:554/yard"

    def test_private_address_can_be_allowed_by_the_operator(self) -> None:
        rules = SourceRules(["rtsp://192.168.1.20/"], allows_private=True)
        assert rules.check("rtsp://192.168.1.20/1") == "rtsp://192.168.1.20:554/1"

    def test_private_ip_address_on_the_list_is_refused(self) -> None:
        with pytest.raises(SourceError, match="private network"):
            SourceRules(["http://127.0.0.1:8000/"]).check("http://127.0.0.1:8000/a")

    @pytest.mark.parametrize("ips", [[], ["not an address"]])
    def test_unknown_host_is_reported(self, ips: Sequence[str]) -> None:
        with pytest.raises(SourceError, match=r"camera\.example cannot be found"):
            resolved_to(*ips).check("rtsp://camera.example/yard")

    def test_host_that_cannot_be_resolved_is_reported(self) -> None:
        def fail(host: str, port: int) -> list[str]:
            raise OSError("unknown")

        with pytest.raises(SourceError, match="cannot be found"):
            SourceRules(ALLOWED, resolver=fail).check("rtsp://camera.example/yard")


class TestOpen:
    def test_allowed_address_is_opened_and_redirections_are_not_followed(self, tmp_path: Path) -> None:
        clip = write_clip(tmp_path / "clip.mp4").read_bytes()
        requested: list[str] = []

        class Server(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requested.append(self.path)
                if self.path == "/live/moved":
                    self.send_response(302)
                    self.send_header("Location", "/private/clip.mp4")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(clip)))
                self.end_headers()
                self.wfile.write(clip)

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server_url = f"http://127.0.0.1:{server.server_port}"
        rules = SourceRules([f"{server_url}/live/"], allows_private=True)
        with rules.open(f"{server_url}/live/clip.mp4") as video:
            assert (video.info.width, video.info.height, video.is_stream) == (WIDTH, HEIGHT, True)
        with pytest.raises(SourceError, match="no readable stream"):
            rules.open(f"{server_url}/live/moved")
        server.shutdown()
        server.server_close()
        assert "/live/moved" in requested
        assert "/private/clip.mp4" not in requested
