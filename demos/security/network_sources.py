"""Network addresses that a visitor may watch: from a list, which is empty until the server's owner fills it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from unipixel.demos.sessions.errors import SourceError
from unipixel.video.frame import MAX_PIXELS
from unipixel.video.live import NETWORK_TIMEOUT_SECONDS, MediaStream, without_secrets
from unipixel.video.open import Video

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_PROTOCOLS = {
    "rtsp": "rtsp,rtp,tcp",
    "rtsps": "rtsps,rtsp,rtp,tls,tcp",
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
}
# What RFC 3986 lets stand in an address, but for brackets outside of a host; no backslash, no blank.
_ADDRESS = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,2000}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]")
# IPv6 ranges that carry an IPv4 address to somebody who unwraps it.
_TRANSLATED = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """Return all numeric addresses of a host.

    Raises:
        OSError: It is not known.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class AllowedSource:
    """One entry of the list: everything below a path of one server.

    Attributes:
        scheme: rtsp, rtsps, http or https.
        host: In lower case.
        port: Port.
        path: Where the address must begin, whole segments; `/` is everything.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, entry: str) -> AllowedSource:
        """Read an entry such as `rtsp://camera.example:554/yard`.

        Raises:
            ValueError: It is no such address.
        """
        try:
            scheme, host, port, path, rest = _parts(entry)
        except SourceError as error:
            raise ValueError(f"the allowed source {entry!r} is no address: {error}") from error
        if rest or "@" in entry:
            raise ValueError(f"the allowed source {entry!r} must hold neither a password nor a query")
        return cls(scheme, host, port, path)

    def covers(self, scheme: str, host: str, port: int, path: str) -> bool:
        """Whether an address lies at or below this one."""
        below = self.path if self.path.endswith("/") else f"{self.path}/"
        is_below = path == self.path or path.startswith(below)
        return (scheme, host, port) == (self.scheme, self.host, self.port) and is_below


class SourceRules:
    """Decides which addresses the server opens for a visitor."""

    def __init__(
        self, allowed: Sequence[str] = (), *, allows_private: bool = False, resolver: Resolver = resolve
    ) -> None:
        """Read the list.

        Args:
            allowed: Entries such as `rtsp://camera.example:554/yard`.
            allows_private: Whether addresses of the server's own network may be among them.
            resolver: Returns the numeric addresses of a host and port.

        Raises:
            ValueError: An entry is no address.
        """
        self.allowed = tuple(AllowedSource.parse(entry) for entry in allowed)
        self._allows_private, self._resolver = allows_private, resolver

    def check(self, address: str) -> str:
        """Check an address, and return the one to open: of RTSP and HTTP by number, so that no name is asked twice.

        Raises:
            SourceError: It is not allowed; the text says why.
        """
        scheme, host, port, path, query = _parts(address)
        if not any(entry.covers(scheme, host, port, path) for entry in self.allowed):
            raise SourceError("this address is not on the server's list of sources: its owner can add it")
        try:
            numbers = [
                ipaddress.ip_address(number.partition("%")[0]) for number in self._resolver(host.strip("[]"), port)
            ]
        except (OSError, ValueError) as error:
            raise SourceError(f"the server {host} cannot be found: check the address") from error
        if not numbers:
            raise SourceError(f"the server {host} cannot be found: check the address")
        # One private number among public ones is enough of a trap.
        if not self._allows_private and any(is_private(number) for number in numbers):
            raise SourceError(f"{host} is an address within the server's own network, which is not opened for visitors")
        login = urlsplit(address).netloc.rpartition("@")[0]
        place = host if scheme in ("https", "rtsps") else f"[{numbers[0]}]" if numbers[0].version == 6 else numbers[0]
        return f"{scheme}://{login + '@' if login else ''}{place}:{port}{path}{'?' + query if query else ''}"

    def open(self, address: str, *, max_pixels: int = MAX_PIXELS) -> Video:
        """Open an address as a stream.

        Args:
            address: Of the visitor.
            max_pixels: Ceiling on width times height.

        Raises:
            SourceError: It is not allowed, or nothing readable answers.
        """
        checked = self.check(address)
        scheme, host, port = _parts(address)[:3]
        # Only what the scheme itself needs; no file, and no redirection to another server.
        options = {"protocol_whitelist": _PROTOCOLS[scheme]}
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        else:
            options |= {"max_redirects": "0", "headers": f"Host: {host}:{port}\r\n"}
        try:
            return Video(
                MediaStream(
                    checked,
                    name=without_secrets(address),
                    max_pixels=max_pixels,
                    options=options,
                    timeout_seconds=NETWORK_TIMEOUT_SECONDS,
                )
            )
        except OSError as error:
            raise SourceError(f"nothing that can be watched answers at {without_secrets(address)}") from error


def is_private(number: Address) -> bool:
    """Whether a numeric address is loopback, link-local, private, multicast, or leads to one of those."""
    if isinstance(number, ipaddress.IPv6Address):
        if number.ipv4_mapped is not None:
            return is_private(number.ipv4_mapped)
        if any(number in network for network in _TRANSLATED):
            return True
    return not number.is_global or number.is_multicast or number.is_reserved or number.is_unspecified


def _parts(address: str) -> tuple[str, str, int, str, str]:
    """Scheme, host, port, path and query of an address that every reader takes apart in the same way.

    Raises:
        SourceError: It is none.
    """
    form = "give one such as rtsp://camera.example:554/yard"
    if not _ADDRESS.fullmatch(address) or address.count("@") > 1 or "#" in address:
        raise SourceError(f"that is no address: {form}")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise SourceError(f"that is no address: {form}") from error
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise SourceError(f"only {', '.join(_PORTS)} addresses are opened: {form}")
    place = parts.netloc.rpartition("@")[2]
    host = place if place.endswith("]") or ":" not in place else place.rpartition(":")[0]
    if not _HOST.fullmatch(host) or "@" in parts.path or "@" in parts.query:
        raise SourceError(f"that is no address: {form}")
    path = parts.path or "/"
    # A server would resolve these, the list does not.
    lowered = path.lower()
    if (
        "//" in path
        or any(part in (".", "..") for part in path.split("/"))
        or any(code in lowered for code in ("%2e", "%2f", "%5c", "%25", "%00"))
    ):
        raise SourceError(f"the path {path!r:.80} goes astray: leave dots, doubled slashes and encoded ones out")
    return scheme, host.lower().rstrip("."), port or _PORTS[scheme], path, parts.query
