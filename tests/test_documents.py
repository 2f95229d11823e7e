"""README and docs are right: their Python runs, the files that they link to and the commands that they show exist."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.sail_model import CHECKPOINT, recorded_image
from PIL import Image

from unipixel.assets import sample_path
from unipixel.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
RUNNABLE = [path for path in DOCUMENTS if "```python\n" in path.read_text(encoding="utf-8")]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_REPOSITORY_FILE = re.compile(
    r"\b(?:tests|docs|train|tracking|memory|unipixel|\.ci)/[\w./-]+\.(?:py|md|toml|json|mp4)\b"
)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    found = _BLOCK.findall(path.read_text(encoding="utf-8"))
    return [text for kind, text in found if kind == language]


@pytest.fixture
def working_folder(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a clip, an image and a Pixel-SAIL; every hub id loads the tiny checkpoint."""
    shutil.copy(sample_path(), tmp_path / "clip.mp4")
    shutil.copytree(CHECKPOINT, tmp_path / "sail-folder")
    Image.fromarray(recorded_image("case_refer")).save(tmp_path / "photo.png")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: str(checkpoint))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", RUNNABLE, ids=name_of)
def test_python_of_a_document_runs_from_top_to_bottom(path: Path, working_folder: Path) -> None:
    names: dict[str, Any] = {}
    for block in blocks(path, "python"):
        exec(compile(block.replace('"cuda"', '"cpu"'), name_of(path), "exec"), names)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_a_document_links_to_exist(path: Path) -> None:
    targets = _LINK.findall(path.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert missing == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_a_document_names_exist(path: Path) -> None:
    named = set(_REPOSITORY_FILE.findall(path.read_text(encoding="utf-8")))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_tests_that_a_document_names_exist() -> None:
    definitions = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    present = set(re.findall(r"(?:class|def) ([Tt]est\w+)", definitions))
    present |= {file.stem for file in (ROOT / "tests").rglob("test_*.py")}
    documents = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
    named = {
        name
        for path in documents
        for name in re.findall(r"\b(?:Test[A-Z]\w+|test_\w+)(?!\w|<|\.json)", path.read_text("utf-8"))
    }
    assert sorted(named - present - {"test_"}) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_that_a_document_shows_exist(path: Path) -> None:
    lines = [line for language in ("", "sh", "bash") for block in blocks(path, language) for line in block.splitlines()]
    used = {found for line in lines for found in re.findall(r"(?:^|&& )unipixel ([a-z]+)", line)}
    subparsers = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert sorted(used - set(subparsers.choices)) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_command_lines_of_a_document_are_accepted(path: Path) -> None:
    """Names, options and values: the parser takes each line as it stands."""
    text = "\n".join(block for language in ("", "sh", "bash") for block in blocks(path, language))
    commands = re.findall(r"(?:^|&& )unipixel ([a-z].*)$", text.replace("\\\n", " "), re.MULTILINE)
    # `...` and brackets stand for what the reader writes there.
    commands = [command for command in commands if "..." not in command and "[" not in re.sub(r'"[^"]*"', "", command)]
    for command in commands:
        words = shlex.split(re.split(r" && | \| | > | # ", command)[0])
        build_parser().parse_args([word.replace("$(python -m unipixel.assets)", "clip.mp4") for word in words])


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = "python -m pip install -e '.[test]' && python -m pytest"
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        assert command in (ROOT / name).read_text(encoding="utf-8").splitlines(), name


def test_ci_can_be_executed() -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
