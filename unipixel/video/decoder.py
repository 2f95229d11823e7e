"""Decoding of video files through PyAV: exact frame counts, timestamps and random access.

Media are untrusted. FFmpeg may open the given file only (`protocol_whitelist`), and only as one of the
containers below. Playlists (HLS, DASH, concat) refer to other files and are refused.
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
from unipixel.video.decord_frames import Decoder, read_with_decord
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
    # Audio files are opened only to report that they contain no video.
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
    """Open a container and check that it contains video.

    Args:
        target: An FFmpeg address or a binary file object.
        name: Name for error messages.
        options: FFmpeg options; the container whitelist is added.
        timeout_seconds: Limit for opening and for each read; None for no limit.
        container_format: Format of the container or device; None detects it from the content.

    Raises:
        OSError: It is missing, unreadable, of another format, or without a video stream.
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
        reason = "it contains no video stream" if stream is None else "its video codec is unknown"
        raise OSError(f"{name}: {reason}")
    return container


def video_stream(container: Any) -> Any:
    """Return the first video stream that is not the cover image of an audio file, or None."""
    for stream in container.streams.video:
        if not stream.disposition & type(stream.disposition).attached_pic:
            return stream
    return None


class VideoFile(FrameSource):
    """A video file on disk; every pass opens it again, so several passes can run at once."""

    def __init__(self, path: Path, *, max_pixels: int, decoder: Decoder = "auto") -> None:
        self._path, self._max_pixels, self._decoder = path, max_pixels, decoder
        self._damage: str | None = None
        with self._open() as (container, stream):
            # The size in the header, before anything is decoded; the size of each frame is checked again later.
            if stream.width and stream.height:
                check_pixels(stream.width, stream.height, max_pixels=max_pixels, name=str(path))
            self._frame_index = scan_packets(container, stream)
            self._time_base = stream.time_base
        with self._open() as (container, stream):
            first = next(decode_packets(container, stream), None)
            if first is None:
                raise OSError(f"{path}: no frame can be decoded")
            self._geometry = FrameGeometry.of(first)
            FrameConverter(self._geometry, max_pixels=max_pixels, name=str(path))(first)
            rate = stream.average_rate or stream.guessed_rate
            has_frame_count = stream.frames > 0
        if self._frame_index.is_doubtful or not (has_frame_count or self._decodes_last_group()):
            self._recount()
        count, end = self._frame_index.num_frames, self._frame_index.end_seconds
        fps = float(rate) if rate else None
        # The rate in the header may be wrong; the mean rate is not.
        if count > 1 and end > 0 and (fps is None or abs(fps * end / count - 1) > 0.02):
            fps = count / end
        self.info = VideoInfo(
            path=str(path),
            width=self._geometry.display_size[0],
            height=self._geometry.display_size[1],
            num_frames=count,
            fps=fps,
            duration_seconds=end if end > 0 else count / (fps or UNTIMED_FPS),
        )
        if self._damage:
            warn_damaged(str(path), count, self._damage)

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        # With "file:", FFmpeg does not interpret the name as an address or an option.
        container = open_container(f"file:{self._path}", name=str(self._path), options={"protocol_whitelist": "file"})
        with container:
            stream = video_stream(container)
            # Two frame threads were the fastest in tests/benchmarks/decoding.py.
            stream.thread_type, stream.codec_context.thread_count = "AUTO", 2
            stream.codec_context.options = {"max_pixels": str(self._max_pixels)}
            yield container, stream

    def _decodes_last_group(self) -> bool:
        """Return whether all frames from the last keyframe on can be decoded, which fails for truncated files."""
        frame_index = self._frame_index
        if not frame_index.is_timed or not len(frame_index.key_pts):
            return False
        expected = frame_index.pts[frame_index.pts >= frame_index.key_pts[-1]]
        with self._open() as (container, stream):
            container.seek(int(frame_index.key_pts[-1]), stream=stream)
            decoded = [frame.pts for frame in decode_packets(container, stream)]
        return [pts for pts in decoded if pts is not None and pts >= frame_index.key_pts[-1]] == expected.tolist()

    def _recount(self) -> None:
        """Replace the frames of the packet scan by those of a full decoding."""
        with self._open() as (container, stream):
            times: list[int | None] = []
            decoder = decode_packets(container, stream)
            self._damage = _drain(decoder, into=times) or self._frame_index.damage
            known = [pts for pts in times if pts is not None]
            is_rising = len(known) == len(times) and all(a < b for a, b in itertools.pairwise(known))
            end = self._frame_index.end_seconds
            if self._damage and known:
                gap = 1.0 / float(stream.average_rate or UNTIMED_FPS)
                end = float((known[-1] - known[0]) * stream.time_base) + gap
        pts = np.asarray(known if is_rising else [], dtype=np.int64)
        self._frame_index = replace(self._frame_index, num_frames=len(times), pts=pts, end_seconds=end)

    def frames(self) -> Iterator[Frame]:
        """Yield every frame; a damaged file yields the frames before the damage and warns."""
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
                if self._frame_index.is_timed and picture.pts not in self._frame_index.pts[index : index + 1]:
                    # With wrong timestamps, frames can only be identified by counting.
                    self._frame_index = replace(self._frame_index, pts=self._frame_index.pts[:0])
                yield Frame(index, clock.seconds(picture.pts), convert(picture))
                index += 1
        if damage or index < (self.info.num_frames or 0):
            warn_damaged(self.info.path, index, damage or "the container states more frames")
            self.info = replace(self.info, num_frames=index)

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return frames by index, decoding from the keyframe before each.

        Raises:
            OSError: A frame cannot be decoded.
        """
        found: dict[int, Frame] = {}
        if self._frame_index.is_timed:
            wanted = sorted(set(indices))
            found = self._read_with_decord(wanted) or self._read_from_keyframes(wanted)
        if missing := [index for index in dict.fromkeys(indices) if index not in found]:
            frames = read_in_order(self.frames(), missing, name=self.info.path)
            found.update(zip(missing, frames, strict=True))
        return [found[index] for index in indices]

    def timestamps(self) -> list[float]:
        """Return the presentation times of all frames in seconds; a constant rate is assumed if they are wrong."""
        frame_index = self._frame_index
        if not frame_index.is_timed:
            return super().timestamps()
        return [float(int(pts - frame_index.pts[0]) * self._time_base) for pts in frame_index.pts]

    def _converter(self) -> FrameConverter:
        return FrameConverter(self._geometry, max_pixels=self._max_pixels, name=self.info.path)

    def _read_with_decord(self, wanted: Sequence[int]) -> dict[int, Frame]:
        """Find frames with decord, if it was chosen and reads this file as PyAV does; otherwise none."""
        first = self._read_from_keyframes([0]).get(0) if self._decoder == "decord" else None
        if first is None:
            return {}
        pts, key_pts = self._frame_index.pts, self._frame_index.key_pts
        groups: dict[int, list[int]] = {}
        starts = np.searchsorted(key_pts, pts[list(wanted)], side="right") - 1
        with self._open() as (container, stream):
            for start in sorted(set(starts.tolist())):
                # Decoding from a keyframe that is none, as in an intra refresh, would give other frames.
                if start < 0 or not any(
                    True for _ in self._pictures_from(start, container, stream, wanted=frozenset({int(key_pts[start])}))
                ):
                    return {}
                key_index = int(np.searchsorted(pts, key_pts[start]))
                groups[key_index] = [index for index, other in zip(wanted, starts, strict=True) if other == start]
        images = read_with_decord(self._path, groups, num_frames=self._frame_index.num_frames, first_image=first.image)
        return {
            index: Frame(index, float(int(pts[index] - pts[0]) * self._time_base), image)
            for index, image in (images or {}).items()
        }

    def _read_from_keyframes(self, wanted: Sequence[int]) -> dict[int, Frame]:
        """Find frames by their timestamps; a frame without an exact match is left out."""
        frame_index = self._frame_index
        starts = np.searchsorted(frame_index.key_pts, frame_index.pts[list(wanted)], side="right") - 1
        found: dict[int, Frame] = {}
        with self._open() as (container, stream):
            convert = self._converter()
            for start in sorted(set(starts[starts >= 0].tolist())):
                group = {
                    int(frame_index.pts[index]): index
                    for index, key in zip(wanted, starts, strict=True)
                    if key == start
                }
                for picture in self._pictures_from(start, container, stream, wanted=frozenset(group)):
                    if (index := group.pop(picture.pts, None)) is not None:
                        seconds = float(int(picture.pts - frame_index.pts[0]) * stream.time_base)
                        found[index] = Frame(index, seconds, convert(picture))
                    if not group:
                        break
        return found

    def _pictures_from(self, start: int, container: Any, stream: Any, *, wanted: frozenset[int]) -> Iterator[Any]:
        """Yield the frames from a keyframe on, or nothing if they would differ from a full decoding."""
        key_pts = int(self._frame_index.key_pts[start])
        is_at_key = False
        try:
            container.seek(key_pts, stream=stream)
        except av.FFmpegError:
            return
        for picture in decode_packets(container, stream, wanted=wanted):
            # The concealment of errors depends on earlier frames.
            if picture.is_corrupt:
                return
            # Frames before the keyframe may depend on skipped ones.
            if picture.pts is None or picture.pts < key_pts:
                continue
            # Decoding can start exactly only at an intra frame, not within an intra refresh.
            if not is_at_key and (picture.pts != key_pts or picture.pict_type != PictureType.I):
                return
            is_at_key = True
            yield picture


def _drain(decoder: Generator[Any, None, str | None], *, into: list[int | None]) -> str | None:
    """Collect the presentation times of all frames; return the reason for an early end, or None."""
    try:
        while True:
            into.append(next(decoder).pts)
    except StopIteration as stop:
        return stop.value
