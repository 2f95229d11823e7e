"""`open_video`, for all kinds of video sources; frames are read one at a time.

Sources are files, folders of frames, images, camera numbers, network addresses, `-` for standard input, binary file
objects, and iterables of arrays. Frames are upright RGB images with the timestamps of the container; alpha is
composited on black. A video is never in memory as a whole.
"""

from __future__ import annotations

import io
import itertools
import operator
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from unipixel.video.decoder import VideoFile
from unipixel.video.decord_frames import Decoder, check_decoder
from unipixel.video.frame import MAX_PIXELS, Frame, FrameSource, VideoInfo
from unipixel.video.images import ArrayFrames, ImageFiles, is_image_file
from unipixel.video.live import MediaStream, is_address, open_address, open_camera

__all__ = ["MAX_PIXELS", "Frame", "Video", "VideoInfo", "open_video"]


class Video:
    """The frames of a source in order, and by index if the source supports it.

    Iterating yields every `Frame`. Files, folders and lists can be iterated several times, also at once;
    streams and generators only once. Use it in a `with` block to close streams early.
    """

    def __init__(self, source: FrameSource, *, max_frames: int | None = None) -> None:
        self._source = source
        self._max_frames = max_frames
        self._is_consumed = False

    @property
    def info(self) -> VideoInfo:
        """Size, rate and length; the length is corrected when a pass finds damage."""
        return self._source.info

    @property
    def is_stream(self) -> bool:
        """Whether the frames can be read only once, in order."""
        return not self._source.is_repeatable

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames one at a time.

        Raises:
            RuntimeError: A stream is iterated a second time.
            OSError: The source can no longer be read.
        """
        if self._is_consumed:
            raise RuntimeError(f"{self.info.path} is a stream and was already read: open it again")
        self._is_consumed = self.is_stream
        return itertools.islice(self._source.frames(), self._max_frames)

    def read(self, indices: Iterable[int]) -> list[Frame]:
        """Return the frames at given indices, identical to those of iterating.

        Args:
            indices: Frame indices from 0, in any order, with repeats.

        Raises:
            ValueError: An index is outside the video.
            RuntimeError: The source is a stream.
            OSError: A frame cannot be decoded.
        """
        if self.is_stream:
            raise RuntimeError(f"{self.info.path} is a stream: iterate over it, it has no random access")
        wanted = [operator.index(index) for index in indices]
        num_frames = self.info.num_frames or 0
        for index in wanted:
            if not 0 <= index < num_frames:
                raise ValueError(f"frame {index} is outside {self.info.path}: allowed are 0 to {num_frames - 1}")
        return self._source.read(wanted) if wanted else []

    def timestamps(self) -> list[float]:
        """Return the presentation times of all frames in seconds, from the first frame on, without decoding them.

        Raises:
            RuntimeError: The source is a stream.
        """
        if self.is_stream:
            raise RuntimeError(f"{self.info.path} is a stream: its frames are not known before they are read")
        return self._source.timestamps()

    def __len__(self) -> int:
        """Return the number of frames.

        Raises:
            TypeError: The source is a stream, whose length is unknown.
        """
        if self.info.num_frames is None:
            raise TypeError(f"{self.info.path} is a stream: it has no length, iterate over it")
        return self.info.num_frames

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: int | slice) -> Any:
        """Return a frame by its index, from the end if negative, or a list of frames for a slice.

        Raises:
            IndexError: The index is outside the video.
            TypeError: The source is a stream, or the index is neither an integer nor a slice.
            OSError: A frame cannot be decoded.
        """
        num_frames = len(self)
        if isinstance(index, slice):
            return self.read(range(num_frames)[index])
        if not -num_frames <= operator.index(index) < num_frames:
            raise IndexError(f"frame {index} is outside {self.info.path}: allowed are 0 to {num_frames - 1}")
        return self.read([operator.index(index) % num_frames])[0]

    def __repr__(self) -> str:
        info = self.info
        length = "stream" if info.num_frames is None else f"{info.num_frames} frames"
        rate = f", {info.fps:.4g} fps" if info.fps else ""
        return f"<Video {info.path}: {length} of {info.width} x {info.height}{rate}>"

    def close(self) -> None:
        """Close the source; a closed stream cannot be read further."""
        self._source.close()

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_video(
    source: str | os.PathLike[str] | int | Iterable[Any] | io.IOBase | Image.Image,
    *,
    max_frames: int | None = None,
    max_pixels: int = MAX_PIXELS,
    fps: float | None = None,
    decoder: Decoder = "auto",
) -> Video:
    """Open a source of frames.

    Args:
        source: Path of a video, an image or a folder of images; an http, https or rtsp address;
            `-` for a container on standard input; a camera number (also as a string); a binary
            file object; a PIL image; a list or iterable of PIL images or uint8 arrays (H, W, 3); a uint8 array or
            torch tensor (T, H, W, 3) or (T, 3, H, W).
        max_frames: Maximum length of a file or folder; a stream ends after this number of frames.
        max_pixels: Maximum of width times height.
        fps: Frame rate of folders and arrays, which have no timestamps; 24 by default.
        decoder: What reads frames of a video file by index: `av`, `decord` (with the extra `eval`; a file that it
            reads in another way is left to PyAV, with a warning), or `auto`, which is `av`.

    Raises:
        ImportError: The decoder is not installed; it is imported when frames are read.
        OSError: The source is missing, unreadable, without a readable frame, or above `max_pixels`.
        ValueError: The video is longer than `max_frames`, or an argument is out of range.
        TypeError: The source has another type.
    """
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames must be 1 or more, not {max_frames}")
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"fps must be above 0, not {fps}")
    check_decoder(decoder)
    opened = _open_source(source, max_pixels=max_pixels, fps=fps, decoder=decoder)
    num_frames = opened.info.num_frames
    if max_frames is not None and num_frames is not None and num_frames > max_frames:
        opened.close()
        raise ValueError(f"{opened.info.path} has {num_frames} frames, more than the allowed {max_frames}")
    return Video(opened, max_frames=max_frames)


def _open_source(source: Any, *, max_pixels: int, fps: float | None, decoder: Decoder) -> FrameSource:
    if isinstance(source, bool) or source is None or isinstance(source, bytes | bytearray):
        raise TypeError(f"cannot read a video from {type(source).__name__}")
    if isinstance(source, int):
        return open_camera(source, max_pixels=max_pixels)
    if isinstance(source, str):
        if not source.strip():
            raise OSError("the name of the video is empty: give a file, a folder, an address or a camera number")
        if source == "-":
            return MediaStream(sys.stdin.buffer, name="-", max_pixels=max_pixels)
        if source.isdecimal() and not os.path.exists(source):
            return open_camera(int(source), max_pixels=max_pixels)
        if source.lower().startswith("file://"):
            source = source[len("file://") :]
        if is_address(source):
            return open_address(source, max_pixels=max_pixels)
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source), max_pixels=max_pixels, fps=fps, decoder=decoder)
    if hasattr(source, "read"):
        if isinstance(source, io.TextIOBase):
            raise TypeError("a video needs a binary file object, not a text file")
        return MediaStream(source, name=str(getattr(source, "name", "<stream>")), max_pixels=max_pixels)
    if isinstance(source, Image.Image | Iterable | Sequence):
        return ArrayFrames(source, max_pixels=max_pixels, fps=fps)
    raise TypeError(f"cannot read a video from {type(source).__name__}")


def _open_path(path: Path, *, max_pixels: int, fps: float | None, decoder: Decoder) -> FrameSource:
    try:
        status = path.stat()
    except ValueError as error:
        raise OSError(f"{path!r}: no such file ({error})") from error
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}", str(path)) from error
    if stat.S_ISDIR(status.st_mode):
        return ImageFiles(path, max_pixels=max_pixels, fps=fps)
    if stat.S_ISFIFO(status.st_mode):
        return MediaStream(path.open("rb"), name=str(path), max_pixels=max_pixels)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path}: not a file, a folder or a pipe")
    if status.st_size == 0:
        raise OSError(f"{path}: the file is empty (0 bytes)")
    if is_image_file(path):
        return ImageFiles(path, max_pixels=max_pixels, fps=None)
    return VideoFile(path, max_pixels=max_pixels, decoder=decoder)
