"""Write the masks of a clip in the import formats of CVAT, Label Studio, COCO and YOLO, with the frames as images.

python examples/into_cvat.py clip.mp4 "the red star" --out labels/

In CVAT, create a task from `labels/frames/`, then upload `labels/cvat.xml` as "CVAT 1.1". FiftyOne reads the COCO file:
`fiftyone.Dataset.from_dir(data_path="labels/frames", labels_path="labels/coco.json",
dataset_type=fiftyone.types.COCODetectionDataset)`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from unipixel import Processor, Session, UniPixel


def main(arguments: Sequence[str] | None = None) -> None:
    """Segment what a text describes, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("query")
    parser.add_argument("--model", default="unipixel-nano")
    parser.add_argument("--out", type=Path, default=Path("labels"))
    options = parser.parse_args(arguments)

    model, processor = UniPixel.from_pretrained(options.model), Processor.from_pretrained(options.model)
    session = Session(model, processor, options.video)
    answer = session.segment(options.query)
    folder = answer.save(options.out, overwrite=True, exports=["coco", "cvat", "label-studio", "yolo"])
    (folder / "frames").mkdir(exist_ok=True)
    for frame in session.objects.video:
        Image.fromarray(frame.image).save(folder / "frames" / f"{frame.index:05d}.jpg", quality=95)
    print(f"{answer.text} {len(answer.objects)} objects, written to {folder}")


if __name__ == "__main__":
    main()
