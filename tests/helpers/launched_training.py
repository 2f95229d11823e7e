"""Runs `unipixel train` in one or several processes, and compares what the runs leave."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from unipixel.train.run_log import LOG_FILE
from unipixel.train.trainer import WEIGHTS_FILE


def train(recipe: str, *overrides: str, num_processes: int = 1, output: Path) -> str:
    """Train and return what was printed.

    Args:
        recipe: Bundled recipe, or path.
        overrides: Settings to replace.
        num_processes: Processes, which torchrun starts.
        output: Folder of the run.

    Raises:
        AssertionError: The command failed.
    """
    launcher = ["-m", "unipixel.cli"]
    if num_processes > 1:
        count = f"--nproc-per-node={num_processes}"
        launcher = ["-m", "torch.distributed.run", count, f"--master-port={_free_port()}", *launcher]
    command = [sys.executable, *launcher, "train", recipe, f"output={output}", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def losses(output: Path) -> list[tuple[int, float]]:
    """Return the steps and losses in the log of a run, in the order of its lines."""
    lines = (output / LOG_FILE).read_text(encoding="utf-8").splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines) if "loss" in line]


def checkpoint_weights(output: Path, step: int) -> dict[str, Tensor]:
    """Return the trained weights of a checkpoint."""
    return load_file(output / f"checkpoint-{step}" / WEIGHTS_FILE)


def resume_copy(output: Path, copy: Path, *, step: int) -> None:
    """Make a folder in which a run goes on from one checkpoint of another run."""
    shutil.copytree(output / f"checkpoint-{step}", copy / f"checkpoint-{step}")


def assert_same_run(one: Path, other: Path, *, num_steps: int, first_step: int = 1, tolerance: float = 1e-5) -> None:
    """Check that two runs have the same losses at every step and the same trained weights after the last.

    Args:
        one: Output of a run from its start.
        other: Output of the other run.
        num_steps: Steps of both.
        first_step: First step of the other run, which may have been resumed.
        tolerance: Relative and absolute tolerance of losses.

    Adam divides a gradient by its own size: where it is nearly zero, rounding moves a weight by a part of the learning
    rate. Weights are therefore compared by the norm of their difference, relative to how far they were trained.
    """
    expected, found = losses(one)[first_step - 1 :], losses(other)
    assert [step for step, _ in found] == [step for step, _ in expected] == list(range(first_step, num_steps + 1))
    torch.testing.assert_close(
        torch.tensor([loss for _, loss in found]),
        torch.tensor([loss for _, loss in expected]),
        rtol=tolerance,
        atol=tolerance,
    )
    weights, others = (checkpoint_weights(folder, num_steps) for folder in (one, other))
    first = checkpoint_weights(one, 1)
    assert weights.keys() == others.keys()
    moved = torch.cat([(weights[name] - first[name]).flatten().double() for name in weights]).norm()
    apart = torch.cat([(weights[name] - others[name]).flatten().double() for name in weights]).norm()
    assert moved > 0
    assert apart / moved < 1e-2, f"{apart / moved = }"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
