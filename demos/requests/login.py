"""Who is logged in: by the cookie of Gradio's form, or by a name and password in the header Authorization."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any


class Login:
    """Recognises the users of a server."""

    def __init__(
        self,
        users: Mapping[str, str],
        *,
        user_of_token: Callable[[str], str | None],
        grant: Callable[[str], str] = lambda _: "",
    ) -> None:
        """Recognise users.

        Args:
            users: Passwords by name.
            user_of_token: Returns the user to whom Gradio gave a cookie.
            grant: Returns a header Cookie with which Gradio recognises a user.
        """
        self._users, self._user_of_token, self.grant = dict(users), user_of_token, grant

    def user_of(self, headers: Mapping[bytes, bytes]) -> str | None:
        """Return the user who sends a request, or None.

        Args:
            headers: Headers by name in lower case.
        """
        return self._user_of_cookie(headers.get(b"cookie", b"")) or self._user_of_password(
            headers.get(b"authorization", b"")
        )

    def has_password(self, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether a request contains a name and password, right or wrong."""
        return b"authorization" in headers

    def _user_of_cookie(self, value: bytes) -> str | None:
        try:
            cookies = SimpleCookie(value.decode("latin-1"))
        except CookieError:
            return None
        for name, cookie in cookies.items():
            if name.startswith("access-token-") and (user := self._user_of_token(cookie.value)):
                return user
        return None

    def _user_of_password(self, value: bytes) -> str | None:
        scheme, _, encoded = value.partition(b" ")
        if scheme.lower() != b"basic":
            return None
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        expected = self._users.get(name, "")
        is_right = hmac.compare_digest(expected.encode(), password.encode())
        return name if is_right and expected else None


def gradio_login(gradio_app: Any, users: Mapping[str, str]) -> Login:
    """Return who recognises users by the cookies of Gradio, and gives such cookies to those who send a password.

    Args:
        gradio_app: The application of Gradio, with its form to log in.
        users: Passwords by name.
    """
    granted: dict[str, str] = {}

    def grant(user: str) -> str:
        token = granted.setdefault(user, secrets.token_urlsafe(32))
        gradio_app.tokens[token] = user
        return f"access-token-{gradio_app.cookie_id}={token}"

    return Login(users, user_of_token=lambda token: gradio_app.tokens.get(token), grant=grant)
