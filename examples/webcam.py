"""Track what a text describes in the picture of a webcam, and ask about it every few seconds.

python examples/webcam.py 0 "the red cup" --every 5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from unipixel import LiveSession, Processor, UniPixel, open_video


def main(arguments: Sequence[str] | None = None) -> None:
    """Read frames until the source ends or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", help="number of a camera, an address, or a file")
    parser.add_argument("query", help="text that describes the object")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two questions")
    parser.add_argument("--model", default="unipixel-nano")
    options = parser.parse_args(arguments)

    session = LiveSession(UniPixel.from_pretrained(options.model), Processor.from_pretrained(options.model))
    next_seconds = 0.0
    with open_video(options.source) as video:
        for frame in video:
            masks = session.step(frame)
            shown = {object_id: int(item.mask.sum()) for object_id, item in masks.items() if item.visible}
            print(f"{frame.timestamp_seconds:.2f} s: {shown or 'nothing yet'}")
            if frame.timestamp_seconds >= next_seconds:
                next_seconds = frame.timestamp_seconds + options.every
                if not session.bank.ids:
                    print(session.segment(options.query).text)
                else:
                    print(session.ask(f"What colour is [{session.bank.ids[0]}]?").text)


if __name__ == "__main__":
    main()
