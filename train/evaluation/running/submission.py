"""Archives for servers that keep the truth: `VIDEO/EXPRESSION/FRAME.png`, one channel of 0 and 255.

MeViS and Ref-YouTube-VOS take the same layout, with the folders of the videos at the root of the archive.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
from unipixel.train.evaluation.readers.mask_tracks import image_size
from unipixel.train.evaluation.running.predictions import PredictionFile
from unipixel.train.evaluation.scoring.mask_scores import prediction_masks
from unipixel.train.evaluation.scoring.scores import SampleFaultError, usable_prediction

_ENTRY = re.compile(r"[^/]+/[^/]+/[^/]+\.png")
_MAX_ENTRY_BYTES = 64 * 2**20
_MAX_SHOWN = 20
# Every entry has the same time, so that the same predictions give the same archive.
_TIME = (2000, 1, 1, 0, 0, 0)


def write_mask_archive(
    samples: Sequence[BenchmarkSample], predictions: PredictionFile, path: Path
) -> Mapping[str, str]:
    """Write the masks of all expressions; those of a sample that failed are empty, as a server takes no gaps.

    Returns:
        Reason by name, of the samples that failed.

    Raises:
        OSError: The archive exists or cannot be written, or a frame cannot be read.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists already: give another name, or delete it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    failed: dict[str, str] = {}
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for sample in samples:
                masks, reason = _masks_or_empty(sample, predictions)
                if reason is not None:
                    failed[sample.name] = reason
                for frame, mask in zip(sample.frames, masks, strict=True):
                    archive.writestr(zipfile.ZipInfo(f"{sample.name}/{frame}.png", _TIME), _encode_png(mask))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return failed


def _masks_or_empty(sample: BenchmarkSample, predictions: PredictionFile) -> tuple[NDArray[np.bool_], str | None]:
    """Return the masks (T, H, W) of a sample, and why it failed or None."""
    size = image_size(sample.media.paths[0])
    try:
        return prediction_masks(sample, usable_prediction(sample, predictions), size=size)[0], None
    except SampleFaultError as fault:
        return np.zeros((len(sample.frames), *size), dtype=bool), str(fault)


def _encode_png(mask: NDArray[np.bool_]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def check_mask_archive(path: Path, samples: Sequence[BenchmarkSample] | None) -> list[str]:
    """Return what is wrong with an archive, one line each; nothing if a server takes it.

    Args:
        path: The archive.
        samples: The samples that it must have; None checks the layout and the images alone.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _shorten([*_check_names(archive, samples), *_check_images(archive, samples)])
    except zipfile.BadZipFile as error:
        return [f"{path}: not a zip archive ({error})"]


def _shorten(problems: list[str]) -> list[str]:
    more = len(problems) - _MAX_SHOWN
    return problems if more <= 0 else [*problems[:_MAX_SHOWN], f"and {more} more"]


def _files(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [entry for entry in archive.infolist() if not entry.is_dir()]


def _check_names(archive: zipfile.ZipFile, samples: Sequence[BenchmarkSample] | None) -> Iterator[str]:
    names = [entry.filename for entry in _files(archive)]
    if not names:
        yield "the archive is empty; expected are VIDEO/EXPRESSION/FRAME.png"
    yield from (f"{name}: expected is VIDEO/EXPRESSION/FRAME.png" for name in names if not _ENTRY.fullmatch(name))
    yield from (f"{name}: occurs {names.count(name)} times" for name in _repeated(names))
    if samples is not None:
        expected = [f"{sample.name}/{frame}.png" for sample in samples for frame in sample.frames]
        present, known = set(names), set(expected)
        yield from (f"{name}: missing" for name in expected if name not in present)
        yield from (f"{name}: not a frame of this split" for name in names if name not in known)


def _repeated(names: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))  # type: ignore[func-returns-value]


def _check_images(archive: zipfile.ZipFile, samples: Sequence[BenchmarkSample] | None) -> Iterator[str]:
    sizes: dict[str, tuple[int, int]] = {}
    for sample in samples or ():
        first = sample.media.paths[0]
        if first.is_file():
            sizes[sample.name] = image_size(first)
    for entry in _files(archive):
        if _ENTRY.fullmatch(entry.filename) and (problem := _check_image(archive, entry, sizes)):
            yield f"{entry.filename}: {problem}"


def _check_image(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, sizes: Mapping[str, tuple[int, int]]) -> str | None:
    if entry.file_size > _MAX_ENTRY_BYTES:
        return f"{entry.file_size} bytes are more than {_MAX_ENTRY_BYTES}"
    try:
        with Image.open(io.BytesIO(archive.read(entry)), formats=("PNG",)) as image:
            mode, size = image.mode, (image.height, image.width)
            values = set(np.unique(np.asarray(image)).tolist()) if mode == "L" else set()
    except (OSError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
        return f"not a readable PNG ({error})"
    if mode != "L":
        return f"a mask has one channel of 8 bits, this image has mode {mode}"
    if not values <= {0, 255}:
        return f"a mask has the values 0 and 255, this image has {sorted(values - {0, 255})[:3]}"
    expected = sizes.get(entry.filename.rpartition("/")[0], size)
    return None if size == expected else f"{size[1]}x{size[0]} pixels, the frame has {expected[1]}x{expected[0]}"
