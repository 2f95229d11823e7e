"""Features of teachers on disk, found by the content of the image and the setting of the teacher.

Shape letters: C channels, h, w features, H, W image in pixels.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unipixel.train.sail.teachers import Teacher

GIGABYTE = 10**9
SETTING_FILE = "setting.json"
_TENSOR, _CHECKSUM = "features", "crc32"
# A change of what is stored gets another number, so that older files are not read.
_FORMAT = 1
_SUFFIX = ".safetensors"
_MAX_FILE_BYTES = 2**30
logger = logging.getLogger(__name__)


class FeatureCache:
    """Features of one teacher in a folder, one file per image, up to a number of bytes.

    Files are written next to their place and moved, so that several processes can share a folder. A file that is
    damaged is computed again.
    """

    def __init__(self, folder: str | Path, setting: Mapping[str, Any], *, max_bytes: int) -> None:
        """Open or create the part of a folder that belongs to a setting.

        Args:
            folder: Folder of all settings.
            setting: What the features depend on besides the image, as plain values.
            max_bytes: Bytes of all settings in the folder above which this process stores no further features.

        Raises:
            OSError: The folder cannot be created or read.
        """
        document = {**setting, "format": _FORMAT, "dtype": "float16"}
        text = json.dumps(document, sort_keys=True)
        root = Path(folder)
        self.folder = root / f"{setting['teacher']}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / SETTING_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        count, used = _usage(root)
        # Each of several processes gets a part of what is left.
        self._remaining = max(0, max_bytes - used) // int(os.environ.get("WORLD_SIZE", "1"))
        self._max_bytes, self._is_full = max_bytes, False
        logger.info(
            "%s contains the features of %d images, %.2f of at most %.2f GB",
            root, count, used / GIGABYTE, max_bytes / GIGABYTE,
        )  # fmt: skip

    def read(self, image: NDArray[np.uint8], *, num_channels: int) -> Tensor | None:
        """Return the features (C, h, w) float16 of an image; None if there are none, or the file is damaged.

        Args:
            image: (H, W, 3) uint8 RGB.
            num_channels: Channels that the teacher has.
        """
        file = self._file(image)
        try:
            if file.stat().st_size > _MAX_FILE_BYTES:
                raise SafetensorError("too large")
            with safe_open(file, framework="pt") as stored:
                features: Tensor = stored.get_tensor(_TENSOR)
                checksum = (stored.metadata() or {}).get(_CHECKSUM)
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            logger.warning("%s is damaged and computed again: %s", file, error)
            return None
        is_valid = features.dtype == torch.float16 and features.ndim == 3 and len(features) == num_channels
        if not is_valid or checksum != _checksum(features):
            logger.warning("%s is damaged and computed again", file)
            return None
        return features

    def write(self, image: NDArray[np.uint8], features: Tensor) -> None:
        """Store the features (C, h, w) float16 of an image, unless the folder is full.

        Raises:
            OSError: The file cannot be written.
        """
        num_bytes = features.numel() * features.element_size()
        if num_bytes > self._remaining:
            if not self._is_full:
                logger.warning(
                    "%s has reached %.2f GB: further features are computed each time; raise "
                    "distillation.max_cache_gigabytes, or give another folder",
                    self.folder.parent, self._max_bytes / GIGABYTE,
                )  # fmt: skip
            self._is_full = True
            return
        file = self._file(image)
        file.parent.mkdir(exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            own = features.cpu().contiguous()
            save_file({_TENSOR: own}, partial, metadata={_CHECKSUM: _checksum(own)})
            os.replace(partial, file)
        except SafetensorError as error:
            raise OSError(f"{file} cannot be written: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
        self._remaining -= num_bytes

    def _file(self, image: NDArray[np.uint8]) -> Path:
        digest = hashlib.sha256(f"{image.shape} ".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
        return self.folder / digest[:2] / f"{digest}{_SUFFIX}"


class CachedTeacher:
    """A teacher whose features are computed once per image, if there is a cache.

    Attributes:
        teacher: The teacher.
        num_computed: Images that were computed, and not read.
    """

    def __init__(self, teacher: Teacher, cache: FeatureCache | None = None) -> None:
        """Join a teacher and its cache; None computes every image."""
        self.teacher, self._cache = teacher, cache
        self.num_computed = 0

    @property
    def num_channels(self) -> int:
        """Channels of the features."""
        return self.teacher.num_channels

    def features(self, images: Sequence[NDArray[np.uint8]], *, device: torch.device) -> list[Tensor]:
        """Return the features (C, h, w) float16 of images (H, W, 3) uint8 RGB on a device.

        Raises:
            OSError: The weights cannot be read, or a file cannot be written.
            ValueError: The weights do not fit, or features are outside the range of float16.
        """
        cache = self._cache
        found = [None if cache is None else cache.read(image, num_channels=self.num_channels) for image in images]
        missing = [index for index, features in enumerate(found) if features is None]
        if missing:
            computed = self.teacher.compute([images[index] for index in missing], device=device)
            self.num_computed += len(missing)
            for index, features in zip(missing, computed, strict=True):
                # Rounded also where nothing is stored, so that a run does not depend on the cache.
                found[index] = stored = features.half()
                if not bool(stored.isfinite().all()):
                    raise ValueError(f"the teacher {self.teacher.name} has features outside the range of float16: give "
                                     "other weights")  # fmt: skip
                if cache is not None:
                    cache.write(images[index], stored)
        return [features.to(device) for features in found if features is not None]


def _usage(folder: Path) -> tuple[int, int]:
    """Return the number and the bytes of the feature files below a folder."""
    sizes = [file.stat().st_size for file in folder.glob(f"*/*/*{_SUFFIX}")]
    return len(sizes), sum(sizes)


def _checksum(features: Tensor) -> str:
    return f"{zlib.crc32(features.numpy().tobytes()):08x}"
