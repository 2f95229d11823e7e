"""The pre-training loop: its steps, its checkpoints and what it leaves."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.dense_training import dense_checkpoint, dense_recipe

from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.train.nano.conversation_sampling import ConversationSampler
from unipixel.train.nano.dense_batch import DeviceClips
from unipixel.train.nano.dense_training import prepare_loop, train_dense
from unipixel.train.nano.loop.batch_feeding import WorkerFeed
from unipixel.train.nano.loop.checkpoint_file import write_state
from unipixel.train.nano.loop.training_loop import CHECKPOINT_FILE
from unipixel.train.nano.pretraining_objective import PretrainingObjective
from unipixel.train.recipe_files import load_any_recipe, load_recipe
from unipixel.train.run_log import LOG_FILE


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dense_checkpoint(tmp_path_factory.mktemp("dense"))


def log_lines(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("seconds")} for line in lines]


def test_interrupted_run_equals_an_uninterrupted_one(start: Path, tmp_path: Path) -> None:
    whole = prepare_loop(dense_recipe(start, tmp_path / "whole"))
    folder = whole.run()
    assert folder is not None
    recipe = dense_recipe(start, tmp_path / "parts")
    assert prepare_loop(recipe).run(stop_after=3) is None
    resumed = prepare_loop(recipe)
    assert resumed.counters.step == 3
    assert resumed.run() == tmp_path / "parts" / "final"
    assert log_lines(tmp_path / "parts") == log_lines(tmp_path / "whole")
    assert len(log_lines(tmp_path / "whole")) == 4
    for (name, one), other in zip(
        whole.objective.state_dict().items(), resumed.objective.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    trained = UniPixel.from_pretrained(folder, dtype=torch.float32)
    before = UniPixel.from_pretrained(start, dtype=torch.float32).state_dict()
    moved = {
        name.split(".")[0] for name, tensor in trained.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert moved >= {"model", "lm_head", "msk_proj", "seg_head"}
    assert "sam2" not in moved
    assert Processor.from_pretrained(folder).budget.is_still


def test_steps_on_one_batch_lower_every_loss(start: Path, tmp_path: Path) -> None:
    run = prepare_loop(
        dense_recipe(start, tmp_path, "training.max_steps=9", "training.log_every=3", "training.decay_fraction=0.1")
    )
    batch = run.feed.next()
    for _ in range(9):
        run.step(batch)
        if run.counters.step % 3 == 0:
            run.close_window()
    first, *_, last = log_lines(tmp_path)
    for name in ("text", "mask_tokens", "corners", "vision", "visual_tokens", "memory"):
        assert last[name] < first[name], name
    assert last["num_samples"] == 9 * len(batch.input_ids)


def test_run_returns_to_finite_weights_at_a_lower_rate(start: Path, tmp_path: Path) -> None:
    run = prepare_loop(dense_recipe(start, tmp_path))
    batch = run.feed.next()
    before = {name: tensor.clone() for name, tensor in run.objective.state_dict().items()}
    assert isinstance(run.objective, PretrainingObjective)
    with torch.no_grad():
        run.objective.dense.model.model.language_model.embed_tokens.weight.fill_(torch.nan)
    run.step(batch)
    run.close_window()
    assert run.counters.rate_factor == 0.5
    for name, tensor in run.objective.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    run.step(batch)
    assert all(parameter.isfinite().all() for parameter in run.objective.parameters())


def test_checkpoint_of_another_model_is_refused(start: Path, tmp_path: Path) -> None:
    recipe = dense_recipe(start, tmp_path)
    write_state(tmp_path / CHECKPOINT_FILE, {"weights": {"x": torch.zeros(1)}})
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not of this recipe.*unexpected"):
        prepare_loop(recipe)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="is no training state"):
        prepare_loop(recipe)


def test_buckets_follow_from_the_seed_and_their_number(start: Path, tmp_path: Path) -> None:
    recipe, processor = dense_recipe(start, tmp_path), Processor.from_pretrained(start)
    one, other = (ConversationSampler(processor, recipe.data, seed=1) for _ in range(2))
    one.bucket(0)
    for packed, again in zip(one.bucket(1).batches, other.bucket(1).batches, strict=True):
        assert packed.clip_ids == again.clip_ids
        for name, array in packed.arrays.items():
            assert (array == again.arrays[name]).all() or name in ("mask_boxes", "reference_positions"), name
    different = ConversationSampler(processor, recipe.data, seed=1, worker=1, num_workers=2).bucket(1)
    assert not set(different.batches[0].clip_ids) & set(one.bucket(1).batches[0].clip_ids)


def test_workers_draw_and_batches_repeat_while_they_do(start: Path, tmp_path: Path) -> None:
    recipe, processor = dense_recipe(start, tmp_path), Processor.from_pretrained(start)
    sampler = partial(ConversationSampler, processor, recipe.data, seed=1)
    clips = DeviceClips(torch.device("cpu"))
    feed = WorkerFeed(sampler, clips, recipe.data, num_workers=1, seed=1, state={"buckets": [1]})
    try:
        # A worker that fails raises from `next`, so that this ends.
        while feed.state()["buckets"][0] < 3 or not feed.num_repeated:
            assert len(feed.next().input_ids) >= recipe.data.min_conversations
    finally:
        feed.close()


def test_recipe_names_the_nearest_key_and_the_missing_end() -> None:
    with pytest.raises(ValueError, match=r"data\.num_worker \(nearest: data\.num_workers\)"):
        load_any_recipe("nano/pretrain", ["data.num_worker=3"])
    with pytest.raises(ValueError, match="gives no end"):
        load_any_recipe("nano/pretrain", ["training={}"])
    with pytest.raises(ValueError, match="must be in"):
        load_any_recipe("nano/pretrain", ["data.image_fraction=2"])
    with pytest.raises(ValueError, match="a recipe of the stage pretrain"):
        load_recipe("nano/pretrain")


def test_pretraining_that_has_ended_writes_its_model_again(start: Path, tmp_path: Path) -> None:
    recipe = dense_recipe(start, tmp_path, "training.max_steps=1")
    folder = train_dense(recipe)
    (folder / "config.json").unlink()
    assert (train_dense(recipe) / "config.json").is_file()
    assert len(log_lines(tmp_path)) == 1
