"""Live sources of unknown length that are read once: network streams, pipes, file objects, cameras."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from unipixel.video.color_conversion import Clock, FrameConverter, FrameGeometry
from unipixel.video.decoder import open_container, video_stream
from unipixel.video.frame import Frame, FrameSource, VideoInfo, warn_damaged
from unipixel.video.frame_index import decode_packets

_PROTOCOLS = {
    "http": "http,tcp",
    "https": "https,http,tls,tcp",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,udp,tls,tcp",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,rtmp,tls,tcp",
    "srt": "srt",
    "tcp": "tcp",
    "udp": "udp",
    "rtp": "rtp,udp",
}
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}")}
NETWORK_TIMEOUT_SECONDS = 15.0
_FASTSTART_HINT = (
    "; if the index of this MP4 is at its end, it cannot be read from a pipe: give the file itself, or write it with "
    "ffmpeg -i clip.mp4 -c copy -movflags +faststart"
)


def is_address(source: str) -> bool:
    """Return whether a source is an address, such as rtsp://host/path, and not a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def remove_credentials(address: str) -> str:
    """Return an address without user name, password and query, for logs and results."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class MediaStream(FrameSource):
    """Frames of an encoded stream as they arrive; damaged packets are skipped."""

    is_repeatable = False

    def __init__(
        self,
        target: Any,
        *,
        name: str,
        max_pixels: int,
        options: dict[str, str] | None = None,
        timeout_seconds: float | None = None,
        container_format: str | None = None,
    ) -> None:
        # An MP4 whose index is at the end cannot be read from a pipe.
        is_mp4 = hasattr(target, "peek") and bytes(target.peek(12)[4:8]) == b"ftyp"
        hint = _FASTSTART_HINT if is_mp4 else ""
        try:
            self._container = open_container(
                target,
                name=name,
                # A file object needs no protocol, and its content must not refer to other files.
                options=options or {"protocol_whitelist": "none"},
                timeout_seconds=timeout_seconds,
                container_format=container_format,
            )
        except OSError as error:
            raise OSError(f"{error}{hint}") from error
        try:
            stream = video_stream(self._container)
            # Frame threads would delay the frames of a live stream.
            stream.thread_type = "SLICE"
            stream.codec_context.options = {"max_pixels": str(max_pixels)}
            self._clock = Clock(stream)
            self._decoder = decode_packets(self._container, stream, skip_damage=True)
            # The first frame determines the size; `frames` yields it.
            self._first = next(self._decoder, None)
            if self._first is None:
                raise OSError(f"{name}: no frame can be decoded{hint}")
            geometry = FrameGeometry.of(self._first)
            self._convert = FrameConverter(geometry, max_pixels=max_pixels, name=name)
        except BaseException:
            self._container.close()
            raise
        rate = stream.average_rate or stream.guessed_rate
        width, height = geometry.display_size
        self.info = VideoInfo(name, width, height, None, float(rate) if rate else None, None)

    def frames(self) -> Iterator[Frame]:
        """Yield frames as they arrive; a stream that is interrupted ends with a warning."""
        picture, self._first = self._first, None
        index = 0
        while picture is not None:
            yield Frame(index, self._clock.seconds(picture.pts), self._convert(picture))
            index += 1
            try:
                picture = next(self._decoder)
            except StopIteration as stop:
                if stop.value:
                    warn_damaged(self.info.path, index, stop.value)
                picture = None

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Raise an error, since streams have no random access.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(f"{self.info.path} is a stream: iterate over it, frames cannot be read by index")

    def close(self) -> None:
        """Close the connection, the device, or the container of the file object."""
        self._container.close()


def open_address(address: str, *, max_pixels: int) -> MediaStream:
    """Open a network stream.

    Only the protocols that the address requires are allowed, so that a redirect or a session description
    cannot access local files.

    Args:
        address: http, https, rtsp(s), rtmp(s), srt, tcp, udp or rtp address.
        max_pixels: Maximum of width times height.

    Raises:
        ValueError: The protocol is not supported.
        OSError: The stream cannot be opened.
    """
    scheme = urlsplit(address).scheme.lower()
    if scheme not in _PROTOCOLS:
        raise ValueError(f"{scheme}:// is not supported, allowed are {', '.join(sorted(_PROTOCOLS))}")
    options = {"protocol_whitelist": _PROTOCOLS[scheme]}
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    return MediaStream(
        address,
        name=remove_credentials(address),
        max_pixels=max_pixels,
        options=options,
        timeout_seconds=NETWORK_TIMEOUT_SECONDS,
    )


def open_camera(index: int, *, max_pixels: int) -> MediaStream:
    """Open a camera.

    Raises:
        ValueError: The number is negative.
        OSError: There is no such camera, or cameras are not supported on this system.
    """
    if index < 0:
        raise ValueError(f"camera {index}: cameras are numbered from 0")
    if sys.platform not in _CAMERAS:
        raise OSError(f"camera {index}: cameras are supported on {', '.join(_CAMERAS)}, not on {sys.platform}")
    driver, pattern = _CAMERAS[sys.platform]
    device = pattern.format(index)
    if driver == "v4l2" and not os.path.exists(device):
        raise OSError(f"camera {index}: {device} does not exist")
    return MediaStream(
        device,
        name=f"camera {index}",
        max_pixels=max_pixels,
        options={"protocol_whitelist": "file"},
        timeout_seconds=NETWORK_TIMEOUT_SECONDS,
        container_format=driver,
    )
