"""Damaged files of every kind that is read, other than videos: documented exceptions only, and bounded memory.

Damaged videos are in tests/unipixel/video/test_damaged_files.py.
"""

from __future__ import annotations

import io
import json
import random
import resource
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.damage import damaged_bytes, damaged_json, limited_memory
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, clip_frame, write_clip, write_mask
from helpers.sail_model import CHECKPOINT
from PIL import Image
from safetensors.torch import save

from unipixel.checkpoints.architecture import load_checkpoint
from unipixel.checkpoints.files import read_config, read_generation_config
from unipixel.checkpoints.tensor_layout import TensorFiles, load_tensors
from unipixel.demos.export.archive import is_archive, read_archive
from unipixel.demos.limits import Limits
from unipixel.demos.storage.saved_session import SESSION_FILE, SavedSession, SavedTurn
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import MaskRecord, PromptRecord
from unipixel.memory.rle import encode_rle
from unipixel.memory.storage import BANK_FILE
from unipixel.model.unipixel import UniPixel
from unipixel.output.result import Result
from unipixel.processing.chat_template import load_tokenizer
from unipixel.session.question_file import read_questions
from unipixel.tracking.types import ObjectMask
from unipixel.train.datasets.jsonl import JsonlDataset
from unipixel.train.evaluation.scoring.label_folders import read_label_image
from unipixel.train.recipe_files import load_any_recipe
from unipixel.video.frame import Frame, VideoInfo
from unipixel.video.images import read_image, read_mask

NUM_DEFAULT, NUM_SLOW = 100, 10_000
MAX_GROWTH_BYTES = 400 * 2**20


@dataclass(frozen=True)
class Kind:
    """A kind of file: sound content by file name, how to read it in a folder, and what its damage is."""

    files: Mapping[str, bytes]
    read: Callable[[Path, str], Any]
    damage: Callable[[bytes, random.Random], bytes] = damaged_bytes
    is_slow: bool = False


