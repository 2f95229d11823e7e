"""GroundMoRe (arXiv:2503.12797): questions about the motion in a clip, with masks for the time of an action."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unipixel.processing.frame_sampling import uniform_indices
from unipixel.processing.prompt_templates import segmentation_question
from unipixel.train.evaluation.benchmarks.annotation_files import field_of, read_json
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia, SampleTruth
from unipixel.train.evaluation.readers.expressions import LANGUAGE_FRAMES
from unipixel.train.evaluation.readers.mask_tracks import image_size
from unipixel.train.evaluation.scoring.label_folders import read_label_image
from unipixel.video.images import image_files

_NUM_FRAMES = 20
_FPS = 6
_CLIP_SPAN = re.compile(r"_(\d\d)(\d\d)_\d{4}$")


def read_groundmore(data_dir: Path, *, split: str, variant: str) -> Sequence[BenchmarkSample]:
    """Read the questions of a split, in the order of the file; a clip whose folder is missing cannot be asked.

    Raises:
        OSError: The annotation file is missing.
        ValueError: An annotation has another form.
    """
    del variant
    file = data_dir / f"{split}_v2.json"
    samples = []
    for clip, entry in field_of(read_json(file), "videos", dict, location=str(file)).items():
        folder = data_dir / "annotations" / clip
        images = _images(folder / "images")
        for key, question in field_of(entry, "questions", dict, location=f"{file}, clip {clip}").items():
            location = f"{file}, question {clip}/{key}"
            samples.append(_make_sample(clip, key, question, images=images, folder=folder, location=location))
    return samples


def _images(folder: Path) -> list[Path]:
    """Return the frames of a clip, none for a folder that is missing or empty."""
    images = image_files(folder) if folder.is_dir() and any(folder.iterdir()) else []
    # As published: other files in the folder are no frames.
    return [path for path in images if path.suffix == ".jpg"] or images


def _make_sample(
    clip: str, key: str, entry: Mapping[str, Any], *, images: Sequence[Path], folder: Path, location: str
) -> BenchmarkSample:
    query = field_of(entry, "question", str, location=location).strip()
    first, end = _action_span(clip, entry, location)
    indices = [int(index) for index in np.linspace(0, len(images) - 1, _NUM_FRAMES)] if images else []
    paths = tuple(images[index] for index in indices)
    language_frames = uniform_indices(len(paths), LANGUAGE_FRAMES) if paths else ()
    form = "question"
    return BenchmarkSample(
        name=f"{clip}/{key}",
        question=segmentation_question(query, form="question", num_frames=_NUM_FRAMES, is_published=True),
        frames=tuple(path.stem for path in paths),
        language_frames=language_frames,
        media=SampleMedia(paths=paths, fps=_FPS),
        truth=partial(
            _read_truth,
            paths,
            folder / "masks",
            object_ids=_object_ids(entry, location),
            is_action=tuple(first <= index < end for index in indices),
            indices=tuple(indices),
        ),
        fields={
            # The published prompt builder adds the question mark to the query too.
            "type": form,
            "query": query if query.endswith("?") else f"{query}?",
            "media": "video",
            "question_type": field_of(entry, "q_type", str, location=location),
        },
        problem=None if paths else f"{folder / 'images'}: the clip has no frames",
    )


def _object_ids(entry: Mapping[str, Any], location: str) -> tuple[int, ...]:
    text = str(field_of(entry, "obj_id", (str, int), location=location))
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"{location}: `obj_id` must be numbers such as 1 or 1, 2, got {text!r}") from error


def _action_span(clip: str, entry: Mapping[str, Any], location: str) -> tuple[int, int]:
    """Return first frame and end of the action; its times are those of the video from which the clip was cut."""
    match = _CLIP_SPAN.search(clip)
    if match is None:
        raise ValueError(f"{location}: the clip's name must end with its span, such as _0105_0110")
    start = 60 * int(match[1]) + int(match[2])
    times = [
        _seconds(field_of(entry, name, str, location=location), location) for name in ("action_start", "action_end")
    ]
    return (times[0] - start) * _FPS, (times[1] - start) * _FPS


def _seconds(text: str, location: str) -> int:
    try:
        parts = [int(part) for part in text.split(":")]
    except ValueError as error:
        raise ValueError(f"{location}: a time has the form mm:ss or h:mm:ss, got {text!r}") from error
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def _read_truth(
    paths: Sequence[Path],
    folder: Path,
    *,
    object_ids: Sequence[int],
    is_action: Sequence[bool],
    indices: Sequence[int],
) -> SampleTruth:
    """Decode the masks of the sampled frames; a frame outside the action, or without a file, has no object.

    `fields["masks_by_index"]` has the masks of the published script, which derives a file's name from the frame's
    position, and `fields["names_by_index"]` these names.
    """
    size = image_size(paths[0])
    prefix, digits = ("frame_", 6) if paths[0].stem.startswith("frame_") else ("", 7)
    by_index = [f"{prefix}{index:0{digits}d}" for index in indices]
    own, published = (
        np.stack(
            [
                _read_objects(folder / f"{name}.png", object_ids, size) if is_shown else np.zeros(size, dtype=bool)
                for name, is_shown in zip(names, is_action, strict=True)
            ]
        )[None]
        for names in ([path.stem for path in paths], by_index)
    )
    return SampleTruth(masks=own, fields={"masks_by_index": published, "names_by_index": by_index})


def _read_objects(path: Path, object_ids: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    if not path.is_file():
        return np.zeros(size, dtype=bool)
    labels = read_label_image(path)
    if labels.shape != size:
        raise ValueError(f"{path}: the mask has (H, W) = {labels.shape}, the frames {size}")
    return np.isin(labels, object_ids)
