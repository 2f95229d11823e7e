"""What `ask` and `segment` are to do: one clip, a folder of clips, or a file of questions."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unipixel.commands._prompts import read_prompts
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.video.images import read_mask

_CLIP_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".gif"}
_SAFE_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,127}")
_FIELDS = {"id", "clip", "question", "points", "boxes", "masks"}


@dataclass(frozen=True)
class AskJob:
    """One conversation about one clip.

    Attributes:
        name: Names its folder of results; empty where there is only one.
        clip: File or folder.
        questions: Asked in turn.
        prompts: By object.
    """

    name: str
    clip: str
    questions: tuple[str, ...]
    prompts: dict[int, list[VisualPrompt]] = field(default_factory=dict)


def read_jobs(arguments: argparse.Namespace) -> Iterator[AskJob | tuple[str, str]]:
    """Yield the jobs of a command line; a line of a questions file that cannot be read is its name and what is wrong.

    Raises:
        ValueError: Neither a question nor a file of questions was given, or both.
        OSError: The file of questions cannot be read.
    """
    if arguments.questions is not None:
        if arguments.video is not None or arguments.question is not None:
            raise ValueError("--questions names clips and questions itself: leave VIDEO and the question out")
        yield from _read_file(arguments.questions)
        return
    if arguments.video is None or arguments.question is None:
        raise ValueError("give a VIDEO and a question, or --questions FILE.jsonl")
    prompts = read_prompts(arguments)
    clips = clips_of_folder(Path(arguments.video))
    if not clips:
        yield AskJob("", arguments.video, (arguments.question,), prompts)
    for clip in clips:
        yield AskJob(clip.stem, str(clip), (arguments.question,), prompts)


def clips_of_folder(folder: Path) -> list[Path]:
    """Return the clips of a folder; none where it is a file, or a folder of frames."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _CLIP_SUFFIXES and file.is_file())


def _read_file(file: Path) -> Iterator[AskJob | tuple[str, str]]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"{file} holds no question")
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        name = f"line-{number}"
        try:
            fields = json.loads(line)
            if not isinstance(fields, dict):
                raise ValueError("it is no JSON object")
            name = _name(fields.get("id", name), seen)
            yield _job(name, fields, file.parent)
        except (ValueError, OSError, TypeError, KeyError) as error:
            yield name, f"{file.name}, line {number}: {error}"


def _name(value: Any, seen: set[str]) -> str:
    name = str(value)
    if not _SAFE_NAME.fullmatch(name):
        raise ValueError(f"id {name!r} cannot name a folder: letters, digits, '.', '_' and '-' are allowed")
    if name in seen:
        raise ValueError(f"id {name!r} is used twice")
    seen.add(name)
    return name


def _job(name: str, fields: dict[str, Any], root: Path) -> AskJob:
    if unknown := sorted(set(fields) - _FIELDS):
        raise ValueError(f"unknown fields {unknown}: allowed are {sorted(_FIELDS)}")
    if missing := [key for key in ("clip", "question") if not fields.get(key)]:
        raise ValueError(f"it lacks {missing}")
    questions = fields["question"]
    prompts: dict[int, list[VisualPrompt]] = {}
    for key, entry in fields.get("masks", {}).items():
        path, frame = entry
        prompts.setdefault(int(key), []).append(MaskPrompt(read_mask(root / path), int(frame)))
    for key, entry in fields.get("boxes", {}).items():
        left, top, right, bottom, frame = entry
        prompts.setdefault(int(key), []).append(BoxPrompt((left, top, right, bottom), int(frame)))
    for key, entries in fields.get("points", {}).items():
        for x, y, frame in entries:
            prompts.setdefault(int(key), []).append(PointPrompt(x, y, int(frame)))
    asked = tuple(questions) if isinstance(questions, list) else (questions,)
    return AskJob(name, str(root / fields["clip"]), asked, prompts)
