"""Opening and decoding of the next clip in a thread, while the model works on the present one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from unipixel.video.frame import Frame, FrameSource
from unipixel.video.open import Video, open_video

MAX_DECODED_BYTES = 2**28
"""Size of a decoded clip up to which it is decoded in advance; a larger one is opened and read frame by frame."""

CLIP_ERRORS = (ValueError, TypeError, OSError, LookupError, RuntimeError, MemoryError)
"""Errors of one clip, such as damage or too little memory of the device; the batch continues after them."""


class FramesInMemory(FrameSource):
    """The frames of a clip in memory, with the properties and timestamps of its file."""

    def __init__(self, video: Video, frames: Sequence[Frame]) -> None:
        """Wrap all frames of a clip."""
        self.info = video.info
        self._frames, self._timestamps = frames, video.timestamps()

    def frames(self) -> Iterator[Frame]:
        """Yield every frame in order."""
        return iter(self._frames)

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return the frames at checked indices."""
        return [self._frames[index] for index in indices]

    def timestamps(self) -> list[float]:
        """Return the presentation times of all frames in seconds."""
        return self._timestamps


class DecodedVideo(Video):
    """A clip whose frames are all in memory; it can be sent to another process."""


def decode_clip(clip: str, *, max_frames: int) -> Video:
    """Open a clip, and decode it, to a `DecodedVideo`, if it is short and undamaged.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too long.
    """
    video = open_video(clip, max_frames=max_frames)
    info = video.info
    num_frames = info.num_frames
    if num_frames is None or num_frames * info.width * info.height * 3 > MAX_DECODED_BYTES:
        return video
    try:
        frames = list(video)
    except OSError:
        frames = []
    if len(frames) != num_frames:
        # Damage: left to the session, which uses the frames before it.
        return open_video(clip, max_frames=max_frames)
    return DecodedVideo(FramesInMemory(video, frames))


def read_ahead(clips: Iterable[str], *, max_frames: int) -> Iterator[tuple[str, Video | BaseException]]:
    """Yield each clip with its opened video or its error; the next clip is prepared meanwhile in a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="unipixel-decoding") as executor:
        remaining = iter(clips)
        clip = next(remaining, None)
        pending = None if clip is None else executor.submit(_try_decode, clip, max_frames)
        while clip is not None and pending is not None:
            video = pending.result()
            following = next(remaining, None)
            pending = None if following is None else executor.submit(_try_decode, following, max_frames)
            yield clip, video
            del video
            clip = following


def _try_decode(clip: str, max_frames: int) -> Video | BaseException:
    try:
        return decode_clip(clip, max_frames=max_frames)
    except CLIP_ERRORS as error:
        return error
