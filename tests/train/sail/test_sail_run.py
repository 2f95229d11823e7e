"""Training of Pixel-SAIL from a recipe, at a tiny size."""

import json
import pickle
import re
import shlex
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from helpers.sail_sizes import TINY_SAIL_SIZES
from helpers.sail_teachers import save_sam2
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from unipixel.processing.chat_template import BUNDLED_TOKENIZER, load_tokenizer
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train import trainer
from unipixel.train.recipe_files import load_any_recipe
from unipixel.train.sail.sail_evaluation import evaluate_sail
from unipixel.train.sail.sail_losses import dense_mask_losses
from unipixel.train.sail.sail_objective import SailObjective
from unipixel.train.sail.sail_recipe import SailRecipe
from unipixel.train.sail.sail_run import prepare_sail
from unipixel.train.sail.sail_samples import SailCollator


def tiny_recipe(folder: Path, *overrides: str) -> SailRecipe:
    (folder / "sizes.toml").write_text(TINY_SAIL_SIZES, encoding="utf-8")
    recipe = load_any_recipe(
        "sail/nano",
        [
            f'output="{folder / "run"}"',
            f'model.sizes="{folder / "sizes.toml"}"',
            "data.sizes=[[64, 96]]",
            "training.batch_size=2",
            "training.max_steps=4",
            "training.save_every=2",
            "training.log_every=1",
            "training.num_workers=0",
            'training.precision="float32"',
            *overrides,
        ],
    )
    assert isinstance(recipe, SailRecipe)
    return recipe


def train(recipe: SailRecipe, *, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    job = prepare_sail(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate, stop_after=stop_after)
    job.save(Path(recipe.output) / "final")
    return {name: tensor.clone() for name, tensor in job.objective.state_dict().items()}


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    whole = train(tiny_recipe(tmp_path / "whole"))
    train(tiny_recipe(tmp_path / "resumed"), stop_after=2)
    resumed = train(tiny_recipe(tmp_path / "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    lines = [json.loads(line) for line in (tmp_path / "whole/run/log.jsonl").read_text().splitlines()]
    assert {"loss", "text", "mask", "dice", "iou"} <= set(lines[0])
    folder = tmp_path / "whole/run/final"
    model, processor = PixelSail.from_pretrained(folder), SailProcessor.from_pretrained(folder)
    report = evaluate_sail(model, processor, split="val", limit=10)
    assert report["attribute"]["num_samples"] == 1
    assert 0 <= report["question"]["accuracy"] <= 1


def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_samples(tmp_path: Path) -> None:
    job = prepare_sail(tiny_recipe(tmp_path))
    assert isinstance(job.objective, SailObjective)
    # All pixels: the points at which masks are compared otherwise are random.
    job.objective.num_points = None
    collate = job.collate
    assert isinstance(collate, SailCollator)
    examples = [job.dataset[number] for number in range(3)]
    with torch.no_grad():
        together = job.objective(**collate(examples))["loss"]
        alone = torch.stack([job.objective(**collate([example]))["loss"] for example in examples])
    torch.testing.assert_close(together, alone.mean(), rtol=1e-4, atol=1e-4)


def test_a_batch_is_the_same_after_it_was_sent_between_processes(tmp_path: Path) -> None:
    job = prepare_sail(tiny_recipe(tmp_path, 'distillation.teachers=["sam2"]'))
    batch = job.collate([job.dataset[number] for number in range(3)])["batch"]
    received = pickle.loads(pickle.dumps(batch))
    for name in ("labels", "object_words"):
        assert torch.equal(getattr(received, name), getattr(batch, name))
    for name in ("masks", "images"):
        pairs = list(zip(getattr(received, name), getattr(batch, name), strict=True))
        assert len(pairs) == 3
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    for ours, theirs in zip(received.inputs.videos, batch.inputs.videos, strict=True):
        assert (ours.grid, ours.image_size) == (theirs.grid, theirs.image_size)
        assert torch.equal(ours.patches, theirs.patches)
        assert torch.equal(ours.prompt_ids, theirs.prompt_ids)
    assert torch.equal(received.inputs.input_ids, batch.inputs.input_ids)


def test_dense_mask_losses_are_those_of_their_formulas() -> None:
    torch.manual_seed(0)
    logits, truths = torch.randn(3, 4, 5), (torch.rand(3, 4, 5) > 0.5).float()
    losses = dense_mask_losses(logits, truths, counts=[1, 2])
    probability = torch.sigmoid(logits)
    dice = [
        1 - (2 * float((p * t).sum()) + 1) / (float(p.sum()) + float(t.sum()) + 1)
        for p, t in zip(probability, truths, strict=True)
    ]
    cross_entropy = [float(F.binary_cross_entropy(probability[own], truths[own])) for own in (slice(1), slice(1, 3))]
    assert losses.mask.tolist() == pytest.approx(cross_entropy, rel=1e-5)
    assert losses.dice.tolist() == pytest.approx([dice[0], (dice[1] + dice[2]) / 2], rel=1e-5)


def test_a_recipe_with_two_initial_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[model\] gives \['sizes', 'base'\]: give one of"):
        tiny_recipe(tmp_path, 'model.base="Qwen/Qwen2.5-0.5B"')


def test_a_checkpoint_is_continued_at_a_larger_size(tmp_path: Path) -> None:
    first = prepare_sail(tiny_recipe(tmp_path, "model.max_side=48"))
    first.save(tmp_path / "first")
    overrides = [
        f'output="{tmp_path / "run"}"', f'model.checkpoint="{tmp_path / "first"}"', "model.max_side=96",
        "data.sizes=[[64, 96]]", "training.batch_size=2", "training.max_steps=2", "training.num_workers=0",
        'training.precision="float32"',
    ]  # fmt: skip
    recipe = load_any_recipe("sail/nano-finetune", overrides)
    assert isinstance(recipe, SailRecipe)
    train(recipe)
    before, after = (SailProcessor.from_pretrained(tmp_path / name) for name in ("first", "run/final"))
    assert before.fit_size(96, 192) == (24, 48)
    assert after.fit_size(96, 192) == (48, 96)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("first", "run/final")]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].shape == weights[1][name].shape for name in weights[0])
    with pytest.raises(ValueError, match=r"\[model\] gives \['mask_channels'\], which a checkpoint has already"):
        load_any_recipe("sail/nano-finetune", ["model.mask_channels=8"])


