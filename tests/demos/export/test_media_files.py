"""Exported videos: every frame, the original sound, alpha; archives that can be opened again."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from helpers.demo_sessions import make_store, open_session_with_clip, track
from helpers.moving_square import FPS, HEIGHT, NUM_FRAMES, WIDTH, clip_frame, probe_video

from unipixel.demos.errors import UploadError
from unipixel.demos.export.downloads import DownloadRequest
from unipixel.demos.export.effects import EffectSettings
from unipixel.demos.security.media_streams import describe_streams, sound_blocks
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.output.video_encoder import SOUND_RATE

MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[8:24, 8:24] = True
TONE_HERTZ, SOURCE_RATE = 440, 44_100


@pytest.fixture
def store() -> Iterator[SessionStore]:
    opened = make_store()
    yield opened
    opened.close_all()


@pytest.fixture(scope="module")
def clip_with_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The moving square, 1.2 seconds, with a tone."""
    path = tmp_path_factory.mktemp("sound") / "tone.mp4"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound: Any = container.add_stream("aac", rate=SOURCE_RATE, layout="mono")
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(clip_frame(index), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame.reformat(format="yuv420p")))
        container.mux(video.encode(None))
        times = np.arange(int(1.2 * SOURCE_RATE)) / SOURCE_RATE
        samples = (0.5 * np.sin(2 * np.pi * TONE_HERTZ * times)).astype(np.float32)
        tone = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        tone.sample_rate, tone.pts = SOURCE_RATE, 0
        container.mux(sound.encode(tone))
        container.mux(sound.encode(None))
    return path


