"""One step of each stage: what it trains moves, everything else stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_training import save_training_checkpoint, tiny_recipe

from unipixel.model.unipixel import UniPixel
from unipixel.tracking.segmenter import Segmenter
from unipixel.train import trainer
from unipixel.train.build import TrainingRun, prepare
from unipixel.train.datasets.synthetic_vos import SyntheticVosSettings, collate_tracks, draw_track
from unipixel.train.memory_rollout import memory_rollout
from unipixel.train.objective import UniPixelObjective
from unipixel.train.parameter_groups import lora_targets
from unipixel.train.recipe_files import load_recipe
from unipixel.train.segmenter_objective import MaskLossMeter, SegmenterObjective, object_tokens


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_training_checkpoint(tmp_path_factory.mktemp("tiny"))


def model_of(job: TrainingRun) -> UniPixel:
    assert isinstance(job.objective, UniPixelObjective)
    return job.objective.model


def segmenter_of(job: TrainingRun) -> Segmenter:
    assert isinstance(job.objective, SegmenterObjective)
    return job.objective.segmenter


def moved_parts(checkpoint: Path, output: Path, stage: str, *overrides: str) -> set[str]:
    before = UniPixel.from_pretrained(checkpoint, dtype=torch.float32)
    recipe = tiny_recipe(stage, checkpoint, output, *overrides)
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    job.save(output / "final")
    after = model_of(job).state_dict()
    return {
        ".".join(name.split(".")[:2])
        for name, tensor in before.state_dict().items()
        if not torch.equal(tensor, after[name])
    }


def test_stage1_moves_the_reference_projectors_only(checkpoint: Path, tmp_path: Path) -> None:
    moved = moved_parts(checkpoint, tmp_path, "stage1", "training.batch_size=8")
    assert moved == {
        "prompt_encoder.ref_proj",
        "prompt_encoder.ref_proj_double",
        "prompt_encoder.ref_proj_single",
        "prompt_encoder.tem_emb",
        "prompt_encoder.tem_proj",
    }
    assert (tmp_path / "final" / "pytorch_model.safetensors").is_file()


def test_stage2_moves_the_mask_head_only(checkpoint: Path, tmp_path: Path) -> None:
    moved = moved_parts(checkpoint, tmp_path, "stage2", "training.batch_size=6")
    assert moved == {f"seg_head.{layer}" for layer in (0, 1, 3)}


def test_stage3_leaves_a_merged_checkpoint_that_loads(checkpoint: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("stage3", checkpoint, tmp_path, "training.max_steps=2")
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    job.save(tmp_path / "final")
    merged = UniPixel.from_pretrained(tmp_path / "final", dtype=torch.float32)
    before = UniPixel.from_pretrained(checkpoint, dtype=torch.float32).state_dict()
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {f"{name}.weight" for name in lora_targets(merged)} <= changed
    assert (tmp_path / "final" / "adapter" / "adapter_config.json").is_file()


def test_stage3_continues_from_the_partial_weights_of_stage2(checkpoint: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("stage2", checkpoint, tmp_path / "two", "training.batch_size=6")
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    job.save(tmp_path / "two" / "final")
    partial = f'model.extra_checkpoints=["{tmp_path / "two" / "final"}"]'
    later = prepare(tiny_recipe("stage3", checkpoint, tmp_path / "three", partial))
    trained = model_of(job).seg_head.state_dict()
    for name, tensor in model_of(later).seg_head.state_dict().items():
        assert torch.equal(tensor, trained[name])


def test_gradient_checkpointing_gives_the_same_loss(checkpoint: Path, tmp_path: Path) -> None:
    figures = []
    for setting in ("true", "false"):
        recipe = tiny_recipe(
            "stage2", checkpoint, tmp_path, f"training.gradient_checkpointing={setting}", "training.batch_size=4"
        )
        job = prepare(recipe)
        batch = job.collate([job.dataset[index] for index in range(4)])
        loss = job.objective(**batch)["loss"]
        loss.backward()
        gradient = model_of(job).seg_head.get_parameter("1.weight").grad
        assert gradient is not None
        figures.append((loss.item(), gradient.norm().item()))
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_segmenter_stage_takes_a_step_on_blobs_and_shapes(tmp_path: Path) -> None:
    recipe = load_recipe(
        "nano/segmenter",
        [
            f"output={tmp_path}", "training.max_steps=1", "training.batch_size=2", "data.render_size=48",
            "model={sizes='sizes.toml', image_size=64}", "data.tasks={clip=1.0}",
        ],
    )  # fmt: skip
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    job.save(tmp_path / "final")
    again = prepare(load_recipe("nano/segmenter", [f"output={tmp_path}", f"model.segmenter={tmp_path / 'final'}",
                                                   "model.image_size=96"]))  # fmt: skip
    trained = segmenter_of(job).no_mem_embed
    assert torch.equal(segmenter_of(again).no_mem_embed, trained)
    assert segmenter_of(again).config.image_size == 96


def test_long_tracks_are_learned_from_their_last_frames() -> None:
    objective = prepare(load_recipe("nano/segmenter", ["output=unused", "model.image_size=64"])).objective
    assert isinstance(objective, SegmenterObjective)
    settings = SyntheticVosSettings(image_size=64, num_frames=2, render_size=64)
    batch = collate_tracks([draw_track("long_clip", number, settings) for number in range(2)])["batch"]
    assert batch.tracks.shape[1] == 8
    assert batch.first_step == 6
    loss = objective(batch)["loss"]
    # Features of both kinds stand where their frames stood.
    tally = MaskLossMeter(objective.weights)
    segmenter = objective.segmenter
    features = segmenter.encode(batch.frames)
    for step in memory_rollout(segmenter, features, batch.tracks, batch.anchors, num_frames=batch.num_frames):
        if step.step >= 6:
            tally.add(step.segmentation, batch.labels[step.rows, step.step])
    torch.testing.assert_close(loss, tally.means()["loss"])


def test_tokens_of_a_known_box_are_those_of_sams_own_prompt_encoder() -> None:
    segmenter = segmenter_of(prepare(load_recipe("nano/segmenter", ["output=unused"])))
    corners = torch.tensor([[[10.0, 20.0], [50.0, 90.0]], [[0.0, 0.0], [128.0, 128.0]]])
    unsaid = torch.zeros(2, 3, dtype=torch.long)
    tokens, _ = segmenter.sam_prompt_encoder(points=None, boxes=corners.flatten(1), masks=None)
    torch.testing.assert_close(object_tokens(segmenter, corners[:, None], unsaid), tokens)
    # Who holds either possible writes the mean of both.
    either = object_tokens(segmenter, corners[None], unsaid[:1])
    torch.testing.assert_close(either[0], tokens.mean(dim=0))


def test_words_add_to_tokens_what_does_not_depend_on_the_place() -> None:
    segmenter = segmenter_of(prepare(load_recipe("nano/segmenter", ["output=unused"])))
    boxes = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 100
    unsaid = object_tokens(segmenter, boxes, torch.zeros(2, 3, dtype=torch.long))
    added = [object_tokens(segmenter, boxes, torch.tensor([[0, colour, 0]] * 2)) - unsaid for colour in range(1, 11)]
    for code in added:
        torch.testing.assert_close(code[0], code[1])
    together = torch.stack(added)[:, 0].flatten(1)
    assert torch.cdist(together, together).add(torch.eye(10) * 99).min() > 3
    torch.testing.assert_close(together.sum(dim=0), torch.zeros_like(together[0]), atol=1e-4, rtol=0)


def test_group_of_boxes_is_prompted_by_boxes_alone() -> None:
    track = draw_track("boxes", 3, SyntheticVosSettings(image_size=64, num_frames=2, render_size=64))
    assert set(track.kinds) == {"box"}
    boxes = [coords for coords in track.coords if coords is not None]
    for coords, labels in zip(boxes, track.labels, strict=True):
        rows, columns = labels[0].any(dim=1).nonzero(), labels[0].any(dim=0).nonzero()
        middle = torch.stack([columns.float().mean(), rows.float().mean()])
        assert (coords[0] <= middle).all()
        assert (middle <= coords[1]).all()


def test_images_also_show_places_where_nothing_is() -> None:
    settings = SyntheticVosSettings(image_size=64, num_frames=2, render_size=64)
    empty = [
        (corners, labels)
        for number in range(30)
        for track in [draw_track("image", number, settings)]
        for corners, labels in zip(track.coords, track.labels, strict=True)
        if not labels.any()
    ]
    assert empty
    assert all(corners is not None and (corners[:, 0] < corners[:, 1]).all() for corners, _ in empty)


def test_places_are_told_surely_or_vaguely_around_the_object() -> None:
    settings = SyntheticVosSettings(image_size=64, num_frames=2, render_size=64)
    distances, spreads = [], []
    for number in range(40):
        track = draw_track("image", number, settings)
        for kind, boxes, labels in zip(track.kinds, track.coords, track.labels, strict=True):
            if kind == "place" and labels.any() and boxes is not None:
                assert boxes.shape == (12, 2, 2)
                assert boxes.min() >= 0
                assert boxes.max() <= 64
                places = labels[0].nonzero().flip(1).float()
                middle = (places.amin(dim=0) + places.amax(dim=0) + 1) / 2
                distances.append(float((boxes.mean(dim=(0, 1)) - middle).norm()) / 64)
                spreads.append(float(boxes.mean(dim=1).std(dim=0).mean()) / 64)
    sure = [distance for distance, spread in zip(distances, spreads, strict=True) if spread < 0.01]
    vague = [distance for distance, spread in zip(distances, spreads, strict=True) if spread > 0.1]
    assert len(sure) > 5
    assert max(sure) < 0.05
    assert len(vague) > 5
    assert max(vague) > 0.15


def test_a_segmenter_can_be_taken_from_a_whole_model() -> None:
    recipe = load_recipe(
        "nano/segmenter", ["model.segmenter=unipixel-nano", "model.image_size=320", "model.freeze_prompt_encoder=true"]
    )
    objective = prepare(recipe).objective
    assert isinstance(objective, SegmenterObjective)
    taken, whole = objective.segmenter, UniPixel.from_pretrained("unipixel-nano", dtype=torch.float32).sam2
    for (name, one), other in zip(taken.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    kept = {name for name, parameter in taken.named_parameters() if not parameter.requires_grad}
    assert kept == {name for name, _ in taken.named_parameters() if name.startswith("sam_prompt_encoder.")}
