"""Frames from single images, folders of images, and arrays."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from unipixel.video.frame import (
    MAX_PIXELS,
    UNTIMED_FPS,
    Frame,
    FrameSource,
    VideoInfo,
    as_rgb,
    check_pixels,
    read_in_order,
    warn_damaged,
)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*")


def is_image_file(path: Path) -> bool:
    """Return whether a file is a still image, by its first bytes.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(12)
    return head.startswith(_SIGNATURES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def read_image(path: Path, *, max_pixels: int) -> NDArray[np.uint8]:
    """Read an image as uint8 RGB (H, W, 3), with its EXIF orientation applied.

    Alpha is composited on black; 16-bit grey is reduced to its upper 8 bits.

    Raises:
        OSError: The file is missing, not a PNG, JPEG, WebP, BMP or TIFF image, damaged, or above `max_pixels`.
    """
    return read_pixels(path, _upright_rgb, max_pixels=max_pixels)


def read_mask(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Read a mask image: True where a pixel value is not zero, independent of the palette.

    Args:
        path: The file.
        max_pixels: Maximum of width times height.

    Raises:
        OSError: The file is missing, not an image, damaged, or above `max_pixels`.
    """
    return read_pixels(path, _nonzero, max_pixels=max_pixels)


def read_pixels(
    path: Path,
    convert: Callable[[Image.Image], NDArray[Any]],
    *,
    max_pixels: int,
    formats: tuple[str, ...] = _FORMATS,
) -> NDArray[Any]:
    """Open an image file, which is untrusted, and convert it.

    Args:
        path: The file.
        convert: Returns the pixels of the opened image.
        max_pixels: Maximum of width times height.
        formats: Names of the formats of Pillow that are allowed.

    Raises:
        OSError: The file is missing, of another format, damaged, or above `max_pixels`.
    """
    try:
        # Pillow warns at a fixed size; `max_pixels` is the limit here.
        with warnings.catch_warnings(), Image.open(path, formats=formats) as opened:
            warnings.simplefilter("ignore")
            check_pixels(*opened.size, max_pixels=max_pixels, name=str(path))
            return convert(opened)
    except Image.UnidentifiedImageError as error:
        raise OSError(f"{path}: not a readable PNG, JPEG, WebP, BMP or TIFF image") from error
    except OSError as error:
        if str(path) in str(error):
            raise
        raise OSError(f"{path}: the image is damaged ({error})") from error
    # Pillow's parsers raise these for damaged files.
    except (ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, MemoryError) as error:
        raise OSError(f"{path}: the image is damaged ({error})") from error
    except (Image.DecompressionBombError, ZeroDivisionError, KeyError, AttributeError) as error:
        raise OSError(f"{path}: the image is damaged ({error})") from error


def _nonzero(opened: Image.Image) -> NDArray[np.bool_]:
    pixels = np.asarray(opened if len(opened.getbands()) == 1 else opened.convert("RGB"))
    return pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(axis=-1)


def _upright_rgb(opened: Image.Image) -> NDArray[np.uint8]:
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I;16") or image.mode == "I":
        # convert("RGB") would clip 16-bit values at 255 instead of scaling them.
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return as_rgb((wide >> 8).astype(np.uint8), name="image")
    has_alpha = image.has_transparency_data
    return as_rgb(np.array(image.convert("RGBA" if has_alpha else "RGB")), name="image")


def natural_order(path: Path) -> tuple[list[tuple[int, int, str]], str]:
    """Return a sort key that puts frame 10 after frame 9, with or without padding."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], path.name


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder in natural order, without hidden files.

    Raises:
        OSError: The folder cannot be read or contains no image.
    """
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not paths:
        raise OSError(f"{folder}: the folder contains no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(paths, key=natural_order)


class ImageFiles(FrameSource):
    """A single image, or the images of a folder as the frames of a video."""

    def __init__(self, path: Path, *, max_pixels: int, fps: float | None) -> None:
        self._max_pixels = max_pixels
        is_image = not path.is_dir()
        self._paths = [path] if is_image else image_files(path)
        self._fps = fps or UNTIMED_FPS
        height, width, _ = read_image(self._paths[0], max_pixels=max_pixels).shape
        self.info = VideoInfo(
            path=str(path),
            width=width,
            height=height,
            num_frames=len(self._paths),
            fps=None if is_image else self._fps,
            duration_seconds=0.0 if is_image else len(self._paths) / self._fps,
            is_image=is_image,
        )

    def frames(self) -> Iterator[Frame]:
        """Yield every image; a damaged one, or one of another size, ends the video with a warning."""
        for index in range(len(self._paths)):
            try:
                frame = self._frame(index)
            except OSError as error:
                if index == 0:
                    raise
                warn_damaged(self.info.path, index, error)
                return
            yield frame

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return the frames at the given indices."""
        return [self._frame(index) for index in indices]

    def _frame(self, index: int) -> Frame:
        image = read_image(self._paths[index], max_pixels=self._max_pixels)
        if image.shape[:2] != (self.info.height, self.info.width):
            raise OSError(
                f"{self._paths[index]}: {image.shape[1]}x{image.shape[0]} pixels, but the first frame "
                f"has {self.info.width}x{self.info.height}"
            )
        return Frame(index, index / self._fps, image)


class ArrayFrames(FrameSource):
    """Arrays in memory: a list, an array (T, H, W, C), or an iterable that is read once."""

    def __init__(self, arrays: Any, *, max_pixels: int, fps: float | None) -> None:
        self._max_pixels = max_pixels
        self._fps = fps or UNTIMED_FPS
        if isinstance(arrays, Image.Image) or hasattr(arrays, "detach"):
            arrays = _as_pixels(arrays)
        if isinstance(arrays, np.ndarray) and arrays.ndim == 4 and _is_channels_first(arrays.shape[1:]):
            arrays = np.moveaxis(arrays, 1, -1)
        is_image = isinstance(arrays, np.ndarray) and (
            arrays.ndim == 2 or (arrays.ndim == 3 and (_is_channels_first(arrays.shape) or arrays.shape[2] in (3, 4)))
        )
        sized: Any = [arrays] if is_image else arrays
        self.is_repeatable = isinstance(sized, Sequence | np.ndarray)
        self._sized = sized if self.is_repeatable else ()
        self._once = iter(()) if self.is_repeatable else iter(sized)
        # The first array of a generator is read here, because it determines the size.
        try:
            self._first = sized[0] if self.is_repeatable else next(self._once)
        except (IndexError, StopIteration):
            raise OSError("the iterable of arrays contains no frame") from None
        first = _as_pixels(self._first)
        height, width = first.shape[:2] if first.ndim >= 2 else (0, 0)
        num_frames = len(sized) if self.is_repeatable else None
        self.info = VideoInfo(
            path="<arrays>",
            width=width,
            height=height,
            num_frames=num_frames,
            fps=None if is_image else self._fps,
            duration_seconds=0.0 if is_image else None if num_frames is None else num_frames / self._fps,
            is_image=is_image,
        )
        self._frame(0, self._first)

    def frames(self) -> Iterator[Frame]:
        """Yield every array as a frame.

        Raises:
            TypeError: An array is not uint8.
            ValueError: An array is not an image, or its size differs from that of the first.
        """
        if self.is_repeatable:
            yield from (self._frame(index, array) for index, array in enumerate(self._sized))
            return
        yield self._frame(0, self._first)
        self._first = None
        for index, array in enumerate(self._once, start=1):
            yield self._frame(index, array)

    def read(self, indices: Sequence[int]) -> list[Frame]:
        """Return the frames at the given indices."""
        if not self.is_repeatable:
            return read_in_order(self.frames(), indices, name=self.info.path)
        return [self._frame(index, self._sized[index]) for index in indices]

    def _frame(self, index: int, array: Any) -> Frame:
        image = as_rgb(_as_pixels(array), name=f"frame {index}")
        height, width = image.shape[:2]
        check_pixels(width, height, max_pixels=self._max_pixels, name=f"frame {index}")
        if (height, width) != (self.info.height, self.info.width):
            raise ValueError(
                f"frame {index} has {width}x{height} pixels, the first {self.info.width}x{self.info.height}"
            )
        return Frame(index, index / self._fps, image)


def _as_pixels(image: Any) -> NDArray[Any]:
    """Return a PIL image, a torch tensor or an array as an array, with the channels of a frame last."""
    if isinstance(image, Image.Image):
        return _upright_rgb(image)
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    pixels = np.asarray(image)
    return np.moveaxis(pixels, 0, -1) if pixels.ndim == 3 and _is_channels_first(pixels.shape) else pixels


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether the shape of a frame is (C, H, W): only its first side is a number of channels."""
    return shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4)