def image_bytes(kind: str, pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


def a_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[4:20, 10:30] = 255
    return mask


def a_bank() -> ObjectMemoryBank:
    bank = ObjectMemoryBank((HEIGHT, WIDTH))
    bank.add(1, source="point", prompts=[PromptRecord("point", 0, (3.0, 4.0))])
    bank.add(2, source="mask", prompts=[PromptRecord.of_mask(a_mask(), 1)], expression="the cup")
    for index in range(3):
        bank.update(1, index, a_mask(), score=0.5)
    return bank


def a_result() -> bytes:
    result = Result(VideoInfo("clip.mp4", WIDTH, HEIGHT, 3, 10.0, 0.3), question="What is [1]?", answer="A cup.")
    result.add_object(1, source="point")
    for index in range(3):
        frame = Frame(index, index / 10, np.zeros((HEIGHT, WIDTH, 3), np.uint8))
        result.add_frame(frame, {1: ObjectMask(a_mask() > 0, 0.5, index != 1)})
    return result.to_json().encode()


def a_session() -> bytes:
    import tempfile

    saved = SavedSession(
        name="clip.mp4", media="media", is_trusted=False, frame_size=(HEIGHT, WIDTH), names={1: "cup"},
        turns=(SavedTurn("What is [1]?", "A cup."),), pending_prompts={1: (PromptRecord("point", 0, (3.0, 4.0)),)},
        prompt_masks={1: {0: MaskRecord.of(a_mask(), score=0.5)}}, memory="memory", journal=None, client="",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        saved.write(Path(folder))
        return (Path(folder) / SESSION_FILE).read_bytes()


def a_bank_file() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        a_bank().save(folder)
        return (Path(folder) / BANK_FILE).read_bytes()


def an_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(SESSION_FILE, a_session())
        archive.writestr(f"memory/{BANK_FILE}", a_bank_file())
        archive.writestr("upload/clip.mp4", b"x" * 3000)
    return buffer.getvalue()


def questions() -> bytes:
    lines: list[dict[str, Any]] = [
        {"id": "a", "clip": "clip.mp4", "question": "What is [1]?", "points": {"1": [[3, 4, 0]]}},
        {"clip": "clip.mp4", "question": ["What?", "Why?"], "boxes": {"2": [1, 2, 30, 20, 0]},
         "masks": {"3": ["mask.png", 1]}},
    ]  # fmt: skip
    return "\n".join(map(json.dumps, lines)).encode()


def training_lines() -> bytes:
    rle = encode_rle(a_mask())
    turns = [
        {"question": "Please segment the square.", "answer": "It is <|seg|>.", "targets": [1]},
        {"question": "Where does [1] go?", "answer": "[1] moves right."},
    ]
    lines = [
        {"id": f"clip{number}", "clip": "clip.mp4", "turns": turns, "objects": {"1": {"rle": [rle] * NUM_FRAMES}},
         "prompts": {"1": {"box": [3, 4, 30, 20], "frame": 0}} if number else {}}
        for number in range(2)
    ]  # fmt: skip
    return "\n".join(map(json.dumps, lines)).encode()


def read_tensors(folder: Path, name: str) -> None:
    del name
    module = torch.nn.Linear(8, 4, device="meta")
    load_tensors(module, TensorFiles.of_folder(folder), dtype=torch.float32)


def read_configuration(folder: Path, name: str) -> None:
    del name
    read_generation_config(folder)
    config = read_config(folder)
    # Building takes much longer than reading: a part of the files is enough.
    if sum(file.stat().st_size for file in folder.glob("*.json")) % 4 == 0:
        UniPixel.build_empty(config)


def read_session_archive(folder: Path, name: str) -> None:
    target = folder / "extracted"
    target.mkdir()
    if is_archive(folder / name):
        read_archive(folder / name, target, limits=Limits())
        SavedSession.read(target)
        ObjectMemoryBank.load(target / "memory")


def damaged_part(content: bytes, choose: random.Random) -> bytes:
    return (damaged_json if content.startswith(b"{") else damaged_bytes)(content, choose)


def read_training_data(folder: Path, name: str) -> None:
    list(JsonlDataset.read(folder / name, num_frames=2).problems())


@pytest.fixture(scope="session")
def kinds(checkpoint: Path) -> dict[str, Kind]:
    pixels = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((8, 8), np.uint8))
    color = np.stack([pixels, pixels[::-1], pixels], axis=-1)
    images = {f"image.{kind.lower()}": image_bytes(kind, color) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")}
    config = {name: (checkpoint / name).read_bytes() for name in
              ("config.json", "sam2_config.json", "generation_config.json")}  # fmt: skip
    tokenizer = {name: (checkpoint / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")}
    state = {"weight": torch.zeros(4, 8), "bias": torch.zeros(4)}
    recipe = Path(load_any_recipe.__code__.co_filename).parent / "recipes/nano/stage3.toml"
    return {
        "images": Kind(images, lambda folder, name: read_image(folder / name, max_pixels=10**6)),
        "masks": Kind({"mask.png": image_bytes("PNG", a_mask())}, lambda folder, name: read_mask(folder / name)),
        "label images": Kind(
            {"label.png": image_bytes("PNG", a_mask() // 255)}, lambda folder, name: read_label_image(folder / name)
        ),
        "safetensors": Kind({"model.safetensors": save(state)}, read_tensors),
        "configurations": Kind(config, read_configuration, damaged_json),
        "tokenizers": Kind(tokenizer, lambda folder, name: load_tokenizer(folder), damaged_json, is_slow=True),
        "questions": Kind({"questions.jsonl": questions()}, lambda folder, name: list(read_questions(folder / name)),
                          damaged_json),
        "training data": Kind({"data.jsonl": training_lines()}, read_training_data, damaged_json),
        "memory banks": Kind({BANK_FILE: a_bank_file()}, lambda folder, name: ObjectMemoryBank.load(folder),
                             damaged_json),
        "results": Kind({"result.json": a_result()}, lambda folder, name: Result.load(folder), damaged_json),
        "saved sessions": Kind({SESSION_FILE: a_session()}, lambda folder, name: SavedSession.read(folder),
                               damaged_json),
        "session archives": Kind({"session.zip": an_archive()}, read_session_archive),
        "Pixel-SAIL checkpoints": Kind({file.name: file.read_bytes() for file in CHECKPOINT.iterdir()},
                                       lambda folder, name: load_checkpoint(folder), damaged_part, is_slow=True),
        "recipes": Kind({"recipe.toml": recipe.read_bytes()},
                        lambda folder, name: load_any_recipe(str(folder / name))),
    }  # fmt: skip


NAMES = (
    "images", "masks", "label images", "safetensors", "configurations", "tokenizers", "questions", "training data",
    "memory banks", "results", "saved sessions", "session archives", "Pixel-SAIL checkpoints",
    "recipes",
)  # fmt: skip


def check_damage(kind: Kind, seeds: range, folder: Path) -> None:
    work = folder / "work"
    write_clip(folder / "clip.mp4")
    write_mask(folder / "mask.png")
    start_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for seed in seeds:
        choose = random.Random(seed)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for name in ("clip.mp4", "mask.png"):
            (work / name).symlink_to(folder / name)
        target = choose.choice(sorted(kind.files))
        for name, content in kind.files.items():
            (work / name).unlink(missing_ok=True)
            (work / name).write_bytes(kind.damage(content, choose) if name == target else content)
        with warnings.catch_warnings(), limited_memory():
            warnings.simplefilter("ignore")
            try:
                kind.read(work, target)
            except (OSError, ValueError):
                continue
            except Exception as error:
                raise AssertionError(f"seed {seed}, {target}: {type(error).__name__}: {error}") from error
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start_bytes
    assert grown < MAX_GROWTH_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_damaged_file_raises_a_documented_error_or_is_read(kinds: dict[str, Kind], tmp_path: Path, name: str) -> None:
    check_damage(kinds[name], range(NUM_DEFAULT // 5 if kinds[name].is_slow else NUM_DEFAULT), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_damaged_files_raise_documented_errors_or_are_read(
    kinds: dict[str, Kind], tmp_path: Path, name: str
) -> None:
    check_damage(kinds[name], range(NUM_DEFAULT, NUM_DEFAULT + NUM_SLOW), tmp_path)


def test_sound_files_are_read(kinds: dict[str, Kind], tmp_path: Path) -> None:
    assert set(kinds) == set(NAMES)
    for name, kind in kinds.items():
        folder = tmp_path / name
        folder.mkdir()
        Image.fromarray(clip_frame(0)).save(folder / "frame.png")
        write_clip(folder / "clip.mp4")
        write_mask(folder / "mask.png")
        for file, content in kind.files.items():
            (folder / file).write_bytes(content)
        for file in kind.files:
            shutil.rmtree(folder / "extracted", ignore_errors=True)
            kind.read(folder, file)
