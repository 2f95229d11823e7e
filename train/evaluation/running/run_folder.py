"""The folder of a run: what is run, the predictions of each process, and the scores.

```
OUT/
├── run.json                    benchmark, split, variant, model and settings; another run is refused
├── predictions.jsonl           all samples; written as they finish by a single process
├── predictions-0-of-2.jsonl    while several processes run: the samples of each
└── scores.json                 figures and failed samples, once all samples have finished
```
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipixel.train.evaluation.running.predictions import (
    FILE_NAME,
    PredictionFile,
    PredictionWriter,
    parse_prediction,
    read_lines,
    replaced_file,
)
from unipixel.train.evaluation.running.run_description import keep_description, write_json
from unipixel.train.evaluation.running.shards import Shard

RUN_FILE = "run.json"
SCORES_FILE = "scores.json"


class RunFolder:
    """The folder of one run; it is created, or continued if it belongs to the same run."""

    def __init__(self, path: Path, description: Mapping[str, Any]) -> None:
        """Open the folder.

        Args:
            path: The folder.
            description: What is run; all values must be equal for a run to be continued.

        Raises:
            OSError: It cannot be written, or is no folder.
            ValueError: It belongs to another run.
        """
        self.path = path
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"{path}: not a folder; give the folder of a run, or a new one")
        path.mkdir(parents=True, exist_ok=True)
        if not (path / RUN_FILE).is_file() and self._files():
            raise ValueError(f"{path} has predictions but no {RUN_FILE}: give a new folder")
        keep_description(path / RUN_FILE, description)

    def _files(self) -> list[Path]:
        return sorted(self.path.glob("predictions*.jsonl"))

    def finished(self) -> dict[str, bool]:
        """Return the samples that have a prediction in any file, and whether each failed.

        Raises:
            ValueError: A line is not a prediction, or a sample has two different ones.
        """
        return {name: line.has_failed for name, line in self._index()[0].items()}

    def writer(self, shard: Shard) -> PredictionWriter:
        """Open the file of a process for appending.

        Raises:
            OSError: It cannot be written.
        """
        name = FILE_NAME if shard.count == 1 else f"predictions-{shard.index}-of-{shard.count}.jsonl"
        return PredictionWriter(self.path / name)

    def merge(self, names: Sequence[str]) -> PredictionFile | None:
        """Put the predictions of all processes into one file, in the order of the samples.

        Whichever process finishes last does this; two at once write the same bytes.

        Args:
            names: The samples of the split.

        Returns:
            The predictions, or None while some samples have none.

        Raises:
            ValueError: A line is not a prediction, or a sample occurs twice.
        """
        try:
            return self._merge(names)
        except FileNotFoundError:
            # Another process merged and removed its files meanwhile; then all are in the one file.
            return self._merge(names)

    def _merge(self, names: Sequence[str]) -> PredictionFile | None:
        index, num_lines = self._index()
        if any(name not in index for name in names):
            return None
        ordered = [*names, *sorted(set(index) - set(names))]
        target = self.path / FILE_NAME
        is_merged = num_lines == len(index) and {line.file for line in index.values()} == {target}
        if not is_merged or list(index) != ordered:
            with replaced_file(target) as merged:
                for name in ordered:
                    merged.write(index[name].read())
        for file in self._files():
            if file != target:
                file.unlink(missing_ok=True)
        return PredictionFile(self.path)

    def _index(self) -> tuple[dict[str, _Line], int]:
        """Find the line of each sample, and count all lines.

        After an interrupted merge, the same line is in two files. The line of a sample that failed counts as long as
        there is no other.
        """
        index: dict[str, _Line] = {}
        num_lines = 0
        for file in self._files():
            for number, content, offset in read_lines(file, is_growing=True):
                prediction = parse_prediction(content, location=f"{file}, line {number}")
                digest = hashlib.sha256(content).digest()
                line = _Line(file, offset, len(content), digest, prediction.error is not None)
                num_lines += 1
                known = index.setdefault(prediction.sample, line)
                if known.has_failed:
                    index[prediction.sample] = line
                elif not line.has_failed and known.digest != digest:
                    raise ValueError(f"{file}, line {number}: sample {prediction.sample!r} has another prediction too")
        return index, num_lines

    def write_scores(self, scores: Mapping[str, Any]) -> None:
        """Write the scores.

        Raises:
            OSError: The file cannot be written.
        """
        write_json(self.path / SCORES_FILE, scores)


@dataclass(frozen=True, slots=True)
class _Line:
    """Where the line of a sample is.

    Attributes:
        file: The file.
        offset: First byte.
        num_bytes: Length with the line break.
        digest: Hash of the content.
        has_failed: Whether the sample failed.
    """

    file: Path
    offset: int
    num_bytes: int
    digest: bytes
    has_failed: bool

    def read(self) -> bytes:
        """Return the content."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.num_bytes)
