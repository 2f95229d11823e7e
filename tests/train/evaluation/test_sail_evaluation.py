"""Whole runs of the recorded tiny Pixel-SAIL on the miniatures of image benchmarks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.golden_evaluation import GOLDEN, golden_case
from helpers.sail_model import CHECKPOINT
from PIL import Image

from unipixel.checkpoints.architecture import load_checkpoint
from unipixel.cli import main
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import SailProcessor, from_prompt_tokens
from unipixel.train.sail.drawn_images import DrawnImageSettings, draw_sail_sample
from unipixel.train.sail.sail_evaluation import describes, evaluate_sail, is_text_right

SAIL = json.loads((GOLDEN / "sail-metrics.json").read_text(encoding="utf-8"))
FAST = ["--device", "cpu", "--max-new-tokens", "12", "--json"]


def _run(name: str, data: Path, out: Path) -> list[dict[str, object]]:
    arguments = ["eval", name, "--data", str(data), "--model", str(CHECKPOINT), "--out", str(out), *FAST]
    assert main(arguments) == 0
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["refcoco", "grefcoco"])
def test_referring_questions_are_answered_with_masks(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions = _run(name, golden_case(name) / "data", tmp_path)
    scored = json.loads(capsys.readouterr().out)
    assert scored["failed"] == []
    assert len(predictions) == len(scored["samples"]) > 0
    assert all(prediction["masks"] for prediction in predictions)


def _synthetic(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str]:
    code = main(["eval", "synthetic", "--model", str(CHECKPOINT), *options])
    output = capsys.readouterr()
    return code, output.out or output.err


def test_drawn_images_are_evaluated_by_seed_split_and_limit(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--limit", "4", "--tasks", "attribute,no_target,region,instances", "--json")
    code, text = _synthetic(capsys, *options, "--seed", "3", "--split", "val")
    report = json.loads(text)
    assert code == 0
    assert (report["num_samples"], report["seed"], report["split"]) == (4, 3, "val")
    model, processor = load_checkpoint(CHECKPOINT)
    assert isinstance(model, PixelSail)
    assert isinstance(processor, SailProcessor)
    tasks = ("attribute", "no_target", "region", "instances")
    assert report == evaluate_sail(model, processor, split="val", seed=3, limit=4, tasks=tasks)
    assert set(report["attribute"]) >= {"cIoU", "gIoU", "num_samples"}
    assert "accuracy" in report["region"]
    assert set(report["no_target"]) == {"N_acc", "T_acc"}


def test_figures_on_drawn_images_are_printed_by_task(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = _synthetic(capsys, "--limit", "2", "--tasks", "attribute,region")
    assert code == 0
    assert text.startswith("attribute      cIoU 0.")
    assert text.endswith("num_samples: 2\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--frames", "3"), "--frames is about clips: "),
        (("--tasks", "track"), "Pixel-SAIL has no task 'track': allowed are attribute, "),
        (("--limit", "0"), "limit must be at least 1, got 0"),
        (("--split", "valid"), "no split 'valid'"),
    ],
)
def test_option_that_pixel_sail_lacks_is_one_line(
    options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = _synthetic(capsys, *options)
    assert code == 2
    assert message in text
    assert text.count("\n") == 1


def test_perbench_draws_the_prompts_and_forces_a_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    Image.fromarray(np.zeros((*SAIL["image_size"], 3), np.uint8)).save(data / "a.png")
    files = {"caption": "STBench_Detailed_Caption.json", "mcq": "STBench_MCQ.json", "vres": "STBench_VRES.json"}
    for name, file in files.items():
        (data / file).write_text(json.dumps([SAIL[f"{name}_reader"]["item"]]), encoding="utf-8")
    predictions = {str(row["sample"]).split("/")[0]: row for row in _run("perbench", data, tmp_path / "out")}
    scored = json.loads(capsys.readouterr().out)
    assert not [row for row in scored["failed"] if row["reason"] != "the answer is empty"]
    assert set(predictions) == {"captions", "mcq", "vres"}
    # A black image has no target: the answer of the tiny model may be an empty mask, but never none at all.
    assert predictions["vres"].get("masks") is not None
    assert predictions["captions"].get("masks") is None


@pytest.mark.parametrize(
    ("text", "is_right"),
    [
        ("[3]: a red star.", True),
        ("[3]: a small striped red star.", True),
        ("[3]: a star in red with stripes.", True),
        ("[3]: a little red star.", True),
        ("[3]: a red circle.", False),
        ("[3]: a blue star.", False),
        ("[3]: a big red star.", False),
        ("[3]: a spotted red star.", False),
        ("[3]: a red star without a pattern.", False),
        ("[3]: a red and blue star.", False),
        ("a star", False),
        ("", False),
    ],
)
def test_a_description_is_right_if_it_names_colour_and_shape_and_nothing_wrongly(text: str, is_right: bool) -> None:
    assert describes(text, ("red", "star", "small", "striped")) is is_right


def test_an_uncertain_size_or_texture_may_be_called_plain_but_not_striped() -> None:
    assert describes("a plain red star", ("red", "star"))
    assert not describes("a striped red star", ("red", "star"))
    assert not describes("a large red star", ("red", "star"))


def test_every_true_description_of_a_drawn_region_is_right() -> None:
    settings = DrawnImageSettings(((96, 132),), 1, {"region": 1.0}, split="val")
    for number in range(60):
        sample = draw_sail_sample([3, number], settings)
        prompt = re.search(r"<Prompt(\d+)>", sample.turns[0].question)
        assert prompt is not None
        mask = np.asarray(next(own for own in sample.prompts if own.prompt_id == int(prompt[1])).mask, np.bool_)
        words = max(sample.regions, key=lambda own: (own.mask & mask).sum() / (own.mask | mask).sum()).words
        assert describes(sample.turns[0].answer or "", words)


def test_descriptions_of_several_regions_are_right_if_each_is_under_its_id() -> None:
    settings = DrawnImageSettings(((192, 192),), 1, {"regions": 1.0}, split="val")
    is_swap_wrong = []
    for number in range(20):
        sample = draw_sail_sample([4, number], settings)
        answer = from_prompt_tokens(sample.turns[0].answer or "")
        assert is_text_right(answer, sample, task="regions")
        parts = re.split(r" (?=\[)", answer)
        assert len(parts) >= 2
        assert not is_text_right(" ".join(parts[1:]), sample, task="regions")
        assert not is_text_right(" ".join(reversed(parts)), sample, task="regions")
        ids, texts = zip(*(part.split(": ", 1) for part in parts), strict=True)
        exchanged = " ".join(f"{own}: {text}" for own, text in zip(ids, reversed(texts), strict=True))
        is_swap_wrong.append(not is_text_right(exchanged, sample, task="regions"))
    # Two objects of an image can be alike.
    assert sum(is_swap_wrong) > 15
