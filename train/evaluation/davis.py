"""J and F of masks, as defined by the DAVIS 2017 benchmark (arXiv:1704.00675, section 5).

J is the overlap of two regions (intersection over union), F the agreement of their contours within a tolerance. Both
are computed per object and frame and averaged over all frames, the first and the last included. Masks are (H, W)
arrays, non-zero where the object is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt

BOUNDARY_TOLERANCE = 0.008
"""Tolerance of F as a fraction of the image's diagonal."""

VOID_ID = 255
"""Pixel value that DAVIS excludes from the comparison, where a sequence has other ids."""

_MAX_MASK_PIXELS = 89_478_485


def region_similarity(predicted: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return J, the intersection over union of two masks (H, W); 1 where both are empty.

    Raises:
        ValueError: The masks differ in size, or are not two-dimensional.
    """
    predicted, truth = _same_size(predicted, truth)
    union = np.count_nonzero(predicted | truth)
    return float(np.count_nonzero(predicted & truth) / union) if union else 1.0


def contour_accuracy(predicted: NDArray[Any], truth: NDArray[Any], *, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """Return F, the harmonic mean of the contours' precision and recall.

    A contour pixel is matched where the other contour is within `ceil(tolerance * diagonal)` pixels.

    Args:
        predicted: Mask (H, W).
        truth: Mask (H, W).
        tolerance: Fraction of the diagonal; 1 or more is a radius in pixels.

    Raises:
        ValueError: The masks differ in size, or are not two-dimensional.
    """
    predicted, truth = _same_size(predicted, truth)
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*truth.shape))
    window = _window(predicted | truth)
    contour_p, contour_t = boundary_map(predicted)[window], boundary_map(truth)[window]
    count_p, count_t = np.count_nonzero(contour_p), np.count_nonzero(contour_t)
    if count_p == 0 or count_t == 0:
        # Two empty contours agree; a single empty one has a precision or recall of 0.
        return 1.0 if count_p == count_t else 0.0
    precision = np.count_nonzero(contour_p & _near(contour_t, radius)) / count_p
    recall = np.count_nonzero(contour_t & _near(contour_p, radius)) / count_t
    total = precision + recall
    return float(2 * precision * recall / total) if total else 0.0


def boundary_map(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the pixels (H, W) that differ from their right, lower or lower right neighbour.

    In the last row only the right neighbour counts, in the last column only the lower one.
    """
    boundary = np.zeros_like(mask)
    window = _window(mask)
    seg, out = mask[window], boundary[window]
    out[:, :-1] |= seg[:, :-1] ^ seg[:, 1:]
    out[:-1] |= seg[:-1] ^ seg[1:]
    out[:-1, :-1] |= seg[:-1, :-1] ^ seg[1:, 1:]
    return boundary


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the box around a mask, extended by one pixel within the image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(int(rows[0]) - 1, 0), int(rows[-1]) + 2),
        slice(max(int(columns[0]) - 1, 0), int(columns[-1]) + 2),
    )


def _near(contour: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Dilate by a disk: mark the pixels at most `radius` from a contour pixel."""
    # Squared distances are integers, so that the small term only compensates the rounding of the root.
    return distance_transform_edt(~contour) <= radius + 1e-6


def _same_size(predicted: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    if predicted.ndim != 2 or predicted.shape != truth.shape:
        raise ValueError(f"masks must be (H, W) and of one size, got {predicted.shape} and {truth.shape}")
    return predicted.astype(bool), truth.astype(bool)


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
        ValueError: A prediction differs in size from its ground truth, or the ground truth has no object.
        OSError: A file cannot be read.
    """
    paths = sorted(truth.glob("*.png"))
    if not paths:
        raise OSError(f"{truth}: the folder contains no .png masks")
    ids = [1] if is_binary else _object_ids(paths)
    if not ids:
        raise ValueError(f"{truth}: no object in any of {len(paths)} masks")
    scores: dict[int, list[tuple[float, float]]] = {object_id: [] for object_id in ids}
    missing = []
    for path in paths:
        if not (predicted / path.name).is_file():
            missing.append(path.name)
            for per_frame in scores.values():
                per_frame.append((0.0, 0.0))
            continue
        ours, true = _read_pair(predicted / path.name, path)
        if is_binary:
            ours, true = np.minimum(ours, 1), np.minimum(true, 1)
        elif VOID_ID not in scores:
            ours = np.where(true == VOID_ID, np.uint8(0), ours)
        for object_id, per_frame in scores.items():
            pair = ours == object_id, true == object_id
            per_frame.append((region_similarity(*pair), contour_accuracy(*pair)))
    means = {object_id: np.mean(per_frame, axis=0).tolist() for object_id, per_frame in scores.items()}
    return SequenceScore(
        name=truth.name,
        j_per_object={object_id: mean[0] for object_id, mean in means.items()},
        f_per_object={object_id: mean[1] for object_id, mean in means.items()},
        missing=tuple(missing),
    )


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
    with Image.open(path, formats=("PNG",)) as image:
        if image.width * image.height > _MAX_MASK_PIXELS:
            raise OSError(f"{path}: {image.width}x{image.height} pixels are more than {_MAX_MASK_PIXELS}")
        if image.mode not in ("1", "L", "P"):
            raise OSError(f"{path}: a mask has one channel (palette or grey), not mode {image.mode}")
        return np.asarray(image).astype(np.uint8)


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
