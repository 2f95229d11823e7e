"""Dense pre-training of the small model: the loop, its checkpoints and its log."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unipixel.train.initialization import load_initial_model
from unipixel.train.nano.checkpoint_file import read_state, write_state
from unipixel.train.nano.dense_batch import DenseBatch
from unipixel.train.nano.dense_model import DenseModel
from unipixel.train.nano.feeding import make_feed
from unipixel.train.nano.pretraining_objective import PretrainingObjective
from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
from unipixel.train.optimizer import ADAMW_BETAS, BatchedMuon, is_matrix
from unipixel.train.run_log import LOG_FILE

CHECKPOINT_FILE = "checkpoint.safetensors"
# AdamW's share of Muon's rate, and its memory: shorter than usual, as a run has a few thousand steps.
_ADAMW_RATE = 0.5
# Steps between states that a run returns to when its loss is no number, and by what the rate falls then.
_SNAPSHOT_EVERY, _RATE_CUT = 200, 0.5
_SEGMENTER_PREFIX = "dense.model.sam2."
logger = logging.getLogger(__name__)


@dataclass
class Counters:
    """How far a run has come.

    Attributes:
        step: Steps taken.
        num_conversations: Conversations seen, repeated ones included.
        seconds: Seconds of training, those before interruptions included.
        rate_factor: What the learning rate was cut to after losses that were no numbers.
    """

    step: int = 0
    num_conversations: int = 0
    seconds: float = 0.0
    rate_factor: float = 1.0


class Pretraining:
    """One run: model, heads, optimisers and counters, from its start or from its checkpoint."""

    def __init__(self, recipe: PretrainingRecipe) -> None:
        """Build a run, and take over the checkpoint in its folder where there is one.

        Raises:
            ValueError: The recipe's parts do not fit together, or the checkpoint is of another recipe.
            OSError: Weights cannot be read.
        """
        self._recipe, self._loop = recipe, recipe.training
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._folder = Path(recipe.output)
        state = self._read_checkpoint()
        self._model, self._processor = load_initial_model(recipe)
        self._model.sam2.requires_grad_(False)
        torch.manual_seed(recipe.seed)
        dense = DenseModel(self._model, has_bfloat16_residual=self._loop.has_bfloat16_residual)
        # Workers are started before CUDA is: they can be forked then.
        self.feed = make_feed(
            self._processor, recipe.data, seed=recipe.seed, device=self._device, state=state.get("feed", {})
        )
        self.objective = PretrainingObjective(dense, weights=recipe.losses).to(self._device)
        self._muon, self._adamw = _optimizers(self.objective, recipe)
        self.counters = Counters()
        if state:
            self._restore(state)
        if self._loop.is_compiled:
            dense.compile_blocks()
        self._parameters = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        self._figures: dict[str, list[Tensor]] = defaultdict(list)
        self._snapshot = self._copy_weights()

    @property
    def progress(self) -> float:
        """Fraction of the run that is over, in [0, 1]; the nearer of its two ends decides."""
        fractions = [0.0]
        if self._loop.max_steps is not None:
            fractions.append(self.counters.step / self._loop.max_steps)
        if self._loop.max_seconds is not None:
            fractions.append(self.counters.seconds / self._loop.max_seconds)
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
                if self.counters.step % self._loop.log_every == 0 or self.counters.step == 1:
                    self.close_window()
                if time.monotonic() - saved > self._loop.save_every_seconds and not self._figures:
                    self.save()
                    saved = time.monotonic()
        finally:
            self.feed.close()
        if self._figures:
            self.close_window()
        self.save()
        return None if self.progress < 1 else self._write_final()

    def step(self, batch: DenseBatch) -> None:
        """Take one step of both optimisers."""
        progress, counters = self.progress, self.counters
        rise = min(1.0, (counters.step + 1) / max(1, self._loop.warmup_steps))
        fall = min(1.0, (1 - progress) / self._loop.decay_fraction)
        rate = self._loop.learning_rate * rise * fall * counters.rate_factor
        for optimizer, factor in ((self._muon, 1.0), (self._adamw, _ADAMW_RATE)):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        is_mixed = self._loop.precision == "bfloat16"
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=is_mixed):
            loss, figures = self.objective(batch, progress=progress)
        self._muon.zero_grad()
        self._adamw.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._parameters, self._loop.max_gradient_norm, foreach=True)
        self._muon.step()
        self._adamw.step()
        counters.step += 1
        counters.num_conversations += len(batch.input_ids)
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
        elif self.counters.step % _SNAPSHOT_EVERY < self._loop.log_every:
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
        """Model and heads without the segmenter, which is not trained."""
        state = self.objective.state_dict()
        return {name: tensor for name, tensor in state.items() if not name.startswith(_SEGMENTER_PREFIX)}

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
            missing = [name for name in missing if not name.startswith(_SEGMENTER_PREFIX)]
            if missing or unexpected:
                raise ValueError(f"missing {missing[:3]}, unexpected {unexpected[:3]}")
            self._muon.load_state_dict(state["muon"])
            adamw = state["adamw"]
            moments = {int(number): own for number, own in adamw["state"].items()}
            self._adamw.load_state_dict({**adamw, "state": moments})
        except (ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} is not of this recipe, give another output or delete it: {reason}") from error
        self.counters = Counters(**state["counters"])
        torch.set_rng_state(state["random"])

    def _write_final(self) -> Path:
        folder = self._folder / "final"
        self._model.eval().save_pretrained(folder)
        self._processor.save_pretrained(folder)
        return folder


def pretrain(recipe: PretrainingRecipe) -> Path:
    """Train to the end of a recipe, from the checkpoint in its folder where there is one.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError: The recipe's parts do not fit together, or several processes were started.
        RuntimeError: A worker process failed.
        OSError: Files cannot be read or written.
    """
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes > 1:
        raise ValueError(
            f"a recipe of the stage pretrain trains in one process, got {num_processes}: start it without torchrun"
        )
    folder = Pretraining(recipe).run()
    if folder is None:
        raise RuntimeError("the run was stopped before its end")
    return folder


def _optimizers(objective: nn.Module, recipe: PretrainingRecipe) -> tuple[BatchedMuon, torch.optim.AdamW]:
    named = [(name, parameter) for name, parameter in objective.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in named if is_matrix(name, parameter)]
    others = [parameter for name, parameter in named if not is_matrix(name, parameter)]
    decay, rate = recipe.training.weight_decay, recipe.training.learning_rate
    groups = [
        {"params": [parameter for parameter in others if parameter.ndim > 1], "weight_decay": decay},
        {"params": [parameter for parameter in others if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=rate, betas=ADAMW_BETAS, fused=others[0].device.type == "cuda")
    return BatchedMuon(matrices, lr=rate, weight_decay=decay), adamw
