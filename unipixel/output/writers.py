"""Writers of mask images, palette images and overlays, one frame at a time.

Every writer has `write(frame, objects)` and `close()`, and can be used in a `with` block. `objects` maps ids to
`ObjectMask`; only these objects are written.
"""

from __future__ import annotations

import abc
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.output.overlay import PromptMark, draw_overlay
from unipixel.output.video_encoder import VideoEncoder
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame, VideoInfo

MAX_PALETTE_ID = 254
"""Largest object id of a palette image; DAVIS uses 255 for ignored pixels."""


class FrameWriter(abc.ABC):
    """Writes an output for every frame; `close` completes it."""

    @abc.abstractmethod
    def write(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        """Write one frame; frames come in order."""

    def close(self) -> None:  # noqa: B027 - optional: image files are complete once written
        """Complete the output; nothing by default."""

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class MaskWriter(FrameWriter):
    """Writes `FOLDER/ID/00000.png`: one grey channel, 255 on the object and 0 elsewhere.

    The mask of an invisible object is empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        """Write a file per object.

        Raises:
            ValueError: A mask's size differs from the frame's.
            OSError: A file cannot be written.
        """
        for object_id in objects:
            pixels = visible_mask(frame, object_id, objects[object_id]).astype(np.uint8) * 255
            folder = self._folder / str(object_id)
            folder.mkdir(parents=True, exist_ok=True)
            _save_png(Image.fromarray(pixels), folder / f"{frame.index:05d}.png")


class PaletteWriter(FrameWriter):
    """Writes `FOLDER/00000.png` in the DAVIS layout: palette images whose values are object ids.

    Where objects overlap, the lower id is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._palette = davis_palette()

    def write(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        """Write one file.

        Raises:
            ValueError: An id is outside 1 to 254, or a mask's size differs from the frame's.
            OSError: The file cannot be written.
        """
        ids = np.zeros(frame.image.shape[:2], dtype=np.uint8)
        for object_id in sorted(objects, reverse=True):
            if not 1 <= object_id <= MAX_PALETTE_ID:
                raise ValueError(f"object {object_id}: palette images support ids 1 to {MAX_PALETTE_ID}")
            ids[visible_mask(frame, object_id, objects[object_id])] = object_id
        image = Image.fromarray(ids)
        image.putpalette(self._palette)
        self._folder.mkdir(parents=True, exist_ok=True)
        _save_png(image, self._folder / f"{frame.index:05d}.png")


class OverlayImageWriter(FrameWriter):
    """Writes the overlay of a still image as one PNG."""

    def __init__(self, path: Path, *, prompts: Sequence[PromptMark] = ()) -> None:
        self._path, self._prompts = path, prompts

    def write(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        """Draw and write the image.

        Raises:
            ValueError: A mask's size differs from the frame's.
            OSError: The file cannot be written.
        """
        _save_png(Image.fromarray(draw_overlay(frame.image, objects, prompts=self._prompts)), self._path)


class OverlayVideoWriter(FrameWriter):
    """Writes the overlay as H.264 in MP4, playable in browsers, with the timestamps of the frames.

    Closing the writer early leaves a valid file of the frames so far.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: float | None,
        prompts: Sequence[PromptMark] = (),
        crf: int = 20,
        sound: Iterable[bytes] = (),
    ) -> None:
        """Prepare the file, which is created with the first frame.

        Args:
            path: File to write.
            fps: Mean frame rate, for the duration of the last frame and the distance of keyframes.
            prompts: Marks to draw; `add_prompt` adds more.
            crf: Quality of x264, 0 to 51; lower values give better quality and larger files.
            sound: Sound track, see `VideoEncoder`.
        """
        self._prompts = list(prompts)
        self._encoder = VideoEncoder(path, fps=fps, crf=crf, sound=sound)

    def add_prompt(self, prompt: PromptMark) -> None:
        """Add a mark, to be drawn on its frame."""
        self._prompts.append(prompt)

    def write(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        """Draw and encode a frame.

        Raises:
            ValueError: The size of a mask differs from the frame, or that of a frame from the first one.
            OSError: The file cannot be written.
        """
        # A mark on later frames would be beside an object that has moved.
        marks = [mark for mark in self._prompts if mark.frame_index == frame.index]
        self._encoder.write(draw_overlay(frame.image, objects, prompts=marks), frame.timestamp_seconds)

    def close(self) -> None:
        """Flush the encoder and finish the file.

        Raises:
            OSError: The file cannot be written.
        """
        self._encoder.close()


def overlay_writer(
    folder: Path, info: VideoInfo, *, prompts: Sequence[PromptMark] = ()
) -> OverlayImageWriter | OverlayVideoWriter:
    """Return a writer of `overlay.png` for an image, or of `overlay.mp4` for a video."""
    if info.is_image:
        return OverlayImageWriter(folder / "overlay.png", prompts=prompts)
    return OverlayVideoWriter(folder / "overlay.mp4", fps=info.fps, prompts=prompts)


def visible_mask(frame: Frame, object_id: int, item: ObjectMask) -> NDArray[np.bool_]:
    """Return the mask (H, W) of an object on a frame, which is empty if the object is invisible.

    Raises:
        ValueError: The mask's size differs from the frame's.
    """
    mask = np.asarray(item.mask, dtype=bool)
    if mask.shape != frame.image.shape[:2]:
        raise ValueError(
            f"object {object_id}, frame {frame.index}: the mask has {mask.shape}, the frame {frame.image.shape[:2]}"
        )
    return mask if item.visible else np.zeros_like(mask)


def davis_palette() -> bytes:
    """Return the palette of DAVIS and PASCAL VOC: 256 RGB colours, from the bits of the id."""
    ids = np.arange(256, dtype=np.uint8)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            source = 3 * bit + channel
            if source < 8:
                colors[:, channel] |= ((ids >> source) & 1) << (7 - bit)
    return colors.tobytes()


def _save_png(image: Image.Image, path: Path) -> None:
    # Encoded in memory, so that the file is written at once. Level 1 is several times faster than the default, and
    # masks are still small.
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    path.write_bytes(buffer.getvalue())
