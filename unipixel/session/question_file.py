"""Files of questions: JSONL with a clip, one or several questions and visual prompts on each line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.video.images import read_mask

FIELDS = ("id", "clip", "question", "points", "boxes", "masks")
MAX_FILE_BYTES = 2**28
"""Size in bytes of the largest file that is read."""

_SAFE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,127}")
_FORMS = {
    "points": '{"ID": [[x, y, frame], ...]}',
    "boxes": '{"ID": [left, top, right, bottom, frame]}',
    "masks": '{"ID": ["file.png", frame]}',
}


@dataclass(frozen=True)
class AskJob:
    """One conversation about one clip.

    Attributes:
        name: Name of its result folder; empty for a single job.
        clip: File or folder; empty where the clips are given apart from the questions.
        questions: Asked one after the other.
        prompts: By object id.
    """

    name: str
    clip: str
    questions: tuple[str, ...]
    prompts: dict[int, list[VisualPrompt]] = field(default_factory=dict)


@dataclass(frozen=True)
class InvalidJob:
    """A line of a file of questions that is not a job.

    Attributes:
        name: Name of the job.
        error: What is wrong.
    """

    name: str
    error: str


def read_questions(file: Path, *, has_clips: bool = True) -> Iterator[AskJob | InvalidJob]:
    """Yield a job for each line that is not blank; one that cannot be read is an `InvalidJob`.

    Args:
        file: JSONL. Each line has `clip` and `question` (a text, or a list of texts that are asked one after the
            other), and may have `id`, `points`, `boxes` and `masks` by object id. Paths are relative to the file.
        has_clips: Whether each line names its clip; otherwise none does.

    Raises:
        OSError: The file cannot be read, is not UTF-8, or is too large.
        ValueError: It contains no question.
    """
    lines = [line for line in read_text(file).splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{file} contains no question")
    names: set[str] = set()
    for number, line in enumerate(lines, start=1):
        name = f"line-{number}"
        try:
            fields = _parse_line(line)
            name = _check_name(fields.get("id", name), names)
            job: AskJob | InvalidJob = _read_job(name, fields, file.parent, has_clips=has_clips)
        except (ValueError, OSError) as error:
            job = InvalidJob(name, f"{file.name}, line {number}: {error}")
        yield job


def read_text(file: Path) -> str:
    """Read a text file.

    Raises:
        OSError: It cannot be read, is not UTF-8, or has more than `MAX_FILE_BYTES`.
    """
    if (size := file.stat().st_size) > MAX_FILE_BYTES:
        raise OSError(f"{file} has {size} bytes: at most {MAX_FILE_BYTES} are allowed")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise OSError(f"{file} is not a text file in UTF-8 (byte {error.start})") from error


def _parse_line(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not valid JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    return fields


def _check_name(value: Any, names: set[str]) -> str:
    name = str(value)
    if not _SAFE_NAME.fullmatch(name):
        raise ValueError(f"id {name!r} is not a valid folder name: letters, digits, '.', '_' and '-' are allowed")
    if name in names:
        raise ValueError(f"id {name!r} is used twice")
    names.add(name)
    return name


def _read_job(name: str, fields: Mapping[str, Any], root: Path, *, has_clips: bool) -> AskJob:
    allowed = [key for key in FIELDS if has_clips or key != "clip"]
    if unknown := sorted(set(fields) - set(allowed)):
        raise ValueError(f"unknown fields {unknown}: allowed are {sorted(allowed)}")
    if missing := [key for key in ("clip", "question") if key in allowed and not fields.get(key)]:
        raise ValueError(f"fields {missing} are missing")
    clip, questions = fields.get("clip", ""), fields["question"]
    questions = questions if isinstance(questions, list) else [questions]
    if not isinstance(clip, str) or not all(isinstance(question, str) for question in questions):
        raise ValueError("clip must be a text, question a text or a list of texts")
    prompts: dict[int, list[VisualPrompt]] = {}
    for object_id, (path, frame) in _entries(fields, "masks", _is_mask):
        prompts.setdefault(object_id, []).append(MaskPrompt(read_mask(root / path), frame))
    for object_id, (left, top, right, bottom, frame) in _entries(fields, "boxes", _is_box):
        prompts.setdefault(object_id, []).append(BoxPrompt((left, top, right, bottom), frame))
    for object_id, points in _entries(fields, "points", _is_point_list):
        prompts.setdefault(object_id, []).extend(PointPrompt(x, y, frame) for x, y, frame in points)
    return AskJob(name, str(root / clip) if has_clips else "", tuple(questions), prompts)


def _entries(fields: Mapping[str, Any], kind: str, is_valid: Any) -> Iterator[tuple[int, Any]]:
    """Yield object id and value of the prompts of one kind after checking their form."""
    prompts = fields.get(kind)
    if prompts is None:
        return
    if not isinstance(prompts, dict):
        raise ValueError(f"{kind} must have the form {_FORMS[kind]}, got {prompts!r:.80}")
    for key, value in prompts.items():
        if not (key.isdecimal() and len(key) < 10 and is_valid(value)):
            raise ValueError(f"{kind} must have the form {_FORMS[kind]}, got {{{key!r}: {value!r:.80}}}")
        yield int(key), value


def _is_mask(value: Any) -> bool:
    """Return whether a JSON value is a file and a frame."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_index(value[1])


def _is_box(value: Any) -> bool:
    """Return whether a JSON value is four coordinates and a frame."""
    return _is_numbers(value, 5) and _is_index(value[-1])


def _is_point_list(value: Any) -> bool:
    """Return whether a JSON value is a list of points, each of two coordinates and a frame."""
    return isinstance(value, list) and all(_is_numbers(point, 3) and _is_index(point[-1]) for point in value)


def _is_numbers(value: Any, count: int) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) == count
        and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
        and all(abs(item) < 2**53 and math.isfinite(item) for item in value)
    )


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40
