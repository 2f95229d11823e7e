"""The packets of a video file: which frames it holds, when they show, and where decoding may start.

Reading packets without decoding them is two orders of magnitude faster than decoding, and unlike a
container's own count it cannot promise frames that are not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Generator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

# One packet is one shown picture in these; other codecs are counted by decoding.
_ONE_PICTURE_PER_PACKET = frozenset(
    {"h264", "hevc", "vp8", "vp9", "av1", "mjpeg", "png", "prores", "ffv1", "gif", "apng", "rawvideo"}
)


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """What a scan of a video stream's packets found.

    Attributes:
        num_frames: Shown pictures among the packets.
        pts: int64 (N,) presentation times in units of the stream's time base, rising; N is 0 where
            packets lack them or share them, so that a frame cannot be named by its time.
        key_pts: int64 (K,) presentation times at which decoding may start, rising.
        end_seconds: When the last packet's picture ends, counted from the first one's start.
        is_doubtful: Whether the count needs checking: the packets contradict the container, a
            packet is cut short, or the codec may hide pictures.
        damage: Why the file seems cut short; None where it does not.
    """

    num_frames: int
    pts: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    end_seconds: float
    is_doubtful: bool
    damage: str | None

    @property
    def is_timed(self) -> bool:
        """Whether every frame is named by a time of its own."""
        return self.num_frames > 0 and len(self.pts) == self.num_frames


def scan_packets(container: Any, stream: Any) -> FrameIndex:
    """Read all packets of a stream, decoding none.

    Args:
        container: An open container, at its beginning.
        stream: The video stream of it.
    """
    times: list[int] = []
    keys: list[int] = []
    num_frames = num_packets = end = 0
    damage: str | None = None
    is_vp8 = stream.codec_context.name == "vp8"
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            damage = error.strerror or str(error)
            break
        if packet is None:
            break
        if packet.size == 0:
            continue
        num_packets += 1
        if packet.is_corrupt and "mp4" in container.format.name:
            damage = "the file ends within a frame"
        # VP8 stores reference pictures that are never shown, marked in the first byte.
        if packet.is_discard or (is_vp8 and not bytes(packet)[0] & 0x10):
            continue
        num_frames += 1
        if packet.pts is not None:
            times.append(packet.pts)
            end = max(end, packet.pts + (packet.duration or 0))
            if packet.is_keyframe:
                keys.append(packet.pts)
    end_seconds = float((end - min(times, default=0)) * stream.time_base)
    damage = damage or _missing_part(container, stream, num_packets=num_packets, end_seconds=end_seconds)
    pts = np.unique(np.asarray(times, dtype=np.int64))
    return FrameIndex(
        num_frames=num_frames,
        pts=pts if len(pts) == num_frames else pts[:0],
        key_pts=np.asarray(sorted(keys), dtype=np.int64),
        end_seconds=end_seconds,
        is_doubtful=damage is not None
        or stream.codec_context.name not in _ONE_PICTURE_PER_PACKET
        or (stream.frames > 0 and stream.frames != num_packets),
        damage=damage,
    )


def _missing_part(container: Any, stream: Any, *, num_packets: int, end_seconds: float) -> str | None:
    """Compare the packets with what the container promises; say what is missing, or None."""
    # Only an index written after the fact is a promise; and edit lists leave frames out on purpose.
    if "mp4" in container.format.name:
        return None
    promised = _promised_seconds(container, stream)
    rate = stream.average_rate or stream.guessed_rate or Fraction(10)
    if promised is None or num_packets == 0 or promised - end_seconds <= max(0.5, 3.0 / float(rate)):
        return None
    return f"it ends at {end_seconds:.2f} of {promised:.2f} seconds"


def _promised_seconds(container: Any, stream: Any) -> float | None:
    """Length that the header of a container gives its video stream, where it is meant seriously."""
    if "matroska" not in container.format.name and container.format.name not in ("avi", "flv"):
        return None  # the others estimate it from the packets themselves
    with contextlib.suppress(ValueError, KeyError):
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if len(container.streams) == 1 and container.duration:
        return container.duration / 1e6
    return None


def decode_packets(
    container: Any, stream: Any, *, skip_damage: bool = False, wanted: Collection[int] | None = None
) -> Generator[Any, None, str | None]:
    """Yield decoded frames in presentation order; return what ended the pass early, or None.

    Damage before the first frame is passed over, since a recording may begin between keyframes;
    later damage ends the pass, unless `skip_damage` asks for the rest, as a live stream does.

    Args:
        container: An open container, where decoding is to begin.
        stream: The video stream of it.
        skip_damage: Whether to pass over every damaged packet.
        wanted: Presentation times of the frames that matter; others that no frame refers to may
            be left out, which saves a third of the work. None for all frames.
    """
    damage: str | None = None
    has_frame = False
    is_indexed = "mp4" in container.format.name
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            damage = error.strerror or str(error)
            break
        if packet is None:
            return None if has_frame else damage
        if is_indexed and packet.is_corrupt:
            damage = "the file ends within a frame"
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
    # The decoder still holds frames that precede the damage.
    with contextlib.suppress(av.FFmpegError):
        yield from stream.decode(None)
    return damage