def decoded_sound(path: Path) -> np.ndarray:
    """Decode the sound of a file to samples of one channel at `SOUND_RATE`."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SOUND_RATE)
    with av.open(str(path)) as container:
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]).astype(float)


def main_frequency(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples))
    return float(np.argmax(spectrum) * SOUND_RATE / len(samples))


@pytest.mark.parametrize(
    ("request_", "name", "codec"),
    [
        (DownloadRequest("overlay"), "overlay.mp4", "aac"),
        (DownloadRequest("effects", EffectSettings("blur")), "effects.mp4", "aac"),
        (DownloadRequest("effects", EffectSettings("transparent")), "effects.webm", "opus"),
    ],
)
def test_exported_video_has_every_frame_and_the_sound(
    store: SessionStore, clip_with_sound: Path, request_: DownloadRequest, name: str, codec: str
) -> None:
    user_session = store.open()
    info = user_session.load(clip_with_sound)
    assert (info.has_sound, info.media_type) == (True, "video/mp4")
    user_session.prompts.add_mask(1, MASK)
    path = user_session.download(request_)
    assert path.name == name
    assert probe_video(path) == (12, (WIDTH, HEIGHT))
    with av.open(str(path)) as container:
        assert container.streams.audio[0].codec_context.name == codec
    samples = decoded_sound(path)
    assert len(samples) / SOUND_RATE == pytest.approx(1.2, abs=0.08)
    assert main_frequency(samples[4800:48000]) == pytest.approx(TONE_HERTZ, abs=3)


def test_transparent_video_has_the_masks_as_alpha(store: SessionStore, tmp_path: Path) -> None:
    user_session = open_session_with_clip(store, tmp_path)
    user_session.prompts.add_mask(1, MASK)
    track(user_session)
    path = user_session.download(DownloadRequest("effects", EffectSettings("transparent")))
    with av.open(str(path)) as container:
        # FFmpeg's own decoder of VP9 ignores alpha.
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        packets = list(container.demux(video=0))
        decoder.extradata = container.streams.video[0].codec_context.extradata
        frames = [frame for packet in packets for frame in decoder.decode(packet)]
    shown = user_session.masks_at(0)[1]
    alpha = frames[0].to_ndarray(format="rgba")[:HEIGHT, :WIDTH, 3] > 127
    assert (alpha & shown).sum() > 0.8 * (alpha | shown).sum()


def test_sound_of_an_upload_equals_that_of_the_library(store: SessionStore, clip_with_sound: Path) -> None:
    user_session = store.open()
    user_session.load(clip_with_sound)
    loaded = user_session.lifecycle.loaded()
    received = b"".join(loaded.sound())
    expected = b"".join(sound_blocks(clip_with_sound, seconds=loaded.info.duration_seconds))
    assert received == expected
    assert len(received) == 4 * round(loaded.info.duration_seconds * SOUND_RATE)


def test_file_that_browsers_do_not_play_is_encoded_once(store: SessionStore, tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index in range(NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clip_frame(index), format="rgb24")))
        container.mux(stream.encode(None))
    assert describe_streams(path).media_type is None
    user_session = store.open()
    user_session.load(path)
    played, media_type = user_session.playback_file()
    assert media_type == "video/mp4"
    assert describe_streams(played).media_type == "video/mp4"
    assert probe_video(played) == (NUM_FRAMES, (WIDTH, HEIGHT))
    modified = played.stat().st_mtime_ns
    assert user_session.playback_file()[0].stat().st_mtime_ns == modified


class TestArchive:
    @pytest.fixture
    def archive(self, store: SessionStore, tmp_path: Path) -> tuple[UserSession, Path]:
        user_session = open_session_with_clip(store, tmp_path, is_trusted=False)
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        user_session.prompts.rename(1, "cup")
        list(user_session.ask("What is [1]?"))
        user_session.prompts.add_box(2, (4, 4, 20, 20))
        return user_session, user_session.download(DownloadRequest("session"))

    def test_archive_is_opened_again(self, store: SessionStore, archive: tuple[UserSession, Path]) -> None:
        before, path = archive
        opened = store.open()
        assert opened.load(path).name == "clip-6.mp4"
        assert (opened.objects(), opened.history) == (before.objects(), before.history)
        assert [opened.masks_at(index).keys() for index in range(NUM_FRAMES)] == [
            before.masks_at(index).keys() for index in range(NUM_FRAMES)
        ]
        assert not opened.lifecycle.loaded().is_trusted
        assert not [entry for entry in opened.lifecycle.folder.iterdir() if entry.name.startswith(".archive")]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"session.json": "{"}, "not a session that this server can open"),
            ({"memory/bank.json": "[]"}, "not a session that this server can open"),
            ({"upload/clip-6.mp4": "text"}, "neither a video nor an image"),
            ({"upload/second.mp4": "text"}, "contains 2 uploads"),
            ({"memory/bank.json": None}, "damaged, or not a session of this demo"),
        ],
    )
    def test_changed_archive_is_refused_and_leaves_nothing(
        self, store: SessionStore, archive: tuple[UserSession, Path], changes: dict[str, str | None], message: str
    ) -> None:
        changed = _rewritten(archive[1], changes)
        opened = store.open()
        with pytest.raises(UploadError, match=message):
            opened.load(changed)
        assert opened.info is None
        assert list(opened.lifecycle.folder.iterdir()) == []

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("media", "../../../etc/passwd", "name of a file in the folder"),
            ("memory", "/etc", "name of a file in the folder"),
            ("names", [[1, "x" * 61]], "too long a name"),
            ("turns", [["q", "a" * 20_001]], "more than 20000 characters"),
            ("frame_size", [10, 10], "not a session that this server can open"),
        ],
    )
    def test_values_of_an_archive_are_not_trusted(
        self, store: SessionStore, archive: tuple[UserSession, Path], field: str, value: object, message: str
    ) -> None:
        with zipfile.ZipFile(archive[1]) as source:
            saved = json.loads(source.read("session.json"))
        opened = store.open()
        with pytest.raises(UploadError, match=message):
            opened.load(_rewritten(archive[1], {"session.json": json.dumps({**saved, field: value})}))

    def test_file_that_grows_when_it_is_extracted_is_refused(
        self, archive: tuple[UserSession, Path], tmp_path: Path
    ) -> None:
        small = make_store(max_upload_megabytes=0.1)
        grown = _rewritten(archive[1], {"upload/clip-6.mp4": "0" * 2**20})
        assert grown.stat().st_size < 0.1 * 2**20
        with pytest.raises(UploadError, match=r"upload/clip-6.mp4 in the archive has more than"):
            small.open().load(grown)
        small.close_all()


def _rewritten(path: Path, changes: dict[str, str | None]) -> Path:
    """Copy an archive with other files; None removes one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            if name not in changes:
                target.writestr(name, source.read(name))
        for name, text in changes.items():
            if text is not None:
                target.writestr(name, text)
    changed = path.with_name("changed.zip")
    changed.write_bytes(buffer.getvalue())
    return changed
