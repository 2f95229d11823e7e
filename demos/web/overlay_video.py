"""The video with masks that the page plays; it is encoded without occupying the session."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

from unipixel.demos.errors import DownloadError, NoVideoError
from unipixel.demos.sessions.user_session import UserSession
from unipixel.output.writers import OverlayVideoWriter
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import UNTIMED_FPS, Frame

# One at a time, since encoding and the model share the CPU.
_ENCODER = threading.Semaphore()


def overlay_video(user_session: UserSession) -> bytes:
    """Return the video of a session with its masks as MP4 (H.264).

    Raises:
        NoVideoError: There is no video yet.
        DownloadError: The session has an image.
    """
    info = user_session.info
    if info is None:
        raise NoVideoError
    if info.is_image:
        raise DownloadError("the session has an image, not a video")
    fps = info.fps or UNTIMED_FPS
    with _ENCODER, tempfile.TemporaryDirectory(prefix="unipixel-result-") as folder:
        path = Path(folder) / "result.mp4"
        with OverlayVideoWriter(path, fps=fps, crf=23) as writer:
            for index, image in enumerate(user_session.frames()):
                masks = user_session.masks_at(index)
                objects = {object_id: ObjectMask(mask, 1.0, True) for object_id, mask in masks.items()}
                writer.write(Frame(index, index / fps, image), objects)
        return path.read_bytes()
