"""Video files and streams through PyAV: exact counts, true timestamps, exact random access.

Media are untrusted. FFmpeg may open the named file and nothing else (`protocol_whitelist`), and
only as one of the plain containers below: playlists (HLS, DASH, concat) name further files and
are refused by format.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

from unipixel.video.color_conversion import Clock, FrameConverter, FrameGeometry
from unipixel.video.frame import (
    UNTIMED_FPS,
    Frame,
    FrameSource,
    VideoInfo,
    check_pixels,
    read_in_order,
    warn_damaged,
)
from unipixel.video.frame_index import decode_packets, scan_packets

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,gif,apng,asf,nut,ivf,obu,"
    "h264,hevc,m4v,mjpeg,mpjpeg,yuv4mpegpipe,rtsp,rtp,video4linux2,v4l2,avfoundation,"
    # Sound alone is opened only to say that it holds no video.
    "wav,mp3,aac,flac"
)


def open_container(
    target: Any,
    *,
    name: str,
    options: dict[str, str],
    timeout_seconds: float | None = None,
    container_format: str | None = None,
) -> Any:
    """Open a container and check that it holds video.

    Args:
        target: An FFmpeg address or a binary file object.
        name: What to call it in an error.
        options: FFmpeg options; the container whitelist is added.
        timeout_seconds: How long opening, and each read, may wait; None without limit.
        container_format: Kind of container or device; None to tell by the content.

    Raises:
        OSError: It is missing, unreadable, of another kind, or without a video stream.
    """
    try:
        container = av.open(
            target,
            mode="r",
            format=container_format,
            options={"format_whitelist": CONTAINERS, **options},
            metadata_errors="replace",
            timeout=timeout_seconds,
        )
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise OSError(f"{name}: {error.strerror or error}") from error
        raise OSError(f"{name}: neither a readable video nor an image") from error
    stream = video_stream(container)
    if stream is None or stream.codec_context is None:
        container.close()
        reason = "there is no video stream in it" if stream is None else "its video codec is unknown"
        raise OSError(f"{name}: {reason}")
    return container


def video_stream(container: Any) -> Any:
    """Return the first video stream that is no cover picture of a sound file, or None."""
    for stream in container.streams.video:
        if not stream.disposition & type(stream.disposition).attached_pic:
            return stream
    return None


class VideoFile(FrameSource):
    """A video file on disk; every pass opens it anew, so passes may run side by side."""

    def __init__(self, path: Path, *, max_pixels: int) -> None:
        self._path, self._max_pixels = path, max_pixels
        self._damage: str | None = None
        with self._open() as (container, stream):
            # What the header says, before anything is decoded; a liar is caught frame by frame.
            if stream.width and stream.height:
                check_pixels(stream.width, stream.height, max_pixels=max_pixels, name=str(path))
            self._table = scan_packets(container, stream)
        with self._open() as (container, stream):
            first = next(decode_packets(container, stream), None)
            if first is None:
                raise OSError(f"{path}: no frame of it can be decoded")
            self._geometry = FrameGeometry.of(first)
            FrameConverter(self._geometry, max_pixels=max_pixels, name=str(path))(first)
            rate = stream.average_rate or stream.guessed_rate
            claims_count = stream.frames > 0
        if self._table.is_doubtful or not (claims_count or self._tail_decodes()):
            self._recount()
        count, end = self._table.num_frames, self._table.end_seconds
        fps = float(rate) if rate else None
        # A header's rate is a promise; of a variable rate the mean is the truth.
        if count > 1 and end > 0 and (fps is None or abs(fps * end / count - 1) > 0.02):
            fps = count / end
        self.info = VideoInfo(
            path=str(path),
            width=self._geometry.shown_size[0],
            height=self._geometry.shown_size[1],
            num_frames=count,
            fps=fps,
            duration_seconds=end if end > 0 else count / (fps or UNTIMED_FPS),
        )
        if self._damage:
            warn_damaged(str(path), count, self._damage)

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        # "file:" keeps FFmpeg from reading an address or an option into the name.
        container = open_container(f"file:{self._path}", name=str(self._path), options={"protocol_whitelist": "file"})
        with container:
            stream = video_stream(container)
            # Measured in tests/benchmarks/decoding.py: frame threads, two of them.
            stream.thread_type, stream.codec_context.thread_count = "AUTO", 2
            stream.codec_context.options = {"max_pixels": str(self._max_pixels)}
            yield container, stream

    def _tail_decodes(self) -> bool:
        """Check that what follows the last keyframe decodes in full; cut files fail there."""
        table = self._table
        if not table.is_timed or not len(table.key_pts):
            return False
        expected = table.pts[table.pts >= table.key_pts[-1]]
        with self._open() as (container, stream):
            container.seek(int(table.key_pts[-1]), stream=stream)
            decoded = [frame.pts for frame in decode_packets(container, stream)]
        return [pts for pts in decoded if pts is not None and pts >= table.key_pts[-1]] == expected.tolist()

    def _recount(self) -> None:
        """Replace the scan's list of frames by that of a full decode."""
        with self._open() as (container, stream):
            times: list[int | None] = []
            decoder = decode_packets(container, stream)
            self._damage = _drained(decoder, into=times) or self._table.damage
            known = [pts for pts in times if pts is not None]
            is_rising = len(known) == len(times) and all(a < b for a, b in itertools.pairwise(known))
            end = self._table.end_seconds
            if self._damage and known:
                gap = 1.0 / float(stream.average_rate or UNTIMED_FPS)
                end = float((known[-1] - known[0]) * stream.time_base) + gap
        pts = np.asarray(known if is_rising else [], dtype=np.int64)
        self._table = replace(self._table, num_frames=len(times), pts=pts, end_seconds=end)

    def frames(self) -> Iterator[Frame]:
        """Yield every frame; a damaged file yields those before the damage and warns."""
        index = 0
        with self._open() as (container, stream):
            convert, clock = self._converter(), Clock(stream)
            decoder = decode_packets(container, stream)
            while True:
                try:
                    picture = next(decoder)
                except StopIteration as stop:
                    damage = stop.value or self._damage
                    break
                if self._table.is_timed and picture.pts not in self._table.pts[index : index + 1]:
                    # Damaged times: frames can no longer be named by them, only by counting.
                    self._table = replace(self._table, pts=self._table.pts[:0])
                yield Frame(index, clock.seconds(picture.pts), convert(picture))
                index += 1
        if damage or index < (self.info.num_frames or 0):
            warn_damaged(self.info.path, index, damage or "the file promises more")
            self.info = replace(self.info, num_frames=index)

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return frames by index, decoding only from the keyframe before each.

        Raises:
            OSError: A frame cannot be decoded.
        """
        found: dict[int, Frame] = {}
        if self._table.is_timed:
            found = self._read_from_keyframes(sorted(set(indices)))
        if missing := [index for index in dict.fromkeys(indices) if index not in found]:
            frames = read_in_order(self.frames(), missing, name=self.info.path)
            found.update(zip(missing, frames, strict=True))
        return [found[index] for index in indices]

    def _converter(self) -> FrameConverter:
        return FrameConverter(self._geometry, max_pixels=self._max_pixels, name=self.info.path)

    def _read_from_keyframes(self, wanted: Sequence[int]) -> dict[int, Frame]:
        """Find frames by their times; one that does not turn up is left out, never guessed."""
        table = self._table
        starts = np.searchsorted(table.key_pts, table.pts[list(wanted)], side="right") - 1
        found: dict[int, Frame] = {}
        with self._open() as (container, stream):
            convert = self._converter()
            for start in sorted(set(starts[starts >= 0].tolist())):
                group = {
                    int(table.pts[index]): index for index, key in zip(wanted, starts, strict=True) if key == start
                }
                for picture in self._pictures_from(start, container, stream, wanted=frozenset(group)):
                    if (index := group.pop(picture.pts, None)) is not None:
                        seconds = float(int(picture.pts - table.pts[0]) * stream.time_base)
                        found[index] = Frame(index, seconds, convert(picture))
                    if not group:
                        break
        return found

    def _pictures_from(self, start: int, container: Any, stream: Any, *, wanted: frozenset[int]) -> Iterator[Any]:
        """Yield what follows a keyframe, or nothing where that would differ from a full decode."""
        key_pts = int(self._table.key_pts[start])
        is_at_key = False
        try:
            container.seek(key_pts, stream=stream)
        except av.FFmpegError:
            return
        for picture in decode_packets(container, stream, wanted=wanted):
            # What the decoder patches up depends on the frames it saw before.
            if picture.is_corrupt:
                return
            # Pictures before the keyframe may refer to what was skipped.
            if picture.pts is None or picture.pts < key_pts:
                continue
            # Decoding may start cleanly at an intra picture only, not within an intra refresh.
            if not is_at_key and (picture.pts != key_pts or picture.pict_type != PictureType.I):
                return
            is_at_key = True
            yield picture


def _drained(decoder: Generator[Any, None, str | None], *, into: list[int | None]) -> str | None:
    """Collect the presentation times of all frames; return what ended them early, or None."""
    try:
        while True:
            into.append(next(decoder).pts)
    except StopIteration as stop:
        return stop.value
