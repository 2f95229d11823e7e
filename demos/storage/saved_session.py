"""The file `session.json` of a user session that is saved on disk."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipixel.memory.records import (
    MAX_FRAME_INDEX,
    MaskRecord,
    PromptRecord,
    check_fields,
    check_format,
    check_integer,
)
from unipixel.memory.rle import check_rle

SESSION_FILE = "session.json"
RECEIVED_PREFIX = "received-"
"""Begins the names of files that are being received for a session."""
RESULTS_FOLDER = "results"
MAX_SESSION_BYTES = 2**26
"""Maximum size of a `session.json` that is read."""
_FORMAT = "unipixel-demo-session-3"
_FIELDS = {
    "format", "name", "media", "is_trusted", "frame_size", "names", "turns", "pending_prompts", "prompt_masks",
    "memory", "journal", "client",
}  # fmt: skip
_MAX_ID = 10**6


@dataclass(frozen=True)
class SavedTurn:
    """One question and its answer.

    Attributes:
        question: The question.
        answer: The answer, with objects as `[id]`.
    """

    question: str
    answer: str


@dataclass(frozen=True)
class SavedSession:
    """What is saved of a session besides the uploaded file and the object memory bank.

    Attributes:
        name: Display name of the uploaded file.
        media: Name of that file in the folder of the session.
        is_trusted: Whether it is one of the demo's own examples.
        frame_size: (H, W) of the video.
        names: Names that the user gave, by object id.
        turns: The conversation.
        pending_prompts: Prompts that were not tracked yet, by object id.
        prompt_masks: Masks on the frames of these prompts, by object id and frame.
        memory: Name of the folder with the object memory bank.
        journal: Name of the file with masks that are newer than the bank; None if there are none.
        client: Hash of the client that opened the session.
    """

    name: str
    media: str
    is_trusted: bool
    frame_size: tuple[int, int]
    names: dict[int, str]
    turns: tuple[SavedTurn, ...]
    pending_prompts: dict[int, tuple[PromptRecord, ...]]
    prompt_masks: dict[int, dict[int, MaskRecord]]
    memory: str
    journal: str | None
    client: str

    def write(self, folder: Path) -> None:
        """Write `session.json` atomically.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        part = folder / f".{SESSION_FILE}.{secrets.token_hex(8)}"
        try:
            with part.open("x", encoding="utf-8") as file:
                json.dump(self.to_json(), file, ensure_ascii=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, folder / SESSION_FILE)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def remove_other_files(self, folder: Path) -> None:
        """Remove what an earlier state, or an interrupted writer, left in the folder; uploads in progress stay."""
        kept = {SESSION_FILE, RESULTS_FOLDER, self.media, self.memory, self.journal}
        for entry in folder.iterdir():
            if entry.name in kept or entry.name.startswith(RECEIVED_PREFIX):
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` accepts."""
        return {
            "format": _FORMAT,
            "name": self.name,
            "media": self.media,
            "is_trusted": self.is_trusted,
            "frame_size": list(self.frame_size),
            "names": [[key, name] for key, name in self.names.items()],
            "turns": [[turn.question, turn.answer] for turn in self.turns],
            "pending_prompts": [
                [key, [record.to_json() for record in records]] for key, records in self.pending_prompts.items()
            ],
            "prompt_masks": [
                [key, index, mask.counts, mask.score]
                for key, masks in self.prompt_masks.items()
                for index, mask in masks.items()
            ],
            "memory": self.memory,
            "journal": self.journal,
            "client": self.client,
        }

    @classmethod
    def read(cls, folder: Path) -> SavedSession:
        """Read and validate a file that `write` wrote.

        Raises:
            OSError: The file does not exist.
            ValueError: The file is damaged, too large, or of another version.
        """
        file = folder / SESSION_FILE
        if (size := file.stat().st_size) > MAX_SESSION_BYTES:
            raise ValueError(f"{SESSION_FILE} has {size} bytes, the maximum is {MAX_SESSION_BYTES}")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            check_format(content, _FORMAT, SESSION_FILE)
            return cls._from_fields(check_fields(content, _FIELDS, SESSION_FILE))
        except (TypeError, RecursionError) as error:
            raise ValueError(f"{SESSION_FILE} is damaged: {error}") from error

    @classmethod
    def _from_fields(cls, fields: Any) -> SavedSession:
        height, width = (check_integer(side, "frame_size", low=1, high=2**31) for side in fields["frame_size"])
        prompt_masks: dict[int, dict[int, MaskRecord]] = {}
        for key, index, counts, score in fields["prompt_masks"]:
            mask = MaskRecord(None if counts is None else _text(counts), score)
            if (rle := mask.rle((height, width))) is not None:
                check_rle(rle)
            frames = prompt_masks.setdefault(check_integer(key, "id", high=_MAX_ID), {})
            frames[check_integer(index, "frame_index", high=MAX_FRAME_INDEX)] = mask
        return cls(
            name=_text(fields["name"]),
            media=_file_name(fields["media"]),
            is_trusted=fields["is_trusted"] is True,
            frame_size=(height, width),
            names={check_integer(key, "id", high=_MAX_ID): _text(name) for key, name in fields["names"]},
            turns=tuple(SavedTurn(_text(question), _text(answer)) for question, answer in fields["turns"]),
            pending_prompts={
                check_integer(key, "id", high=_MAX_ID): tuple(
                    PromptRecord.from_json(record, (height, width)) for record in records
                )
                for key, records in fields["pending_prompts"]
            },
            prompt_masks=prompt_masks,
            memory=_file_name(fields["memory"]),
            journal=None if fields["journal"] is None else _file_name(fields["journal"]),
            client=_text(fields["client"]),
        )


def _file_name(value: Any) -> str:
    name = _text(value)
    if Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"expected the name of a file in the folder of the session, got {name!r:.80}")
    return name


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {value!r:.80}")
    return value
