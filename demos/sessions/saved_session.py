"""A visitor's session on disk: its upload, its object memory, and one JSON file about the rest."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipixel.memory.records import PromptRecord, check_fields, check_integer

SESSION_FILE = "session.json"
MEMORY_FOLDER = "memory"
RESULTS_FOLDER = "results"
MAX_SESSION_BYTES = 2**26
"""Largest file that is read."""
_FORMAT = "unipixel-demo-session-1"
_FIELDS = {"format", "name", "media", "is_trusted", "frame_size", "names", "turns", "waiting"}
_MAX_ID = 10**6


@dataclass(frozen=True)
class SavedTurn:
    """One question and its answer.

    Attributes:
        question: As it was asked.
        answer: With objects as `[id]`.
    """

    question: str
    answer: str


@dataclass(frozen=True)
class SavedSession:
    """What is kept of a session besides the upload and the object memory.

    Attributes:
        name: What the visitor calls the upload.
        media: Name of the file in the session's folder.
        is_trusted: Whether it is an example of our own.
        frame_size: (H, W) of the video.
        names: What the visitor calls his objects.
        turns: The conversation.
        waiting: Prompts that were not followed yet, by object.
    """

    name: str
    media: str
    is_trusted: bool
    frame_size: tuple[int, int]
    names: dict[int, str]
    turns: tuple[SavedTurn, ...]
    waiting: dict[int, tuple[PromptRecord, ...]]

    def write(self, folder: Path) -> None:
        """Write `session.json`, whole or not at all.

        Raises:
            OSError: The folder cannot be written.
        """
        part = folder / f".{SESSION_FILE}.{secrets.token_hex(8)}"
        part.write_text(json.dumps(self.to_json(), ensure_ascii=False), encoding="utf-8")
        os.replace(part, folder / SESSION_FILE)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "format": _FORMAT,
            "name": self.name,
            "media": self.media,
            "is_trusted": self.is_trusted,
            "frame_size": list(self.frame_size),
            "names": [[key, name] for key, name in self.names.items()],
            "turns": [[turn.question, turn.answer] for turn in self.turns],
            "waiting": [[key, [record.to_json() for record in own]] for key, own in self.waiting.items()],
        }

    @classmethod
    def read(cls, folder: Path) -> SavedSession:
        """Read and check what `write` wrote.

        Raises:
            OSError: There is no such file.
            ValueError: It is damaged or too large.
        """
        file = folder / SESSION_FILE
        if (size := file.stat().st_size) > MAX_SESSION_BYTES:
            raise ValueError(f"{SESSION_FILE} has {size} bytes, at most {MAX_SESSION_BYTES} are read")
        try:
            fields = check_fields(json.loads(file.read_text(encoding="utf-8")), _FIELDS, SESSION_FILE)
            return cls._of(fields)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"{SESSION_FILE} is damaged: {error}") from error

    @classmethod
    def _of(cls, fields: Any) -> SavedSession:
        if fields["format"] != _FORMAT:
            raise ValueError(f"format must be {_FORMAT!r}, got {fields['format']!r}")
        height, width = (check_integer(side, "frame_size", low=1, high=2**31) for side in fields["frame_size"])
        media = _text(fields["media"])
        if Path(media).name != media or media in ("", ".", ".."):
            raise ValueError(f"media must name a file of the session's own folder, got {media!r}")
        return cls(
            name=_text(fields["name"]),
            media=media,
            is_trusted=fields["is_trusted"] is True,
            frame_size=(height, width),
            names={check_integer(key, "id", high=_MAX_ID): _text(name) for key, name in fields["names"]},
            turns=tuple(SavedTurn(_text(question), _text(answer)) for question, answer in fields["turns"]),
            waiting={
                check_integer(key, "id", high=_MAX_ID): tuple(
                    PromptRecord.from_json(record, (height, width)) for record in own
                )
                for key, own in fields["waiting"]
            },
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {value!r:.80}")
    return value
