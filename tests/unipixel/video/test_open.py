"""Decoding videos of all kinds of sources."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from helpers.moving_square import write_audio
from helpers.numbered_clips import numbered_frame, write_numbered_clip
from PIL import Image

from unipixel.video.live import remove_credentials
from unipixel.video.open import open_video

CODECS = [
    ("clip.mp4", "libx264", "yuv420p"),
    ("clip.mkv", "libx264", "yuv420p"),
    ("clip.ts", "libx264", "yuv420p"),
    ("clip.avi", "mjpeg", "yuvj420p"),
    ("clip.webm", "libvpx", "yuv420p"),
    ("clip.webm", "libvpx-vp9", "yuv420p"),
    ("clip.mp4", "mpeg4", "yuv420p"),
    ("clip.mkv", "ffv1", "yuv420p"),
    ("clip.h264", "libx264", "yuv420p"),
]


def brightness(frame: Any) -> int:
    """Frame indices, decoded from the grey value of the lower right quarter."""
    return round((float(frame.image[-8:, -8:].mean()) - 10) / 8)


@pytest.mark.parametrize(("name", "codec", "pix_fmt"), CODECS)
def test_open_video_container_counts_frames_and_reads_them_exactly(
    tmp_path: Path, name: Any, codec: Any, pix_fmt: Any
) -> None:
    write_numbered_clip(tmp_path / name, codec=codec, pix_fmt=pix_fmt, num_frames=12)
    video = open_video(tmp_path / name)
    frames = list(video)
    assert video.info.num_frames == len(frames) == 12
    assert [brightness(frame) for frame in frames] == list(range(12))
    for index, frame in zip([11, 0, 7, 7], video.read([11, 0, 7, 7]), strict=True):
        assert frame.index == index
        assert frame.timestamp_seconds == frames[index].timestamp_seconds
        np.testing.assert_array_equal(frame.image, frames[index].image)


def test_read_of_single_frames_equals_iteration_at_every_index(tmp_path: Path) -> None:
    write_numbered_clip(tmp_path / "clip.mp4", num_frames=30, options={"g": "7", "bf": "3", "b-pyramid": "normal"})
    video = open_video(tmp_path / "clip.mp4")
    for frame in video:
        np.testing.assert_array_equal(video.read([frame.index])[0].image, frame.image)


@pytest.mark.parametrize("options", [{"x264-params": "open-gop=1:keyint=6:bframes=3"}, {"intra-refresh": "1"}])
def test_read_without_clean_keyframes_equals_iteration(tmp_path: Path, options: Any) -> None:
    write_numbered_clip(tmp_path / "clip.mp4", num_frames=30, options=options)
    video = open_video(tmp_path / "clip.mp4")
    frames = list(video)
    for index in (29, 3, 12, 18):
        np.testing.assert_array_equal(video.read([index])[0].image, frames[index].image)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_frames_variable_rate_keep_their_times(tmp_path: Path, name: Any) -> None:
    times = write_numbered_clip(tmp_path / name, times_ms=[0, 40, 50, 300, 1300, 1310])
    frames = list(open_video(tmp_path / name))
    assert [frame.timestamp_seconds for frame in frames] == pytest.approx([t / 1000 for t in times], abs=1e-6)
    assert [f.timestamp_seconds for f in open_video(tmp_path / name).read([4, 1])] == pytest.approx([1.3, 0.04])


# Where the white upper left quarter is after a counter-clockwise rotation: (row, column) of the corner.
@pytest.mark.parametrize(
    ("rotation", "is_mirrored", "corner"),
    [(90, False, (-1, 0)), (180, False, (-1, -1)), (270, False, (0, -1)), (0, True, (0, -1)), (90, True, (-1, -1))],
)
def test_frames_display_matrix_is_applied(tmp_path: Path, rotation: Any, is_mirrored: Any, corner: Any) -> None:
    write_numbered_clip(tmp_path / "clip.mp4", rotation=rotation, is_mirrored=is_mirrored, num_frames=3)
    video = open_video(tmp_path / "clip.mp4")
    image = next(iter(video)).image
    assert image.shape == ((64, 48, 3) if rotation % 180 else (48, 64, 3))
    assert (video.info.width, video.info.height) == (image.shape[1], image.shape[0])
    white = [(row, column) for row in (0, -1) for column in (0, -1) if image[row, column].min() > 200]
    assert white == [corner]
    np.testing.assert_array_equal(video.read([0])[0].image, image)


@pytest.mark.parametrize(
    ("pix_fmt", "size"), [("yuv420p10le", (64, 48)), ("yuv444p", (63, 47)), ("yuv422p10le", (64, 47))]
)
def test_frames_ten_bits_and_odd_sizes_become_rgb(tmp_path: Path, pix_fmt: Any, size: Any) -> None:
    write_numbered_clip(tmp_path / "clip.mp4", pix_fmt=pix_fmt, size=size, num_frames=4)
    frames = list(open_video(tmp_path / "clip.mp4"))
    assert frames[0].image.shape == (size[1], size[0], 3)
    assert frames[0].image.dtype == np.uint8
    for index, frame in enumerate(frames):
        assert np.abs(frame.image.astype(int) - numbered_frame(index, width=size[0], height=size[1])).mean() < 4


def test_frames_alpha_is_composited_on_black(tmp_path: Path) -> None:
    import av

    pixels = np.full((16, 16, 4), 200, dtype=np.uint8)
    pixels[:, :8, 3] = 0
    with av.open(str(tmp_path / "clip.mov"), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        container.mux(stream.encode(None))
    image = next(iter(open_video(tmp_path / "clip.mov"))).image
    assert image[:, :8].max() == 0
    assert np.all(image[:, 8:] == 157)  # 200 * 200 / 255, rounded


@pytest.mark.parametrize(("name", "options"), [("clip.mp4", {"movflags": "+faststart"}), ("clip.mkv", {})])
def test_truncated_file_yields_the_frames_before_the_damage_and_warns(tmp_path: Path, name: Any, options: Any) -> None:
    import av

    with av.open(str(tmp_path / name), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.options = {"g": "5", "bf": "0", "qp": "0"}
        noise = np.random.default_rng(0)
        for _ in range(20):
            pixels = noise.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))
    whole = list(open_video(tmp_path / name))
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes((tmp_path / name).read_bytes()[: (tmp_path / name).stat().st_size // 2])
    with pytest.warns(RuntimeWarning, match="damaged after"):
        video = open_video(cut)
    with pytest.warns(RuntimeWarning, match="damaged after"):
        frames = list(video)
    assert 3 <= len(frames) < 20
    assert video.info.num_frames == len(frames)
    for frame in frames:
        np.testing.assert_array_equal(frame.image, whole[frame.index].image)


def test_open_video_beside_damage_gives_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, codec, pix_fmt in CODECS:
            write_numbered_clip(tmp_path / name, codec=codec, pix_fmt=pix_fmt, num_frames=6)
            list(open_video(tmp_path / name))


def test_open_video_unreadable_raises_oserror_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "zero.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video " * 200)
    (tmp_path / "empty_folder").mkdir()
    write_audio(tmp_path / "sound.m4a")
    cases = {
        "zero.mp4": "0 bytes",
        "text.mp4": "neither",
        "empty_folder": "no images",
        "sound.m4a": "no video",
        "missing.mp4": "No such",
    }
    for name, reason in cases.items():
        with pytest.raises(OSError, match=rf"(?s){reason}") as raised:
            open_video(tmp_path / name)
        assert name in str(raised.value)
    with pytest.raises(OSError, match="not a file"):
        open_video("/dev/zero")


def test_open_video_playlists_that_name_other_files_are_refused(tmp_path: Path) -> None:
    write_numbered_clip(tmp_path / "clip.ts", num_frames=3)
    write_numbered_clip(tmp_path / "clip.mp4", num_frames=3)
    playlists = {
        "list.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/clip.ts\n#EXT-X-ENDLIST\n",
        "list.ffconcat": "ffconcat version 1.0\nfile clip.mp4\n",
        "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }
    for name, text in playlists.items():
        for disguise in (name, name + ".mp4"):
            (tmp_path / disguise).write_text(text)
            with pytest.raises(OSError, match="neither"):
                open_video(tmp_path / disguise)


def test_open_video_names_that_look_like_addresses_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "-i.mp4", "a%03d.mp4", "x?y#z.mp4"):
        write_numbered_clip(tmp_path / "clip.mp4", num_frames=3)
        (tmp_path / "clip.mp4").rename(tmp_path / name)
        assert open_video(name).info.num_frames == 3


def test_open_video_limits_are_enforced(tmp_path: Path) -> None:
    write_numbered_clip(tmp_path / "clip.mp4", num_frames=5)
    with pytest.raises(ValueError, match=r"5 frames.*allowed 4"):
        open_video(tmp_path / "clip.mp4", max_frames=4)
    with pytest.raises(OSError, match="allowed 1000"):
        open_video(tmp_path / "clip.mp4", max_pixels=1000)
    Image.new("L", (100, 100)).save(tmp_path / "image.png")
    with pytest.raises(OSError, match="allowed 1000"):
        open_video(tmp_path / "image.png", max_pixels=1000)
    for index in (-1, 5):
        with pytest.raises(ValueError, match="0 to 4"):
            open_video(tmp_path / "clip.mp4").read([index])
    sources: list[Any] = [None, b"bytes", 1.5, True]
    for source in sources:
        with pytest.raises(TypeError, match="cannot read"):
            open_video(source)
    with pytest.raises(ValueError, match="ftp"):
        open_video("ftp://host/clip.mp4")


def test_image_orientation_depth_and_alpha_are_applied(tmp_path: Path) -> None:
    pixels = np.zeros((20, 30, 3), dtype=np.uint8)
    pixels[:10, :15] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    video = open_video(tmp_path / "turned.jpg")
    image = next(iter(video)).image
    assert video.info.is_image
    assert video.info.num_frames == 1
    assert image.shape == (30, 20, 3)
    assert image[2, -2].min() > 200 > image[2, 2].max() + 100
    Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert np.all(open_video(tmp_path / "deep.png").read([0])[0].image == 128)
    Image.new("RGBA", (4, 4), (255, 255, 255, 0)).save(tmp_path / "alpha.png")
    assert open_video(tmp_path / "alpha.png").read([0])[0].image.max() == 0


def test_folder_frames_come_in_natural_order(tmp_path: Path) -> None:
    for index in range(12):
        Image.new("L", (8, 6), 20 * index).save(tmp_path / f"{index}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    video = open_video(tmp_path, fps=10)
    assert [int(frame.image[0, 0, 0]) // 20 for frame in video] == list(range(12))
    assert video.read([11])[0].timestamp_seconds == pytest.approx(1.1)
    assert video.info.num_frames == 12


def test_folder_with_a_damaged_image_ends_there_with_a_warning(tmp_path: Path) -> None:
    for index in range(4):
        Image.new("L", (8, 6), 20 * index).save(tmp_path / f"{index}.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:40])
    video = open_video(tmp_path)
    with pytest.warns(RuntimeWarning, match="after 2"):
        assert len(list(video)) == 2


def test_arrays_lists_can_be_read_twice_and_generators_once() -> None:
    images = [numbered_frame(index) for index in range(4)]
    for source in (images, np.stack(images)):
        video = open_video(source)
        assert video.info.num_frames == 4
        assert len(list(video)) == len(list(video)) == 4
        np.testing.assert_array_equal(video.read([2])[0].image, images[2])
    video = open_video(iter(images))
    assert video.is_stream
    assert video.info.num_frames is None
    assert [brightness(frame) for frame in video] == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="open it again"):
        iter(video)
    with pytest.raises(TypeError, match="uint8"):
        open_video([np.zeros((4, 4, 3))])
    with pytest.raises(ValueError, match="frame 1"):
        list(open_video(iter([images[0], images[1][:10]])))
    with pytest.raises(OSError, match="no frame"):
        open_video([])


def test_stream_from_file_object_and_pipe_yields_frames_in_order(tmp_path: Path) -> None:
    write_numbered_clip(tmp_path / "clip.ts", num_frames=8)
    encoded = (tmp_path / "clip.ts").read_bytes()
    with open_video(io.BytesIO(encoded), max_frames=5) as video:
        assert video.info.num_frames is None
        assert [brightness(frame) for frame in video] == [0, 1, 2, 3, 4]
        with pytest.raises(RuntimeError, match="stream"):
            video.read([0])
    reading, writing = os.pipe()

    def send() -> None:
        with open(writing, "wb") as end:
            end.write(encoded)

    sender = threading.Thread(target=send)
    sender.start()
    with open(reading, "rb") as pipe, open_video(pipe) as video:
        assert [brightness(frame) for frame in video] == list(range(8))
    sender.join()


def test_addresses_are_shown_without_passwords() -> None:
    assert remove_credentials("rtsp://me:secret@host:554/a?token=1") == "rtsp://host:554/a"


def test_video_without_such_camera_raises_oserror() -> None:
    with pytest.raises(OSError, match="camera 97"):
        open_video(97)


class TestSequence:
    def test_len_and_index_are_those_of_iterating(self, clip: Path) -> None:
        video = open_video(clip)
        frames = list(video)
        assert len(video) == len(frames) == 6
        assert np.array_equal(video[2].image, frames[2].image)
        assert video[-1].index == 5
        assert [frame.index for frame in video[1:5:2]] == [1, 3]
        with pytest.raises(IndexError, match=r"frame 6 is outside .*: allowed are 0 to 5"):
            video[6]
        assert repr(video) == f"<Video {clip}: 6 frames of 56 x 40, 10 fps>"

    def test_stream_has_no_length(self, frames: list[np.ndarray]) -> None:
        video = open_video(iter(frames))
        assert video
        with pytest.raises(TypeError, match="has no length"):
            len(video)


class TestKindsOfArrays:
    @pytest.mark.parametrize("kind", ["torch", "channels first", "list of images", "list of tensors"])
    def test_arrays_of_other_kinds_are_the_same_frames(self, frames: list[np.ndarray], kind: str) -> None:
        stack = np.stack(frames)
        source: Any = {
            "torch": lambda: torch.from_numpy(stack).permute(0, 3, 1, 2),
            "channels first": lambda: stack.transpose(0, 3, 1, 2),
            "list of images": lambda: [Image.fromarray(frame) for frame in frames],
            "list of tensors": lambda: [torch.from_numpy(frame).permute(2, 0, 1) for frame in frames],
        }[kind]()
        video = open_video(source)
        assert len(video) == len(frames)
        assert all(np.array_equal(found.image, frame) for found, frame in zip(video, frames, strict=True))

    def test_single_image_is_an_image(self, frames: list[np.ndarray]) -> None:
        for source in (Image.fromarray(frames[0]), torch.from_numpy(frames[0]).permute(2, 0, 1)):
            video = open_video(source)
            assert video.info.is_image
            assert np.array_equal(video[0].image, frames[0])

    def test_values_of_zero_to_one_are_refused_with_what_to_do(self, frames: list[np.ndarray]) -> None:
        with pytest.raises(
            TypeError, match=r"not float32: convert values of 0\.\.1 .*\(frames \* 255\)\.to\(torch\.uint8\)"
        ):
            open_video(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255)
        for kind in (np.float64, np.int64):
            with pytest.raises(TypeError, match=r"convert values of 0\.\.255 with frames\.astype\(np\.uint8\)"):
                open_video(np.stack(frames).astype(kind))


def test_mp4_with_its_index_at_the_end_in_a_pipe_says_what_to_do(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 240, 320, 3), dtype=np.uint8)
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for frame in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    content = (tmp_path / "clip.mp4").read_bytes()
    assert content.rfind(b"moov") > len(content) - 10_000
    reader, writer = os.pipe()

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "wb") as pipe:
            pipe.write(content)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with (
            os.fdopen(reader, "rb") as pipe,
            pytest.raises(OSError, match=r"cannot be read from a pipe: .*\+faststart"),
        ):
            open_video(pipe)
    finally:
        thread.join()
