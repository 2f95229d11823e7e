"""The process that reads an untrusted video or image: it opens one file, and answers with pixels.

Requests come on stdin, one line of JSON each; answers go to stdout: four bytes of length, a header in
JSON, and `num_bytes` of pixels. The process takes limits upon itself before it looks at the file, and
ends with its stdin. `SandboxedVideo` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import struct
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from unipixel.video.frame import Frame, VideoInfo
    from unipixel.video.open import Video

CONTAINERS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "ogg", "gif", "asf")
"""Containers that are read: each holds its own frames and names no further file, as playlists do."""
SHOWN_FORMATS = "MP4, MOV, WebM, MKV, AVI, MPEG, FLV, OGG, WMV, GIF, and PNG, JPEG, WebP, BMP, TIFF images"
_MAX_OPEN_FILES = 64
_BLOCK = 64  # the largest one, of AV1 and HEVC, in which decoders count


class RefusedError(ValueError):
    """A file that is not what a visitor may upload; the text is meant for him."""


def main() -> int:
    """Serve one file; the first request names it, and the ceilings."""
    stream = sys.stdin.buffer
    request = json.loads(stream.readline())
    limit_resources(max_bytes=int(request["max_bytes"]), max_cpu_seconds=int(request["max_cpu_seconds"]))
    from PIL import Image

    warnings.simplefilter("ignore")
    # The ceiling that counts is the request's; Pillow's own would be told as damage.
    Image.MAX_IMAGE_PIXELS = None
    answers = sys.stdout.buffer
    try:
        video = open_upload(Path(request["path"]), request)
    except (RefusedError, OSError, MemoryError) as error:
        is_refused = isinstance(error, RefusedError)
        answer(answers, {"error": str(error) or "out of memory", "is_refused": is_refused})
        return 1
    with video:
        answer(answers, {"info": info_fields(video.info)})
        serve(video, stream, answers)
    return 0


def limit_resources(*, max_bytes: int, max_cpu_seconds: int) -> None:
    """Limit what this process may take; it cannot be undone.

    Args:
        max_bytes: Address space.
        max_cpu_seconds: Processor time; the system ends a process that takes more.
    """
    wanted = {
        resource.RLIMIT_AS: max_bytes,
        resource.RLIMIT_CPU: max_cpu_seconds,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,  # it writes to pipes alone
        resource.RLIMIT_CORE: 0,
    }
    for kind, ceiling in wanted.items():
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            ceiling = min(ceiling, hard)
        # macOS knows the address space's limit by name only.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (ceiling, ceiling))


def open_upload(path: Path, limits: dict[str, Any]) -> Video:
    """Open a file within a visitor's limits.

    Args:
        path: The file.
        limits: `max_pixels`, `max_frames` and `max_seconds`.

    Raises:
        RefusedError: It is no video or image, or above a ceiling.
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
        raise RefusedError(f"the file is neither a video nor an image; readable are {SHOWN_FORMATS}")
    _check_length(video.info.duration_seconds, video.info.num_frames, limits)
    return video


def serve(video: Video, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more: `next` frame of a pass, or `read` some frames."""
    passes: dict[int, Iterator[Frame]] = {}
    for line in requests:
        request = json.loads(line)
        try:
            if "read" in request:
                for frame in video.read(request["read"]):
                    _answer_frame(answers, frame)
            elif "end" in request:
                passes.pop(request["end"], None)
            else:
                _answer_next(answers, video, passes, request)
        except (OSError, ValueError, MemoryError) as error:
            answer(answers, {"error": str(error) or "out of memory", "is_refused": False})


def answer(answers: BinaryIO, header: dict[str, Any], pixels: memoryview | bytes = b"") -> None:
    """Write one answer."""
    text = json.dumps({**header, "num_bytes": len(pixels)}).encode()
    answers.write(struct.pack("<I", len(text)) + text)
    answers.write(pixels)
    answers.flush()


def info_fields(info: VideoInfo) -> dict[str, Any]:
    """Return what is known of a video but for its path."""
    return {
        "width": info.width,
        "height": info.height,
        "num_frames": info.num_frames,
        "fps": info.fps,
        "duration_seconds": info.duration_seconds,
        "is_image": info.is_image,
    }


def _answer_next(answers: BinaryIO, video: Video, passes: dict[int, Iterator[Frame]], request: dict[str, Any]) -> None:
    number, start = request["next"], request["start"]
    if number not in passes:
        # A pass that another process began goes on where it was.
        passes[number] = (frame for frame in video if frame.index >= start)
    frame = next(passes[number], None)
    if frame is None:
        del passes[number]
        answer(answers, {"end": video.info.num_frames})
    else:
        _answer_frame(answers, frame)


def _answer_frame(answers: BinaryIO, frame: Frame) -> None:
    header = {"index": frame.index, "timestamp_seconds": frame.timestamp_seconds, "shape": list(frame.image.shape)}
    answer(answers, header, frame.image.reshape(-1).data)


def _check_container(path: Path, limits: dict[str, Any]) -> int:
    """Check what kind of file it is, and the length and size that its header claims, before all is read.

    Returns:
        Pixels of a frame as a decoder holds it, with the blocks at its edges whole.
    """
    import av

    options = {"protocol_whitelist": "file", "format_whitelist": ",".join((*CONTAINERS, "m4a", "3gp", "3g2", "mj2"))}
    refusal = f"the file is neither a video nor an image; readable are {SHOWN_FORMATS}"
    try:
        # "file:" keeps FFmpeg from reading an address into the name.
        with av.open(f"file:{path}", options=options, metadata_errors="replace") as container:
            if not set(container.format.name.split(",")) & set(CONTAINERS):
                raise RefusedError(refusal)
            if not container.streams.video:
                raise RefusedError("there is no picture in the file, only sound: upload a video or an image")
            seconds = container.duration / av.time_base if container.duration else None
            _check_length(seconds, None, limits)
            shown = container.streams.video[0]
            if shown.width and shown.height and shown.width * shown.height > limits["max_pixels"]:
                raise RefusedError(_too_many_pixels(shown.width, shown.height, limits))
            return math.prod(_BLOCK * math.ceil(side / _BLOCK) for side in (shown.width, shown.height))
    except av.FFmpegError as error:
        raise RefusedError(refusal) from error


def _check_length(seconds: float | None, num_frames: int | None, limits: dict[str, Any]) -> None:
    # A frame's length more is no other video.
    if seconds is not None and seconds > limits["max_seconds"] + 0.5:
        raise RefusedError(
            f"the video is {seconds:.1f} seconds long, at most {limits['max_seconds']:g} are allowed: cut it first"
        )
    if num_frames is not None and num_frames > limits["max_frames"]:
        raise RefusedError(
            f"the video has {num_frames} frames, at most {limits['max_frames']} are allowed: cut it first"
        )


def _too_many_pixels(width: int, height: int, limits: dict[str, Any]) -> str:
    return (
        f"the picture has {width} x {height} pixels, at most {limits['max_pixels']} in all are allowed: scale it down"
    )


def _without_path(error: OSError, path: Path) -> str:
    """Name the file as a visitor knows it: where the server keeps it is nobody's business."""
    text = str(error).replace(str(path), "the file")
    return text.replace("the file: ", "the file cannot be used: ", 1)


if __name__ == "__main__":
    sys.exit(main())
