"""Samples: determinism, disjoint splits, held-out combinations, exact masks and prompts."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from unipixel.train.datasets.synthetic import TASKS, Sample, generate
from unipixel.train.datasets.synthetic.attributes import (
    COLOURS,
    MOTIONS,
    SHAPES,
    SIZE_RANGES,
    SPLITS,
    TEST_MOTION_SHAPES,
    TEST_SHAPE_COLOURS,
    TEXTURES,
    VAL_MOTION_SHAPES,
    VAL_SHAPE_COLOURS,
    Split,
    held_out_pairs,
)
from unipixel.train.datasets.synthetic.gallery import gallery_page
from unipixel.train.datasets.synthetic.rasterization import sample_frame_indices
from unipixel.train.datasets.synthetic.scene import Scene, sample_scene
from unipixel.train.datasets.synthetic.trajectories import motion_truth
from unipixel.train.datasets.synthetic.visual_prompt_sampling import sample_prompt


def digest(sample: Sample) -> str:
    turns = repr([(turn.question, turn.answer, turn.target_ids) for turn in sample.turns])
    return hashlib.sha256(sample.clip.frames.tobytes() + sample.clip.masks.tobytes() + turns.encode()).hexdigest()


def small(seed: int, *, task: str | None = None, split: Split = "train", style: str = "shapes") -> Sample:
    return generate(seed, split=split, task=task, render_size=(64, 64), num_frames=6, style=style)


def test_same_seed_in_another_process_gives_the_same_sample() -> None:
    code = (
        f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}]\n"
        "from test_sample_generation import digest, small\n"
        "print(digest(small(7)), digest(small(8, split='test')), digest(small(9, style='vos')))"
    )
    root = str(Path(__file__).parents[3])
    environment = {"PYTHONPATH": root, "PYTHONHASHSEED": "77"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    expected = [digest(small(7)), digest(small(8, split="test")), digest(small(9, style="vos"))]
    assert result.stdout.split() == expected


def test_splits_of_one_seed_differ() -> None:
    assert len({digest(small(3, split=split, task="track")) for split in ("train", "val", "test")}) == 3


@cache
def scenes(split: Split) -> tuple[Scene, ...]:
    """Enough scenes of a split to show all its combinations."""
    return tuple(sample_scene(np.random.default_rng(seed), split=split, frame=(16 / 9, 1.0)) for seed in range(700))


def combinations(split: Split) -> set[tuple[str, str]]:
    pairs = {(obj.shape, obj.colour) for scene in scenes(split) for obj in scene.objects}
    objects = (obj for scene in scenes(split) for obj in scene.objects)
    return pairs | {(word, obj.shape) for obj in objects for word in MOTIONS if motion_truth(obj.plan)[word] == 1}


def test_held_out_combinations_occur_only_in_their_splits() -> None:
    shown = {split: combinations(split) for split in SPLITS}
    val, test = {*VAL_SHAPE_COLOURS, *VAL_MOTION_SHAPES}, {*TEST_SHAPE_COLOURS, *TEST_MOTION_SHAPES}
    assert not shown["train"] & (val | test)
    assert not shown["val"] & test
    assert shown["val"] >= val
    assert shown["test"] >= val | test
    others = {(shape, colour) for shape in SHAPES for colour in COLOURS} - held_out_pairs("train")
    assert shown["train"] >= others


def test_scenes_are_within_the_published_limits() -> None:
    counts, textures = set(), set()
    for scene in scenes("test"):
        counts.add(len(scene.objects))
        assert 8 <= scene.num_frames <= 120
        assert 8 <= scene.fps <= 30
        for obj in scene.objects:
            textures.add(obj.texture)
            assert obj.trajectory.extents.min() >= 0.06
            assert obj.trajectory.extents.max() <= 0.4
    assert counts == set(range(1, 9))
    assert textures == set(TEXTURES)
    assert SIZE_RANGES["small"][1] < 0.12 < SIZE_RANGES["medium"][0]
    assert SIZE_RANGES["medium"][1] < 0.22 < SIZE_RANGES["large"][0]


@pytest.mark.parametrize("task", TASKS)
def test_samples_of_every_task_are_complete(task: str) -> None:
    for seed in range(4):
        sample = small(seed, task=task)
        clip = sample.clip
        assert clip.frames.dtype == np.uint8
        assert clip.frames.shape == (6, 64, 64, 3)
        assert clip.masks.shape == (len(clip.object_ids), 6, 64, 64)
        assert clip.masks.sum(axis=0).max() <= 1
        assert len(set(clip.object_ids)) == len(clip.object_ids)
        assert sample.task == task
        assert bool(sample.turns) == (task != "track")
        if task.startswith(("pixelqa", "caption")):
            assert set(sample.prompts) >= set(sample.turns[0].mentioned_ids)
        for turn in sample.turns:
            assert turn.answer.count("<|seg|>") == len(turn.target_ids)
            assert set(turn.target_ids) <= set(clip.object_ids)
            assert all(f"[{object_id}]" in turn.question + turn.answer for object_id in turn.mentioned_ids)
            assert all(clip.masks_of(target).any() for target in turn.target_ids)
            assert "\x02" not in turn.question + turn.answer


def test_random_sizes_are_within_the_published_limits() -> None:
    shapes = [generate(seed, split="train", task="track", num_frames=1).clip.frames.shape[1:3] for seed in range(25)]
    for height, width in shapes:
        assert 128 <= min(height, width) <= max(height, width) <= 641
        assert 9 / 16 - 0.02 <= width / height <= 16 / 9 + 0.02
    assert len(set(shapes)) > 20


def test_timestamps_follow_the_frame_rate() -> None:
    clip = small(1).clip
    assert clip.timestamps_seconds == tuple(index / clip.fps for index in clip.frame_indices)
    assert clip.frame_indices[0] == 0
    assert clip.frame_indices[-1] == clip.num_source_frames - 1


def test_frame_indices_are_even_and_include_both_ends() -> None:
    assert sample_frame_indices(31, 7).tolist() == [0, 5, 10, 15, 20, 25, 30]
    assert sample_frame_indices(5, 8).tolist() == [0, 1, 2, 3, 4]
    assert sample_frame_indices(9, 1).tolist() == [4]


def test_parts_of_clips_have_random_starts_and_strides() -> None:
    rng = np.random.default_rng(0)
    parts = [sample_frame_indices(31, 7, part_rng=rng) for _ in range(200)]
    assert all(part[0] >= 0 and part[-1] <= 30 and len(part) == 7 for part in parts)
    strides = [set(np.diff(part).tolist()) for part in parts]
    assert all(len(stride) == 1 for stride in strides)
    assert set.union(*strides) == {1, 2, 3, 4, 5}
    assert {int(part[0]) for part in parts} >= {0, 1}
    clip = generate(3, split="train", task="track", render_size=64, num_frames=4, is_part=True).clip
    assert len(set(np.diff(clip.frame_indices).tolist())) == 1


def test_rendered_edges_agree_with_the_masks() -> None:
    inside, outside = [], []
    for seed in range(30):
        sample = generate(seed, split="train", task="track", render_size=(96, 96), num_frames=2)
        frames = sample.clip.frames.astype(float)
        gradient = np.abs(np.diff(frames, axis=2)).mean(axis=-1)
        covered = np.asarray(sample.clip.masks.any(axis=0))
        edge = covered[:, :, 1:] != covered[:, :, :-1]
        inside.append(gradient[edge].mean())
        outside.append(np.median(gradient[~edge]))
    # The gradient is large at the borders of the masks.
    assert np.mean(inside) > 5 * np.mean(outside)


def test_fixed_point_is_far_from_the_outline_and_fixed_box_is_tight() -> None:
    mask = np.zeros((1, 20, 30), bool)
    mask[0, 5:12, 10:17] = True
    rng = np.random.default_rng(0)
    assert sample_prompt(rng, mask, kind="point", is_fixed=True).point == (13.5, 8.5)
    assert sample_prompt(rng, mask, kind="box", is_fixed=True).box_xyxy == (10, 5, 17, 12)


def test_training_points_are_inside_and_boxes_near() -> None:
    rng = np.random.default_rng(1)
    mask = np.zeros((2, 40, 40), bool)
    mask[1] = ndimage.binary_dilation(np.eye(40, dtype=bool), iterations=3)
    for _ in range(50):
        point = sample_prompt(rng, mask, kind="point", is_fixed=False)
        assert point.frame == 1
        assert point.point is not None
        assert mask[1, int(point.point[1]), int(point.point[0])]
        box = sample_prompt(rng, mask, kind="box", is_fixed=False).box_xyxy
        assert box is not None
        assert np.abs(np.array(box) - (0, 0, 40, 40)).max() <= 4


def test_prompt_for_an_invisible_object_is_refused() -> None:
    with pytest.raises(ValueError, match="visible in no frame"):
        sample_prompt(np.random.default_rng(0), np.zeros((2, 4, 4), bool), kind="box", is_fixed=True)


def test_vos_clips_show_every_object_in_the_first_frame() -> None:
    for seed in range(8):
        sample = small(seed, style="vos")
        assert sample.clip.masks[:, 0].any(axis=(1, 2)).all()
        assert sample.clip.masks.sum(axis=0).max() <= 1
        assert sample.turns == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "eval"}, "got 'eval'"),
        ({"split": "train", "task": "segment"}, "got 'segment'"),
        ({"split": "train", "style": "photo"}, "got 'photo'"),
        ({"split": "train", "style": "vos", "task": "plain"}, "has no language"),
        ({"split": "train", "task": "plain", "is_part": True}, "the task must be 'track'"),
        ({"split": "train", "render_size": (16, 16)}, "at least 32 x 32"),
    ],
)
def test_wrong_argument_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(0, **arguments)  # type: ignore[arg-type]


def test_gallery_page_contains_images_questions_and_answers() -> None:
    sample = small(2, task="pixelqa/box")
    page = gallery_page([sample], title="A <title>")
    assert page.count("data:image/webp;base64,") == 1
    assert "A &lt;title&gt;" in page
    assert sample.turns[0].answer.split(" (")[0] in page
    assert "http" not in page
