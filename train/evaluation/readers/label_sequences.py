"""Folders of palette images: DAVIS 2016 and 2017, and ReasonVOS, whose masks are a folder for each object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unipixel.processing.frame_sampling import uniform_indices
from unipixel.processing.prompt_templates import SegmentationForm, segmentation_question
from unipixel.processing.visual_prompts import MaskPrompt, VisualPrompt
from unipixel.train.evaluation.benchmarks.annotation_files import field_of, first_existing, read_json
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia, SampleTruth
from unipixel.train.evaluation.readers.expressions import LANGUAGE_FRAMES
from unipixel.train.evaluation.scoring.label_folders import VOID_ID, read_label_image


def read_sequences(
    data_dir: Path, *, split: str, variant: str, lists: Sequence[str], is_binary: bool
) -> Sequence[BenchmarkSample]:
    """Read the sequences of DAVIS for the tracker: the masks of the first frame are the prompts.

    Args:
        data_dir: Folder with `JPEGImages`, `Annotations` and `ImageSets`.
        split: Name of the list of sequences.
        variant: Not used.
        lists: Files of sequence names, relative to `ImageSets`, of which the first that exists is read; `{split}` is
            replaced. In those of DAVIS 2016 a line has the paths of an image and a mask.
        is_binary: Whether all non-zero pixels belong to one object.

    Raises:
        OSError: A file or folder is missing.
        ValueError: A list is empty.
    """
    del variant
    file = first_existing(*(data_dir / "ImageSets" / name.format(split=split) for name in lists))
    samples = []
    for name in dict.fromkeys(_sequence_names(file)):
        folder = data_dir / "Annotations" / "480p" / name
        masks = sorted(folder.glob("*.png"))
        problem = None if masks else f"{folder}: no masks in this folder"
        frames = tuple(path.stem for path in masks)
        images = data_dir / "JPEGImages" / "480p" / name
        truth = partial(_read_objects, tuple(masks), is_binary=is_binary)
        samples.append(
            BenchmarkSample(
                name=name,
                question="",
                frames=frames,
                language_frames=(),
                media=SampleMedia(paths=tuple(images / f"{frame}.jpg" for frame in frames)),
                prompts=partial(_first_masks, tuple(masks[:1]), is_binary=is_binary),
                truth=truth,
                fields={"media": "video"},
                problem=problem,
            )
        )
    return samples


def _sequence_names(file: Path) -> Iterator[str]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if words := line.split():
            yield Path(words[0]).parent.name if "/" in words[0] else words[0]


def first_frame_ids(labels: NDArray[np.uint8], *, is_binary: bool) -> range:
    """Return the ids of the objects of a sequence: 1 to the largest id of its first frame, without void."""
    largest = int(labels[labels != VOID_ID].max(initial=0))
    return range(1, 2 if is_binary else largest + 1)


def _first_masks(paths: Sequence[Path], *, is_binary: bool) -> Mapping[int, tuple[VisualPrompt, ...]]:
    if not paths:
        return {}
    labels = read_label_image(paths[0])
    masks = {key: labels != 0 if is_binary else labels == key for key in first_frame_ids(labels, is_binary=is_binary)}
    return {key: (MaskPrompt(mask, frame_index=0),) for key, mask in masks.items() if mask.any()}


def _read_objects(paths: Sequence[Path], *, is_binary: bool) -> SampleTruth:
    """Decode the objects of the first frame in all frames; void pixels belong to no object and are not excluded."""
    labels = [read_label_image(path) for path in paths]
    if len({label.shape for label in labels}) != 1:
        raise ValueError(f"{paths[0].parent}: the masks differ in size")
    stack = np.stack(labels)
    ids = first_frame_ids(stack[0], is_binary=is_binary)
    masks = np.stack([stack != 0]) if is_binary else stack[None] == np.asarray(ids)[:, None, None, None]
    return SampleTruth(masks=np.asarray(masks, dtype=bool))


def read_reasonvos(data_dir: Path, *, split: str, variant: str) -> Sequence[BenchmarkSample]:
    """Read ReasonVOS (VideoLISA, arXiv:2409.19603): expressions are a list, masks a folder for each object.

    Raises:
        OSError: A file is missing.
        ValueError: An annotation has another form.
    """
    del split, variant
    file = data_dir / "meta_expressions.json"
    samples = []
    for video, entry in field_of(read_json(file), "videos", dict, location=str(file)).items():
        location = f"{file}, video {video}"
        source = field_of(entry, "source", str, location=location)
        for expression in field_of(entry, "expressions", list, location=location):
            object_id, key, text = (
                field_of(expression, name, kind, location=location)
                for name, kind in (("obj_id", (int, str)), ("exp_id", (int, str)), ("exp_text", str))
            )
            folder = f"{source}_{video}_{object_id}"
            is_sentence = bool(expression.get("is_sent")) or text.strip().endswith("?")
            samples.append(
                _make_sample(
                    f"{folder}/{key}",
                    masks=data_dir / "Annotations" / folder,
                    images=data_dir / "JPEGImages" / video,
                    query=text,
                    form="sentence" if is_sentence else "query",
                )
            )
    return samples


def _make_sample(name: str, *, masks: Path, images: Path, query: str, form: SegmentationForm) -> BenchmarkSample:
    paths = tuple(sorted(masks.glob("*.png")))
    frames = tuple(path.stem for path in paths)
    language_frames = uniform_indices(len(frames), LANGUAGE_FRAMES) if frames else ()
    return BenchmarkSample(
        name=name,
        question=segmentation_question(query, form=form, num_frames=max(len(language_frames), 2), is_published=True),
        frames=frames,
        language_frames=language_frames,
        media=SampleMedia(paths=tuple(images / f"{frame}.jpg" for frame in frames)),
        truth=partial(_read_objects, paths, is_binary=True),
        fields={"type": form, "query": query, "media": "video"},
        problem=None if frames else f"{masks}: no masks in this folder",
    )
