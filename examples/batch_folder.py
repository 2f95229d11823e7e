"""Ask one question about every clip of a folder, with one model; a clip that fails does not end the others.

python examples/batch_folder.py clips/ "What moves?" --out results/
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from unipixel import Processor, Session, UniPixel


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a result folder per clip, and `answers.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("question")
    parser.add_argument("--pattern", default="*.mp4")
    parser.add_argument("--model", default="unipixel-nano")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)

    model, processor = UniPixel.from_pretrained(options.model), Processor.from_pretrained(options.model)
    options.out.mkdir(parents=True, exist_ok=True)
    with (options.out / "answers.jsonl").open("w", encoding="utf-8") as file:
        for clip in sorted(options.folder.glob(options.pattern)):
            try:
                answer = Session(model, processor, clip).ask(options.question)
                answer.save(options.out / clip.stem, overwrite=True)
                line = {"clip": clip.name, "answer": answer.text}
            except (OSError, ValueError) as error:
                line = {"clip": clip.name, "error": str(error)}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            print(line)


if __name__ == "__main__":
    main()
