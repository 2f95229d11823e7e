"""The requests of a data engine and their replies: `requests.jsonl`, written as they arrive.

A reply that is in the file is never asked for again, also if the process was killed before its region was finished.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from unipixel.batch.line_file import LineFile
from unipixel.train.data_engine.engine_requests import PROMPT_VERSION
from unipixel.train.endpoints.chat_completions import ChatReply, EndpointError
from unipixel.train.endpoints.request_budget import BudgetSpentError

FILE_NAME = "requests.jsonl"


@dataclass(frozen=True)
class LoggedReply:
    """A reply with what it took.

    Attributes:
        text: The reply.
        is_cut: Whether it ended at the limit of its length.
        requests: Requests that were sent.
        prompt_tokens: Tokens of the question.
        completion_tokens: Tokens of the reply.
    """

    text: str
    is_cut: bool
    requests: int
    prompt_tokens: int
    completion_tokens: int


class RequestLog:
    """Stores every request of a run, and returns the replies of earlier runs.

    Attributes:
        num_requests: Requests of all runs, failed ones included.
        num_tokens: Their tokens.
    """

    def __init__(self, folder: Path, *, finished: Container[str]) -> None:
        """Open the file of a folder.

        Args:
            folder: Folder of the run.
            finished: Names of regions whose replies are not needed again.

        Raises:
            OSError: The file cannot be written, or another process is writing it.
            ValueError: A line has another form.
        """
        self._file = LineFile(folder / FILE_NAME)
        self._replies: dict[tuple[str, str, int], LoggedReply] = {}
        self.num_requests = self.num_tokens = 0
        try:
            for row in self._file.objects():
                self._read(row, finished)
        except BaseException:
            self._file.close()
            raise

    def _read(self, row: dict[str, Any], finished: Container[str]) -> None:
        try:
            counts = [int(row[name]) for name in ("requests", "prompt_tokens", "completion_tokens")]
            key = (str(row["region"]), str(row["step"]), int(row["attempt"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{self._file.path}: a line is not a request: {error}") from error
        self.num_requests += counts[0]
        self.num_tokens += counts[1] + counts[2]
        if isinstance(row.get("text"), str) and key[0] not in finished:
            self._replies[key] = LoggedReply(row["text"], bool(row.get("is_cut")), *counts)

    def find(self, region: str, step: str, attempt: int) -> LoggedReply | None:
        """Return the reply of an earlier run to a request about a region, or None."""
        return self._replies.get((region, step, attempt))

    def add(self, region: str, step: str, attempt: int, *, model: str, seed: int, reply: ChatReply) -> LoggedReply:
        """Store a reply; it is in the file when this returns."""
        added = LoggedReply(
            reply.text, reply.is_cut, reply.num_attempts, reply.prompt_tokens or 0, reply.completion_tokens or 0
        )
        fields = {"answered_by": reply.model, "is_cut": reply.is_cut, "text": reply.text}
        self._append(region, step, attempt, model=model, seed=seed, reply=added, fields=fields)
        return added

    def add_failure(
        self, region: str, step: str, attempt: int, *, model: str, seed: int, error: EndpointError | BudgetSpentError
    ) -> None:
        """Store that the requests of a step failed, which the budget counts."""
        failed = LoggedReply("", False, error.num_attempts, 0, 0)
        self._append(region, step, attempt, model=model, seed=seed, reply=failed, fields={"error": str(error)})

    def _append(
        self,
        region: str,
        step: str,
        attempt: int,
        *,
        model: str,
        seed: int,
        reply: LoggedReply,
        fields: dict[str, Any],
    ) -> None:
        row = {
            "region": region,
            "step": step,
            "attempt": attempt,
            "model": model,
            "prompt_version": PROMPT_VERSION,
            "seed": seed,
            "date": current_date(),
            "requests": reply.requests,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
        }
        self._file.append_json({**row, **fields})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def current_date() -> str:
    """Return the date and time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
