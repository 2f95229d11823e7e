"""The frames of a video file according to its packets: their number, times, and where decoding can start.

Reading packets without decoding them is about a hundred times faster than decoding. Unlike the frame count in the
header of a container, it does not count frames that are missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

# In these codecs one packet is one displayed frame; others are counted by decoding.
_ONE_FRAME_PER_PACKET = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "png", "prores", "ffv1", "gif", "apng", "rawvideo"}
)
_IS_TRUNCATED = "the file ends within a frame"


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """Result of a scan of the packets of a video stream.

    Attributes:
        num_frames: Number of displayed frames.
        pts: int64 (N,) presentation times in units of the stream's time base, increasing; N is 0 if packets
            have no times or share them, so that a time does not identify a frame.
        key_pts: int64 (K,) presentation times at which decoding can start, increasing.
        end_seconds: End of the last frame, from the start of the first.
        is_doubtful: Whether the count must be verified: the packets contradict the container, a packet is
            truncated, or the codec can hide frames.
        damage: Why the file seems to be truncated; None if it does not.
    """

    num_frames: int
    pts: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    end_seconds: float
    is_doubtful: bool
    damage: str | None

    @property
    def is_timed(self) -> bool:
        """Whether every frame is identified by its time."""
        return self.num_frames > 0 and len(self.pts) == self.num_frames


class _Packets:
    """The packets of a stream; `damage` is the reason for an early end, or None."""

    def __init__(self, container: Any, stream: Any) -> None:
        self.damage: str | None = None
        self._packets = container.demux(stream)

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._packets
        except av.FFmpegError as error:
            self.damage = error.strerror or str(error)


def scan_packets(container: Any, stream: Any) -> FrameIndex:
    """Read all packets of a stream without decoding them.

    Args:
        container: An open container, at its start.
        stream: Its video stream.
    """
    times: list[int] = []
    keys: list[int] = []
    num_frames = num_packets = end = 0
    is_truncated = False
    is_vp8 = stream.codec_context.name == "vp8"
    packets = _Packets(container, stream)
    for packet in packets:
        if packet.size == 0:
            continue
        num_packets += 1
        is_truncated |= packet.is_corrupt and "mp4" in container.format.name
        # VP8 stores reference frames that are not displayed, marked in the first byte.
        if packet.is_discard or (is_vp8 and not bytes(packet)[0] & 0x10):
            continue
        num_frames += 1
        if packet.pts is not None:
            times.append(packet.pts)
            end = max(end, packet.pts + (packet.duration or 0))
            if packet.is_keyframe:
                keys.append(packet.pts)
    end_seconds = float((end - min(times, default=0)) * stream.time_base)
    damage = packets.damage or (_IS_TRUNCATED if is_truncated else None)
    damage = damage or _missing_part(container, stream, num_packets=num_packets, end_seconds=end_seconds)
    pts = np.unique(np.asarray(times, dtype=np.int64))
    return FrameIndex(
        num_frames=num_frames,
        pts=pts if len(pts) == num_frames else pts[:0],
        key_pts=np.asarray(sorted(keys), dtype=np.int64),
        end_seconds=end_seconds,
        is_doubtful=damage is not None
        or stream.codec_context.name not in _ONE_FRAME_PER_PACKET
        or (stream.frames > 0 and stream.frames != num_packets),
        damage=damage,
    )


def _missing_part(container: Any, stream: Any, *, num_packets: int, end_seconds: float) -> str | None:
    """Compare the packets with the length in the container; describe what is missing, or return None."""
    # MP4 has an index that was written at the end, and edit lists that remove frames on purpose.
    if "mp4" in container.format.name:
        return None
    expected = _stated_seconds(container, stream)
    rate = stream.average_rate or stream.guessed_rate or Fraction(10)
    if expected is None or num_packets == 0 or expected - end_seconds <= max(0.5, 3.0 / float(rate)):
        return None
    return f"it ends at {end_seconds:.2f} of {expected:.2f} seconds"


def _stated_seconds(container: Any, stream: Any) -> float | None:
    """Return the length of the video stream in the header of the container; None if it is not reliable."""
    if "matroska" not in container.format.name and container.format.name not in ("avi", "flv"):
        return None  # other formats estimate it from the packets
    with contextlib.suppress(ValueError, KeyError):
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if len(container.streams) == 1 and container.duration:
        return container.duration / 1e6
    return None


def decode_packets(
    container: Any, stream: Any, *, skip_damage: bool = False, wanted: Collection[int] | None = None
) -> Generator[Any, None, str | None]:
    """Yield decoded frames in presentation order; return the reason for an early end, or None.

    Damage before the first frame is skipped, since a recording may start between keyframes. Later damage ends
    the pass, unless `skip_damage` is set, as for live streams.

    Args:
        container: An open container, at the position where decoding starts.
        stream: Its video stream.
        skip_damage: Whether to skip every damaged packet.
        wanted: Presentation times of the required frames; others that no frame refers to may be skipped,
            which saves a third of the time. None for all frames.
    """
    damage: str | None = None
    has_frame = False
    is_indexed = "mp4" in container.format.name
    packets = _Packets(container, stream)
    for packet in packets:
        if is_indexed and packet.is_corrupt:
            damage = _IS_TRUNCATED
            break
        try:
            if wanted is not None:
                is_wanted = packet.pts is None or packet.pts in wanted
                stream.codec_context.skip_frame = "DEFAULT" if is_wanted else "NONREF"
            frames = packet.decode()
        except av.error.EOFError:
            return None if has_frame else damage
        except av.FFmpegError as error:
            damage = error.strerror or str(error)
            if has_frame and not skip_damage:
                break
            continue
        for frame in frames:
            has_frame = True
            yield frame
    else:
        if packets.damage is None:
            return None if has_frame else damage
        damage = packets.damage
    # The decoder still contains frames from before the damage.
    with contextlib.suppress(av.FFmpegError):
        yield from stream.decode(None)
    return damage
