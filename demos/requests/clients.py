"""Who sends a request: a user who logged in, or an address."""

from __future__ import annotations

import ipaddress
from collections.abc import MutableMapping
from typing import Any

_USER_KEY = "unipixel.user"
# A provider assigns at least so many bits of an IPv6 address to one customer.
_IPV6_PREFIX = 64


def set_user(scope: MutableMapping[str, Any], user: str) -> None:
    """Store the name of a user who logged in, for `client_of`."""
    scope[_USER_KEY] = user


def client_of(scope: MutableMapping[str, Any]) -> str:
    """Return the client of a request: the name of a user, else an address, of IPv6 the part of one customer."""
    if user := scope.get(_USER_KEY):
        return f"user {user}"
    return address_of(scope)


def address_of(scope: MutableMapping[str, Any]) -> str:
    """Return the address of a request, of IPv6 the part of one customer."""
    host = str((scope.get("client") or ("unknown",))[0])
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False).network_address)
    return host


def client_of_request(request: Any) -> str:
    """Return the client of a request of Gradio, or of Starlette; see `client_of`."""
    return client_of(getattr(request, "request", request).scope)
