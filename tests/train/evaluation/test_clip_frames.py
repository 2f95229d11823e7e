"""Frames of samples: decoded ahead, bounded in memory, and the same however they are read."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from helpers.numbered_clips import write_numbered_clip
from PIL import Image

from unipixel.train.evaluation.benchmarks.sample import SampleMedia
from unipixel.train.evaluation.running import clip_frames
from unipixel.train.evaluation.running.clip_frames import FrameLoader, open_media
from unipixel.video.open import Video, open_video


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, ...]:
    paths = tuple(tmp_path / f"{index:05d}.png" for index in range(4))
    for index, path in enumerate(paths):
        Image.fromarray(np.full((6, 8, 3), 40 * index, dtype=np.uint8)).save(path)
    return paths


def levels(video: Video) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in video]


@pytest.mark.parametrize("max_bytes", [0, 2**29])
def test_images_come_in_the_given_order_from_memory_or_from_files(
    max_bytes: int, images: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_frames, "_MAX_AHEAD_BYTES", max_bytes)
    video = open_media(SampleMedia(paths=(images[2], images[0], images[2]), fps=6), decoder="auto")
    assert levels(video) == [80, 0, 80]
    assert [frame.index for frame in video.read([2, 0])] == [2, 0]
    assert (video.info.num_frames, video.info.fps, video.info.is_image) == (3, 6, False)


def test_one_image_is_an_image(images: tuple[Path, ...]) -> None:
    assert open_media(SampleMedia(paths=images[:1]), decoder="auto").info.is_image


def test_long_clip_is_not_decoded_at_once(images: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_frames, "_MAX_AHEAD_BYTES", 0)
    images[3].write_bytes(b"damaged")
    video = open_media(SampleMedia(paths=images), decoder="auto")
    assert video.read([1])[0].image[0, 0, 0] == 40
    with pytest.raises(OSError, match=r"00003\.png"):
        video.read([3])


def test_image_of_another_size_is_named(images: tuple[Path, ...]) -> None:
    Image.fromarray(np.zeros((3, 8, 3), dtype=np.uint8)).save(images[1])
    with pytest.raises(OSError, match=r"00001\.png: 8x3 pixels, but the first frame has 8x6"):
        open_media(SampleMedia(paths=images), decoder="auto")


@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_selected_frames_of_a_video_file_are_renumbered_and_keep_their_times(decoder: str, tmp_path: Path) -> None:
    write_numbered_clip(tmp_path / "clip.mp4", num_frames=20)
    media = SampleMedia(paths=(tmp_path / "clip.mp4",), indices=(3, 17))
    frames = list(open_media(media, decoder=decoder))  # type: ignore[arg-type]
    for frame, position, original in zip(frames, (0, 1), open_video(tmp_path / "clip.mp4").read([3, 17]), strict=True):
        assert frame.index == position
        assert frame.timestamp_seconds == original.timestamp_seconds
        np.testing.assert_array_equal(frame.image, original.image)


def test_next_clip_is_opened_while_the_first_is_used(images: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = [threading.Event() for _ in images]

    def open_and_report(media: SampleMedia, **options: object) -> Video:
        opened[images.index(media.paths[0])].set()
        return open_media(media, decoder="auto")

    monkeypatch.setattr(clip_frames, "open_media", open_and_report)
    with FrameLoader([SampleMedia(paths=(path,)) for path in images], decoder="auto") as loader:
        assert levels(loader.get(0)) == [0]
        assert opened[1].wait(timeout=30)
        assert not opened[2].is_set()
        assert levels(loader.get(1)) == [40]
        assert opened[2].wait(timeout=30)


def test_clip_that_cannot_be_opened_does_not_affect_the_next(images: tuple[Path, ...]) -> None:
    images[0].write_bytes(b"damaged")
    with FrameLoader([SampleMedia(paths=(path,)) for path in images], decoder="auto") as loader:
        with pytest.raises(OSError, match=r"00000\.png"):
            loader.get(0)
        assert levels(loader.get(1)) == [40]
