"""Fine-tune a model with LoRA on ten clips, and ask the tuned model. Needs the extra `train`.

The clips are generated here; your own are described in docs/training.md.

python examples/finetune_on_ten_clips.py --steps 20
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from unipixel import Processor, Session, UniPixel, cli


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a data set, check it, train, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="unipixel-nano", help="checkpoint to start from")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("ten"))
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further settings of the recipe")
    options = parser.parse_args(arguments)

    data = options.out / "data"
    run("synth", "--data", str(data), "--show", "10", "--size", "128", "--frames", "8")
    run("check", str(data / "data.jsonl"))
    run(
        "train",
        "nano/finetune",
        f"model.checkpoint={options.model}",
        f"data.path={data / 'data.jsonl'}",
        f"output={options.out / 'run'}",
        f"training.max_steps={options.steps}",
        *options.overrides,
    )
    tuned = options.out / "run" / "final"
    session = Session(UniPixel.from_pretrained(tuned), Processor.from_pretrained(tuned), data / "clip-0000")
    print(session.ask("What moves?").text)


def run(*command: str) -> None:
    """Run a command of `unipixel`, and end with its exit code if it fails."""
    code = cli.main(command)
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    main()
