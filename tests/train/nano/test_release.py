"""A model put together for the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.sail_model import CHECKPOINT
from helpers.tiny_training import save_training_checkpoint

from unipixel.model.config import read_eos_ids
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.initialization import load_initial_model
from unipixel.train.nano.release import LOGS_FILE, release, summarise
from unipixel.train.recipe_files import find_recipe, load_any_recipe
from unipixel.train.run_log import LOG_FILE


def test_release_halves_the_weights_and_keeps_the_course_of_the_runs(tmp_path: Path) -> None:
    folder = save_training_checkpoint(tmp_path / "tiny")
    log = tmp_path / "run"
    log.mkdir()
    lines = [json.dumps({"step": step, "loss": 1 / step, "grad_norm": 3.0}) for step in range(1, 101)]
    (log / LOG_FILE).write_text("\n".join([*lines, json.dumps({"step": 100, "train_runtime": 5.0})]) + "\n")
    out = tmp_path / "out"
    size = release(str(folder), out, segmenter=None, image_size=96, logs=[log])
    assert size < 0.6 * (folder / "model.safetensors").stat().st_size
    model = UniPixel.from_pretrained(out)
    assert model.config.segmenter.image_size == 96
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    before = UniPixel.from_pretrained(folder, dtype=torch.float32).state_dict()[name]
    torch.testing.assert_close(model.state_dict()[name].float(), before, rtol=1e-3, atol=1e-4)
    course = json.loads((out / LOGS_FILE).read_text())["run"]
    assert len(course) <= 40
    assert course[0] == {"step": 1, "loss": 1.0}
    assert Processor.from_pretrained(out).tokenizer.eos_token_id is not None


def test_release_of_pixel_sail_answers_as_before(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOG_FILE).write_text(json.dumps({"step": 10, "loss": 2.0, "prompt_words": 1.5}) + "\n")
    size = release(str(CHECKPOINT), tmp_path / "out", segmenter=None, image_size=None, logs=[tmp_path / "run"])
    before, after = (
        PixelSail.from_pretrained(folder, dtype=torch.float32) for folder in (CHECKPOINT, tmp_path / "out")
    )
    assert size < 0.6 * sum(tensor.numel() * 4 for tensor in before.state_dict().values())
    assert after.config.to_dict() == before.config.to_dict()
    for name, tensor in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
    assert SailProcessor.from_pretrained(tmp_path / "out").tokenizer.get_vocab()
    assert json.loads((tmp_path / "out" / LOGS_FILE).read_text())["run"] == [
        {"step": 10, "loss": 2.0, "prompt_words": 1.5}
    ]
    with pytest.raises(ValueError, match="Pixel-SAIL checkpoint, which has no segmenter"):
        release(str(CHECKPOINT), tmp_path / "out", segmenter=None, image_size=96, logs=[])


def test_logs_of_the_pretraining_are_summarised_by_their_parts(tmp_path: Path) -> None:
    line = {"step": 25, "text": 1.5, "mask_tokens": 0.5, "accuracy": 0.25, "num_samples": 100, "seconds": 3.0}
    (tmp_path / LOG_FILE).write_text(json.dumps(line) + "\n", encoding="utf-8")
    del line["seconds"]
    assert summarise(tmp_path / LOG_FILE) == [line]


def test_models_from_nothing_end_their_answers(tmp_path: Path) -> None:
    sizes = find_recipe("nano/segmenter").parent / "sizes.toml"
    smaller = sizes.read_text(encoding="utf-8").replace("num_samples = 2000", "num_samples = 50")
    (tmp_path / "sizes.toml").write_text(smaller.replace("size = 1024", "size = 400"), encoding="utf-8")
    recipe = load_any_recipe("nano/segmenter", [f"output={tmp_path}", f"model={{sizes='{tmp_path / 'sizes.toml'}'}}"])
    model, processor = load_initial_model(recipe)
    model.save_pretrained(tmp_path / "saved")
    assert UniPixel.from_pretrained(tmp_path / "saved").config.eos_token_ids == (processor.tokenizer.eos_token_id,)


def test_an_empty_list_of_end_tokens_says_nothing() -> None:
    assert read_eos_ids({"eos_token_id": []}, {"eos_token_id": 7}) == (7,)
    assert read_eos_ids({"eos_token_id": [3, 4]}, {"eos_token_id": 7}) == (3, 4)
