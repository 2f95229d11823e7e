"""A video that is decoded in a separate process with limits on memory and time."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import unipixel
from unipixel.demos.errors import UploadError
from unipixel.demos.limits import MEGABYTE, Limits
from unipixel.demos.security.media_streams import MediaStreams
from unipixel.video.frame import Frame, FrameSource, VideoInfo

T = TypeVar("T")
_ROOT = Path(unipixel.__file__).resolve().parents[1]
# Started in isolated mode (-I), so that neither the environment nor the working folder can replace a module.
_PROGRAM = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from unipixel.demos.security.sandboxed_decoder import main; sys.exit(main())"
)
_FRAMES_PER_REQUEST = 16
_MAX_HEADER_BYTES = 2**16
# Raised by communication with a process that was killed or that violates the protocol.
_PROCESS_ERRORS = (OSError, EOFError, KeyError, TypeError, struct.error, json.JSONDecodeError)


class SandboxedVideo(FrameSource):
    """Frames of an untrusted file, which FFmpeg and Pillow read in another process only.

    A process that was killed is started again when it is needed. Thread-safe.

    Attributes:
        streams: What a browser needs to know of the file.
    """

    def __init__(self, path: Path, *, name: str, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the process and let it open the file.

        Args:
            path: The file.
            name: Display name.
            limits: Limits of the file and of the process.
            clock: Returns the current time in seconds, for the time limit of a response.

        Raises:
            UploadError: It is neither a video nor an image, above a limit, or takes too long to read.
        """
        self._path, self._limits, self._clock = path, limits, clock
        self._lock = threading.RLock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False
        self._passes = itertools.count()
        self.info = VideoInfo(name, 0, 0, None, None, None)
        self.streams = MediaStreams()
        self._start()

    def frames(self) -> Iterator[Frame]:
        """Yield every frame; several passes may be interleaved.

        Raises:
            UploadError: The process failed twice.
        """
        number, index = next(self._passes), 0
        try:
            while True:
                header, frame = self._request({"next": number, "start": index}, num_frames=1)
                if not frame:
                    self.info = replace(self.info, num_frames=header["end"])
                    return
                index = frame[0].index + 1
                yield frame[0]
        finally:
            self._end_pass(number)

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return the frames at indices that the caller has checked.

        Raises:
            UploadError: The process failed twice.
        """
        found: list[Frame] = []
        for start in range(0, len(indices), _FRAMES_PER_REQUEST):
            wanted = list(indices[start : start + _FRAMES_PER_REQUEST])
            found += self._request({"read": wanted}, num_frames=len(wanted))[1]
        return found

    def timestamps(self) -> list[float]:
        """Return the times of all frames in seconds.

        Raises:
            UploadError: The process failed twice.
        """
        content = self._request_block({"times": True})
        return np.frombuffer(content, dtype=np.float64).tolist()

    def sound(self) -> Iterator[bytes]:
        """Yield the sound, see `sound_blocks`.

        Raises:
            UploadError: The process failed twice.
        """
        for number in itertools.count():
            block = self._request_block({"sound": number})
            if not block:
                return
            yield bytes(block)

    def close(self) -> None:
        """End the process; no more frames can be read."""
        with self._lock:
            self._is_closed = True
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            process, self._process = self._process, None
            if process is not None:
                process.kill()
                process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        with contextlib.suppress(OSError):
                            pipe.close()

    def _start(self) -> None:
        limits = self._limits
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # The environment of the server may contain tokens and passwords.
            env={"PATH": os.defpath, "LANG": "C.UTF-8", **threads},
            cwd=self._path.parent,
            start_new_session=True,
        )
        request = {
            "path": str(self._path),
            "max_bytes": int(limits.decoder_megabytes * MEGABYTE),
            "max_cpu_seconds": max(1, round(limits.decoder_seconds)),
            "max_pixels": limits.max_pixels,
            "max_frames": limits.max_frames,
            "max_seconds": limits.max_seconds,
        }
        try:
            self._send(request)
            header, _ = self._receive()
            if "error" not in header:
                self.info = VideoInfo(path=self.info.path, **header["info"])
                streams = header["streams"]
                media_type = streams["media_type"] if streams["media_type"] in ("video/mp4", "video/webm") else None
                start = float(streams["start_seconds"])
                self.streams = MediaStreams(
                    media_type, streams["has_sound"] is True, start if math.isfinite(start) else 0.0
                )
                return
        except _PROCESS_ERRORS as error:
            self._stop()
            raise self._failure() from error
        self._stop()
        raise UploadError(str(header["error"])) if header.get("is_refused") else self._failure()

    def _request(self, request: dict[str, Any], *, num_frames: int) -> tuple[dict[str, Any], list[Frame]]:
        """Request frames."""
        return self._retry(lambda: self._exchange(request, num_frames))

    def _request_block(self, request: dict[str, Any]) -> bytearray:
        """Request bytes."""

        def exchange() -> bytearray:
            self._send(request)
            header, content = self._receive()
            if "error" in header:
                raise UploadError(f"the video is damaged: {header['error']}".replace(str(self._path), "the file"))
            return content

        return self._retry(exchange)

    def _retry(self, exchange: Callable[[], T]) -> T:
        """Send a request and receive its response; retry once with a new process."""
        with self._lock:
            for attempt in range(2):
                if self._is_closed:
                    raise UploadError("the video was closed: open it again")
                if self._process is None:
                    self._start()
                try:
                    return exchange()
                except _PROCESS_ERRORS as error:
                    self._stop()
                    if attempt:
                        raise self._failure() from error
        raise self._failure()

    def _exchange(self, request: dict[str, Any], num_frames: int) -> tuple[dict[str, Any], list[Frame]]:
        self._send(request)
        found: list[Frame] = []
        header: dict[str, Any] = {}
        for _ in range(num_frames):
            header, pixels = self._receive()
            if "error" in header:
                raise UploadError(
                    f"the video is damaged at this frame: {header['error']}".replace(str(self._path), "the file")
                )
            if "end" in header:
                break
            # Not the shape of the response: a compromised process may send any value.
            shape = (self.info.height, self.info.width, 3)
            if len(pixels) != math.prod(shape):
                raise EOFError(f"a frame has {len(pixels)} bytes, expected {math.prod(shape)}")
            image = np.frombuffer(pixels, dtype=np.uint8).reshape(shape)
            found.append(Frame(int(header["index"]), float(header["timestamp_seconds"]), image))
        return header, found

    def _end_pass(self, number: int) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._process is not None:
                self._send({"end": number})

    def _send(self, request: dict[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise EOFError("the process has ended")
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _receive(self) -> tuple[dict[str, Any], bytearray]:
        deadline = self._clock() + self._limits.decoder_seconds
        (length,) = struct.unpack("<I", self._read(4, deadline))
        if length > _MAX_HEADER_BYTES:
            raise EOFError(f"the header has {length} bytes")
        header = json.loads(self._read(length, deadline))
        num_bytes = int(header["num_bytes"])
        if not 0 <= num_bytes <= 3 * self._limits.max_pixels:
            raise EOFError(f"a frame has {num_bytes} bytes")
        return header, self._read(num_bytes, deadline)

    def _read(self, num_bytes: int, deadline: float) -> bytearray:
        if self._process is None or self._process.stdout is None:
            raise EOFError("the process has ended")
        pipe, content, done = self._process.stdout.fileno(), bytearray(num_bytes), 0
        view = memoryview(content)
        while done < num_bytes:
            if not select.select([pipe], [], [], max(0.0, deadline - self._clock()))[0]:
                raise TimeoutError("no response within the time limit")
            if not (count := os.readv(pipe, [view[done:]])):
                raise EOFError("the process has ended")
            done += count
        return content

    def _failure(self) -> UploadError:
        limits = self._limits
        return UploadError(
            f"the file could not be decoded within {limits.decoder_seconds:g} seconds and "
            f"{limits.decoder_megabytes:g} MB: it is damaged or too complex"
        )
