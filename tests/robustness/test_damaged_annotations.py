"""Damaged annotation files of benchmarks and training sets, and damaged predictions: documented exceptions only."""

from __future__ import annotations

import json
import random
import resource
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.damage import damaged_bytes, damaged_json, limited_memory
from helpers.golden_evaluation import GOLDEN, golden_case

from unipixel.cli import main
from unipixel.train.datasets.published.definitions import published_sets
from unipixel.train.datasets.published.entry_listing import list_entry
from unipixel.train.datasets.published.published_sets import open_set
from unipixel.train.evaluation.benchmarks.annotation_files import read_split
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS

NUM_DEFAULT, NUM_SLOW = 100, 10_000
MAX_GROWTH_BYTES = 400 * 2**20
CASES = [case for case in json.loads((GOLDEN / "cases.json").read_text()) if case["name"] in BENCHMARKS]
SETS = sorted(name for name, row in published_sets().items() if row.num_samples is not None)
# Images and videos have tests of their own.
MEDIA = {".jpg", ".mp4"}


@dataclass(frozen=True)
class Tree:
    """A folder of sound files, how some of them are read, and which they are."""

    read: Callable[[], Any]
    files: Sequence[Path]


def benchmark_trees(folder: Path) -> Iterator[Tree]:
    """Yield the annotations of each benchmark, read with the masks of some samples."""
    for case in CASES:
        data = copied(case["case"], folder) / "data"

        def read(data: Path = data, case: dict[str, Any] = case) -> None:
            samples = read_split(BENCHMARKS[case["name"]], data, split=case["split"], variant="")
            for sample in samples[:3]:
                if sample.truth is not None and sample.problem is None:
                    sample.truth()

        yield Tree(read, opened_files(read, data))


def training_trees(folder: Path) -> Iterator[Tree]:
    """Yield the annotations of each training set, read with all masks."""
    root = copied("training", folder) / "data"
    for name in SETS:

        def read(name: str = name) -> None:
            definition = published_sets()[name]
            # Another folder each time, because a process caches the tables of the indices that it has opened.
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                index = open_set(definition, root, cache=cache)
                for number in range(len(index)):
                    list_entry(index[number], definition, root)

        yield Tree(read, opened_files(read, root))


def prediction_trees(folder: Path) -> Iterator[Tree]:
    """Yield the predictions of each benchmark, scored by the command."""
    for case in CASES:
        work = copied(case["case"], folder)
        chosen = work / case.get("predictions", "predictions") / case.get("set", "")
        argv = ["eval", case["name"], "--split", case["split"], "--data", str(work / "data")]
        argv += ["--predictions", str(chosen), "--json"]

        def read(argv: list[str] = argv) -> None:
            # Not a traceback: `main` passes on what it does not expect.
            if (code := main(argv)) not in (0, 1, 2):
                raise AssertionError(f"{argv} ended with {code}")

        yield Tree(read, opened_files(read, chosen))


KINDS = {"benchmarks": benchmark_trees, "training sets": training_trees, "predictions": prediction_trees}


def copied(case: str, folder: Path) -> Path:
    target = folder / case
    if not target.exists():
        shutil.copytree(golden_case(case), target)
    return target


_opened: list[str] = []
_listening: list[bool] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _listening and event == "open" and isinstance(arguments[0], str | Path):
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)


@contextmanager
def listening() -> Iterator[None]:
    _opened.clear()
    _listening.append(True)
    try:
        yield
    finally:
        _listening.clear()


def opened_files(read: Callable[[], Any], folder: Path) -> list[Path]:
    """Return the files below a folder that reading opens, without images and videos."""
    with listening():
        read()
    found = sorted({Path(name) for name in _opened if Path(name).is_relative_to(folder)})
    assert found, folder
    return [path for path in found if path.suffix not in MEDIA and path.is_file()]


def damaged(path: Path, choose: random.Random) -> bytes:
    content = path.read_bytes()
    return (damaged_json if path.suffix in (".json", ".jsonl") and content.strip() else damaged_bytes)(content, choose)


def check_damage(trees: Sequence[Tree], seeds: range) -> None:
    trees = [tree for tree in trees if tree.files]
    with limited_memory():
        check_seeds(trees, seeds)


def check_seeds(trees: Sequence[Tree], seeds: range) -> None:
    start_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for seed in seeds:
        choose = random.Random(seed)
        tree = choose.choice(trees)
        path = choose.choice(tree.files)
        content = path.read_bytes()
        path.write_bytes(damaged(path, choose))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                tree.read()
            except (OSError, ValueError) as error:
                if not str(error):
                    raise AssertionError(f"seed {seed}, {path}: an error without a message") from error
            except Exception as error:
                raise AssertionError(f"seed {seed}, {path}: {type(error).__name__}: {error}") from error
            finally:
                path.write_bytes(content)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - start_bytes
    assert grown < MAX_GROWTH_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_annotations_raise_a_documented_error_or_are_read(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_damage(list(KINDS[kind](tmp_path)), range(NUM_DEFAULT))
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_annotations_raise_documented_errors_or_are_read(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_damage(list(KINDS[kind](tmp_path)), range(NUM_DEFAULT, NUM_DEFAULT + NUM_SLOW))
    assert "Traceback" not in capsys.readouterr().err
