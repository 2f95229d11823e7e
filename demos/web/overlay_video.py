"""The video with its masks, for the page: H.264 that browsers play, made while the session stays free for questions."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from unipixel.demos.errors import DownloadError, NoVideoError
from unipixel.demos.sessions.user_session import UserSession
from unipixel.output.writers import OverlayVideoWriter
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import UNTIMED_FPS, Frame

# Encoding takes the processor from the model: one at a time.
_ENCODER = threading.Semaphore()


def overlay_video(user_session: UserSession) -> bytes:
    """Return the video of a session with its masks as MP4.

    Raises:
        NoVideoError: There is no video yet.
        DownloadError: It is a picture.
    """
    info = user_session.info
    if info is None:
        raise NoVideoError
    if info.is_image:
        raise DownloadError("a picture has no video: its masks are shown on it")
    fps = info.fps or UNTIMED_FPS
    with _ENCODER, tempfile.TemporaryDirectory(prefix="unipixel-result-") as folder:
        path = Path(folder) / "result.mp4"
        with OverlayVideoWriter(path, fps=fps, crf=23) as writer:
            for index, image in enumerate(user_session.frames()):
                masks = user_session.masks_at(index)
                objects = {object_id: ObjectMask(mask, 1.0, True) for object_id, mask in masks.items()}
                writer.write(Frame(index, index / fps, image), objects)
        return path.read_bytes()
