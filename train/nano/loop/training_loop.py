"""The training loop of the bundled model: its steps, its checkpoints and its log."""

from __future__ import annotations

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipixel.train.nano.loop.batch_feeding import BatchFeed
from unipixel.train.nano.loop.checkpoint_file import read_state, write_state
from unipixel.train.nano.loop.loop_settings import LoopSettings
from unipixel.train.optimizer import ADAMW_BETAS, BatchedMuon, is_matrix
from unipixel.train.run_log import LOG_FILE

CHECKPOINT_FILE = "checkpoint.safetensors"
# AdamW's share of Muon's rate, and its memory: shorter than usual, as a run has a few thousand steps.
_ADAMW_RATE = 0.5
# Steps between states that a run returns to when its loss is no number, and by what the rate falls then.
_SNAPSHOT_EVERY, _RATE_CUT = 200, 0.5
logger = logging.getLogger(__name__)


@dataclass
class Counters:
    """How far a run has come.

    Attributes:
        step: Steps taken.
        num_samples: Conversations or tracks seen, repeated ones included.
        seconds: Seconds of training, those before interruptions included.
        rate_factor: What the learning rate was cut to after losses that were no numbers.
    """

    step: int = 0
    num_samples: int = 0
    seconds: float = 0.0
    rate_factor: float = 1.0


