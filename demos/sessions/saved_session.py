"""The file `session.json` of a user session that is saved on disk."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipixel.memory.records import PromptRecord, check_fields, check_format, check_integer

SESSION_FILE = "session.json"
MEMORY_FOLDER = "memory"
RESULTS_FOLDER = "results"
MAX_SESSION_BYTES = 2**26
"""Maximum size of a `session.json` that is read."""
_FORMAT = "unipixel-demo-session-2"
_FIELDS = {"format", "name", "media", "is_trusted", "frame_size", "names", "turns", "pending_prompts"}
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
    """

    name: str
    media: str
    is_trusted: bool
    frame_size: tuple[int, int]
    names: dict[int, str]
    turns: tuple[SavedTurn, ...]
    pending_prompts: dict[int, tuple[PromptRecord, ...]]

    def write(self, folder: Path) -> None:
        """Write `session.json` atomically.

        Raises:
            OSError: The folder is not writable.
        """
        part = folder / f".{SESSION_FILE}.{secrets.token_hex(8)}"
        part.write_text(json.dumps(self.to_json(), ensure_ascii=False), encoding="utf-8")
        os.replace(part, folder / SESSION_FILE)

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
        media = _text(fields["media"])
        if Path(media).name != media or media in ("", ".", ".."):
            raise ValueError(f"media must name a file in the folder of the session, got {media!r}")
        return cls(
            name=_text(fields["name"]),
            media=media,
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
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, got {value!r:.80}")
    return value
