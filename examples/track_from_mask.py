"""Track an object from its mask on one frame, without a language model.

python examples/track_from_mask.py clip.mp4 first.png --out result/
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from unipixel import MaskPrompt, Result, load_segmenter, open_video
from unipixel.session.video_objects import VideoObjects
from unipixel.video.images import read_mask


def main(arguments: Sequence[str] | None = None) -> None:
    """Track, and write the masks and an overlay."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("mask", type=Path, help="image that is non-zero on the object")
    parser.add_argument("--frame", type=int, default=0, help="frame of the mask")
    parser.add_argument("--model", default="unipixel-nano", help="checkpoint whose SAM 2.1 tracks")
    parser.add_argument("--out", type=Path, default=Path("result"))
    options = parser.parse_args(arguments)

    objects = VideoObjects(load_segmenter(options.model), open_video(options.video))
    objects.prompt(1, MaskPrompt(read_mask(options.mask), options.frame))
    for tracked in objects.track_frames():
        print(f"frame {tracked.frame.index}: {int(tracked.objects[1].mask.sum())} pixels")
    info = objects.video.info
    result = Result.of_bank(
        objects.bank, info, timestamps_seconds=objects.timestamps_seconds, model=options.model, source=objects.video
    )
    print(f"{result.objects[1].describe()}; written to {result.save(options.out)}")


if __name__ == "__main__":
    main()
