"""How far a session's work is: who is told of each piece of it, and who may stop it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unipixel.session.video_tracker import TrackedVideoFrame

TextSink = Callable[[str], None]
FrameSink = Callable[[TrackedVideoFrame], None]


class Cancelled(RuntimeError):  # noqa: N818 - nothing went wrong
    """Work ended before its time because `should_stop` said so; nothing of it is kept."""


@dataclass(frozen=True)
class Progress:
    """Who is told of work while it is done.

    Attributes:
        on_text: Receives the answer as it is written.
        on_frame: Receives each frame when its objects are followed and remembered.
        should_stop: Asked before each token and each frame; True ends the work with `Cancelled`.
    """

    on_text: TextSink | None = None
    on_frame: FrameSink | None = None
    should_stop: Callable[[], bool] | None = None

    def check(self) -> None:
        """Go on, unless the work should stop.

        Raises:
            Cancelled: It should.
        """
        if self.should_stop is not None and self.should_stop():
            raise Cancelled("the work was stopped, and nothing of it is kept: ask again to do it")

    @property
    def text_sink(self) -> TextSink | None:
        """What a writing model calls after each token; None where nobody listens."""
        return None if self.on_text is None and self.should_stop is None else self._take_text

    @property
    def silent_sink(self) -> TextSink | None:
        """The same, for text that is nobody's to read."""
        return None if self.should_stop is None else Progress(should_stop=self.should_stop)._take_text

    def tell_frame(self, followed: TrackedVideoFrame) -> None:
        """Tell of a frame."""
        if self.on_frame is not None:
            self.on_frame(followed)

    def _take_text(self, piece: str) -> None:
        self.check()
        if self.on_text is not None:
            self.on_text(piece)
