"""Writing of results frame by frame: masks, overlay, palette images, result.json and exports."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.commands._options import chosen_exports
from unipixel.output.folder import BackgroundWriter, OutputFolder
from unipixel.output.result import Result
from unipixel.output.saving import write_documents
from unipixel.output.writers import MAX_PALETTE_ID, MaskWriter, PaletteWriter, overlay_writer
from unipixel.tracking.types import ObjectMask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unipixel.commands._running.progress import ProgressDisplay
    from unipixel.memory.bank import ObjectMemoryBank
    from unipixel.output.overlay import PromptMark
    from unipixel.session.video_objects import VideoObjects
    from unipixel.video.frame import Frame

# Names of folders of frames that say nothing about the sequence: in DAVIS and in many others.
_FRAME_FOLDERS = {"images", "image", "img", "imgs", "frames", "rgb", "jpegimages", "480p", "full-resolution"}


class ResultWriter:
    """Writes the objects of a video frame by frame; a context manager that opens the output folder.

    Without a folder it only builds the result document. After Ctrl-C, the frames so far are kept and marked as a
    partial result.
    """

    def __init__(self, arguments: argparse.Namespace, *, out: Path | None, davis_name: str = "video") -> None:
        """Choose the outputs.

        Args:
            arguments: Options of `add_output_options`.
            out: The output folder, or None.
            davis_name: Name of the sequence in the DAVIS layout.
        """
        self._arguments, self._out = arguments, out
        self._folder = None if out is None else OutputFolder(out, overwrite=arguments.overwrite)
        self._davis_name = davis_name
        self._writer: BackgroundWriter | None = None
        self._result: Result | None = None
        self._num_frames = 0

    def __enter__(self) -> ResultWriter:
        """Open the folder.

        Raises:
            FileExistsError: It exists and `--overwrite` was not given.
            OSError: It cannot be written.
        """
        if self._folder is not None:
            self._folder.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        is_interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if self._result is not None and is_interrupted:
            self._result.is_partial = True
        if self._folder is None:
            return
        # Nothing has been written before the first frame: the folder is removed as after an error.
        has_nothing = is_interrupted and self._num_frames == 0
        self._folder.__exit__(*((RuntimeError, None, trace) if has_nothing else (kind, error, trace)))
        if is_interrupted and not has_nothing:
            print(f"unipixel: partial result of {self._num_frames} frames in {self._out}", file=sys.stderr)

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

            def finish() -> None:
                # A pass over the video may have found that it is damaged and shorter.
                result.video = objects.video.info
                write_documents(result, path, exports=chosen_exports(self._arguments))

            self._folder.at_end(finish)
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
        self._num_frames += 1

    def write_video(self, objects: VideoObjects, progress: ProgressDisplay) -> None:
        """Write every frame of the video with the masks in the object memory."""
        for frame in progress.track(objects.video, total=objects.video.info.num_frames, stage="write"):
            self.write(frame, masks_on_frame(objects.bank, frame.index))
        if self._result is not None:
            self._result.video = objects.video.info


def masks_on_frame(bank: ObjectMemoryBank, frame_index: int) -> dict[int, ObjectMask]:
    """Return the masks of an object memory on one frame, by object id."""
    objects = {}
    for object_id in bank.ids:
        record = bank.mask_record(object_id, frame_index)
        if record is not None:
            objects[object_id] = ObjectMask(record.mask(bank.frame_size), record.score, record.is_visible)
    return objects


def sequence_name(source: str) -> str:
    """Return the name of a sequence in the DAVIS layout: that of the clip, or of the folder above `images`."""
    path = Path(os.path.abspath(source))
    if path.is_dir() and path.name.lower() in _FRAME_FOLDERS and path.parent.name:
        return path.parent.name
    return (path.name if path.is_dir() else path.stem) or "video"


def check_palette_ids(arguments: argparse.Namespace, object_ids: Iterable[int]) -> None:
    """Check before the work that palette images can store the prompted ids.

    Raises:
        ValueError: `--davis` was given and an id is outside 1 to 254.
    """
    outside = [object_id for object_id in object_ids if not 1 <= object_id <= MAX_PALETTE_ID]
    if arguments.davis and outside:
        raise ValueError(f"object {outside[0]}: --davis supports ids 1 to {MAX_PALETTE_ID}, since 0 is the background")


def print_warnings(result: Result, *, name: str = "") -> None:
    """Print on stderr where masks are uncertain."""
    for object_id in sorted(result.objects):
        if text := result.objects[object_id].describe_confidence():
            print(f"unipixel: warning: {name}[{object_id}] {text}", file=sys.stderr)
