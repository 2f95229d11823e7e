"""What can go wrong between a visitor and the server, in words that a visitor understands."""

from __future__ import annotations


class DemoError(Exception):
    """A request that cannot be met; its text is meant for the visitor.

    Attributes:
        field: What on the page caused it: `upload`, `prompt`, `question`, `name`, `object`, `source`,
            `download` or `session`.
    """

    def __init__(self, message: str, *, field: str) -> None:
        """Keep the words and where they belong.

        Args:
            message: In plain words: what was wrong, what was given, what is allowed.
            field: See `field`.
        """
        super().__init__(message)
        self.field = field


class UploadError(DemoError, ValueError):
    """An upload that is too large, too long, or no video or image."""

    def __init__(self, message: str) -> None:
        """Keep the words; they stand beside the upload."""
        super().__init__(message, field="upload")


class PromptError(DemoError, ValueError):
    """A click, box or mask that is not on the video."""

    def __init__(self, message: str) -> None:
        """Keep the words; they stand beside the picture."""
        super().__init__(message, field="prompt")


class QuestionError(DemoError, ValueError):
    """A question that is empty, too long, or names an unknown object."""

    def __init__(self, message: str) -> None:
        """Keep the words; they stand beside the question."""
        super().__init__(message, field="question")


class SourceError(DemoError, ValueError):
    """A network address that is not allowed."""

    def __init__(self, message: str) -> None:
        """Keep the words; they stand beside the address."""
        super().__init__(message, field="source")


class UnknownObjectError(DemoError, LookupError):
    """An object that the visitor does not have."""

    def __init__(self, message: str) -> None:
        """Keep the words; they stand beside the list of objects."""
        super().__init__(message, field="object")


class UnknownSessionError(DemoError, LookupError):
    """A key that belongs to no session: never given out, closed, or too old."""

    def __init__(self) -> None:
        """Say nothing of the key: it may be nearly right."""
        super().__init__(
            "this session is not known here, or was removed after its time: open a new one", field="session"
        )


class DownloadError(DemoError, LookupError):
    """A download that does not exist or may not be served."""

    def __init__(self, message: str) -> None:
        """Keep the words; they stand beside the downloads."""
        super().__init__(message, field="download")


class BusyError(DemoError, RuntimeError):
    """The visitor's session, or the whole server, has its hands full."""

    def __init__(self, message: str) -> None:
        """Keep the words; they stand at the head of the page."""
        super().__init__(message, field="session")


class NoVideoError(DemoError, RuntimeError):
    """Something was asked for that needs a video, and there is none yet."""

    def __init__(self) -> None:
        """Say what to do."""
        super().__init__("there is no video yet: upload one, or choose an example", field="upload")
