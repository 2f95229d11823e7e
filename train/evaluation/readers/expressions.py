"""Videos with expressions, the format of ReVOS, MeViS, Ref-YouTube-VOS, Ref-DAVIS17 and Ref-SAV.

`meta_expressions.json` has `videos[VIDEO]` with `frames` (names without suffix) and `expressions[ID]` with `exp`, and
`anno_id`, the ids of its objects' tracks in `mask_dict`. Ref-YouTube-VOS and Ref-DAVIS17 have no `anno_id`: their
tracks are numbered by expression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unipixel.processing.frame_sampling import uniform_indices
from unipixel.processing.prompt_templates import SegmentationForm, segmentation_question
from unipixel.train.evaluation.benchmarks.annotation_files import field_of, first_existing, read_json
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia, SampleTruth
from unipixel.train.evaluation.readers.mask_tracks import (
    MaskDictionary,
    decode_mask,
    decode_track,
    image_size,
    track_size,
)

LANGUAGE_FRAMES = 16
"""Frames that the language model of the published evaluation sees."""


@dataclass(frozen=True, kw_only=True)
class ExpressionLayout:
    """Where a data set keeps its expressions, frames and masks, relative to the data folder.

    `{split}` and `{video}` are replaced.

    Attributes:
        expressions: The file of expressions.
        frames: Folders of a video's frames; the first that exists is used.
        masks: The file of tracks; None where only a server has them.
        unannotated_splits: Splits without this file.
        foreground: The file with the union of all annotated objects, frame by frame.
        form: Form of the question; None decides by the text: a sentence if it ends with a question mark.
        is_numbered: Whether tracks are numbered by expression, in the order of the sorted texts of video and
            expression ids.
        labels: Folder of a video's palette images, for the unsupervised protocol of DAVIS.
    """

    expressions: str
    frames: tuple[str, ...]
    masks: str | None = None
    unannotated_splits: tuple[str, ...] = ()
    foreground: str | None = None
    form: SegmentationForm | None = "query"
    is_numbered: bool = False
    labels: str | None = None


@dataclass(frozen=True, kw_only=True)
class _ExpressionVideo:
    """A video: its frames and the size that its annotations have.

    Attributes:
        name: Name of the video.
        frames: Names of its frames.
        paths: Their files.
        size: (H, W), if the annotation file has it.
        labels: Folder of its palette images, if the layout has one.
    """

    name: str
    frames: tuple[str, ...]
    paths: tuple[Path, ...]
    size: tuple[int, int] | None
    labels: Path | None


def read_expressions(
    data_dir: Path, *, split: str, variant: str, layout: ExpressionLayout
) -> Sequence[BenchmarkSample]:
    """Read the expressions of a split, in the order of the file.

    Raises:
        OSError: A file is missing.
        ValueError: An annotation has another form, or a video has no frames.
    """
    del variant
    file = data_dir / layout.expressions.format(split=split)
    videos = field_of(read_json(file), "videos", dict, location=str(file))
    has_masks = layout.masks is not None and split not in layout.unannotated_splits
    masks = MaskDictionary(data_dir / str(layout.masks).format(split=split)) if has_masks else None
    foreground = MaskDictionary(data_dir / layout.foreground.format(split=split)) if layout.foreground else None
    numbers = _running_numbers(videos, file) if layout.is_numbered else {}
    samples = []
    for video, entry in videos.items():
        clip = _read_clip(data_dir, video, entry, split=split, layout=layout, location=f"{file}, video {video}")
        for key, expression in _expressions(entry, location=f"{file}, video {video}"):
            truth: Callable[[], SampleTruth] | None = None
            location = f"{file}, expression {video}/{key}"
            if masks is not None:
                ids = [str(numbers[video, key])] if layout.is_numbered else _annotation_ids(expression, location)
                truth = partial(_read_truth, masks, ids, clip, foreground=foreground)
            samples.append(_make_sample(clip, key, expression, truth=truth, form=layout.form, location=location))
    return samples


def _read_clip(
    data_dir: Path, video: str, entry: Any, *, split: str, layout: ExpressionLayout, location: str
) -> _ExpressionVideo:
    frames = tuple(str(name) for name in field_of(entry, "frames", list, location=location))
    if not frames:
        raise ValueError(f"{location}: there are no frames")
    folders = [data_dir / folder.format(split=split, video=video) for folder in layout.frames]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    height, width = entry.get("height"), entry.get("width")
    has_size = isinstance(height, int) and isinstance(width, int)
    # Copies of the data sets without loss have PNG images.
    has_png = not (folder / f"{frames[0]}.jpg").exists() and (folder / f"{frames[0]}.png").exists()
    paths = tuple(folder / f"{name}{'.png' if has_png else '.jpg'}" for name in frames)
    labels = data_dir / layout.labels.format(split=split, video=video) if layout.labels is not None else None
    return _ExpressionVideo(
        name=video, frames=frames, paths=paths, size=(height, width) if has_size else None, labels=labels
    )


def _expressions(entry: Any, *, location: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, expression in field_of(entry, "expressions", dict, location=location).items():
        field_of(expression, "exp", str, location=f"{location}, expression {key}")
        yield key, expression


def _annotation_ids(expression: Mapping[str, Any], location: str) -> list[str]:
    return [str(key) for key in field_of(expression, "anno_id", list, location=location)]


def _running_numbers(videos: Mapping[str, Any], file: Path) -> dict[tuple[str, str], int]:
    """Number the expressions as the published evaluation does: by the sorted texts of their ids, "10" before "2"."""
    keys = [
        (video, key)
        for video in sorted(videos)
        for key in sorted(field_of(videos[video], "expressions", dict, location=f"{file}, video {video}"))
    ]
    return {key: number for number, key in enumerate(keys)}


def _make_sample(
    clip: _ExpressionVideo,
    key: str,
    expression: Mapping[str, Any],
    *,
    truth: Callable[[], SampleTruth] | None,
    form: SegmentationForm | None,
    location: str,
) -> BenchmarkSample:
    query = expression["exp"].strip()
    form = form or ("sentence" if query.endswith("?") else "query")
    language_frames = uniform_indices(len(clip.frames), LANGUAGE_FRAMES)
    try:
        question = segmentation_question(query, form=form, num_frames=len(language_frames), is_published=True)
    except ValueError as error:
        raise ValueError(f"{location}: {error}") from error
    fields = {name: expression[name] for name in ("obj_id", "type_id") if name in expression}
    return BenchmarkSample(
        name=f"{clip.name}/{key}",
        question=question,
        frames=clip.frames,
        language_frames=language_frames,
        media=SampleMedia(paths=clip.paths),
        truth=truth,
        fields={
            "type": form,
            "query": query,
            "media": "image" if len(language_frames) == 1 else "video",
            "video": clip.name,
            **fields,
        },
    )


def _read_truth(
    masks: MaskDictionary, ids: Sequence[str], clip: _ExpressionVideo, *, foreground: MaskDictionary | None
) -> SampleTruth:
    """Decode the union of an expression's objects."""
    tracks = [masks.track(key) or [None] * len(clip.frames) for key in ids]
    found = [size for size in map(track_size, tracks) if size is not None]
    size = found[0] if found else clip.size or image_size(first_existing(*clip.paths[:1]))
    counts = np.zeros((len(clip.frames), *size), dtype=np.uint8)
    for key, track in zip(ids, tracks, strict=True):
        counts += decode_track(
            track, size=size, num_frames=len(clip.frames), location=f"{masks.path}, annotation {key}"
        )
    foreground_counts = None if foreground is None else _read_foreground(foreground, clip, size)
    return SampleTruth(
        masks=(counts > 0)[None],
        foreground=None if foreground_counts is None else foreground_counts > 0,
        fields={"object_counts": counts, "foreground_counts": foreground_counts, "labels": clip.labels},
    )


def _read_foreground(foreground: MaskDictionary, clip: _ExpressionVideo, size: tuple[int, int]) -> np.ndarray:
    """Count the annotated objects of a clip at each pixel (T, H, W)."""
    location = f"{foreground.path}, video {clip.name}"
    track = field_of(foreground.track(clip.name), "masks_rle", list, location=location)
    if len(track) != len(clip.frames):
        raise ValueError(f"{location}: {len(track)} masks for {len(clip.frames)} frames")
    counts = np.zeros((len(clip.frames), *size), dtype=np.uint8)
    for row, entry in enumerate(track):
        # Some entries are a list of run lengths, one per object.
        for item in entry if isinstance(entry, list) else [entry]:
            if item is not None:
                counts[row] += decode_mask(item, size=size, location=f"{location}, frame {row}")
    return counts
