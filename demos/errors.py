"""Errors whose messages are shown to the user of the demo."""

from __future__ import annotations


class DemoError(Exception):
    """A request that cannot be fulfilled; the message is shown to the user.

    Attributes:
        field: The part of the page that shows the message: `upload`, `prompt`, `question`, `name`, `object`,
            `source`, `download` or `session`.
        status: Status of the HTTP response.
    """

    field = "session"
    status = 422

    def __init__(self, message: str, *, field: str | None = None) -> None:
        """Create the error.

        Args:
            message: What was wrong, what was given, what is allowed.
            field: See `DemoError.field`; None for the default of the class.
        """
        super().__init__(message)
        self.field = field or self.field


class UploadError(DemoError, ValueError):
    """An upload that is too large, too long, or neither a video nor an image."""

    field = "upload"


class PromptError(DemoError, ValueError):
    """A click, box or mask that is outside the video or above a limit."""

    field = "prompt"


class QuestionError(DemoError, ValueError):
    """A question that is empty, too long, or refers to an unknown object."""

    field = "question"


class SourceError(DemoError, ValueError):
    """A network address or camera frame that is not accepted."""

    field = "source"


class UnknownObjectError(DemoError, LookupError):
    """An object id that does not exist in the session."""

    field = "object"


class DownloadError(DemoError, LookupError):
    """A download that does not exist or cannot be served."""

    field = "download"
    status = 404


class BusyError(DemoError, RuntimeError):
    """The session is busy with other work."""

    status = 409


class QuotaError(DemoError, RuntimeError):
    """One client uses more of the server than it may."""

    status = 429


class ServerFullError(DemoError, RuntimeError):
    """The server has no capacity at present."""

    status = 503


class StorageError(DemoError, OSError):
    """The server cannot write to its disk."""

    status = 503

    def __init__(self) -> None:
        """Create the error; its message does not contain a path."""
        super().__init__("the server cannot save the change, its disk may be full: try again later")


class ReadOnlyError(DemoError, PermissionError):
    """A change through a link that only shows the session."""

    status = 403

    def __init__(self) -> None:
        """Create the error."""
        super().__init__("this link only shows the session: open the private link to change it")


class UnknownSessionError(DemoError, LookupError):
    """A key of no session: never issued, closed, or expired."""

    status = 404

    def __init__(self) -> None:
        """Create the error; its message does not contain the key, which may be nearly correct."""
        super().__init__("this session is unknown or has expired: open a new one")


class NoVideoError(DemoError, RuntimeError):
    """An action that needs a video, in a session without one."""

    field = "upload"

    def __init__(self) -> None:
        """Create the error."""
        super().__init__("there is no video yet: upload one or choose an example")
