"""Reader of PerBench (Pixel-SAIL, arXiv:2504.10465): captions, multiple choice and visual-text segmentation.

Objects are marked by masks; texts name them as `<PromptN>`. The files were not published when this was written: their
layout is that of the published reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from unipixel.processing.visual_prompts import MaskPrompt, VisualPrompt
from unipixel.train.evaluation.benchmarks.annotation_files import field_of, read_json
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia, SampleTruth
from unipixel.train.evaluation.readers.segmentations import decode_run_lengths

CAPTION_QUESTION = (
    "Can you provide me with a detailed description of the region in the picture marked by <Prompt0>? "
    "Please provide as detailed as possible."
)
# Without a space before the request, as in the published reader.
_CHOICE_QUESTION = "Please answer the question according to the <Prompt0>. {question}Select a correct choice."
PERBENCH_FILES = {
    "captions": "STBench_Detailed_Caption.json",
    "mcq": "STBench_MCQ.json",
    "vres": "STBench_VRES.json",
}
_OPTION = re.compile(r"(?<![^\W_])\(?([A-D])[.):]\s*(.*?)(?=\s*(?<![^\W_])\(?[A-D][.):]|$)", re.DOTALL)


def read_perbench(data_dir: Path, *, split: str, variant: str) -> Sequence[BenchmarkSample]:
    """Read the samples of a task, or of all three.

    Args:
        data_dir: Folder with the three files, and the images beside them or in images/.
        split: `captions`, `mcq`, `vres` or `all`.
        variant: Not used.

    Raises:
        OSError: A file is missing.
        ValueError: An annotation has another form.
    """
    del variant
    samples: list[BenchmarkSample] = []
    for task in PERBENCH_FILES if split == "all" else (split,):
        path = data_dir / PERBENCH_FILES[task]
        entries = read_json(path)
        if not isinstance(entries, list):
            raise ValueError(f"{path}: expected a list of images, got {type(entries).__name__}")
        for number, entry in enumerate(entries):
            location = f"{path}, entry {number}"
            image = _image_path(data_dir, field_of(entry, "image_name", str, location=location), location=location)
            for index, sample in enumerate(_READERS[task](entry, image, location=location)):
                yielded = replace(sample, name=f"{task}/{number}/{index}", fields={"task": task, **sample.fields})
                samples.append(yielded)
    return samples


def _image_path(data_dir: Path, name: str, *, location: str) -> Path:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{location}: `image_name` must be a path below the data folder, got {name!r:.80}")
    below = data_dir / "images" / name
    return below if below.is_file() else data_dir / name


def _captions(entry: Any, image: Path, *, location: str) -> Iterator[BenchmarkSample]:
    for row, item in enumerate(field_of(entry, "object_annotations", list, location=location)):
        described = f"{location}, object {row}"
        caption = field_of(item, "caption", str, location=described)
        masks = [field_of(item, "segmentation", dict, location=described)]
        yield _make_sample(
            CAPTION_QUESTION, image, masks, truth=partial(SampleTruth, answer=caption), location=described
        )


def _questions(entry: Any, image: Path, *, location: str) -> Iterator[BenchmarkSample]:
    for row, item in enumerate(field_of(entry, "mcqs", list, location=location)):
        described = f"{location}, question {row}"
        question = field_of(item, "question", str, location=described)
        answer = field_of(item, "answer", str, location=described)
        masks = [field_of(item, "object", dict, location=described)]
        sample = _make_sample(
            _CHOICE_QUESTION.replace("{question}", question),
            image,
            masks,
            truth=partial(SampleTruth, answer=answer),
            location=described,
        )
        yield replace(sample, options=listed_options(question))


def listed_options(question: str) -> tuple[str, ...]:
    """Return the options that a question lists as "A. ... B. ...", or none if they are not lettered from A on."""
    found = _OPTION.findall(question)
    letters = "".join(letter for letter, _ in found)
    return tuple(text.strip() for _, text in found) if letters and "ABCD".startswith(letters) else ()


def _segmentations(entry: Any, image: Path, *, location: str) -> Iterator[BenchmarkSample]:
    """Read a question with prompts and targets: a tag in the question is a prompt, one in the answer alone a target."""
    question = field_of(entry, "question", str, location=location)
    answer = field_of(entry, "answer", str, location=location)
    tags = field_of(entry, "segmentations", dict, location=location)
    if not tags:
        raise ValueError(f"{location}: `segmentations` is empty")
    # Longer tags first, so that `obj1` does not match within `obj10`.
    pattern = re.compile("|".join(re.escape(tag) for tag in sorted(tags, key=len, reverse=True)))
    asked, answered = set(pattern.findall(question)), set(pattern.findall(answer))
    if unused := [tag for tag in tags if tag not in asked | answered]:
        raise ValueError(f"{location}: the tag {unused[0]!r} is neither in the question nor in the answer")
    numbers = {tag: number for number, tag in enumerate(tags)}
    targets = [tags[tag] for tag in tags if tag not in asked]
    if not targets:
        raise ValueError(f"{location}: the answer names no target")
    size_of = [tuple(item.get("size", ())) if isinstance(item, Mapping) else () for item in tags.values()]
    yield _make_sample(
        pattern.sub(lambda match: f"<Prompt{numbers[match[0]]}>", question),
        image,
        [mask for tag, mask in tags.items() if tag in asked],
        object_ids=[numbers[tag] for tag in tags if tag in asked],
        truth=partial(_target_masks, targets, size=size_of[0], location=location),
        location=location,
    )


def _target_masks(targets: Sequence[Any], *, size: Any, location: str) -> SampleTruth:
    masks = [decode_run_lengths(target, size=size, location=location) for target in targets]
    return SampleTruth(masks=np.stack(masks)[:, None])


def _make_sample(
    question: str,
    image: Path,
    masks: Sequence[Mapping[str, Any]],
    *,
    truth: Callable[[], SampleTruth],
    location: str,
    object_ids: Sequence[int] = (0,),
) -> BenchmarkSample:
    return BenchmarkSample(
        name="",
        question=question,
        frames=(image.stem,),
        language_frames=(0,),
        media=SampleMedia(paths=(image,)),
        prompts=partial(mask_prompts, dict(zip(object_ids, masks, strict=True)), location=location),
        truth=truth,
        fields={"prompt_ids": list(object_ids)},
    )


def mask_prompts(masks: Mapping[int, Mapping[str, Any]], *, location: str) -> dict[int, tuple[VisualPrompt, ...]]:
    """Decode the mask of each object; an empty mask marks nothing and is left out.

    Raises:
        ValueError: Run lengths are invalid.
    """
    decoded = {key: decode_run_lengths(mask, size=None, location=location) for key, mask in masks.items()}
    return {key: (MaskPrompt(mask, 0),) for key, mask in decoded.items() if mask.any()}


_READERS: dict[str, Callable[..., Iterator[BenchmarkSample]]] = {
    "captions": _captions,
    "mcq": _questions,
    "vres": _segmentations,
}
