"""Questions about motion whose answers are objects: GroundMoRe."""

from __future__ import annotations

import re
from collections.abc import Iterator

from unipixel.train.datasets.published.entries import Group
from unipixel.train.datasets.published.source_files import SourceFiles


def read_groundmore(files: SourceFiles, *, questions: str, clips: str) -> Iterator[Group]:
    """Yield the questions about each clip that is there; only frames with a label image are used.

    Args:
        files: Access to the files.
        questions: JSON file with `videos[CLIP].questions[ID].{question, answer, q_type, obj_id}`.
        clips: Folder of `CLIP/{images/FRAME.jpg, masks/FRAME.png}`.

    Raises:
        OSError: A file is missing or cannot be read.
        ValueError: The file is not JSON.
    """
    files.find(clips)
    for clip, annotation in files.members(questions, ("videos",)):
        folder = f"{clips}/{clip}"
        if not (files.root / folder).is_dir():
            continue
        names = sorted((name[:-4] for name in files.names_in(f"{folder}/masks", [".png"])), key=number_of)
        if not names:
            continue
        labels = [f"{folder}/masks/{name}.png" for name in names]
        objects, entries = {}, []
        for key, asked in annotation["questions"].items():
            ids = [int(one) for one in asked["obj_id"].split(",")]
            name = ",".join(map(str, ids))
            objects[name] = {"labels": labels, "ids": ids}
            text = asked["question"].strip()
            expression = {
                "id": key,
                "form": "question",
                "text": text if text.endswith("?") else f"{text}?",
                "object": name,
                "answer": asked["answer"],
                "category": asked["q_type"],
            }
            entries.append({"expressions": [expression], "object_keys": [name]})
        if entries:
            media = {"frames": [f"{folder}/images/{name}.jpg" for name in names]}
            yield {"name": clip, "task": "segment", "media": media, "objects": objects, "entries": entries}


def number_of(name: str) -> int:
    """Return the number in the name of a frame, such as 12 of "frame_000012".

    Raises:
        ValueError: There is none.
    """
    found = re.search(r"\d+", name)
    if found is None:
        raise ValueError(f"the name of the frame {name!r} contains no number")
    return int(found[0])
