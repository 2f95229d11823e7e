"""Callbacks of a session's work: progress, and the request to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unipixel.session.video_tracker import TrackedVideoFrame

TextCallback = Callable[[str], None]
FrameCallback = Callable[[TrackedVideoFrame], None]


class Cancelled(RuntimeError):  # noqa: N818 - not an error
    """The work was ended early because `should_stop` returned True; its results were discarded."""


@dataclass(frozen=True)
class Callbacks:
    """Functions that are called during the work of a session.

    Attributes:
        on_text: Receives the answer piece by piece as it is generated: once for each token, with an empty text where
            an `[id]` is incomplete, and at the end the rest from the first new object on, whose id is only known then.
        on_frame: Receives each frame after its objects were tracked and stored.
        should_stop: Called before each token and each frame; True ends the work with `Cancelled`.
    """

    on_text: TextCallback | None = None
    on_frame: FrameCallback | None = None
    should_stop: Callable[[], bool] | None = None

    def check(self) -> None:
        """Raise `Cancelled` if the work should stop.

        Raises:
            Cancelled: `should_stop` returned True.
        """
        if self.should_stop is not None and self.should_stop():
            raise Cancelled("the work was cancelled and its results were discarded: ask again to repeat it")

    @property
    def text_callback(self) -> TextCallback | None:
        """Function to call after each generated token; None if there is nothing to call."""
        return None if self.on_text is None and self.should_stop is None else self._receive_text

    @property
    def stop_callback(self) -> TextCallback | None:
        """Like `text_callback`, for text that is not passed to `on_text`."""
        return None if self.should_stop is None else Callbacks(should_stop=self.should_stop)._receive_text

    def notify_frame(self, tracked: TrackedVideoFrame) -> None:
        """Call `on_frame`, if there is one."""
        if self.on_frame is not None:
            self.on_frame(tracked)

    def _receive_text(self, piece: str) -> None:
        self.check()
        if self.on_text is not None:
            self.on_text(piece)
