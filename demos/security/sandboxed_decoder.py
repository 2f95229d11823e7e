"""The process that decodes an untrusted video or image: it opens one file and returns pixels.

A request is one line of JSON on stdin. A response on stdout consists of four bytes with the length of the header
(little-endian), a header in JSON, and `num_bytes` of pixels. The process sets its resource limits before it opens the
file, and ends when its stdin is closed. `SandboxedVideo` is the client.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import struct
import sys
import warnings
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from unipixel.video.frame import Frame, VideoInfo
    from unipixel.video.open import Video

CONTAINERS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "gif", "asf")
"""Supported containers: none of them refers to other files, as playlists do."""
SUPPORTED_FORMATS = "MP4, MOV, WebM, MKV, AVI, MPEG, FLV, OGG, WMV, GIF, and PNG, JPEG, WebP, BMP, TIFF images"
_MAX_OPEN_FILES = 64
_BLOCK = 64  # pixels of the largest coding block, of AV1 and HEVC; decoders allocate whole blocks


class RefusedError(ValueError):
    """An upload that is refused; the message is shown to the user."""


def main() -> int:
    """Decode one file; the first request contains its path and the limits."""
    stream = sys.stdin.buffer
    request = json.loads(stream.readline())
    limit_resources(max_bytes=int(request["max_bytes"]), max_cpu_seconds=int(request["max_cpu_seconds"]))
    from PIL import Image

    warnings.simplefilter("ignore")
    # The limit of the request applies; an error of Pillow's own limit would look like damage.
    Image.MAX_IMAGE_PIXELS = None
    output = sys.stdout.buffer
    try:
        video = open_upload(Path(request["path"]), request)
    except (RefusedError, OSError, MemoryError) as error:
        is_refused = isinstance(error, RefusedError)
        respond(output, {"error": str(error) or "out of memory", "is_refused": is_refused})
        return 1
    with video:
        from unipixel.demos.security.media_streams import MediaStreams, describe_streams, sound_blocks

        path, seconds = Path(request["path"]), video.info.duration_seconds or 0.0
        streams = MediaStreams() if video.info.is_image else describe_streams(path)
        respond(output, {"info": info_fields(video.info), "streams": asdict(streams)})
        serve(video, stream, output, read_sound=lambda: sound_blocks(path, seconds=seconds))
    return 0


def limit_resources(*, max_bytes: int, max_cpu_seconds: int) -> None:
    """Set the resource limits of this process, which cannot be raised again.

    Args:
        max_bytes: Address space.
        max_cpu_seconds: CPU time; the system kills a process that uses more.
    """
    ceilings = {
        resource.RLIMIT_AS: max_bytes,
        resource.RLIMIT_CPU: max_cpu_seconds,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,  # it writes to pipes only
        resource.RLIMIT_CORE: 0,
    }
    for kind, ceiling in ceilings.items():
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            ceiling = min(ceiling, hard)
        # macOS does not implement the limit on the address space.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (ceiling, ceiling))


def open_upload(path: Path, limits: dict[str, Any]) -> Video:
    """Open a file within limits.

    Args:
        path: The file.
        limits: `max_pixels`, `max_frames` and `max_seconds`.

    Raises:
        RefusedError: It is neither a video nor an image, or above a limit.
        OSError: It cannot be read.
    """
    from unipixel.video.images import is_image_file
    from unipixel.video.open import open_video

    max_pixels = int(limits["max_pixels"])
    if not is_image_file(path):
        max_pixels = max(max_pixels, _check_container(path, limits))
    try:
        video = open_video(path, max_pixels=max_pixels)
    except OSError as error:
        raise RefusedError(_without_path(error, path)) from error
    if video.info.width * video.info.height > limits["max_pixels"]:
        raise RefusedError(_too_many_pixels(video.info.width, video.info.height, limits))
    if video.is_stream:
        raise RefusedError(f"the file is neither a video nor an image; supported are {SUPPORTED_FORMATS}")
    _check_length(video.info.duration_seconds, video.info.num_frames, limits)
    return video


def serve(video: Video, requests: BinaryIO, output: BinaryIO, *, read_sound: Callable[[], Iterator[bytes]]) -> None:
    """Answer requests until stdin is closed.

    A request is the `next` frame of a pass, the `end` of a pass, to `read` some frames, the `times` of all frames, or
    the block of `sound` with a number.
    """
    passes: dict[int, Iterator[Frame]] = {}
    sound, num_blocks = read_sound(), 0
    for line in requests:
        request = json.loads(line)
        try:
            if "read" in request:
                for frame in video.read(request["read"]):
                    _send_frame(output, frame)
            elif "times" in request:
                respond(output, {}, array("d", video.timestamps()).tobytes())
            elif "sound" in request:
                if request["sound"] < num_blocks:
                    sound, num_blocks = read_sound(), 0
                block = b""
                while num_blocks <= request["sound"] and (block := next(sound, b"")):
                    num_blocks += 1
                respond(output, {}, block)
            elif "end" in request:
                passes.pop(request["end"], None)
            else:
                _send_next(output, video, passes, request)
        except (OSError, ValueError, MemoryError) as error:
            respond(output, {"error": str(error) or "out of memory", "is_refused": False})


def respond(output: BinaryIO, header: dict[str, Any], pixels: memoryview | bytes = b"") -> None:
    """Write one response."""
    text = json.dumps({**header, "num_bytes": len(pixels)}).encode()
    output.write(struct.pack("<I", len(text)) + text)
    output.write(pixels)
    output.flush()


def info_fields(info: VideoInfo) -> dict[str, Any]:
    """Return the metadata of a video without its path."""
    return {
        "width": info.width,
        "height": info.height,
        "num_frames": info.num_frames,
        "fps": info.fps,
        "duration_seconds": info.duration_seconds,
        "is_image": info.is_image,
    }


def _send_next(output: BinaryIO, video: Video, passes: dict[int, Iterator[Frame]], request: dict[str, Any]) -> None:
    number, start = request["next"], request["start"]
    if number not in passes:
        # A pass that was started by an earlier process continues where it stopped.
        passes[number] = (frame for frame in video if frame.index >= start)
    frame = next(passes[number], None)
    if frame is None:
        del passes[number]
        respond(output, {"end": video.info.num_frames})
    else:
        _send_frame(output, frame)


def _send_frame(output: BinaryIO, frame: Frame) -> None:
    header = {"index": frame.index, "timestamp_seconds": frame.timestamp_seconds, "shape": list(frame.image.shape)}
    respond(output, header, frame.image.reshape(-1).data)


def _check_container(path: Path, limits: dict[str, Any]) -> int:
    """Check the container, and the duration and size that its header declares, before frames are decoded.

    Returns:
        Pixels that a decoder allocates for a frame, in whole coding blocks.
    """
    import av

    options = {"protocol_whitelist": "file", "format_whitelist": ",".join((*CONTAINERS, "m4a", "3gp", "3g2", "mj2"))}
    refusal = f"the file is neither a video nor an image; supported are {SUPPORTED_FORMATS}"
    try:
        # "file:" prevents FFmpeg from reading the name as an address.
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            if not set(container.format.name.split(",")) & set(CONTAINERS):
                raise RefusedError(refusal)
            if not container.streams.video:
                raise RefusedError("the file contains only sound: upload a video or an image")
            seconds = container.duration / av.time_base if container.duration else None
            _check_length(seconds, None, limits)
            stream = container.streams.video[0]
            if stream.width and stream.height and stream.width * stream.height > limits["max_pixels"]:
                raise RefusedError(_too_many_pixels(stream.width, stream.height, limits))
            return math.prod(_BLOCK * math.ceil(side / _BLOCK) for side in (stream.width, stream.height))
    except av.FFmpegError as error:
        raise RefusedError(refusal) from error


def _check_length(seconds: float | None, num_frames: int | None, limits: dict[str, Any]) -> None:
    # Containers may count the duration of a frame more.
    if seconds is not None and seconds > limits["max_seconds"] + 0.5:
        raise RefusedError(
            f"the video is {seconds:.1f} seconds long, the maximum is {limits['max_seconds']:g}: shorten it"
        )
    if num_frames is not None and num_frames > limits["max_frames"]:
        raise RefusedError(f"the video has {num_frames} frames, the maximum is {limits['max_frames']}: shorten it")


def _too_many_pixels(width: int, height: int, limits: dict[str, Any]) -> str:
    return f"a frame has {width} x {height} pixels, the maximum is {limits['max_pixels']} in total: scale it down"


def _without_path(error: OSError, path: Path) -> str:
    """Return the message of an error without the path on the server."""
    text = str(error).replace(str(path), "the file")
    return text.replace("the file: ", "the file cannot be read: ", 1)


if __name__ == "__main__":
    sys.exit(main())
