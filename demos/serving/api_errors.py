"""Errors of the OpenAI-compatible server, in the JSON shape of OpenAI's API."""

from __future__ import annotations

from typing import Any

from unipixel.demos.errors import DemoError

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is refused; the message is sent to the client.

    Attributes:
        status: Status of the HTTP response.
        parameter: Name of the parameter that is wrong; None if it is none.
    """

    def __init__(self, message: str, *, status: int = 400, parameter: str | None = None) -> None:
        """Create the error."""
        super().__init__(message)
        self.status, self.parameter = status, parameter

    @classmethod
    def of(cls, error: BaseException) -> ApiError:
        """Return an error of a session or of the media as one of the API; messages of the system are not sent."""
        if isinstance(error, ApiError):
            return error
        if isinstance(error, DemoError):
            return cls(str(error), status=400 if error.status == 422 else error.status)
        if isinstance(error, ValueError | TypeError | LookupError) and error.args:
            return cls(str(error.args[0]))
        return cls("the server failed: its log has the reason", status=500)

    def to_dict(self) -> dict[str, Any]:
        """Return the body of the response."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.parameter, "code": None}}
