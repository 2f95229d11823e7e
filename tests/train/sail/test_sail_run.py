"""Training of Pixel-SAIL from a recipe, at a tiny size."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from transformers import Qwen2Config, Qwen2ForCausalLM

from unipixel.processing.chat_template import BUNDLED_TOKENIZER, load_tokenizer
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train import trainer
from unipixel.train.recipe_files import load_any_recipe
from unipixel.train.sail.sail_evaluation import evaluate_sail
from unipixel.train.sail.sail_losses import dense_mask_loss
from unipixel.train.sail.sail_recipe import SailRecipe
from unipixel.train.sail.sail_run import prepare_sail
from unipixel.train.sail.sail_samples import SailCollator

SIZES = """
[vocabulary]
size = 400
num_samples = 20
[transformer]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 2
max_position_embeddings = 2048
rms_norm_eps = 1e-6
tie_word_embeddings = true
[image]
patch_size = 12
num_upsample_blocks = 2
mask_channels = 16
max_side = 96
"""


def tiny_recipe(folder: Path, *overrides: str) -> SailRecipe:
    (folder / "sizes.toml").write_text(SIZES, encoding="utf-8")
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
    collate = job.collate
    assert isinstance(collate, SailCollator)
    examples = [job.dataset[number] for number in range(3)]
    with torch.no_grad():
        together = job.objective(**collate(examples))["loss"]
        alone = torch.stack([job.objective(**collate([example]))["loss"] for example in examples])
    torch.testing.assert_close(together, alone.mean(), rtol=1e-4, atol=1e-4)


def test_dense_mask_losses_are_those_of_their_formulas() -> None:
    torch.manual_seed(0)
    logits, truths = torch.randn(2, 4, 5), (torch.rand(2, 4, 5) > 0.5).float()
    loss = dense_mask_loss(logits, truths)
    probability = torch.sigmoid(logits)
    expected = [
        1 - (2 * float((p * t).sum()) + 1) / (float(p.sum()) + float(t.sum()) + 1)
        for p, t in zip(probability, truths, strict=True)
    ]
    assert float(loss.mask) == pytest.approx(float(F.binary_cross_entropy(probability, truths)), rel=1e-5)
    assert float(loss.dice) == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_a_recipe_with_two_initial_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[model\] gives \['sizes', 'base'\]: give one of"):
        tiny_recipe(tmp_path, 'model.base="Qwen/Qwen2.5-0.5B"')


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
        f"data.root={tmp_path / 'data'}", f"data.cache={tmp_path / 'cache'}", "data.sets={llava_instruct_665k = 1.0}",
        f"model.base={tmp_path / 'base'}", "model.mask_channels=16", f"output={tmp_path / 'run'}",
        "training.max_steps=2", "training.num_workers=0", 'training.precision="float32"',
    )  # fmt: skip
    recipe = load_any_recipe(f"sail/{size}", overrides)
    assert isinstance(recipe, SailRecipe)
    train(replace(recipe, training=replace(recipe.training, deepspeed=None)))
    assert PixelSail.from_pretrained(tmp_path / "run/final").config.mask_channels == 16


def test_published_sets_without_their_folder_are_refused() -> None:
    recipe = load_any_recipe("sail/0.5b")
    assert isinstance(recipe, SailRecipe)
    with pytest.raises(ValueError, match=r"the recipe lacks data\.root: give data\.root=DIR"):
        prepare_sail(recipe)