@pytest.mark.parametrize("size", ["0.5b", "3b"])
def test_a_recipe_trains_from_a_language_model_on_a_published_set(tmp_path: Path, size: str) -> None:
    tokenizer = load_tokenizer(BUNDLED_TOKENIZER, added_tokens=())
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, tie_word_embeddings=True, **sizes)
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    data = tmp_path / "data/general"
    data.mkdir(parents=True)
    said = [{"from": "human", "value": "What is two plus two?"}, {"from": "gpt", "value": "four."}]
    (data / "llava_v1_5_mix665k.json").write_text(json.dumps([{"id": "1", "conversations": said}]), encoding="utf-8")
    overrides = (
        "distillation.teachers=[]",
        f"data.root={tmp_path / 'data'}", f"data.cache={tmp_path / 'cache'}", "data.sets={llava_instruct_665k = 1.0}",
        f"model.base={tmp_path / 'base'}", "model.mask_channels=16", f"output={tmp_path / 'run'}",
        "training.max_steps=2", "training.num_workers=0", 'training.precision="float32"',
    )  # fmt: skip
    recipe = load_any_recipe(f"sail/{size}", overrides)
    assert isinstance(recipe, SailRecipe)
    train(recipe)
    assert PixelSail.from_pretrained(tmp_path / "run/final").config.mask_channels == 16


def test_published_sets_without_their_folder_are_refused() -> None:
    recipe = load_any_recipe("sail/0.5b")
    assert isinstance(recipe, SailRecipe)
    with pytest.raises(ValueError, match=r"the recipe lacks data\.root: give data\.root=DIR"):
        prepare_sail(recipe)


