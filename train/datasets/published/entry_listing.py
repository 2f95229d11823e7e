"""What was read of an entry, as JSON: texts, ids, files, boxes and the number of pixels of every mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from unipixel.processing.prompt_templates import mark_references, prefill_answer
from unipixel.train.datasets.published.definitions import SetDefinition
from unipixel.train.datasets.published.entries import Entry, Expression, MaskReference
from unipixel.train.datasets.published.entry_samples import label_classes
from unipixel.train.datasets.published.entry_wording import name_objects, prefill_text
from unipixel.train.datasets.published.mask_decoding import decode_masks
from unipixel.train.datasets.published.source_files import resolve
from unipixel.video.open import open_video

_DATA_TYPES = {
    "segment": "seg",
    "classes": "seg",
    "grounded": "seg",
    "region": "region",
    "category": "region",
    "refer": "ref",
    "prefill": "mem",
}


def list_entry(entry: Entry, definition: SetDefinition, root: Path) -> dict[str, Any]:
    """Describe an entry; all its masks are decoded.

    `areas[object][frame]` is the number of pixels of each mask at the size of the frames. What is drawn for each sample
    has its first value: the option letter A, and the id 0 of an object without one.

    Raises:
        OSError: A file is missing or cannot be decoded.
        ValueError: Masks are damaged.
    """
    described: dict[str, Any] = {"data_type": _data_type(entry), "vid": entry.name}
    if entry.id is not None:
        described["qid"] = entry.id
    first, end = entry.window or (0, len(entry.media.frames))
    if entry.media.frames:
        described["frames"] = [str(resolve(root, name)) for name in entry.media.frames[first:end]]
    if entry.media.video:
        described["video_path"] = str(resolve(root, entry.media.video))
    if entry.media.frame_indices:
        described["all_frame_inds"] = list(entry.media.frame_indices)
        described["single_frame_mode"] = entry.media.is_context
    if entry.task == "converse":
        return described | _list_turns(entry)
    if entry.task == "classes":
        found = label_classes(entry, definition, root)
        classes = [{"id": one.id, "query": one.text, "area": int(mask.sum())} for one, mask in found]
        return described | {"classes": classes}
    areas = {key: _areas(reference, entry, root) for key, reference in (entry.objects or {}).items()}
    if entry.task == "segment":
        return described | {"samples": [_list_expression(one, areas) for one in entry.expressions]}
    if entry.task == "grounded":
        described["targets"] = [list(keys) for keys in entry.targets]
    return described | {"oids": list(areas), "areas": list(areas.values())} | _list_turns(entry)


def _data_type(entry: Entry) -> str:
    if entry.task == "converse":
        return "text" if entry.media.is_empty else "multimodal"
    return f"{_DATA_TYPES[entry.task]}_{'image' if entry.media.is_image else 'video'}"


def _list_expression(expression: Expression, areas: Mapping[str, list[int]]) -> dict[str, Any]:
    text = expression.text
    described = {
        "qid": expression.id,
        "type": expression.form,
        "query": list(text) if isinstance(text, tuple) else text,
        "answer": expression.answer,
        "task": expression.category,
        "boxes": None if expression.box_xyxy is None else [[list(expression.box_xyxy)]],
        "areas": [areas[expression.object]],
    }
    return {name: value for name, value in described.items() if value is not None}


def _list_turns(entry: Entry) -> dict[str, Any]:
    if entry.task != "prefill":
        return {
            "question": [question for question, _ in entry.turns],
            "response": [answer for _, answer in entry.turns],
        }
    ((question, answer),) = entry.turns
    text = name_objects(prefill_text(question, answer, letter="A"), 0)
    marked, order = mark_references(text, [int(key) for key in entry.objects or ()])
    return {"question": [marked], "response": [prefill_answer(order)]}


def _areas(reference: MaskReference, entry: Entry, root: Path) -> list[int]:
    """Return the number of pixels of a mask on each frame that has one."""
    media = entry.media
    if media.frames:
        with Image.open(resolve(root, media.frames[0])) as image:
            size = (image.height, image.width)
        positions, count = range(*(entry.window or (0, len(media.frames)))), len(media.frames)
        masks = decode_masks(reference, root, positions=positions, num_frames=count, frame_size=size, size=entry.size)
        return masks.sum(axis=(1, 2)).tolist()
    with open_video(resolve(root, media.video)) as video:
        info = video.info
    count = len(media.frame_indices) or -(-(info.num_frames or 0) // media.stride)
    masks = decode_masks(
        reference, root, positions=range(count), num_frames=None, frame_size=(info.height, info.width), size=entry.size
    )
    return masks.sum(axis=(1, 2)).tolist()
