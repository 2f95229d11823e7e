"""The files that readers of training and evaluation take, written from the accepted records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unipixel.train.evaluation.readers.perbench_images import PERBENCH_FILES
from unipixel.train.evaluation.running.predictions import read_lines, replaced_file

RECORD_FILE = "records.jsonl"
IMAGE_FOLDER = "images"


def write_outputs(folder: Path) -> None:
    """Write the descriptions and questions of the accepted records by image, in an order that does not depend on time.

    Args:
        folder: Folder with `records.jsonl`.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: A line is not JSON.
    """
    captions: dict[str, list[dict[str, Any]]] = {}
    questions: dict[str, list[dict[str, Any]]] = {}
    for record in _accepted(folder / RECORD_FILE):
        own = {"segmentation": record["segmentation"], "caption": record["caption"], "region": record["region"]}
        captions.setdefault(record["image"], []).append(own)
        for question in record["questions"]:
            if question["status"] == "accepted":
                asked = {name: question[name] for name in ("question", "answer")}
                row = {"object": record["segmentation"], **asked, "region": record["region"]}
                questions.setdefault(record["image"], []).append(row)
    _write(folder / PERBENCH_FILES["captions"], captions, "object_annotations")
    _write(folder / PERBENCH_FILES["mcq"], questions, "mcqs")


def _accepted(path: Path) -> Iterator[dict[str, Any]]:
    for _, line, _ in read_lines(path):
        record = json.loads(line)
        if record["status"] == "accepted":
            yield record


def _write(path: Path, rows: dict[str, list[dict[str, Any]]], name: str) -> None:
    content: list[dict[str, Any]] = []
    for image, own in sorted(rows.items()):
        own.sort(key=lambda row: str(row["region"]))
        content.append({"image_name": image, name: own})
    with replaced_file(path) as file:
        file.write(json.dumps(content, ensure_ascii=False).encode("utf-8"))
