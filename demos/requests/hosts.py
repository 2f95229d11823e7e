"""Checks of the headers Host and Origin, against DNS rebinding and requests from other pages."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def host_name(value: str) -> str:
    """Return the name of a Host header without its port, in lower case; empty if it is malformed."""
    try:
        return (urlsplit(f"//{value}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_allowed_host(value: bytes, hosts: Collection[str]) -> bool:
    """Return whether a Host header names the server."""
    name = host_name(value.decode("latin-1"))
    if name in hosts:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    # Any address of the loopback network, where that is allowed: a name may resolve to it, an address may not.
    return address.is_loopback and bool(LOOPBACK_HOSTS & set(hosts))


def is_same_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a request comes from a page of this server, or from no page.

    Args:
        headers: Headers by name in lower case. Behind a proxy with https, the scheme of the origin differs from what
            the server sees, so only host and port are compared.
    """
    origin = headers.get(b"origin")
    if origin is None:
        return headers.get(b"sec-fetch-site", b"none") in (b"none", b"same-origin") or (
            headers.get(b"sec-fetch-mode") == b"navigate"
        )
    parts = urlsplit(origin.decode("latin-1"))
    host = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}")
    try:
        default = {"http": 80, "https": 443}.get(parts.scheme)
        own_port, port = host.port, parts.port or default
    except ValueError:
        return False
    return bool(parts.hostname) and parts.hostname == host.hostname and (own_port or default) == port