def test_a_run_with_a_teacher_is_resumed_with_its_maps_and_saves_the_model_alone(tmp_path: Path) -> None:
    save_sam2(tmp_path / "teacher")
    settings = (
        'distillation.teachers=["sam2"]', f"distillation.sam2={tmp_path / 'teacher'}",
        f"distillation.cache={tmp_path / 'features'}",
    )  # fmt: skip
    for name in ("whole", "resumed", "plain"):
        (tmp_path / name).mkdir()
    whole = train(tiny_recipe(tmp_path / "whole", *settings))
    train(tiny_recipe(tmp_path / "resumed", *settings), stop_after=2)
    resumed = train(tiny_recipe(tmp_path / "resumed", *settings))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert whole["distillation.maps.sam2.weight"].shape == (128, 32)
    # Four steps of two images, which the second run reads.
    assert len(list((tmp_path / "features").glob("*/*/*.safetensors"))) == 8
    without = train(tiny_recipe(tmp_path / "plain"))
    assert {name for name in whole if name.startswith("model.")} == set(without)
    files = (load_file(tmp_path / name / "run/final/model.safetensors") for name in ("whole", "plain"))
    assert len({tuple(sorted(tensors)) for tensors in files}) == 1
    # The teacher changes what is learned.
    assert not torch.equal(whole["model.single_transformer.model.vis_embed.weight"],
                           without["model.single_transformer.model.vis_embed.weight"])  # fmt: skip


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('distillation.teachers=["dino"]', r"distillation\.teachers\.0: .*'mask2former' or 'sam2', got 'dino'"),
        ('distillation.teachers=["sam2", "sam2"]', "teachers has one twice"),
        ("distillation.max_cache_gigabytes=0", r"max_cache_gigabytes must be positive, got 0\.0"),
        ("losses.distillation=-1", r"\[losses\] distillation must not be negative, got -1"),
        ("model.num_upsample_blocks=3", "3 upsampling blocks do not divide a patch of 12 pixels"),
        ("model.num_upsample_blocks=-1", "num_upsample_blocks must be an integer of at least 0, got -1"),
        ("model.prompt_encoding=pool", r"model\.prompt_encoding: .*'injection' or 'pooling', got 'pool'"),
        ("data.max_invalid_fraction=2", r"\[data\] max_invalid_fraction must be in \[0, 1\], got 2"),
        ('distillation.teachers=["sam2"] distillation.sam2=nowhere', "no checkpoint 'nowhere'"),
        ("data.sizes=[[64, 0]]", r"sides of at least 32 pixels, got \[64, 0\]"),
        ("training.validate_every=0", "validate_every must be at least 1, got 0"),
        ("training.num_workers=-1", "num_workers must not be negative, got -1"),
        ("seed=-5", "seed must not be negative, got -5"),
        ("model.mask_channels=0", "mask_channels must be an integer of at least 1, got 0"),
        ("training.learning_rate=nan", "learning_rate must be positive, got nan"),
        ("data.tasks={atribute=1.0}", r"unknown tasks \['atribute'\]: allowed are"),
    ],
)
def test_bad_settings_are_refused_with_one_line(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message) as caught:
        prepare_sail(tiny_recipe(tmp_path, *re.split(r" (?=distillation)", override)))
    assert "\n" not in str(caught.value)


DOCUMENT = Path(__file__).parents[3] / "docs" / "pixel-sail.md"
COMMANDS = [line.partition(" #")[0] for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
            if line.startswith("unipixel train sail/")]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_settings_of_the_document_are_those_of_a_recipe(command: str) -> None:
    _, _, source, *overrides = shlex.split(command)
    recipe = load_any_recipe(source, overrides)
    assert isinstance(recipe, SailRecipe)
    assert [recipe != load_any_recipe(source, [*overrides[:index], *overrides[index + 1 :]]) for index in
            range(len(overrides))] == [True] * len(overrides)  # fmt: skip
