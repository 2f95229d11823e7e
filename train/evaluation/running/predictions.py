"""The predictions file: `predictions.jsonl`, one sample a line, in any order.

A line is a JSON object with `sample` and `masks`, `text`, `no_target`, `judge` or `error`; other fields are kept and
ignored. `masks` has one entry per object, from frame name to COCO run lengths, or to null for an empty mask. A frame
that is not named is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

from unipixel.batch.line_file import LineFile

FILE_NAME = "predictions.jsonl"

FrameMasks: TypeAlias = "Mapping[str, Mapping[str, Any] | None]"
"""Run lengths of one object by frame name; None for an empty mask."""

_KNOWN = ("sample", "masks", "text", "no_target", "judge", "error")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model answered to one sample.

    Attributes:
        sample: Name of the sample.
        masks: Masks of each object; None if the answer has none.
        text: The answer as the model wrote it, without what was pre-filled before it.
        no_target: Whether the model says that nothing matches; None if it does not say.
        judge: The reply of a judge about the answer.
        error: Why the sample failed; there are then neither masks nor text.
        further: Other fields, which are kept.
    """

    sample: str
    masks: tuple[FrameMasks, ...] | None = None
    text: str | None = None
    no_target: bool | None = None
    judge: str | None = None
    error: str | None = None
    further: Mapping[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        """Return the prediction as a line of the file, with the fields in a fixed order."""
        fields: dict[str, Any] = {"sample": self.sample}
        if self.masks is not None:
            fields["masks"] = [dict(frames) for frames in self.masks]
        for name in ("text", "no_target", "judge", "error"):
            if getattr(self, name) is not None:
                fields[name] = getattr(self, name)
        return json.dumps(fields | dict(self.further), ensure_ascii=False, allow_nan=False) + "\n"


def parse_prediction(line: bytes, *, location: str) -> Prediction:
    """Parse a line of the file; the run lengths themselves are checked when they are decoded.

    Args:
        line: The line.
        location: File and line number, for error messages.

    Raises:
        ValueError: It is not a prediction.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{location}: not a JSON object ({error})") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("sample"), str):
        raise ValueError(f"{location}: a prediction is a JSON object with the text `sample`")
    masks = fields.get("masks")
    if masks is not None and (not isinstance(masks, list) or not all(isinstance(item, dict) for item in masks)):
        raise ValueError(f"{location}: `masks` is a list of objects from frame name to run lengths, got {masks!r:.80}")
    for name, kind in (("text", str), ("no_target", bool), ("judge", str), ("error", str)):
        if fields.get(name) is not None and not isinstance(fields[name], kind):
            raise ValueError(f"{location}: `{name}` must be {kind.__name__}, got {fields[name]!r:.80}")
    return Prediction(
        sample=fields["sample"],
        masks=tuple(masks) if masks is not None else None,
        text=fields.get("text"),
        no_target=fields.get("no_target"),
        judge=fields.get("judge"),
        error=fields.get("error"),
        further={name: value for name, value in fields.items() if name not in _KNOWN},
    )


class PredictionFile:
    """The predictions of a folder, by sample name; a line is parsed when its sample is needed."""

    def __init__(self, folder: Path) -> None:
        """Read the names and places of all lines.

        Args:
            folder: Folder with `predictions.jsonl`, or that file.

        Raises:
            OSError: There is no such file.
            ValueError: A line is not a prediction, or a sample occurs twice.
        """
        self.path = folder / FILE_NAME if folder.is_dir() else folder
        if not self.path.is_file():
            raise FileNotFoundError(f"{folder}: no {FILE_NAME} in this folder")
        self._locations: dict[str, tuple[int, int]] = {}
        for number, line, offset in read_lines(self.path):
            name = parse_prediction(line, location=f"{self.path}, line {number}").sample
            if name in self._locations:
                first = self._locations[name][1]
                raise ValueError(f"{self.path}, line {number}: sample {name!r} is already in line {first}")
            self._locations[name] = (offset, number)

    def __contains__(self, name: str) -> bool:
        return name in self._locations

    def __len__(self) -> int:
        return len(self._locations)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the samples, in the order of the file."""
        return tuple(self._locations)

    def get(self, name: str) -> Prediction | None:
        """Return the prediction for a sample, or None."""
        if name not in self._locations:
            return None
        offset, number = self._locations[name]
        with self.path.open("rb") as file:
            file.seek(offset)
            return parse_prediction(file.readline(), location=f"{self.path}, line {number}")


def read_lines(path: Path, *, is_growing: bool = False) -> Iterator[tuple[int, bytes, int]]:
    """Yield number, content and offset of the lines that are not empty.

    Args:
        path: The file.
        is_growing: Whether a process may be writing: a last line without line break is then left out.

    Raises:
        OSError: The file cannot be read.
    """
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip() and (line.endswith(b"\n") or not is_growing):
                yield number, line, offset
            offset += len(line)


class PredictionWriter:
    """Appends predictions to a file, a whole line at a time, so that a killed run loses no finished sample."""

    def __init__(self, path: Path) -> None:
        """Open the file, and remove an incomplete last line that a killed run has left.

        Raises:
            OSError: The file cannot be written, or another process is writing it.
        """
        self._file = LineFile(path)

    def append(self, prediction: Prediction) -> None:
        """Write one prediction; it is in the file when this returns."""
        self._file.append(prediction.to_line().rstrip("\n").encode("utf-8"))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


def rewrite_predictions(path: Path, update: Callable[[Prediction], Prediction]) -> None:
    """Replace each prediction of a file, such as to add the reply of a judge; an interruption changes nothing.

    Args:
        path: Folder with `predictions.jsonl`, or that file.
        update: Returns the prediction to write.

    Raises:
        OSError: The file cannot be read or written.
        ValueError: A line is not a prediction, or a sample occurs twice.
    """
    predictions = PredictionFile(path)
    with replaced_file(predictions.path) as file:
        for name in predictions.names:
            if (prediction := predictions.get(name)) is not None:
                file.write(update(prediction).to_line().encode("utf-8"))


@contextmanager
def replaced_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that has the old or the new content at any time.

    Raises:
        OSError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
