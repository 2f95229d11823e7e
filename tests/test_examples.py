"""Every file in examples/ runs, on a small clip with a tiny model."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.moving_square import NUM_FRAMES, write_mask

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Run the `main` of an example in the folder of the test."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: object) -> None:
        runpy.run_path(str(EXAMPLES / name))["main"]([str(argument) for argument in arguments])

    return run


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with random weights does not end its answers itself."""
    from unipixel.model.generation import GenerationSettings
    from unipixel.session.live_session import LiveSettings
    from unipixel.session.settings import SessionSettings

    brief: dict[str, Any] = {"num_frames": 4, "generation": GenerationSettings(max_new_tokens=3)}
    for module in ("unipixel.session.session", "unipixel.session.settings"):
        monkeypatch.setattr(f"{module}.SessionSettings", lambda: SessionSettings(**brief))
    monkeypatch.setattr("unipixel.session.live_session.LiveSettings", lambda: LiveSettings(**brief))


def test_every_example_is_run_by_a_test() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.name for path in EXAMPLES.glob("*.py") if f'example("{path.name}"' not in source] == []


def test_track_from_mask(
    example: Callable[..., None], clip: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = write_mask(tmp_path / "first.png")
    example("track_from_mask.py", clip, mask, "--model", checkpoint)
    assert len(capsys.readouterr().out.splitlines()) == NUM_FRAMES + 1
    assert len(list((tmp_path / "result/masks/1").iterdir())) == NUM_FRAMES


def test_ask_about_two_objects(
    example: Callable[..., None], clip: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example("ask_about_two_objects.py", clip, "--first", "10,12", "--second", "30,30", "--model", checkpoint)
    printed = capsys.readouterr().out
    assert "What colour is [1]?" in printed
    assert "[1] point: visible in" in printed
    assert "[2] point: visible in" in printed


def test_webcam(example: Callable[..., None], clip: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("webcam.py", clip, "the red cup", "--every", "0.2", "--model", checkpoint)
    assert sum(" s: " in line for line in capsys.readouterr().out.splitlines()) == NUM_FRAMES


def test_batch_folder(example: Callable[..., None], clip: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    shutil.copy(clip, tmp_path / "clips/a.mp4")
    (tmp_path / "clips/b.mp4").write_bytes(b"not a video")
    example("batch_folder.py", tmp_path / "clips", "What moves?", "--model", checkpoint)
    answered, failed = map(json.loads, (tmp_path / "results/answers.jsonl").read_text().splitlines())
    assert "answer" in answered
    assert "b.mp4" in failed["error"]
    assert (tmp_path / "results/a/result.json").is_file()


def test_finetune_on_ten_clips(
    example: Callable[..., None], training_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("data.num_frames=4", "training.batch_size=1", "training.warmup_fraction=0.0", "training.log_every=1")
    example("finetune_on_ten_clips.py", "--model", training_checkpoint, "--steps", "1", *overrides)
    assert "10 samples, 0 invalid" in capsys.readouterr().out
    assert (tmp_path / "ten/run/final/model.safetensors").is_file()


def test_into_supervision(example: Callable[..., None], clip: Path, checkpoint: Path, tmp_path: Path) -> None:
    example("into_supervision.py", clip, "--point", "10,12", "--model", checkpoint)
    assert len(list((tmp_path / "annotated").iterdir())) == NUM_FRAMES


def test_into_cvat(example: Callable[..., None], clip: Path, checkpoint: Path, tmp_path: Path) -> None:
    example("into_cvat.py", clip, "the red square", "--model", checkpoint)
    names = {path.name for path in (tmp_path / "labels").iterdir()}
    assert {"cvat.xml", "coco.json", "label_studio.json", "yolo", "frames"} <= names
    assert len(list((tmp_path / "labels/frames").iterdir())) == NUM_FRAMES
