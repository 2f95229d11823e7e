"""J and F of folders of mask images whose pixel values are object ids.

Both are computed per object and frame and averaged over all frames, the first and the last included.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.train.evaluation.scoring.davis_measures import ObjectScores, score_frame
from unipixel.video.images import read_pixels

VOID_ID = 255
"""Pixel value that DAVIS excludes from the comparison, where a sequence has other ids."""

_MAX_MASK_PIXELS = 89_478_485


@dataclass(frozen=True, slots=True)
class SequenceScore:
    """J and F of one sequence.

    Attributes:
        name: The sequence's folder.
        j_per_object: Mean J over all frames, per object id.
        f_per_object: Mean F over all frames, per object id.
        missing: File names of the frames without a prediction; each counts 0.
    """

    name: str
    j_per_object: dict[int, float]
    f_per_object: dict[int, float]
    missing: tuple[str, ...]

    @property
    def j(self) -> float:
        """Mean J over the objects."""
        return float(np.mean(list(self.j_per_object.values())))

    @property
    def f(self) -> float:
        """Mean F over the objects."""
        return float(np.mean(list(self.f_per_object.values())))


def score_sequence(predicted: Path, truth: Path, *, is_binary: bool = False) -> SequenceScore:
    """Compare two folders of mask images, `00000.png` and so on; the frames are those of the ground truth.

    Args:
        predicted: Folder of predicted masks; it, or frames in it, may be missing.
        truth: Folder of ground truth masks, whose pixel values are object ids.
        is_binary: Whether every non-zero pixel belongs to the one object.

    Raises:
        ValueError: A prediction differs in size from its ground truth, the ground truth has no object, or one side
            has masks of 0 and 255 and the other object ids.
        OSError: A file cannot be read.
    """
    paths = sorted(truth.glob("*.png"))
    if not paths:
        raise OSError(f"{truth}: the folder contains no .png masks")
    ids = [1] if is_binary else _object_ids(paths)
    if not ids:
        raise ValueError(f"{truth}: no object in any of {len(paths)} masks")
    missing = []
    frames: dict[int, list[tuple[float, float]]] = {object_id: [] for object_id in ids}
    predicted_ids: set[int] = set()
    # One frame at a time: a folder may have any length.
    for path in paths:
        is_missing = not (predicted / path.name).is_file()
        missing += [path.name] if is_missing else []
        pair = None if is_missing else _read_pair(predicted / path.name, path)
        predicted_ids |= set() if pair is None else set(np.unique(pair[0]).tolist())
        for object_id, scores in frames.items():
            masks = _object_masks(pair, object_id, is_binary=is_binary, has_void=VOID_ID not in ids)
            scores.append(score_frame(masks))
    if not is_binary:
        _check_same_values(predicted, predicted_ids - {0}, truth, set(ids))
    means = {object_id: ObjectScores.of(scores).means for object_id, scores in frames.items()}
    return SequenceScore(
        name=truth.name,
        j_per_object={object_id: j for object_id, (j, _) in means.items()},
        f_per_object={object_id: f for object_id, (_, f) in means.items()},
        missing=tuple(missing),
    )


def _check_same_values(predicted: Path, predicted_ids: set[int], truth: Path, true_ids: set[int]) -> None:
    """Refuse masks of 0 and 255 on one side and object ids on the other, which would score 0."""
    if not predicted_ids or predicted_ids & true_ids or VOID_ID not in predicted_ids | true_ids:
        return
    raise ValueError(
        f"{truth} has the values {sorted(true_ids)[:8]}, {predicted} has {sorted(predicted_ids)[:8]}, and none is on "
        "both sides: give --binary if every non-zero pixel is the one object, or use object ids on both sides"
    )


def _object_masks(
    pair: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None, object_id: int, *, is_binary: bool, has_void: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Return predicted and true mask of one object in a pair of label images."""
    if pair is None:
        return None
    ours, true = pair
    if is_binary:
        return ours != 0, true != 0
    mask = ours == object_id
    return (mask & (true != VOID_ID) if has_void else mask), true == object_id


def _read_pair(predicted: Path, truth: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    ours, true = read_label_image(predicted), read_label_image(truth)
    if ours.shape != true.shape:
        raise ValueError(
            f"{predicted}: the mask has {ours.shape[1]}x{ours.shape[0]} pixels, "
            f"its ground truth {true.shape[1]}x{true.shape[0]}"
        )
    return ours, true


def _object_ids(paths: list[Path]) -> list[int]:
    """Return the ids of a sequence; 255 is an id only where there is no other."""
    ids = sorted(set().union(*(np.unique(read_label_image(path)).tolist() for path in paths)) - {0})
    return [object_id for object_id in ids if object_id != VOID_ID] or ids


def read_label_image(path: Path) -> NDArray[np.uint8]:
    """Read an image of object ids (H, W): palette indices, grey levels or bits.

    Raises:
        OSError: It is not a readable PNG, or has several channels.
    """

    def convert(image: Image.Image) -> NDArray[np.uint8]:
        if image.mode not in ("1", "L", "P"):
            raise OSError(f"{path}: a mask has one channel (palette or grey), not mode {image.mode}")
        return np.asarray(image).astype(np.uint8)

    return read_pixels(path, convert, max_pixels=_MAX_MASK_PIXELS, formats=("PNG",))


def score_folders(predicted: Path, truth: Path, *, binary: bool = False) -> dict[str, Any]:
    """Score every sequence of a folder of ground truth: `TRUTH/SEQUENCE/00000.png`.

    The score of a sequence is the mean over its objects, the final score the mean over all objects of all sequences, as
    in the evaluation of the benchmark.

    Args:
        predicted: Folder of predicted sequences.
        truth: Folder of ground truth sequences.
        binary: Whether every non-zero pixel belongs to the one object.

    Returns:
        `{"sequences": {NAME: {"J", "F", "J&F"}}, "mean": {"J", "F", "J&F"}, "missing": {NAME: [FILE]}}`.

    Raises:
        ValueError: A mask has another size, or a ground truth has no object.
        OSError: A folder or file cannot be read, or there is no sequence.
    """
    for folder in (predicted, truth):
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder}: not a folder")
    names = sorted(path.name for path in truth.iterdir() if path.is_dir() and any(path.glob("*.png")))
    if not names:
        raise OSError(f"{truth}: the folder contains no sequence; expected are masks as SEQUENCE/00000.png")
    scores = [score_sequence(predicted / name, truth / name, is_binary=binary) for name in names]
    return {
        "sequences": {score.name: _figures([score.j], [score.f]) for score in scores},
        "mean": _figures(
            [j for score in scores for j in score.j_per_object.values()],
            [f for score in scores for f in score.f_per_object.values()],
        ),
        "missing": {score.name: list(score.missing) for score in scores if score.missing},
    }


def _figures(j: list[float], f: list[float]) -> dict[str, float]:
    mean_j, mean_f = float(np.mean(j)), float(np.mean(f))
    return {"J": mean_j, "F": mean_f, "J&F": (mean_j + mean_f) / 2}
