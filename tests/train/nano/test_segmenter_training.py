"""Training of the segmenter: tracks from pooled clips, their losses, resumed runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.segmenter_training import SIDE, draw_tracks, segmenter_recipe

from unipixel.model.unipixel import UniPixel
from unipixel.tracking.clip_features import normalise_frame
from unipixel.train.initialization import load_segmenter
from unipixel.train.losses import label_masks
from unipixel.train.nano.dense_training import prepare_loop, train_dense
from unipixel.train.nano.segmenter.first_frame_prompts import NUM_BOXES
from unipixel.train.nano.segmenter.segmenter_recipe import TRACK_TASKS, SegmenterRecipe
from unipixel.train.nano.segmenter.track_batch import DeviceTracks
from unipixel.train.nano.segmenter.track_sampling import TrackSampler, deal_objects, prompt_kinds
from unipixel.train.recipe_files import load_any_recipe
from unipixel.train.run_log import LOG_FILE

# Loss of the first batch of each task from random weights, computed by the objective that was trained with a
# DataLoader before, which kept the memories of every object apart.
EARLIER_LOSSES = {
    "boxes": 18.5091, "image": 19.1891, "vos_image": 20.3321, "clip": 21.4881, "vos_clip": 21.8175,
    "long_clip": 15.3845, "vos_long_clip": 19.9882,
}  # fmt: skip


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> SegmenterRecipe:
    return segmenter_recipe(tmp_path_factory.mktemp("segmenter"))


@pytest.mark.parametrize("task", ["image", "vos_clip"])
def test_batch_contains_the_frames_and_masks_of_its_clips(recipe: SegmenterRecipe, task: str) -> None:
    clips, packed, batch = draw_tracks(recipe, task)
    frames, labels = [], []
    for view in packed.views:
        clip, chosen = clips[view.clip_id], list(view.frames)
        pixels, owners = clip.frames[chosen][(slice(None), *view.crop)], clip.owners[chosen][(slice(None), *view.crop)]
        if view.is_mirrored:
            pixels, owners = pixels[:, :, ::-1], owners[..., ::-1]
        frames += [normalise_frame(frame[..., list(view.channels)], image_size=SIDE) for frame in pixels]
        for row in view.rows:
            mask = np.zeros(owners.shape) if row is None else owners == row + 1
            labels.append(label_masks(torch.from_numpy(mask.astype(np.float32)), (SIDE, SIDE)))
    torch.testing.assert_close(batch.frames, torch.stack(frames), atol=1e-5, rtol=1e-5)
    assert torch.equal(batch.labels, torch.stack(labels))
    assert any(view.is_mirrored for view in packed.views)
    assert batch.tracks.flatten().unique().tolist() == list(range(8))


@pytest.mark.parametrize("task", TRACK_TASKS)
def test_loss_equals_that_of_the_earlier_objective(recipe: SegmenterRecipe, task: str) -> None:
    torch.manual_seed(recipe.seed)
    objective = load_segmenter(recipe)
    loss, figures = objective(draw_tracks(recipe, task)[2])
    assert float(loss.detach()) == pytest.approx(EARLIER_LOSSES[task], rel=1e-3)
    assert set(figures) == {"loss", "focal", "dice", "score", "iou"}


def test_batches_of_a_task_have_one_shape(recipe: SegmenterRecipe) -> None:
    sampler = TrackSampler(replace(recipe.data, tasks={"clip": 1.0}), side=SIDE, seed=3)
    batches = [batch for number in range(3) for batch in sampler.bucket(number).batches]
    shapes = {
        (len(batch.views), sum(len(view.rows) for view in batch.views), *sorted(map(len, batch.prompt_rows.values())))
        for batch in batches
    }
    assert shapes == {(4, 12, 2, 2, 3, 5)}
    assert {batch.is_stream for batch in batches} == {True, False}


def test_clips_are_sent_once_and_follow_from_the_seed(recipe: SegmenterRecipe) -> None:
    one, other = (TrackSampler(recipe.data, side=SIDE, seed=1) for _ in range(2))
    sent = [clip.clip_id for number in range(4) for clip in one.bucket(number).clips]
    assert len(sent) == len(set(sent))
    assert len(sent) < 4 * 2 * 8
    # A resumed run draws the same batch, although it has no clips yet.
    packed, again = one.bucket(4).batches[1], other.bucket(4).batches[1]
    assert packed.views == again.views
    assert all((coords == again.coords[kind]).all() for kind, coords in packed.coords.items())
    different = TrackSampler(recipe.data, side=SIDE, seed=1, worker=1, num_workers=2).bucket(0)
    assert not {clip.clip_id for clip in different.clips} & set(sent)


def test_long_clips_train_their_last_frames(recipe: SegmenterRecipe) -> None:
    _, packed, batch = draw_tracks(recipe, "long_clip")
    assert batch.tracks.shape == (3, 8)
    assert batch.first_step == 6
    assert packed.num_trained == 2


def test_tracks_longer_than_their_clip_repeat_its_last_frame(recipe: SegmenterRecipe) -> None:
    data = replace(recipe.data, tasks={"long_clip": 1.0}, num_mask_frames=3, frames_per_batch=12 * 6, initial_clips=30)
    bucket = TrackSampler(data, side=SIDE, seed=1).bucket(0)
    lengths = {clip.clip_id: len(clip.frames) for clip in bucket.clips}
    short = [view for batch in bucket.batches for view in batch.views if lengths[view.clip_id] < 12]
    assert short
    for view in short:
        assert set(view.frames) == set(range(lengths[view.clip_id]))


def test_boxes_surround_their_objects(recipe: SegmenterRecipe) -> None:
    _, _, batch = draw_tracks(recipe, "boxes")
    (prompted,) = batch.prompts
    assert prompted.prompt is not None
    assert prompted.prompt.coords is not None
    for box, row in zip(prompted.prompt.coords, prompted.rows, strict=True):
        pixels = batch.labels[row, 0].nonzero().flip(1).float()
        assert (box[0] <= pixels.mean(dim=0)).all()
        assert (pixels.mean(dim=0) <= box[1]).all()


def test_tokens_have_candidate_boxes_with_small_and_large_errors(recipe: SegmenterRecipe) -> None:
    data = replace(recipe.data, tasks={"image": 1.0}, frames_per_batch=60)
    bucket = TrackSampler(data, side=SIDE, seed=5).bucket(0)
    store = DeviceTracks(torch.device("cpu"), side=SIDE)
    for clip in bucket.clips:
        store.add(clip)
    batch = store.join(store.send(bucket.batches[0]))
    assert batch.boxes_xyxy.shape[1:] == (NUM_BOXES, 2, 2)
    assert batch.boxes_xyxy.min() >= 0
    assert batch.boxes_xyxy.max() <= SIDE
    labels = batch.labels[batch.token_rows, 0]
    assert not labels.flatten(1).any(dim=1).all()
    distances, spreads = [], []
    for boxes, mask in zip(batch.boxes_xyxy, labels, strict=True):
        if mask.any():
            pixels = mask.nonzero().flip(1).float()
            centre = (pixels.amin(dim=0) + pixels.amax(dim=0) + 1) / 2
            distances.append(float((boxes.mean(dim=(0, 1)) - centre).norm()) / SIDE)
            spreads.append(float(boxes.mean(dim=1).std(dim=0).mean()) / SIDE)
    exact = [distance for distance, spread in zip(distances, spreads, strict=True) if spread < 0.01]
    uncertain = [distance for distance, spread in zip(distances, spreads, strict=True) if spread > 0.1]
    assert len(exact) > 5
    assert max(exact) < 0.05
    assert len(uncertain) > 5
    assert max(uncertain) > 0.15


def test_objects_are_dealt_evenly_and_repeated_only_when_all_are_used() -> None:
    assert deal_objects([4, 1, 3], 6) == [3, 1, 2]
    assert deal_objects([4, 1, 3], 8) == [4, 1, 3]
    assert sum(deal_objects([1, 1, 2], 9)) == 9
    assert min(deal_objects([1, 1, 2], 9)) >= 2
    assert prompt_kinds({"mask": 0.5, "box": 0.3, "point": 0.2}, 5) == ["mask"] * 2 + ["box"] * 2 + ["point"]


def test_interrupted_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = ("training.max_steps=3", "data.frames_per_batch=4")
    whole = prepare_loop(segmenter_recipe(tmp_path / "whole", *settings))
    assert whole.run() == tmp_path / "whole" / "final"
    parts = segmenter_recipe(tmp_path / "parts", *settings)
    assert prepare_loop(parts).run(stop_after=1) is None
    resumed = prepare_loop(parts)
    assert resumed.counters.step == 1
    assert resumed.run() is not None
    for (name, one), other in zip(
        whole.objective.state_dict().items(), resumed.objective.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    logs = []
    for folder in ("whole", "parts"):
        lines = [json.loads(line) for line in (tmp_path / folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]
        logs.append([(line["step"], line["loss"], line["num_samples"], line["learning_rate"]) for line in lines])
    assert logs[0] == logs[1]
    assert len(logs[0]) == 3


def test_steps_on_one_batch_lower_the_loss(tmp_path: Path) -> None:
    loop = prepare_loop(segmenter_recipe(tmp_path, "training.warmup_steps=1", "data.tasks={boxes=1.0}"))
    batch = loop.feed.next()
    first = float(loop.objective(batch)[0].detach())
    for _ in range(3):
        loop.step(batch)
    assert float(loop.objective(batch)[0].detach()) < 0.9 * first


def test_result_loads_at_another_size(tmp_path: Path) -> None:
    folder = train_dense(segmenter_recipe(tmp_path, "training.max_steps=1", "data.tasks={image=1.0}"))
    again = load_segmenter(segmenter_recipe(tmp_path, f"model.segmenter={folder}", "model.image_size=96"))
    assert again.segmenter.config.image_size == 96
    first = load_segmenter(segmenter_recipe(tmp_path, f"model.segmenter={folder}"))
    assert torch.equal(first.segmenter.no_mem_embed, again.segmenter.no_mem_embed)


def test_segmenter_of_a_whole_model_is_loaded_with_a_frozen_prompt_encoder(tmp_path: Path) -> None:
    settings = ("model.segmenter=unipixel-nano", "model.image_size=320", "model.freeze_prompt_encoder=true")
    loaded = load_segmenter(segmenter_recipe(tmp_path, *settings)).segmenter
    whole = UniPixel.from_pretrained("unipixel-nano", dtype=torch.float32).sam2
    for (name, one), other in zip(loaded.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    frozen = {name for name, parameter in loaded.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in loaded.named_parameters() if name.startswith("sam_prompt_encoder.")}


def test_recipe_names_unknown_tasks_and_keys() -> None:
    with pytest.raises(ValueError, match=r"unknown tasks \['clips'\]: allowed are"):
        load_any_recipe("nano/segmenter", ["data.tasks={clips=1.0}"])
    with pytest.raises(ValueError, match=r"data\.max_objects \(nearest:"):
        load_any_recipe("nano/segmenter", ["data.max_objects=3"])
    with pytest.raises(ValueError, match="objects_per_clip must be at least 1, got 0"):
        load_any_recipe("nano/segmenter", ["data.objects_per_clip=0"])


def test_several_processes_are_refused(recipe: SegmenterRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="stage segmenter trains in one process, got 2: start it without torchrun"):
        train_dense(recipe)
