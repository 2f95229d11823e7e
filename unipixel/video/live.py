"""Live sources: network streams, pipes, file objects, cameras. Read once, of unknown length."""

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


def is_address(source: str) -> bool:
    """Tell an address such as rtsp://host/path from a path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def without_secrets(address: str) -> str:
    """Return an address without user name, password and query, fit for logs and results."""
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class MediaStream(FrameSource):
    """Frames of an encoded stream as they arrive; damaged packets are passed over."""

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
        self._container = open_container(
            target,
            name=name,
            # A file object needs no protocol at all; anything it names is refused.
            options=options or {"protocol_whitelist": "none"},
            timeout_seconds=timeout_seconds,
            container_format=container_format,
        )
        try:
            stream = video_stream(self._container)
            # Frame threads would hold frames back; a live picture must come out at once.
            stream.thread_type = "SLICE"
            stream.codec_context.options = {"max_pixels": str(max_pixels)}
            self._clock = Clock(stream)
            self._decoder = decode_packets(self._container, stream, skip_damage=True)
            # The first picture tells the size, and is handed out by `frames`.
            self._first = next(self._decoder, None)
            if self._first is None:
                raise OSError(f"{name}: no frame of it can be decoded")
            geometry = FrameGeometry.of(self._first)
            self._convert = FrameConverter(geometry, max_pixels=max_pixels, name=name)
        except BaseException:
            self._container.close()
            raise
        rate = stream.average_rate or stream.guessed_rate
        width, height = geometry.shown_size
        self.info = VideoInfo(name, width, height, None, float(rate) if rate else None, None)

    def frames(self) -> Iterator[Frame]:
        """Yield frames as they arrive; a stream that breaks off ends with a warning."""
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
        """Streams have no random access.

        Raises:
            RuntimeError: Always.
        """
        raise RuntimeError(f"{self.info.path} is a stream: iterate over it, frames cannot be read by index")

    def close(self) -> None:
        """Close the connection, the device or the file object's container."""
        self._container.close()


def open_address(address: str, *, max_pixels: int) -> MediaStream:
    """Open a network stream.

    Only the protocols that the address itself needs are allowed, so that a redirect or a
    description cannot lead to local files.

    Args:
        address: http, https, rtsp(s), rtmp(s), srt, tcp, udp or rtp address.
        max_pixels: Ceiling on width times height.

    Raises:
        ValueError: The protocol is none of those above.
        OSError: Nothing readable answers.
    """
    scheme = urlsplit(address).scheme.lower()
    if scheme not in _PROTOCOLS:
        raise ValueError(f"cannot read from {scheme}://, only from {', '.join(sorted(_PROTOCOLS))}")
    options = {"protocol_whitelist": _PROTOCOLS[scheme]}
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    return MediaStream(
        address,
        name=without_secrets(address),
        max_pixels=max_pixels,
        options=options,
        timeout_seconds=NETWORK_TIMEOUT_SECONDS,
    )


def open_camera(index: int, *, max_pixels: int) -> MediaStream:
    """Open a camera by its number.

    Raises:
        ValueError: The number is negative.
        OSError: There is no such camera, or no driver for this system.
    """
    if index < 0:
        raise ValueError(f"camera {index}: cameras are numbered from 0")
    if sys.platform not in _CAMERAS:
        raise OSError(f"camera {index}: cameras can be opened on {', '.join(_CAMERAS)}, not {sys.platform}")
    driver, pattern = _CAMERAS[sys.platform]
    device = pattern.format(index)
    if driver == "v4l2" and not os.path.exists(device):
        raise OSError(f"camera {index}: there is no {device}")
    return MediaStream(
        device,
        name=f"camera {index}",
        max_pixels=max_pixels,
        options={"protocol_whitelist": "file"},
        timeout_seconds=NETWORK_TIMEOUT_SECONDS,
        container_format=driver,
    )
