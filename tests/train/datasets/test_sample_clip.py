"""The bundled sample clip: its file, and the motion of its objects."""

from pathlib import Path

import numpy as np
import pytest

from unipixel.assets import sample_path
from unipixel.train.datasets.sample_clip import FPS, NUM_FRAMES, sample_clip, sample_scene, write_sample
from unipixel.train.datasets.samples import Clip
from unipixel.train.datasets.synthetic.attributes import held_out_pairs
from unipixel.video.open import open_video

STAR, CIRCLE, SQUARE, HEART = 1, 2, 3, 4


@pytest.fixture(scope="module")
def clip() -> Clip:
    return sample_clip()


def middle_x(clip: Clip, object_id: int, frame: int) -> float:
    return float(np.nonzero(clip.masks_of(object_id)[frame])[1].mean())


def test_sample_file_is_small_and_complete() -> None:
    assert sample_path().stat().st_size < 300_000
    info = open_video(sample_path()).info
    assert (info.num_frames, info.fps, info.width, info.height) == (NUM_FRAMES, FPS, 320, 240)


def test_sample_file_has_the_rendered_frames(clip: Clip) -> None:
    decoded = np.stack([frame.image for frame in open_video(sample_path())])
    assert np.abs(decoded.astype(int) - clip.frames).mean() < 3


def test_writing_the_sample_anew_gives_a_clip_of_the_same_length(tmp_path: Path) -> None:
    write_sample(tmp_path / "again.mp4")
    assert open_video(tmp_path / "again.mp4").info.num_frames == NUM_FRAMES


def test_circle_overtakes_the_star(clip: Clip) -> None:
    gaps = [middle_x(clip, CIRCLE, frame) - middle_x(clip, STAR, frame) for frame in (0, -1)]
    assert gaps[0] < -30 < 30 < gaps[1]


def test_square_is_still(clip: Clip) -> None:
    square = clip.masks_of(SQUARE)
    assert (square == square[0]).all()
    assert square[0].any()


def test_heart_is_occluded_and_reappears(clip: Clip) -> None:
    areas = clip.masks_of(HEART).sum(axis=(1, 2))
    assert (areas == 0).any()
    assert areas[0] > 900
    assert areas[-1] > 900


def test_sample_shows_no_combination_that_training_holds_out() -> None:
    shown = {(obj.shape, obj.colour) for obj in sample_scene().objects}
    shown |= {(obj.plan.direction or obj.plan.path, obj.shape) for obj in sample_scene().objects}
    assert not shown & held_out_pairs("train")
