r"""Write a trained model, UniPixel or Pixel-SAIL, for the package: half precision and a summary of its logs.

Run: python -m unipixel.train.nano.release --model runs/nano-pretrain/final --logs runs/nano-pretrain \
     --out unipixel/assets/models/unipixel-nano
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unipixel.checkpoints.architecture import is_sail_checkpoint, load_checkpoint
from unipixel.train.checkpoints import convert_to_half
from unipixel.train.initialization import load_initial_model
from unipixel.train.recipe import ModelRecipe, RunRecipe
from unipixel.train.run_log import LOG_FILE

LOGS_FILE = "training_log.json"
_FIGURES = ("loss", "text", "iou", "dice", "patch_words", "prompt_words", "mask_tokens", "accuracy", "num_samples")
_LINES = 40


def release(model: str, out: Path, *, segmenter: str | None, image_size: int | None, logs: Sequence[Path]) -> int:
    """Write a model for the package.

    Args:
        model: Checkpoint of the last stage.
        out: Folder to write.
        segmenter: Folder of a trained segmenter that replaces the checkpoint's; Pixel-SAIL has none.
        image_size: Side of the segmenter's input in pixels; None is that of the checkpoint.
        logs: Folders of the runs that led here, in their order.

    Returns:
        Bytes of the weights.

    Raises:
        OSError: Something cannot be read or written.
        ValueError: The parts do not fit together.
    """
    loaded: Any
    if is_sail_checkpoint(model):
        if segmenter is not None or image_size is not None:
            raise ValueError(f"{model} is a Pixel-SAIL checkpoint, which has no segmenter: leave its options out")
        loaded, processor = load_checkpoint(model)
    else:
        settings = ModelRecipe(checkpoint=model, segmenter=segmenter, image_size=image_size)
        loaded, processor = load_initial_model(RunRecipe(output=str(out), model=settings))
    loaded.eval().save_pretrained(out)
    processor.save_pretrained(out)
    runs = {folder.name: summarise(folder / LOG_FILE) for folder in logs}
    (out / LOGS_FILE).write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    return convert_to_half(out)


def summarise(path: Path) -> list[dict[str, float]]:
    """Return up to 40 lines of a run's log, evenly chosen, with the figures that say how it went.

    Raises:
        OSError: The log cannot be read.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if "loss" in line or "text" in line]
    chosen = lines[:: max(1, -(-len(lines) // _LINES))]
    return [
        {"step": line["step"], **{name: round(line[name], 4) for name in _FIGURES if name in line}} for line in chosen
    ]


def main() -> None:
    """Read the arguments and write the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="checkpoint of the last stage")
    parser.add_argument("--segmenter", help="folder of the segmenter's last stage")
    parser.add_argument("--image-size", type=int, help="side of the segmenter's input in pixels")
    parser.add_argument("--logs", type=Path, nargs="*", default=[], help="folders of the runs, in their order")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    given = parser.parse_args()
    size = release(given.model, given.out, segmenter=given.segmenter, image_size=given.image_size, logs=given.logs)
    print(f"wrote {given.out}: {size / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
