"""The component table of the Pixel-SAIL paper at nano size: what the upsampler, injection and distillation contribute.

    python tests/benchmarks/sail_components.py OUTPUT [--steps 1500] [--seeds 0 1] [--images 1000] [--json]
        [key=value ...]

Trains `sail/nano` four times per seed on the same drawn images, each variant with one more component, evaluates each
model on images of the test split, and prints the table. `key=value` are further settings of all runs. An interrupted
table is continued by the same command: finished models and reports are kept, a run continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

VARIANTS: dict[str, tuple[str, ...]] = {
    "plain": ("model.num_upsample_blocks=0", "model.prompt_encoding=pooling"),
    "+ upsampler": ("model.prompt_encoding=pooling",),
    "+ injection": (),
    "+ distillation": ('distillation.teachers=["sam2"]',),
}
COLUMNS = (
    ("attribute", "cIoU"), ("attribute", "F"), ("relation", "cIoU"), ("visual_text", "cIoU"), ("region", "accuracy"),
    ("question", "accuracy"), ("no_target", "N_acc"), ("no_target", "T_acc"),
)  # fmt: skip
# Orderings of the paper: later variant, earlier variant, task, metric.
ORDERINGS = (
    ("+ upsampler", "plain", "attribute", "cIoU"),
    ("+ upsampler", "plain", "attribute", "F"),
    ("+ injection", "+ upsampler", "region", "accuracy"),
    ("+ injection", "+ upsampler", "attribute", "cIoU"),
    ("+ distillation", "+ injection", "attribute", "cIoU"),
)
_REPORT = "report.json"
Reports = Mapping[str, Sequence[Mapping[str, Any]]]


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--images", type=int, default=1000, help="images of the evaluation, over all tasks")
    parser.add_argument("--json", action="store_true")
    arguments, settings = parser.parse_known_intermixed_args()
    reports = {
        name: [
            report_of(arguments.output, name, seed, settings, steps=arguments.steps, images=arguments.images)
            for seed in arguments.seeds
        ]
        for name in VARIANTS
    }
    print(json.dumps(reports) if arguments.json else table(reports))


def report_of(
    output: Path, name: str, seed: int, settings: Sequence[str], *, steps: int, images: int
) -> dict[str, Any]:
    """Train and evaluate one variant, as far as this is not done."""
    folder = output / f"{name.removeprefix('+ ')}-{seed}"
    file = folder / _REPORT
    request = {"steps": steps, "images": images, "settings": list(settings)}
    if file.is_file():
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if report["request"] == request:
            return report
        if (before := report["request"]) | {"images": images} != request:
            raise SystemExit(f"{folder} was trained with {before}: give another output")
    final = folder / "final"
    if not (final / "config.json").is_file():
        given = (
            f"output={folder}",
            f"seed={seed}",
            f"training.max_steps={steps}",
            f"training.validate_every={steps + 1}",
        )
        command = [sys.executable, "-m", "unipixel.cli", "train", "sail/nano", *given, *VARIANTS[name], *settings]
        if code := subprocess.run(command, check=False).returncode:
            raise SystemExit(code)
    report = {**evaluate(final, images), "request": request}
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def evaluate(folder: Path, images: int) -> dict[str, Any]:
    """Evaluate a trained model on drawn images of the test split."""
    from unipixel import PixelSail, SailProcessor
    from unipixel.train.sail.sail_evaluation import evaluate_sail

    model, processor = PixelSail.from_pretrained(folder), SailProcessor.from_pretrained(folder)
    return evaluate_sail(model, processor, split="test", limit=images)


def table(reports: Reports) -> str:
    """Return the means over seeds in Markdown, with the seeds in brackets, and the orderings of the paper."""
    lines = ["| variant | " + " | ".join(f"{task} {metric}" for task, metric in COLUMNS) + " |"]
    lines.append("|---" * (len(COLUMNS) + 1) + "|")
    for name, own in reports.items():
        cells = []
        for task, metric in COLUMNS:
            values = [report[task][metric] for report in own]
            each = ", ".join(f"{value:.3f}" for value in values)
            cells.append(f"{sum(values) / len(values):.3f} ({each})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    for later, earlier, task, metric in ORDERINGS:
        pairs = zip(reports[later], reports[earlier], strict=True)
        gains = [after[task][metric] - before[task][metric] for after, before in pairs]
        met = sum(gain > 0 for gain in gains)
        mean = sum(gains) / len(gains)
        lines.append(f"- {task} {metric}: {later} against {earlier} {mean:+.3f}, above in {met} of {len(gains)} seeds")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
