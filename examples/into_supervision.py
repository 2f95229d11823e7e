"""Draw the masks of a clip with the annotators of supervision. Needs the extra `eval`.

python examples/into_supervision.py clip.mp4 --point 65,85 --out annotated/
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import supervision
from PIL import Image

import unipixel


def main(arguments: Sequence[str] | None = None) -> None:
    """Write an annotated image per frame, and print the area of the object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--point", default="65,85", help="x,y on the first frame")
    parser.add_argument("--model", default="unipixel-nano")
    parser.add_argument("--out", type=Path, default=Path("annotated"))
    options = parser.parse_args(arguments)

    x, y = (float(value) for value in options.point.split(","))
    answer = unipixel.ask(options.video, "What is [1]?", points={1: (x, y)}, model=options.model)
    print(answer.text)
    options.out.mkdir(parents=True, exist_ok=True)
    annotator = supervision.MaskAnnotator(color_lookup=supervision.ColorLookup.TRACK)
    frames = unipixel.open_video(options.video)
    for index, detections in answer.to_supervision():
        drawn = annotator.annotate(frames[index].image.copy(), detections)
        Image.fromarray(drawn).save(options.out / f"{index:05d}.jpg")
        print(f"frame {index}: {detections.area.tolist()} pixels of {detections.tracker_id}")


if __name__ == "__main__":
    main()
