"""Implicit questions about images with LabelMe polygons: ReasonSeg."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles

# Some files were written on Windows.
_ENCODINGS = ("utf-8", "cp1252")


def read_reason_seg(files: SourceFiles, *, images: str, explanations: str) -> Iterator[Group]:
    """Yield the texts about each image, and the question with an explanation where there is one.

    Args:
        files: Access to the files.
        images: Folder of `NAME.jpg` and `NAME.json` with `text`, `is_sentence` and `shapes`.
        explanations: JSON file with `image`, `query` and `outputs`.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: A file is not JSON, or an explanation belongs to no image.
    """
    explained = {PurePosixPath(one["image"]).stem: one for one in files.parse(explanations, encodings=_ENCODINGS)}
    for file in files.names_in(images, [".jpg"]):
        name = PurePosixPath(file).stem
        annotation = files.parse(f"{images}/{name}.json", encodings=_ENCODINGS)
        form = "sentence" if annotation["is_sentence"] else "query"
        expressions = [
            {"id": number, "form": form, "text": text, "object": "target"}
            for number, text in enumerate(annotation["text"])
        ]
        if name in explained:
            found = explained.pop(name)
            expressions.append(
                {
                    "id": "exp",
                    "form": "explanatory",
                    "text": found["query"],
                    "object": "target",
                    "answer": found["outputs"],
                }
            )
        if expressions:
            yield {
                "name": name,
                "task": "segment",
                "media": {"frames": [f"{images}/{file}"]},
                "objects": {"target": {"shapes": annotation["shapes"]}},
                "entries": [{"expressions": [expression]} for expression in expressions],
            }
    if explained:
        raise ValueError(f"{files.root / explanations} explains {sorted(explained)[0]!r}, which is not in {images}")