class LoopObjective(nn.Module, ABC):
    """A model with its loss."""

    @abstractmethod
    def forward(self, batch: Any, *, progress: float = 0.0) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and figures for the log; `progress` is the fraction of the run that is over."""

    @abstractmethod
    def compile_blocks(self) -> None:
        """Compile what takes most of the time."""


class TrainingLoop:
    """One run: objective, optimisers and counters, from its start or from its checkpoint."""

    def __init__(
        self,
        objective: LoopObjective,
        settings: LoopSettings,
        *,
        folder: Path,
        seed: int,
        make_feed: Callable[[torch.device, dict[str, Any]], BatchFeed],
        save_result: Callable[[Path], None],
    ) -> None:
        """Prepare a run, and take over the checkpoint in its folder where there is one.

        Args:
            objective: On the CPU; parameters without gradients are not trained and not part of checkpoints.
            settings: How the steps are taken.
            folder: Of the checkpoint, the log and the result.
            seed: Of the random numbers that the objective takes.
            make_feed: Makes the feed of a device from its state.
            save_result: Writes the trained model into a folder.

        Raises:
            ValueError: The checkpoint is of another recipe.
            OSError: The checkpoint cannot be read.
        """
        self._settings, self._folder, self._save_result = settings, folder, save_result
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        state = self._read_checkpoint()
        # Workers are started before CUDA is: they can be forked then.
        self.feed = make_feed(self._device, state.get("feed", {}))
        torch.manual_seed(seed)
        self.objective = objective.to(self._device)
        self._frozen = {name for name, parameter in objective.named_parameters() if not parameter.requires_grad}
        self._muon, self._adamw = _optimizers(objective, settings)
        self.counters = Counters()
        if state:
            self._restore(state)
        if settings.is_compiled:
            objective.compile_blocks()
        self._parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
        self._figures: dict[str, list[Tensor]] = defaultdict(list)
        self._snapshot = self._copy_weights()

    @property
    def progress(self) -> float:
        """Fraction of the run that is over, in [0, 1]; the nearer of its two ends decides."""
        fractions = [0.0]
        if self._settings.max_steps is not None:
            fractions.append(self.counters.step / self._settings.max_steps)
        if self._settings.max_seconds is not None:
            fractions.append(self.counters.seconds / self._settings.max_seconds)
        return min(1.0, max(fractions))

    def run(self, *, stop_after: int | None = None) -> Path | None:
        """Train to the end of the recipe and write `final`.

        Args:
            stop_after: Stop at this step although the recipe goes on, with a checkpoint there.

        Returns:
            The folder of the trained model; None where the run was stopped before its end.

        Raises:
            RuntimeError: A worker process failed.
            OSError: The folder cannot be written.
        """
        before, started = self.counters.seconds, time.monotonic()
        saved = started
        try:
            while self.progress < 1 and self.counters.step != stop_after:
                self.step(self.feed.next())
                self.counters.seconds = before + time.monotonic() - started
                if self.counters.step % self._settings.log_every == 0 or self.counters.step == 1:
                    self.close_window()
                if time.monotonic() - saved > self._settings.save_every_seconds and not self._figures:
                    self.save()
                    saved = time.monotonic()
        finally:
            self.feed.close()
        if self._figures:
            self.close_window()
        self.save()
        return None if self.progress < 1 else self._write_final()

    def step(self, batch: Any) -> None:
        """Take one step of both optimisers."""
        progress, counters = self.progress, self.counters
        rise = min(1.0, (counters.step + 1) / max(1, self._settings.warmup_steps))
        fall = min(1.0, (1 - progress) / self._settings.decay_fraction)
        rate = self._settings.learning_rate * rise * fall * counters.rate_factor
        for optimizer, factor in ((self._muon, 1.0), (self._adamw, _ADAMW_RATE)):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        is_mixed = self._settings.precision == "bfloat16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=is_mixed):
            loss, figures = self.objective(batch, progress=progress)
        self._muon.zero_grad()
        self._adamw.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, self._settings.max_gradient_norm, foreach=True)
        self._muon.step()
        self._adamw.step()
        counters.step += 1
        counters.num_samples += batch.num_samples
        for name, value in figures.items():
            self._figures[name].append(value)

    def close_window(self) -> None:
        """Log the mean of the figures since the last line; go back where they are no numbers."""
        means = {name: float(torch.stack(values).float().mean()) for name, values in self._figures.items()}
        self._figures.clear()
        feed = {"seconds_waited": round(self.feed.seconds_waited, 1), "num_repeated": self.feed.num_repeated}
        line = {
            **{name: round(value, 5) for name, value in means.items()},
            **asdict(self.counters),
            **feed,
            "learning_rate": self._muon.param_groups[0]["lr"],
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        logger.info("%s", line)
        if not all(math.isfinite(value) for value in means.values()):
            self._go_back()
        elif self.counters.step % _SNAPSHOT_EVERY < self._settings.log_every:
            self._snapshot = self._copy_weights()

    def _go_back(self) -> None:
        """Return to the last weights whose losses were numbers, with a lower rate."""
        logger.warning("a loss at step %d is not finite: going back, at half the rate", self.counters.step)
        self.objective.load_state_dict(self._snapshot, strict=False)
        self._muon.reset()
        self._adamw.state.clear()
        self.counters.rate_factor *= _RATE_CUT

    def _copy_weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().clone() for name, tensor in self._trained_state().items()}

    def _trained_state(self) -> dict[str, Tensor]:
        """Weights and buffers of the objective without its frozen parameters."""
        return {name: tensor for name, tensor in self.objective.state_dict().items() if name not in self._frozen}

    def save(self) -> None:
        """Write the checkpoint that a run goes on from.

        Raises:
            OSError: The folder cannot be written.
        """
        state = {
            "weights": self._trained_state(),
            "muon": self._muon.state_dict(),
            "adamw": self._adamw.state_dict(),
            "counters": asdict(self.counters),
            "feed": self.feed.state(),
            "random": torch.get_rng_state(),
        }
        write_state(self._folder / CHECKPOINT_FILE, state)

    def _read_checkpoint(self) -> dict[str, Any]:
        path = self._folder / CHECKPOINT_FILE
        if not path.is_file():
            return {}
        logger.info("resuming from %s", path)
        return read_state(path)

    def _restore(self, state: dict[str, Any]) -> None:
        path = self._folder / CHECKPOINT_FILE
        try:
            missing, unexpected = self.objective.load_state_dict(state["weights"], strict=False)
            missing = sorted(set(missing) - self._frozen)
            if missing or unexpected:
                raise ValueError(f"missing {missing[:3]}, unexpected {unexpected[:3]}")
            self._muon.load_state_dict(state["muon"])
            adamw = state["adamw"]
            moments = {int(number): own for number, own in adamw["state"].items()}
            self._adamw.load_state_dict({**adamw, "state": moments})
            self.counters = Counters(**state["counters"])
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} is not of this recipe, give another output or delete it: {reason}") from error
        torch.set_rng_state(state["random"])

    def _write_final(self) -> Path:
        folder = self._folder / "final"
        self.objective.eval()
        self._save_result(folder)
        return folder


def _optimizers(objective: nn.Module, settings: LoopSettings) -> tuple[BatchedMuon, torch.optim.AdamW]:
    named = [(name, parameter) for name, parameter in objective.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in named if is_matrix(name, parameter)]
    others = [parameter for name, parameter in named if not is_matrix(name, parameter)]
    decay, rate = settings.weight_decay, settings.learning_rate
    groups = [
        {"params": [parameter for parameter in others if parameter.ndim > 1], "weight_decay": decay},
        {"params": [parameter for parameter in others if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=rate, betas=ADAMW_BETAS, fused=others[0].device.type == "cuda")
    return BatchedMuon(matrices, lr=rate, weight_decay=decay), adamw
