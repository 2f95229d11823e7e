"""Frames of samples, decoded ahead in a thread while the model works on the sample before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from unipixel.train.evaluation.benchmarks.sample import SampleMedia
from unipixel.train.evaluation.running.shards import num_media_frames
from unipixel.video.decord_frames import Decoder
from unipixel.video.frame import MAX_PIXELS, UNTIMED_FPS, Frame, FrameSource, VideoInfo
from unipixel.video.images import read_image
from unipixel.video.open import Video, open_video

_MAX_AHEAD_BYTES = 2**29
"""Frames that are decoded ahead; a longer clip is read while it is tracked."""


class ImageSequence(FrameSource):
    """Image files in a given order as the frames of a video; a damaged image is an error."""

    def __init__(self, paths: Sequence[Path], *, fps: float | None) -> None:
        """Read the first image, which determines the size.

        Raises:
            OSError: It cannot be read, or there is none.
        """
        if not paths:
            raise OSError("the sample has no frames")
        self._paths, self._fps = paths, fps or UNTIMED_FPS
        height, width, _ = read_image(paths[0], max_pixels=MAX_PIXELS).shape
        is_image = len(paths) == 1
        self.info = VideoInfo(
            path=str(paths[0] if is_image else paths[0].parent),
            width=width,
            height=height,
            num_frames=len(paths),
            fps=None if is_image else self._fps,
            duration_seconds=0.0 if is_image else len(paths) / self._fps,
            is_image=is_image,
        )

    def frames(self) -> Iterator[Frame]:
        """Yield every image."""
        return (self._frame(index) for index in range(len(self._paths)))

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return the images at the given indices."""
        return [self._frame(index) for index in indices]

    def _frame(self, index: int) -> Frame:
        image = read_image(self._paths[index], max_pixels=MAX_PIXELS)
        if image.shape[:2] != (self.info.height, self.info.width):
            raise OSError(
                f"{self._paths[index]}: {image.shape[1]}x{image.shape[0]} pixels, but the first frame has "
                f"{self.info.width}x{self.info.height}"
            )
        return Frame(index, index / self._fps, image)


class DecodedFrames(FrameSource):
    """Frames in memory, renumbered from 0, with their times."""

    def __init__(self, frames: Sequence[Frame], info: VideoInfo) -> None:
        self._frames = [Frame(index, frame.timestamp_seconds, frame.image) for index, frame in enumerate(frames)]
        self.info = info

    def frames(self) -> Iterator[Frame]:
        """Yield every frame."""
        return iter(self._frames)

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return the frames at the given indices."""
        return [self._frames[index] for index in indices]


def open_media(media: SampleMedia, *, decoder: Decoder) -> Video:
    """Open the frames of a sample; short clips are decoded at once.

    Raises:
        OSError: A frame cannot be read.
        ValueError: A frame index is outside the video.
    """
    if media.indices is not None or _is_video_file(media):
        video = open_video(media.paths[0], decoder=decoder)
        info, indices = video.info, media.indices
        if indices is None and media.select is not None:
            indices = tuple(media.select(info.num_frames or 0, info.fps or 0.0))
        if indices is None:
            return video
        frames = video.read(indices)
        kept = VideoInfo(
            path=info.path,
            width=info.width,
            height=info.height,
            num_frames=len(frames),
            fps=info.fps,
            duration_seconds=info.duration_seconds,
        )
        return Video(DecodedFrames(frames, kept))
    source = ImageSequence(media.paths, fps=media.fps)
    num_bytes = 3 * source.info.width * source.info.height * num_media_frames(media)
    if num_bytes > _MAX_AHEAD_BYTES:
        return Video(source)
    return Video(DecodedFrames(source.read(range(len(media.paths))), source.info))


def _is_video_file(media: SampleMedia) -> bool:
    return len(media.paths) == 1 and media.paths[0].suffix.lower() in (".mp4", ".avi", ".webm", ".mov", ".mkv")


class FrameLoader:
    """Opens the media of samples in order, each while the model works on the one before."""

    def __init__(self, media: Sequence[SampleMedia], *, decoder: Decoder) -> None:
        """Prepare without reading anything.

        Args:
            media: Media in the order in which `next` returns them; equal ones in a row are opened once.
            decoder: Decoder of video files.
        """
        self._media, self._decoder = media, decoder
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="unipixel-frames")
        self._opened: dict[int, Future[Video]] = {}

    def get(self, position: int) -> Video:
        """Return the frames at a position, and start to open those after it; earlier ones are released.

        Raises:
            OSError: A frame cannot be read.
            ValueError: A frame index is outside the video.
        """
        self._opened = {key: future for key, future in self._opened.items() if key >= position}
        for wanted in (position, position + 1):
            if wanted < len(self._media) and wanted not in self._opened:
                self._opened[wanted] = self._pool.submit(open_media, self._media[wanted], decoder=self._decoder)
        return self._opened[position].result()

    def __enter__(self) -> FrameLoader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
