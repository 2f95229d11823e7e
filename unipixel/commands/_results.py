"""From a scene to files: masks, overlay, palette images, result.json."""

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
    """Writes what a scene holds, frame by frame; a context in which the output folder is open.

    Without a folder only the result document is made.
    """

    def __init__(self, arguments: argparse.Namespace, *, out: Path | None, davis_name: str = "video") -> None:
        """Choose what is written.

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

    def start(self, scene: VideoObjects, *, prompts: Sequence[PromptMark], **facts: Any) -> Result:
        """Announce the objects of a scene and open the files.

        Args:
            scene: Its objects are announced.
            prompts: What the overlay draws of the prompts.
            facts: Further fields of `Result`.
        """
        result = Result(video=scene.video.info, **facts)
        for object_id in sorted(scene.bank.ids):
            record = scene.bank[object_id]
            result.add_object(
                object_id, source=record.source, expression=record.expression, anchor_frame=record.anchor_frame
            )
        self._result = result
        if self._folder is not None:
            path = self._folder.path
            self._folder.at_end(lambda: result.save(path / RESULT_FILE))
            writers: list[Any] = [MaskWriter(path / "masks")]
            if not self._arguments.no_overlay:
                writers.append(overlay_writer(path, scene.video.info, prompts=prompts))
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

    def write_video(self, scene: VideoObjects) -> None:
        """Write every frame of a scene's video from its memory."""
        for frame in progress(scene.video, total=scene.video.info.num_frames, label="write"):
            self.write(frame, masks_on_frame(scene.bank, frame.index))


def masks_on_frame(bank: ObjectMemoryBank, frame_index: int) -> dict[int, ObjectMask]:
    """Return what a bank remembers of a frame."""
    objects = {}
    for object_id in bank.ids:
        look = bank.mask_record(object_id, frame_index)
        if look is not None:
            objects[object_id] = ObjectMask(look.mask(bank.frame_size), look.score, look.is_visible)
    return objects


def progress(items: Any, *, total: int | None, label: str) -> Iterator[Any]:
    """Iterate with a progress bar on stderr, where that is a terminal."""
    from tqdm import tqdm

    return iter(tqdm(items, total=total, desc=label, unit="frame", disable=not sys.stderr.isatty(), leave=False))
