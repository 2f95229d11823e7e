"""Encoding of images, and of a sound track, to MP4 or WebM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SOUND_RATE = 48_000
"""Samples per second of a sound track; two channels of 16 bits."""

_TIME_BASE = Fraction(1, 90_000)  # exact for all common frame rates, including 30000/1001
_BT709 = 1
_BYTES_PER_SAMPLE = 4


class VideoEncoder:
    """Writes H.264 and AAC in MP4, playable in browsers; or VP9 with alpha and Opus in WebM.

    4:2:0 requires even sizes, so the last column or row of an odd size is repeated. Closing the encoder early leaves a
    valid file of the frames so far.
    """

    def __init__(
        self, path: Path, *, fps: float | None, crf: int = 20, has_alpha: bool = False, sound: Iterable[bytes] = ()
    ) -> None:
        """Prepare the file, which is created with the first frame.

        Args:
            path: File to write.
            fps: Mean frame rate, for the duration of the last frame and the distance of keyframes.
            crf: Quality of the codec; lower values give better quality and larger files.
            has_alpha: Whether the images have an alpha channel, which makes the file a WebM.
            sound: Interleaved samples of both channels from the first frame on, see `SOUND_RATE`.
        """
        self._path, self._crf, self._has_alpha = path, crf, has_alpha
        self._fps = fps if fps and 0 < fps < 1000 else 24.0
        self._sound: Iterator[bytes] = iter(sound)
        self._container: Any = None
        self._stream: Any = None
        self._sound_stream: Any = None
        self._num_frames = self._num_samples = 0
        self._last_pts = -1

    def write(self, image: NDArray[np.uint8], seconds: float) -> None:
        """Encode a frame.

        Args:
            image: uint8 (H, W, 3), or (H, W, 4) with alpha.
            seconds: Time of the frame.

        Raises:
            ValueError: The size differs from that of the first frame.
            OSError: The file cannot be written.
        """
        height, width = image.shape[:2]
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            if self._container is None:
                self._open(image.shape[1], image.shape[0])
            if (self._stream.width, self._stream.height) != (image.shape[1], image.shape[0]):
                raise ValueError(f"frame {self._num_frames} has {width}x{height} pixels, unlike earlier frames")
            self._encode(image, seconds)
            self._num_frames += 1
            self._encode_sound(seconds)
        except av.FFmpegError as error:
            raise OSError(f"{self._path}: cannot be written ({error})") from error

    def close(self) -> None:
        """Flush the encoders and finish the file.

        Raises:
            OSError: The file cannot be written.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            container.mux(self._stream.encode(None))
            if self._sound_stream is not None:
                self._encode_sound((self._last_pts + 1 / self._fps / _TIME_BASE) * _TIME_BASE, container)
                container.mux(self._sound_stream.encode(None))
            container.close()
        except av.FFmpegError as error:
            raise OSError(f"{self._path}: cannot be written ({error})") from error

    def __enter__(self) -> VideoEncoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, width: int, height: int) -> None:
        # faststart writes the index first, so that browsers can play the file while downloading it.
        kind, options = ("webm", {}) if self._has_alpha else ("mp4", {"movflags": "+faststart"})
        container = av.open(f"file:{self._path}", mode="w", format=kind, options=options)
        rate = Fraction(self._fps).limit_denominator(1001)
        stream = container.add_stream(self._codec, rate=rate)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuva420p" if self._has_alpha else "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        context = stream.codec_context
        context.options = (
            {
                "crf": str(self._crf),
                "b": "0",
                "deadline": "realtime",
                "cpu-used": "6",
                "auto-alt-ref": "0",
                "row-mt": "1",
            }
            if self._has_alpha
            else {"crf": str(self._crf), "preset": "veryfast"}
        )
        context.gop_size = max(1, round(2 * self._fps))
        if not self._has_alpha:
            # With B-frames, MP4 has a wrong duration for variable frame rates.
            context.max_b_frames = 0
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        self._stream = stream
        if (first := next(self._sound, None)) is not None:
            self._sound = _prepended(first, self._sound)
            codec = "libopus" if self._has_alpha else "aac"
            self._sound_stream = container.add_stream(codec, rate=SOUND_RATE, layout="stereo")
        # Raises for an invalid path, or a full disk, now instead of when the encoder's queue is full.
        container.start_encoding()
        # Only now: FFmpeg crashes when something is encoded for a file that could not be begun.
        self._container = container

    @property
    def _codec(self) -> str:
        if self._has_alpha:
            return "libvpx-vp9"
        return "libx264" if "libx264" in av.codecs_available else "h264"

    def _encode(self, image: NDArray[np.uint8], seconds: float) -> None:
        pixels = np.ascontiguousarray(image)
        picture = av.VideoFrame.from_ndarray(pixels, format="rgba" if self._has_alpha else "rgb24")
        picture = picture.reformat(format=self._stream.pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG")
        pts = max(round(seconds / _TIME_BASE), self._last_pts + 1)
        picture.pts, picture.time_base = pts, _TIME_BASE
        picture.duration = round(1 / (self._fps * _TIME_BASE))
        self._last_pts = pts
        self._container.mux(self._stream.encode(picture))

    def _encode_sound(self, until_seconds: float, container: Any = None) -> None:
        """Encode sound up to a time, so that the packets of both streams alternate in the file."""
        while self._sound_stream is not None and self._num_samples < until_seconds * SOUND_RATE:
            block = next(self._sound, None)
            if block is None:
                return
            samples = np.frombuffer(block[: len(block) // _BYTES_PER_SAMPLE * _BYTES_PER_SAMPLE], dtype=np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, self._num_samples, Fraction(1, SOUND_RATE)
            self._num_samples += len(samples) // 2
            (container or self._container).mux(self._sound_stream.encode(frame))


def _prepended(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
