"""Writers: mask images, palette images, overlays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from unipixel.output.overlay import PromptMark, draw_overlay, object_color
from unipixel.output.video_encoder import SOUND_RATE, VideoEncoder
from unipixel.output.writers import (
    MaskWriter,
    OverlayImageWriter,
    OverlayVideoWriter,
    PaletteWriter,
    davis_palette,
    overlay_writer,
)
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame, VideoInfo
from unipixel.video.open import open_video


def frame_of(index: int = 0, *, seconds: float = 0.0, height: int = 48, width: int = 64) -> Frame:
    return Frame(index, seconds, np.full((height, width, 3), 60 + 10 * index, dtype=np.uint8))


def square(
    top: int, left: int, size: int = 20, *, shape: tuple[int, int] = (48, 64), visible: bool = True
) -> ObjectMask:
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + size, left : left + size] = True
    return ObjectMask(mask, 0.9, visible)


def test_mask_writer_writes_one_grey_channel_of_0_and_255(tmp_path: Path) -> None:
    objects = {1: square(4, 4), 12: square(0, 0, visible=False)}
    with MaskWriter(tmp_path / "masks") as writer:
        writer.write(frame_of(3), objects)
    with Image.open(tmp_path / "masks/1/00003.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), objects[1].mask * np.uint8(255))
    with Image.open(tmp_path / "masks/12/00003.png") as image:
        assert np.asarray(image).max() == 0


def test_palette_writer_lower_id_wins_where_objects_overlap(tmp_path: Path) -> None:
    with PaletteWriter(tmp_path / "dog") as writer:
        writer.write(frame_of(), {2: square(0, 0), 1: square(10, 10)})
    with Image.open(tmp_path / "dog/00000.png") as image:
        assert image.mode == "P"
        assert (image.getpalette() or [])[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
        values = np.asarray(image)
    assert (values[5, 5], values[15, 15], values[40, 60]) == (2, 1, 0)
    with pytest.raises(ValueError, match="1 to 254"):
        PaletteWriter(tmp_path / "cat").write(frame_of(), {255: square(0, 0)})


def test_davis_palette_is_that_of_pascal_voc() -> None:
    colors = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3).tolist()
    assert colors[3] == [128, 128, 0]
    assert colors[9] == [192, 0, 0]
    assert colors[255] == [224, 224, 192]


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1)])
def test_overlay_video_keeps_variable_times_and_pads_odd_sizes(tmp_path: Path, size: Any) -> None:
    times = [0.0, 0.04, 0.05, 0.3, 1.3]
    height, width = size
    path = tmp_path / "overlay.mp4"
    with OverlayVideoWriter(path, fps=4.0) as writer:
        for index, seconds in enumerate(times):
            mask = ObjectMask(np.ones(size, bool), 1.0, True)
            writer.write(frame_of(index, seconds=seconds, height=height, width=width), {1: mask})
    frames = list(open_video(path))
    assert [frame.timestamp_seconds for frame in frames] == pytest.approx(times, abs=1e-4)
    assert frames[0].image.shape == (height + height % 2, width + width % 2, 3)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.duration * stream.time_base) == pytest.approx(1.55, abs=0.01)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_overlay_video_colours_survive_encoding(tmp_path: Path) -> None:
    image = np.zeros((64, 64, 3), dtype=np.uint8)
    image[:, :32], image[:, 32:] = (200, 40, 40), (40, 40, 200)
    with OverlayVideoWriter(tmp_path / "overlay.mp4", fps=10) as writer:
        for index in range(3):
            writer.write(Frame(index, index / 10, image), {})
    shown = next(iter(open_video(tmp_path / "overlay.mp4"))).image
    assert np.abs(shown[:, 4:28].astype(int) - (200, 40, 40)).max() <= 8
    assert np.abs(shown[:, 36:60].astype(int) - (40, 40, 200)).max() <= 8


def test_overlay_video_refuses_another_size_and_bad_paths(tmp_path: Path) -> None:
    with OverlayVideoWriter(tmp_path / "overlay.mp4", fps=10) as writer:
        writer.write(frame_of(), {})
        with pytest.raises(ValueError, match="frame 1"):
            writer.write(frame_of(1, seconds=0.1, height=20), {})
        with pytest.raises(ValueError, match="object 3"):
            writer.write(frame_of(1, seconds=0.1), {3: square(0, 0, shape=(10, 10))})
    with pytest.raises(OSError, match="missing"):
        OverlayVideoWriter(tmp_path / "missing/overlay.mp4", fps=10).write(frame_of(), {})


def test_overlay_video_shows_a_prompt_on_its_frame_only(tmp_path: Path) -> None:
    mark = PromptMark(1, 2, point_xy=(32, 24))
    frames = [Frame(i, i * 0.4, np.zeros((48, 64, 3), np.uint8)) for i in range(7)]
    with OverlayVideoWriter(tmp_path / "overlay.mp4", fps=2.5, prompts=[mark]) as writer:
        for frame in frames:
            writer.write(frame, {})
    shown = [bool(frame.image.max() > 100) for frame in open_video(tmp_path / "overlay.mp4")]
    assert shown == [False, False, True, False, False, False, False]


def test_overlay_writer_of_an_image_is_a_png(tmp_path: Path) -> None:
    info = VideoInfo("image.jpg", 64, 48, 1, None, 0.0, is_image=True)
    with overlay_writer(tmp_path, info) as writer:
        assert isinstance(writer, OverlayImageWriter)
        writer.write(frame_of(), {1: square(10, 20)})
    with Image.open(tmp_path / "overlay.png") as image:
        assert image.size == (64, 48)


def test_draw_overlay_fills_and_traces_within_the_mask_only() -> None:
    image = np.full((240, 320, 3), 100, dtype=np.uint8)
    mask = square(150, 50, 60, shape=(240, 320))
    before = image.copy()
    drawn = draw_overlay(image, {1: mask})
    np.testing.assert_array_equal(image, before)
    changed = (drawn != image).any(axis=2)
    assert changed[mask.mask].all()
    assert not changed[150:][~mask.mask[150:]].any()  # the label is above
    assert changed[:150].any()
    assert tuple(drawn[150, 80]) == object_color(1)
    assert tuple(drawn[180, 80]) not in (object_color(1), (100, 100, 100))


def test_draw_overlay_labels_stay_in_the_frame_and_apart() -> None:
    image = np.zeros((240, 320, 3), dtype=np.uint8)
    objects = {i: square(0, 100, 8, shape=(240, 320)) for i in (1, 2, 3)}
    drawn = draw_overlay(image, objects)
    plates = [(drawn == object_color(object_id)).all(axis=2) for object_id in objects]
    assert all(plate.sum() > 25 for plate in plates)


def test_draw_overlay_invisible_or_empty_objects_leave_the_frame_alone() -> None:
    image = np.full((48, 64, 3), 9, dtype=np.uint8)
    empty = ObjectMask(np.zeros((48, 64), bool), 0.0, True)
    np.testing.assert_array_equal(draw_overlay(image, {1: square(3, 3, visible=False), 2: empty}), image)


def test_draw_overlay_prompts_beyond_the_edge_are_cut_off() -> None:
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    marks = [
        PromptMark(1, 0, point_xy=(0, 0)),
        PromptMark(1, 0, point_xy=(63, 47), is_positive=False),
        PromptMark(2, 0, box_xyxy=(-5, -5, 80, 20)),
    ]
    drawn = draw_overlay(image, {}, prompts=marks)
    assert drawn[1, 1].max() > 100
    assert drawn[46, 62].max() > 100
    assert tuple(drawn[20, 30]) == object_color(2)
    with pytest.raises(ValueError, match="either a point or a box"):
        PromptMark(1, 0)


def test_object_colors_differ_for_the_first_twenty_one_ids() -> None:
    assert len({object_color(object_id) for object_id in range(1, 22)}) == 21


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is a device of Linux")
def test_video_with_sound_on_a_full_disk_is_an_error() -> None:
    encoder = VideoEncoder(Path("/dev/full"), fps=30, sound=iter([bytes(4 * SOUND_RATE)] * 3))
    with pytest.raises(OSError, match=r"/dev/full: cannot be written .*No space left"):
        encoder.write(np.zeros((48, 64, 3), np.uint8), 0.0)
    # Nothing was begun that could be finished.
    encoder.close()
