"""Ask about two objects of a clip, then ask again about the same clip.

python examples/ask_about_two_objects.py clip.mp4 --first 65,85 --second 180,60
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from unipixel import PointPrompt, Processor, Session, UniPixel


def main(arguments: Sequence[str] | None = None) -> None:
    """Click on two objects of the first frame and ask two questions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--first", default="65,85", help="x,y of object 1 on the first frame")
    parser.add_argument("--second", default="180,60", help="x,y of object 2")
    parser.add_argument("--model", default="unipixel-nano")
    options = parser.parse_args(arguments)

    model, processor = UniPixel.from_pretrained(options.model), Processor.from_pretrained(options.model)
    session = Session(model, processor, options.video)
    for object_id, text in ((1, options.first), (2, options.second)):
        x, y = (float(value) for value in text.split(","))
        session.prompt(object_id, PointPrompt(x, y, frame_index=0))
    for question in ("What colour is [1]?", "What shape is [2]?"):
        answer = session.ask(question)
        print(f"{question} {answer.text}")
    for item in answer.objects.values():
        print(item.describe())


if __name__ == "__main__":
    main()
