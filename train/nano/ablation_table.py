r"""Train the bundled model's segmenter and language model, and measure what each remedy of its limits is worth.

Run: python -m unipixel.train.nano.ablation_table --out runs/nano

On one GPU, each run takes at most ten minutes and saves every two minutes. Started again, the command continues from
the last checkpoint and skips what was measured. The table is written into `ablations.md` of the folder.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.train.evaluation.synthetic import TASKS, evaluate
from unipixel.train.nano.dense_training import train_dense
from unipixel.train.nano.pretraining_recipe import PretrainingRecipe
from unipixel.train.nano.segmenter.segmenter_recipe import SegmenterRecipe
from unipixel.train.recipe_files import load_any_recipe
from unipixel.train.run_log import LOG_FILE

TABLE_FILE, REPORT_FILE = "ablations.md", "evaluation.json"
_EVALUATED_TASKS = (*TASKS, "pairs", "regions")
_VALIDATION_SEED = 11
# Fraction of the segmenter's time at the size of its recipe, before that of the whole model.
_FIRST_SIZE_FRACTION = 0.6


@dataclass(frozen=True)
class Variant:
    """One way to train the model.

    Attributes:
        name: Name of its folder.
        title: What is different from the recipe.
        overrides: The settings.
    """

    name: str
    title: str
    overrides: tuple[str, ...] = ()


VARIANTS = (
    Variant("recipe", "the recipe"),
    Variant("uniform", "memory is the mean of all touched cells", ("model.memory_pool_weighting=uniform",)),
    Variant("no-positions", "memory without box and time", ("model.memory_position_embedding=false",)),
    Variant(
        "no-regions",
        "no descriptions of several regions",
        ("data.clip_tasks.regions=0.0", "data.image_tasks.regions=0.0"),
    ),
    Variant(
        "finer-frames",
        "144 instead of 96 tokens per frame",
        (
            "model.max_tokens_per_frame=144",
            "data.clip_sizes=[[192, 192], [160, 224], [224, 160], [144, 256], [256, 144], [176, 208]]",
        ),
    ),
)


def train_segmenter(out: Path, *, seconds: float, overrides: Sequence[str] = ()) -> Path:
    """Train the segmenter at the size of its recipe, then at that of the whole model; return its folder.

    Raises:
        ValueError: A setting is unknown.
        RuntimeError: A worker process failed.
        OSError: A folder cannot be written.
    """
    folder: Path | None = None
    parts = (
        ("segmenter", _FIRST_SIZE_FRACTION, ()),
        ("segmenter-320", 1 - _FIRST_SIZE_FRACTION, ("model.image_size=320",)),
    )
    for name, fraction, size in parts:
        start = () if folder is None else (f"model.segmenter={folder}",)
        budget = f"training.max_seconds={seconds * fraction}"
        folder = _train("nano/segmenter", out / name, (budget, *overrides, *size, *start))
    if folder is None:
        raise RuntimeError("no part of the segmenter's training was run")
    return folder


def train_and_measure(folder: Path, overrides: Sequence[str], **options: Any) -> dict[str, Any]:
    """Train with `nano/pretrain` and evaluate the model on the split `val`, or read the report of an earlier call.

    Args:
        folder: Folder of the run.
        overrides: Settings of the recipe.
        **options: Size of the evaluation, as `evaluate` takes it.

    Raises:
        ValueError: A setting is unknown.
        RuntimeError: A worker process failed.
        OSError: A folder cannot be read or written.
    """
    path = folder / REPORT_FILE
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    final = _train("nano/pretrain", folder, overrides)
    model = UniPixel.from_pretrained(final, dtype=torch.float32).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = Processor.from_pretrained(final)
    report = evaluate(model, processor, split="val", seed=_VALIDATION_SEED, tasks=_EVALUATED_TASKS, **options)
    last_line = (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()[-1]
    report["num_trained_samples"] = json.loads(last_line)["num_samples"]
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def format_table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Lay out the reports of some variants, by title, as a table in Markdown."""
    columns = {title: _rates(report) for title, report in reports.items()}
    names = list(dict.fromkeys(name for rates in columns.values() for name in rates))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name in names:
        values = (rates.get(name) for rates in columns.values())
        lines.append(f"| {name} | {' | '.join('' if value is None else f'{value:g}' for value in values)} |")
    return "\n".join(lines) + "\n"


def _rates(report: Mapping[str, Any]) -> dict[str, float | None]:
    return {
        "conversations in training": report["num_trained_samples"],
        **{f"track {kind}, J&F": own["JF"] for kind, own in report["track"].items()},
        **{f"segment {kind}, J&F": own["JF"] for kind, own in report["segment"].items()},
        **{f"question answering {kind}, accuracy": own["accuracy"] for kind, own in report["pixelqa"].items()},
        **{f"regions {kind}, accuracy": value for kind, value in report["regions"].items()},
        "no target answered without a mask": report["no_target"]["answered_without_mask"],
        "follow-up questions, accuracy": report["follow_up"]["accuracy"],
        "pre-filled masks that agree with the prompt": report["prefill"]["accepted"],
        "answers that change with exchanged masks": report["exchange"],
    }


def _train(recipe: str, output: Path, overrides: Sequence[str]) -> Path:
    """Train to the end; a run that has ended writes its result again."""
    loaded = load_any_recipe(recipe, [*overrides, f"output={output}"])
    if not isinstance(loaded, PretrainingRecipe | SegmenterRecipe):
        raise ValueError(f"{recipe} is no recipe of the bundled model")
    return train_dense(loaded)


def main() -> None:
    """Read the arguments, train, measure and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of all runs; what was measured there is skipped"
    )
    parser.add_argument("--seconds", type=float, default=580, help="longest training of a run (default: 580)")
    parser.add_argument("--steps", type=int, default=1500, help="steps of each ablation (default: 1500)")
    parser.add_argument("--limit", type=int, default=110, help="samples of an evaluation (default: 110)")
    parser.add_argument("--frames", type=int, help="frames of an evaluated clip (default: all)")
    parser.add_argument("--size", type=int, help="shorter side of an evaluated clip in pixels (default: random)")
    for stage in ("segmenter", "pretrain"):
        parser.add_argument(f"--{stage}", nargs="*", default=[], metavar="key=value", help=f"settings of nano/{stage}")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    segmenter = train_segmenter(given.out, seconds=given.seconds, overrides=given.segmenter)
    shared = (f"training.max_seconds={given.seconds}", f"model.segmenter={segmenter}", *given.pretrain)
    options = {"limit": given.limit, "num_frames": given.frames, "render_size": given.size}
    reports = {"whole run": train_and_measure(given.out / "model", shared, **options)}
    for variant in VARIANTS:
        overrides = (*shared, f"training.max_steps={given.steps}", *variant.overrides)
        reports[variant.title] = train_and_measure(given.out / variant.name, overrides, **options)
        (given.out / TABLE_FILE).write_text(format_table(reports), encoding="utf-8")
    print(format_table(reports), end="")


if __name__ == "__main__":
    main()
