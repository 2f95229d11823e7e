"""Data sets in JSON lines: reading, checking, writing and fine-tuning."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_training import tiny_recipe
from PIL import Image

from unipixel.cli import main
from unipixel.memory.rle import encode_rle
from unipixel.train import trainer
from unipixel.train.build import prepare
from unipixel.train.datasets.jsonl import JsonlDataset
from unipixel.train.datasets.synthetic import TASKS, generate


def line(folder: Path, number: int, **changes: Any) -> dict[str, Any]:
    """A clip of four frames with a bright square, and two turns about it."""
    frames = folder / f"clip{number}"
    frames.mkdir()
    masks = []
    for index in range(4):
        mask = np.zeros((40, 48), bool)
        mask[8:24, 6 + 4 * index : 22 + 4 * index] = True
        Image.fromarray(np.where(mask[..., None], 220, 30).astype(np.uint8).repeat(3, axis=2)).save(
            frames / f"{index:03}.png"
        )
        masks.append(encode_rle(mask))
    turns = [
        {"question": "Please segment the square in this video.", "answer": "It is <|seg|>.", "targets": [1]},
        {"question": "Where does [1] go?", "answer": "[1] moves right."},
    ]
    return {"id": f"clip{number}", "clip": frames.name, "turns": turns, "objects": {"1": {"rle": masks}}, **changes}


def write(folder: Path, *lines: dict[str, Any]) -> Path:
    file = folder / "data.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


def test_finetune_takes_a_step_on_ten_clips(training_checkpoint: Path, tmp_path: Path) -> None:
    file = write(tmp_path, *[line(tmp_path, number) for number in range(10)])
    recipe = tiny_recipe("finetune", training_checkpoint, tmp_path / "run", f"data.path={file}", "training.max_steps=2")
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    job.save(tmp_path / "tuned")
    assert (tmp_path / "tuned" / "model.safetensors").is_file()


def test_draw_masks_and_frames_belong_together(tmp_path: Path) -> None:
    data = JsonlDataset.read(write(tmp_path, line(tmp_path, 0)), num_frames=2)
    clip = data.draw("all", 0).clip
    assert clip.frames.shape == (2, 40, 48, 3)
    assert np.array_equal(clip.frames[..., 0] > 128, clip.masks_of(1))


def test_draw_each_epoch_holds_every_sample_once(tmp_path: Path) -> None:
    data = JsonlDataset.read(write(tmp_path, *[line(tmp_path, number) for number in range(3)]))
    for epoch in range(2):
        assert {data.draw("all", 3 * epoch + index).kind for index in range(3)} == {"clip0", "clip1", "clip2"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"clip": "nowhere.mp4"}, "nowhere"),
        ({"turns": [{"question": "q", "answer": "<|seg|>", "targets": []}]}, "has 1"),
        ({"turns": [{"question": "q", "answer": "<|seg|>", "targets": [7]}]}, r"objects \[7\]"),
        ({"objects": {"1": {"rle": [None]}}}, "1 masks were given for 4 frames"),
        ({"colour": "red"}, "unknown fields"),
        ({"prompts": {"1": {"frame": 99, "point": [1, 2]}}}, "99"),
    ],
)
def test_problems_invalid_sample_has_its_reason(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    data = JsonlDataset.read(write(tmp_path, line(tmp_path, 0), line(tmp_path, 1, **changes)))
    (problem,) = data.problems()
    assert problem.name == "clip1"
    assert re.search(reason, problem.reason)


def test_check_command_lists_problems_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, line(tmp_path, 0), line(tmp_path, 1, clip="nowhere.mp4"))
    assert main(["check", str(file)]) == 1
    assert "2 samples, 1 invalid" in capsys.readouterr().out


def test_synthetic_samples_written_as_a_data_set_are_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ten"
    options = ["--seed", "3", "--size", "64", "--frames", "6", "--show", "10"]
    assert main(["synth", "--data", str(folder), *options]) == 0
    assert main(["check", str(folder / "data.jsonl")]) == 0
    assert "10" in capsys.readouterr().out
    data = JsonlDataset.read(folder / "data.jsonl", num_frames=6)
    tasks = [task for task in TASKS if task != "track"]
    for number, line in enumerate(data.lines):
        sample = generate(3 + number, split="train", task=tasks[number % len(tasks)], render_size=64, num_frames=6)
        read = data.load(line, generator=random.Random(0))
        np.testing.assert_array_equal(read.clip.frames, sample.clip.frames)
        np.testing.assert_array_equal(read.clip.masks, sample.clip.masks)
        assert [(turn.question, turn.answer, turn.target_ids) for turn in read.turns] == [
            (turn.question, turn.answer, turn.target_ids) for turn in sample.turns
        ]
        assert set(read.prompts) == set(sample.prompts)


def test_track_samples_have_no_question_to_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--task", "track", "--size", "64", "--frames", "4", "--show", "1"]
    assert main(["synth", "--data", str(tmp_path), *options]) != 0
    assert "no question" in capsys.readouterr().err
