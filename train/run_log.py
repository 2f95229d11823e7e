"""Log of a training run: its lines in a file, its validations and its invalid samples."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from unipixel.train.datasets.collate import InvalidExample

LOG_FILE = "log.jsonl"
logger = logging.getLogger(__name__)


class InvalidExampleCounter:
    """Counts and logs invalid samples, and stops a run that has too many."""

    def __init__(self, *, max_fraction: float = 0.01, min_samples: int = 100) -> None:
        """Start counting.

        Args:
            max_fraction: Largest allowed fraction of invalid samples.
            min_samples: Number of samples before the fraction is checked.
        """
        self._max_fraction = max_fraction
        self._min_samples = min_samples
        self.num_samples = 0
        self.num_invalid = 0

    def add(self, invalid: Sequence[InvalidExample], *, num_samples: int) -> None:
        """Count a micro batch.

        Args:
            invalid: Its invalid samples.
            num_samples: Number of all its samples.

        Raises:
            ValueError: Too many samples are invalid.
        """
        self.num_samples += num_samples
        self.num_invalid += len(invalid)
        for example in invalid:
            logger.warning("invalid sample %s: %s", example.name, example.reason)
        is_exceeded = self.num_invalid > self._max_fraction * self.num_samples
        if invalid and self.num_samples >= self._min_samples and is_exceeded:
            raise ValueError(
                f"{self.num_invalid} of {self.num_samples} samples are invalid, more than a fraction of "
                f"{self._max_fraction}; the last is {invalid[-1].name}: {invalid[-1].reason}"
            )


class RunLog(TrainerCallback):
    """Appends every logged line to a file that is kept across restarts, and validates regularly."""

    def __init__(
        self, folder: Path, *, validate: Callable[[int], dict[str, float]] | None = None, every: int | None = None
    ) -> None:
        """Prepare the log.

        Args:
            folder: Folder of the run.
            validate: Returns metrics, given the step.
            every: Steps between validations; None is never.
        """
        self._path = folder / LOG_FILE
        self._validate = validate
        self._every = every

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append a line."""
        if state.is_world_process_zero and logs:
            self._append({"step": state.global_step, **logs})

    def on_step_end(self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **_: Any) -> None:
        """Validate every `every` steps."""
        is_due = self._every is not None and state.global_step % self._every == 0
        if not is_due or self._validate is None or model is None or not state.is_world_process_zero:
            return
        was_training = model.training
        model.eval()
        # Validation leaves the random state as it is: a run without it takes the same steps.
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            metrics = self._validate(state.global_step)
        model.train(was_training)
        self._append({"step": state.global_step, **{f"validation/{name}": value for name, value in metrics.items()}})

    def _append(self, line: Mapping[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "time": round(time.time(), 1)}) + "\n")
