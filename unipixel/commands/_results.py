"""Writing of results: masks, overlay, palette images and result.json."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.output.folder import BackgroundWriter, OutputFolder
from unipixel.output.result import Result
from unipixel.output.writers import MaskWriter, PaletteWriter, overlay_writer
from unipixel.tracking.types import ObjectMask

if TYPE_CHECKING:
    from unipixel.memory.bank import ObjectMemoryBank
    from unipixel.output.overlay import PromptMark
    from unipixel.session.video_objects import VideoObjects
    from unipixel.video.frame import Frame

RESULT_FILE = "result.json"


class ResultWriter:
    """Writes the objects of a video frame by frame; a context manager that opens the output folder.

    Without a folder it only builds the result document.
    """

    def __init__(self, arguments: argparse.Namespace, *, out: Path | None, davis_name: str = "video") -> None:
        """Choose the outputs.

        Args:
            arguments: Options of `add_output_options`.
            out: The output folder, or None.
            davis_name: Name of the sequence in the DAVIS layout.
        """
        self._arguments = arguments
        self._folder = None if out is None else OutputFolder(out, overwrite=arguments.overwrite)
        self._davis_name = davis_name
        self._writer: BackgroundWriter | None = None
        self._result: Result | None = None

    def __enter__(self) -> ResultWriter:
        """Open the folder.

        Raises:
            FileExistsError: It exists and `--overwrite` was not given.
            OSError: It cannot be written.
        """
        if self._folder is not None:
            self._folder.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        if self._folder is not None:
            self._folder.__exit__(*reason)

    def start(self, objects: VideoObjects, *, prompts: Sequence[PromptMark], **fields: Any) -> Result:
        """Add the objects of a video to the result and open the files.

        Args:
            objects: The objects.
            prompts: Marks for the overlay.
            fields: Further fields of `Result`.
        """
        result = Result(video=objects.video.info, **fields)
        for object_id in sorted(objects.bank.ids):
            record = objects.bank[object_id]
            result.add_object(
                object_id, source=record.source, expression=record.expression, anchor_frame=record.anchor_frame
            )
        self._result = result
        if self._folder is not None:
            path = self._folder.path
            self._folder.at_end(lambda: result.save(path / RESULT_FILE))
            writers: list[Any] = [MaskWriter(path / "masks")]
            if not self._arguments.no_overlay:
                writers.append(overlay_writer(path, objects.video.info, prompts=prompts))
            if self._arguments.davis:
                writers.append(PaletteWriter(path / "davis" / self._davis_name))
            self._writer = BackgroundWriter(*writers)
            self._folder.add(self._writer)
        return result

    def write(self, frame: Frame, objects: dict[int, ObjectMask]) -> None:
        """Write one frame.

        Raises:
            RuntimeError: `start` was not called.
        """
        if self._result is None:
            raise RuntimeError("call start before write")
        self._result.add_frame(frame, objects)
        if self._writer is not None:
            self._writer.write(frame, objects)

    def write_video(self, objects: VideoObjects) -> None:
        """Write every frame of the video with the masks in the object memory."""
        for frame in progress_bar(objects.video, total=objects.video.info.num_frames, label="write"):
            self.write(frame, masks_on_frame(objects.bank, frame.index))


def masks_on_frame(bank: ObjectMemoryBank, frame_index: int) -> dict[int, ObjectMask]:
    """Return the masks of an object memory on one frame, by object id."""
    objects = {}
    for object_id in bank.ids:
        record = bank.mask_record(object_id, frame_index)
        if record is not None:
            objects[object_id] = ObjectMask(record.mask(bank.frame_size), record.score, record.is_visible)
    return objects


def progress_bar(items: Any, *, total: int | None, label: str) -> Iterator[Any]:
    """Iterate with a progress bar on stderr, if that is a terminal."""
    from tqdm import tqdm

    return iter(tqdm(items, total=total, desc=label, unit="frame", disable=not sys.stderr.isatty(), leave=False))
