"""Untrusted files: which are refused, and the limits of the process that decodes them."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import wave
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from helpers.moving_square import NUM_FRAMES, write_audio, write_clip
from PIL import Image

from unipixel.demos.errors import UploadError
from unipixel.demos.limits import Limits
from unipixel.demos.security import sandboxed_decoder as decoder
from unipixel.demos.security import sandboxed_video
from unipixel.demos.security.sandboxed_video import SandboxedVideo
from unipixel.demos.security.uploads import copy_upload, display_name
from unipixel.video.open import Video, open_video

LIMITS = Limits()


class TestCopy:
    def test_upload_is_copied_under_a_random_name(self, clip: Path, tmp_path: Path) -> None:
        folder = tmp_path / "session"
        folder.mkdir()
        copies = [copy_upload(clip, folder, limits=LIMITS) for _ in range(2)]
        assert copies[0] != copies[1]
        assert all(path.parent == folder and path.name.startswith("upload-") for path in copies)
        assert copies[0].read_bytes() == clip.read_bytes()
        assert copies[0].stat().st_mode & 0o077 == 0

    def test_file_that_is_too_large_is_refused_with_both_sizes(self, tmp_path: Path) -> None:
        large = tmp_path / "large.mp4"
        large.write_bytes(bytes(3 * 2**20))
        with pytest.raises(UploadError, match=r"has 3.0 MB, the maximum is 2 MB") as caught:
            copy_upload(large, tmp_path, limits=Limits(max_upload_megabytes=2))
        assert caught.value.field == "upload"
        assert not list(tmp_path.glob("upload-*"))

    @pytest.mark.parametrize("kind", ["missing", "empty", "folder", "link", "pipe", "device", "null"])
    def test_file_that_is_not_regular_is_refused(self, clip: Path, tmp_path: Path, kind: str) -> None:
        path = tmp_path / kind
        if kind == "empty":
            path.touch()
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(clip)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path = Path(os.devnull)
        elif kind == "null":
            path = tmp_path / "a\0b"
        with pytest.raises(UploadError, match=r"no file|empty|not a regular file"):
            copy_upload(path, tmp_path, limits=LIMITS)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("../../etc/passwd", "passwd"),
            ("C:\\clips\\my cat.mp4", "my cat.mp4"),
            ("a\0b\n\u202ec.mp4", "abc.mp4"),
            ("..", "upload"),
            ("", "upload"),
            (".hidden", "hidden"),
            ("é" * 200, "é" * 80),
        ],
    )
    def test_display_name_has_no_folders_and_control_characters(self, name: str, expected: str) -> None:
        assert display_name(name) == expected


class TestRefusal:
    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            ({"max_seconds": 0.05}, r"is 0\.6 seconds long, the maximum is 0\.05"),
            ({"max_frames": 5}, r"has 6 frames, the maximum is 5"),
            ({"max_pixels": 2239}, r"has 56 x 40 pixels, the maximum is 2239 in total"),
        ],
    )
    def test_video_above_a_limit_is_refused_with_both_values(
        self, clip: Path, limits: dict[str, float], message: str
    ) -> None:
        with pytest.raises(UploadError, match=message):
            SandboxedVideo(clip, name="clip", limits=Limits(**limits))  # type: ignore[arg-type]

    def test_video_at_the_limits_is_accepted(self, clip: Path) -> None:
        with Video(
            SandboxedVideo(clip, name="clip", limits=Limits(max_seconds=0.6, max_frames=6, max_pixels=2240))
        ) as video:
            assert sum(1 for _ in video) == NUM_FRAMES

    def test_image_above_the_limit_is_refused(self, tmp_path: Path) -> None:
        Image.new("RGB", (300, 200)).save(tmp_path / "large.png")
        with pytest.raises(UploadError, match="300x200 pixels are more than the allowed 50000"):
            SandboxedVideo(tmp_path / "large.png", name="large.png", limits=Limits(max_pixels=50_000))

    def test_image_that_expands_to_gigabytes_is_refused_by_its_header(self, tmp_path: Path) -> None:
        (tmp_path / "bomb.png").write_bytes(_png_header(60_000, 60_000))
        with pytest.raises(UploadError, match="60000x60000 pixels are more than the allowed"):
            SandboxedVideo(tmp_path / "bomb.png", name="bomb.png", limits=LIMITS)

    @pytest.mark.parametrize(
        "content",
        [
            b"no video at all",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:1/a.ts\n#EXT-X-ENDLIST\n",
            b"ffconcat version 1.0\nfile {clip}\n",
            b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'></MPD>",
            b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            b"RIFF\x00\x00\x00\x00WEBPVP8 ",
            b"%PDF-1.4\n",
            b"PK\x03\x04",
        ],
        ids=["text", "hls-file", "hls-http", "concat", "dash", "sdp", "svg", "webp-cut", "pdf", "zip"],
    )
    def test_playlists_and_other_files_are_refused_whatever_their_name(
        self, clip: Path, tmp_path: Path, content: bytes
    ) -> None:
        path = tmp_path / "upload.mp4"
        path.write_bytes(content.replace(b"{clip}", str(clip).encode()))
        with pytest.raises(UploadError, match=r"neither a video nor an image|cannot be read") as caught:
            SandboxedVideo(path, name="upload", limits=LIMITS)
        assert str(tmp_path) not in str(caught.value)

    def test_playlist_that_refers_to_another_file_is_refused(self, clip: Path, tmp_path: Path) -> None:
        """FFmpeg opens this playlist when it is not restricted."""
        listing = tmp_path / "list.ffconcat"
        listing.write_text(f"ffconcat version 1.0\nfile {clip.name}\n", encoding="utf-8")
        with av.open(str(listing)) as container:
            assert container.format.name == "concat"
        with pytest.raises(UploadError, match="neither a video nor an image"):
            SandboxedVideo(listing, name="list", limits=LIMITS)

    def test_sound_is_refused(self, tmp_path: Path) -> None:
        sound = write_audio(tmp_path / "sound.mp4")
        with pytest.raises(UploadError, match="only sound"):
            SandboxedVideo(sound, name="sound", limits=LIMITS)
        with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(bytes(8000))
        with pytest.raises(UploadError, match="neither a video nor an image"):
            SandboxedVideo(tmp_path / "sound.wav", name="sound", limits=LIMITS)

    def test_errors_do_not_contain_paths_of_the_server(self, clip: Path, tmp_path: Path) -> None:
        cut = tmp_path / "cut.mp4"
        cut.write_bytes(clip.read_bytes()[:300])
        with pytest.raises(UploadError, match="neither a video nor an image") as caught:
            SandboxedVideo(cut, name="cut.mp4", limits=LIMITS)
        assert str(tmp_path) not in str(caught.value)


class TestSandbox:
    def test_frames_equal_those_of_the_library(self, clip: Path) -> None:
        with Video(SandboxedVideo(clip, name="mine", limits=LIMITS)) as video, open_video(clip) as plain:
            assert video.info.path == "mine"
            assert video.timestamps() == plain.timestamps()
            assert (video.info.num_frames, video.info.fps) == (plain.info.num_frames, plain.info.fps)
            pairs = list(zip(video, plain, strict=True))
            assert all(
                np.array_equal(actual.image, expected.image) and actual.timestamp_seconds == expected.timestamp_seconds
                for actual, expected in pairs
            )
            assert [frame.index for frame in video.read([4, 0, 4])] == [4, 0, 4]
            assert np.array_equal(video.read([4])[0].image, pairs[4][1].image)

    def test_passes_can_be_interleaved(self, clip: Path) -> None:
        with Video(SandboxedVideo(clip, name="clip", limits=LIMITS)) as video:
            one, other = iter(video), iter(video)
            order = [next(one).index, next(other).index, next(one).index, video.read([5])[0].index, next(other).index]
            assert order == [0, 0, 1, 5, 1]

    def test_killed_process_is_restarted_at_the_same_frame(self, clip: Path) -> None:
        source = SandboxedVideo(clip, name="clip", limits=LIMITS)
        frames = iter(Video(source))
        assert [next(frames).index for _ in range(2)] == [0, 1]
        _process(source).kill()
        assert [frame.index for frame in frames] == [2, 3, 4, 5]
        source.close()

    def test_closed_video_leaves_no_process(self, clip: Path) -> None:
        source = SandboxedVideo(clip, name="clip", limits=LIMITS)
        process = _process(source)
        source.close()
        assert process.returncode is not None
        with pytest.raises(UploadError, match="closed"):
            source.read([0])

    def test_process_that_does_not_respond_is_replaced(self, clip: Path) -> None:
        times: list[float] = []
        source = SandboxedVideo(clip, name="clip", limits=LIMITS, clock=lambda: times.pop(0) if times else 0.0)
        stopped = _process(source)
        os.kill(stopped.pid, signal.SIGSTOP)
        times += [0.0, 2 * LIMITS.decoder_seconds]  # the time limit of the first response has passed
        assert source.read([2])[0].index == 2
        assert stopped.returncode is not None
        source.close()

    def test_file_that_takes_too_much_memory_is_refused(self, clip: Path) -> None:
        with pytest.raises(UploadError, match=r"within 60 seconds and 30 MB"):
            SandboxedVideo(clip, name="clip", limits=Limits(decoder_megabytes=30))

    def test_process_sets_its_limits(self, clip: Path) -> None:
        source = SandboxedVideo(clip, name="clip", limits=Limits(decoder_megabytes=1500, decoder_seconds=77))
        table = Path(f"/proc/{_process(source).pid}/limits").read_text(encoding="utf-8")
        found = {line[:26].strip(): line[26:].split()[:2] for line in table.splitlines()}
        assert found["Max address space"] == [str(1500 * 2**20)] * 2
        assert found["Max cpu time"] == ["77"] * 2
        assert found["Max file size"] == ["0"] * 2
        assert found["Max open files"] == ["64"] * 2
        source.close()

    def test_process_has_no_environment_of_the_server(self, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET_TOKEN", "hidden")
        source = SandboxedVideo(clip, name="clip", limits=LIMITS)
        assert b"hidden" not in Path(f"/proc/{_process(source).pid}/environ").read_bytes()
        source.close()

    def test_process_does_not_import_modules_beside_the_upload(self, clip: Path) -> None:
        for name in ("json.py", "av.py", "numpy.py", "sitecustomize.py"):
            (clip.parent / name).write_text("raise SystemExit(3)", encoding="utf-8")
        with Video(SandboxedVideo(clip, name="clip", limits=LIMITS)) as video:
            assert video.info.num_frames == NUM_FRAMES

    def test_process_above_its_cpu_time_is_killed(self) -> None:
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from unipixel.demos.security.sandboxed_decoder import limit_resources\n"
            "limit_resources(max_bytes=2**30, max_cpu_seconds=1)\n"
            "while True: pass"
        )
        done = subprocess.run([sys.executable, "-I", "-c", code, str(sandboxed_video._ROOT)], check=False)
        assert done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)

    @pytest.mark.parametrize(
        "written",
        [
            b"\xff\xff\xff\xff",
            struct.pack("<I", 2) + b"{}",
            struct.pack("<I", 4) + b"nope",
            struct.pack("<I", 24) + b'{"num_bytes": 9000000000',
            b"",
        ],
        ids=["long", "empty", "no-json", "cut", "ended"],
    )
    def test_invalid_response_is_refused(self, clip: Path, monkeypatch: pytest.MonkeyPatch, written: bytes) -> None:
        code = f"import sys; sys.stdin.readline(); sys.stdout.buffer.write({written!r})"
        monkeypatch.setattr(sandboxed_video, "_PROGRAM", code)
        with pytest.raises(UploadError, match="could not be decoded"):
            SandboxedVideo(clip, name="clip", limits=LIMITS)

    def test_frame_of_another_size_is_refused(self, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        info = {"width": 56, "height": 40, "num_frames": 1, "fps": 1.0, "duration_seconds": 1.0, "is_image": False}
        streams = {"media_type": None, "has_sound": False, "start_seconds": 0.0}
        first = {"info": info, "streams": streams, "num_bytes": 0}
        answers = [first, {"index": 0, "timestamp_seconds": 0.0, "num_bytes": 3}]
        written = b"".join(struct.pack("<I", len(text)) + text for text in (json.dumps(a).encode() for a in answers))
        code = f"import sys; sys.stdin.readline(); sys.stdout.buffer.write({written + b'abc'!r})"
        monkeypatch.setattr(sandboxed_video, "_PROGRAM", code)
        source = SandboxedVideo(clip, name="clip", limits=LIMITS)
        with pytest.raises(UploadError, match="could not be decoded"):
            source.read([0])


class TestDecoder:
    """The functions of the process, called in this one."""

    @pytest.mark.parametrize(
        ("write", "message"),
        [
            (lambda path: path.write_bytes(b"text"), "neither a video nor an image"),
            (lambda path: write_clip(path.with_suffix(".mp4")).rename(path), None),
            (lambda path: Image.new("RGB", (8, 8)).save(path, format="PNG"), None),
        ],
    )
    def test_upload_is_opened_by_its_content(
        self, tmp_path: Path, write: Callable[[Path], object], message: str | None
    ) -> None:
        path = tmp_path / "upload"
        write(path)
        limits = {"max_pixels": 10_000, "max_frames": 10, "max_seconds": 10.0}
        if message is None:
            with decoder.open_upload(path, limits) as video:
                assert video.info.num_frames in (1, NUM_FRAMES)
        else:
            with pytest.raises(decoder.RefusedError, match=message):
                decoder.open_upload(path, limits)


def _process(source: SandboxedVideo) -> subprocess.Popen[bytes]:
    assert source._process is not None
    return source._process


def _png_header(width: int, height: int) -> bytes:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (chunk, body)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
