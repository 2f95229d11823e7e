"""Network sources that users may watch: addresses of an allow list, which is empty by default."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from unipixel.demos.errors import SourceError
from unipixel.video.frame import MAX_PIXELS
from unipixel.video.live import NETWORK_TIMEOUT_SECONDS, MediaStream, remove_credentials
from unipixel.video.open import Video

_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
_PROTOCOLS = {
    "rtsp": "rtsp,rtp,tcp",
    "rtsps": "rtsps,rtsp,rtp,tls,tcp",
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
}
# The characters of RFC 3986; neither backslashes nor spaces.
_ADDRESS = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,2000}")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\.?|\[[0-9A-Fa-f:.]+\]")
# IPv6 ranges that embed an IPv4 address.
_EMBEDDING_NETWORKS = tuple(
    ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]


def resolve(host: str, port: int) -> list[str]:
    """Return all IP addresses of a host.

    Raises:
        OSError: The host is unknown.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class AllowedSource:
    """An entry of the allow list: all addresses below a path of one server.

    Attributes:
        scheme: rtsp, rtsps, http or https.
        host: Host name in lower case, or an IP address.
        port: Port.
        path: Prefix of the path, in whole segments; `/` allows every path.
    """

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, entry: str) -> AllowedSource:
        """Parse an entry such as `rtsp://camera.example:554/yard`.

        Raises:
            ValueError: The entry is not a valid address.
        """
        try:
            scheme, host, port, path, query = _parse(entry)
        except SourceError as error:
            raise ValueError(f"the allowed source {entry!r} is not a valid address: {error}") from error
        if query or "@" in entry:
            raise ValueError(f"the allowed source {entry!r} must contain neither a password nor a query")
        return cls(scheme, host, port, path)

    def covers(self, scheme: str, host: str, port: int, path: str) -> bool:
        """Return whether this entry allows an address."""
        prefix = self.path if self.path.endswith("/") else f"{self.path}/"
        has_prefix = path == self.path or path.startswith(prefix)
        return (scheme, host, port) == (self.scheme, self.host, self.port) and has_prefix


class SourceRules:
    """Decides which network addresses the server opens for users."""

    def __init__(
        self, allowed: Sequence[str] = (), *, allows_private: bool = False, resolver: Resolver = resolve
    ) -> None:
        """Parse the allow list.

        Args:
            allowed: Entries such as `rtsp://camera.example:554/yard`.
            allows_private: Whether addresses of private networks are allowed.
            resolver: Returns the IP addresses of a host and port.

        Raises:
            ValueError: An entry is not a valid address.
        """
        self.allowed = tuple(AllowedSource.parse(entry) for entry in allowed)
        self._allows_private, self._resolver = allows_private, resolver

    def check(self, address: str, *, is_pinned: bool = False) -> str:
        """Check an address and return the one to open.

        For RTSP and HTTP, the host is replaced by the checked IP address, so that a second resolution cannot give
        another one. For RTSPS and HTTPS it stays a name, since the certificate is for the name, unless `is_pinned`:
        the caller then verifies the certificate for the name itself.

        Raises:
            SourceError: The address is not allowed.
        """
        scheme, host, port, path, query = _parse(address)
        if not any(entry.covers(scheme, host, port, path) for entry in self.allowed):
            raise SourceError("this address is not on the server's list of allowed sources: ask its operator to add it")
        try:
            ips = [ipaddress.ip_address(ip.partition("%")[0]) for ip in self._resolver(host.strip("[]"), port)]
        except (OSError, ValueError) as error:
            raise SourceError(f"the server {host} cannot be found: check the address") from error
        if not ips:
            raise SourceError(f"the server {host} cannot be found: check the address")
        # One private address among public ones is refused too: which one is connected to is not known.
        if not self._allows_private and any(is_private(ip) for ip in ips):
            raise SourceError(f"{host} is in a private network, which this server does not allow")
        login = urlsplit(address).netloc.rpartition("@")[0]
        is_named = scheme in ("https", "rtsps") and not is_pinned
        opened_host = host if is_named else f"[{ips[0]}]" if ips[0].version == 6 else ips[0]
        return f"{scheme}://{login + '@' if login else ''}{opened_host}:{port}{path}{'?' + query if query else ''}"

    def open(self, address: str, *, max_pixels: int = MAX_PIXELS) -> Video:
        """Open an address as a stream.

        Args:
            address: The address that the user gave.
            max_pixels: Maximum of width times height.

        Raises:
            SourceError: The address is not allowed, or has no readable stream.
        """
        checked = self.check(address)
        scheme, host, port = _parse(address)[:3]
        # Only the protocols that the scheme needs: no files and no redirections to another server.
        options = {"protocol_whitelist": _PROTOCOLS[scheme]}
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        else:
            options |= {"max_redirects": "0", "headers": f"Host: {host}:{port}\r\n"}
        try:
            return Video(
                MediaStream(
                    checked,
                    name=remove_credentials(address),
                    max_pixels=max_pixels,
                    options=options,
                    timeout_seconds=NETWORK_TIMEOUT_SECONDS,
                )
            )
        except OSError as error:
            raise SourceError(f"there is no readable stream at {remove_credentials(address)}") from error


def is_private(ip: Address) -> bool:
    """Return whether an IP address is loopback, link-local, private or multicast, or embeds an IPv4 address."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_private(ip.ipv4_mapped)
        if any(ip in network for network in _EMBEDDING_NETWORKS):
            return True
    return not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified


def _parse(address: str) -> tuple[str, str, int, str, str]:
    """Return scheme, host, port, path and query of an address that every URL parser reads in the same way.

    Raises:
        SourceError: The address is invalid or ambiguous.
    """
    example = "an example is rtsp://camera.example:554/yard"
    if not _ADDRESS.fullmatch(address) or address.count("@") > 1 or "#" in address:
        raise SourceError(f"this is not a valid address; {example}")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise SourceError(f"this is not a valid address; {example}") from error
    scheme = parts.scheme.lower()
    if scheme not in _PORTS:
        raise SourceError(f"only {', '.join(_PORTS)} addresses are supported; {example}")
    netloc = parts.netloc.rpartition("@")[2]
    host = netloc if netloc.endswith("]") or ":" not in netloc else netloc.rpartition(":")[0]
    if not _HOST.fullmatch(host) or "@" in parts.path or "@" in parts.query:
        raise SourceError(f"this is not a valid address; {example}")
    path = parts.path or "/"
    # A server would resolve these segments, the comparison with the allow list does not.
    lowered = path.lower()
    if (
        "//" in path
        or any(part in (".", "..") for part in path.split("/"))
        or any(code in lowered for code in ("%2e", "%2f", "%5c", "%25", "%00"))
    ):
        raise SourceError(
            f"the path {path!r:.80} is ambiguous: leave out dot segments, double slashes and encoded characters"
        )
    return scheme, host.lower().rstrip("."), port or _PORTS[scheme], path, parts.query
