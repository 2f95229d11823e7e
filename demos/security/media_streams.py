"""What a browser needs to know of a media file, and its sound as samples.

An untrusted file is read by the decoding process only; this module is part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from unipixel.output.video_encoder import SOUND_RATE

# Codecs that the current browsers decode, by container.
_PLAYABLE_VIDEO = {"mp4": {"h264", "av1"}, "webm": {"vp8", "vp9", "av1"}}
_PLAYABLE_SOUND = {"mp4": {"aac", "mp3", "opus"}, "webm": {"opus", "vorbis"}}
_PLAYABLE_PIXELS = {"yuv420p", "yuvj420p"}
_BYTES_PER_SAMPLE = 4
# Smaller differences between the time of a frame of sound and the samples so far are rounding.
_MAX_DRIFT_SECONDS = 0.05
_BLOCK_BYTES = 2**17


@dataclass(frozen=True)
class MediaStreams:
    """The streams of a media file.

    Attributes:
        media_type: Media type for browsers, which play the file as it is; None if they do not.
        has_sound: Whether it has sound.
        start_seconds: Presentation time of its first frame, which browsers count from.
    """

    media_type: str | None = None
    has_sound: bool = False
    start_seconds: float = 0.0


def _open(path: Path) -> Any:
    # "file:" prevents FFmpeg from reading the name as an address.
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, metadata_errors="replace")


def describe_streams(path: Path) -> MediaStreams:
    """Describe a file that was checked before; an image has neither sound nor a media type."""
    try:
        with _open(path) as container:
            names = set(container.format.name.split(","))
            kind = "mp4" if "mp4" in names else "webm" if "webm" in names else ""
            video = container.streams.video[0].codec_context if container.streams.video else None
            sound = container.streams.audio[0].codec_context if container.streams.audio else None
            is_playable = (
                video is not None
                and video.name in _PLAYABLE_VIDEO.get(kind, ())
                and video.pix_fmt in _PLAYABLE_PIXELS
                and (sound is None or sound.name in _PLAYABLE_SOUND[kind])
            )
            start = _start_seconds(container.streams.video[0]) if is_playable else 0.0
            return MediaStreams(f"video/{kind}" if is_playable else None, sound is not None, start)
    except (av.FFmpegError, IndexError):
        return MediaStreams()


def sound_blocks(path: Path, *, seconds: float) -> Iterator[bytes]:
    """Yield the sound of a video from its first frame on, as interleaved samples of two channels.

    Gaps are silent; damaged sound ends early.

    Args:
        path: The file.
        seconds: Duration of the video, after which the sound is cut.
    """
    total, position, kept = round(seconds * SOUND_RATE), 0, b""
    for start, samples in _decoded_sound(path):
        if (
            start is not None
            and position + len(samples) <= start
            and start - position > _MAX_DRIFT_SECONDS * SOUND_RATE
        ):
            silence = min(start, total) - position
            kept += bytes(silence * _BYTES_PER_SAMPLE)
            position += silence
        elif start is not None and position == 0 and start < 0:
            samples = samples[-start:]
        samples = samples[: total - position]
        kept += samples.tobytes()
        position += len(samples)
        while len(kept) >= _BLOCK_BYTES:
            yield kept[:_BLOCK_BYTES]
            kept = kept[_BLOCK_BYTES:]
        if position >= total:
            break
    if kept:
        yield kept


def _decoded_sound(path: Path) -> Iterator[tuple[int | None, Any]]:
    """Yield the position of each piece of sound relative to the first frame, and its samples (n, 2)."""
    try:
        with _open(path) as container:
            if not container.streams.audio or not container.streams.video:
                return
            begin = _start_seconds(container.streams.video[0])
            resampler = av.AudioResampler(format="s16", layout="stereo", rate=SOUND_RATE)
            for decoded in container.decode(container.streams.audio[0]):
                for frame in resampler.resample(decoded):
                    start = None if frame.time is None else round((frame.time - begin) * SOUND_RATE)
                    yield start, frame.to_ndarray().reshape(-1, 2).astype(np.int16, copy=False)
    except (av.FFmpegError, IndexError):
        return


def _start_seconds(stream: Any) -> float:
    return float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
