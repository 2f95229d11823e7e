"""The result: question, answer, and the masks of every object."""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.memory.rle import rle_box
from unipixel.output.overlay import PromptMark
from unipixel.output.result_object import ResultFrame, ResultObject
from unipixel.processing.answer_parser import ParsedAnswer, parse_answer
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame, VideoInfo

if TYPE_CHECKING:
    from unipixel.memory.bank import ObjectMemoryBank
    from unipixel.memory.records import MaskRecord, PromptRecord
    from unipixel.session.base_session import Answer
    from unipixel.video.open import Video

VERSION = 1
SOURCES = ("point", "box", "mask", "language")


@dataclass(slots=True, repr=False, eq=False)
class Result:
    """Answer to a question about a video, with the masks of its objects; the content of `result.json`.

    Attributes:
        video: Properties of the video.
        model: Name or path of the model; None without a model.
        question: The question; None if nothing was asked.
        answer: The answer, with objects as `[id]`; None if nothing was asked.
        objects: Results by object id.
        timings_seconds: Seconds by stage.
        is_partial: Whether the work was interrupted, so that frames are missing.
        source: The frames, for overlays; None if they can no longer be read.
        prompts: Points and boxes, for overlays.
        turn: The turn of the session that gave the answer; None for a result that was loaded.
    """

    video: VideoInfo
    model: str | None = None
    question: str | None = None
    answer: str | None = None
    objects: dict[int, ResultObject] = field(default_factory=dict)
    timings_seconds: dict[str, float] = field(default_factory=dict)
    is_partial: bool = False
    source: Video | None = None
    prompts: Sequence[PromptMark] = ()
    turn: Answer | None = None

    @classmethod
    def of_bank(
        cls, bank: ObjectMemoryBank, info: VideoInfo, *, timestamps_seconds: Mapping[int, float], **fields: Any
    ) -> Result:
        """Create a result with the present objects of a memory bank, whose masks stay encoded until they are read.

        Args:
            bank: The bank.
            info: Properties of the video.
            timestamps_seconds: Presentation time by frame; others are derived from the frame rate.
            fields: Further attributes.
        """
        marks = [_mark(object_id, prompt) for object_id in bank.ids for prompt in bank[object_id].prompts]
        result = cls(info, prompts=[mark for mark in marks if mark is not None], **fields)

        def read(entries: Sequence[tuple[int, MaskRecord]]) -> list[ResultFrame]:
            frames = []
            for index, mask_record in entries:
                rle = mask_record.rle(bank.frame_size)
                box = rle_box(rle) if rle else None
                seconds = timestamps_seconds.get(index, index / (info.fps or 1.0))
                frames.append(
                    ResultFrame(index, seconds, box is not None, mask_record.score, list(box) if box else None, rle)
                )
            return frames

        for object_id in sorted(bank.ids):
            record = bank[object_id]
            result.objects[object_id] = ResultObject(
                object_id,
                source=record.source,
                frame_size=bank.frame_size,
                expression=record.expression,
                anchor_frame=record.anchor_frame,
                frames=partial(read, tuple(bank.mask_records(object_id))),
            )
        return result

    @property
    def text(self) -> str:
        """The answer, with objects as `[id]`; empty if nothing was asked."""
        return self.answer or ""

    @property
    def parsed(self) -> ParsedAnswer:
        """The answer split into text and segments."""
        return parse_answer(self.text) if self.turn is None else self.turn.parsed

    @property
    def new_ids(self) -> tuple[int, ...]:
        """See `Answer`; empty for a result that was loaded, as the following."""
        return () if self.turn is None else self.turn.new_ids

    @property
    def prefilled_ids(self) -> tuple[int, ...]:
        """See `Answer`."""
        return () if self.turn is None else self.turn.prefilled_ids

    @property
    def generated_ids(self) -> tuple[int, ...]:
        """See `Answer`."""
        return () if self.turn is None else self.turn.generated_ids

    @property
    def accepted_ids(self) -> tuple[int, ...]:
        """See `Answer`."""
        return () if self.turn is None else self.turn.accepted_ids

    @property
    def num_read_tokens(self) -> int:
        """See `Answer`."""
        return 0 if self.turn is None else self.turn.num_read_tokens

    @property
    def num_generated_tokens(self) -> int:
        """See `Answer`."""
        return 0 if self.turn is None else self.turn.num_generated_tokens

    def add_object(
        self, object_id: int, *, source: str, expression: str | None = None, anchor_frame: int = 0
    ) -> ResultObject:
        """Add an object, before its frames.

        Raises:
            ValueError: The id exists, or the source is unknown.
        """
        if object_id in self.objects:
            raise ValueError(f"object {object_id} exists already")
        if source not in SOURCES:
            raise ValueError(f"object {object_id}: source must be one of {', '.join(SOURCES)}, got {source!r}")
        self.objects[object_id] = ResultObject(
            object_id,
            source=source,
            frame_size=(self.video.height, self.video.width),
            expression=expression,
            anchor_frame=anchor_frame,
        )
        return self.objects[object_id]

    def add_frame(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        """Add the masks of one frame; masks that were added before are replaced.

        Args:
            frame: The frame; frames may be added in any order, since tracking runs in both directions.
            objects: Masks by object id.

        Raises:
            ValueError: An id was not added, or a mask does not fit the frame.
        """
        for object_id, item in objects.items():
            if object_id not in self.objects:
                raise ValueError(f"object {object_id} was not added with add_object")
            records = self.objects[object_id].frames
            record = ResultFrame.of(frame, object_id, item)
            position = bisect.bisect_left(records, frame.index, key=lambda record: record.frame_index)
            is_known = position < len(records) and records[position].frame_index == frame.index
            records[position : position + is_known] = [record]

    def masks_on(self, frame_index: int) -> dict[int, ObjectMask]:
        """Return the masks on one frame, by object id."""
        found = {}
        for object_id, item in self.objects.items():
            if (frame := item.frame(frame_index)) is not None:
                found[object_id] = ObjectMask(frame.mask(item.frame_size), frame.score, frame.visible)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the document of `result.json`."""
        video = asdict(self.video)
        del video["is_image"]
        return {
            "version": VERSION,
            "video": video,
            "model": self.model,
            "question": self.question,
            "answer": self.answer,
            "is_partial": self.is_partial,
            "objects": [self.objects[object_id].to_dict() for object_id in sorted(self.objects)],
            "timings_seconds": dict(self.timings_seconds),
        }

    def to_json(self) -> str:
        """Return the document as strict JSON, on one line."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False)

    def to_coco(self) -> dict[str, Any]:
        """Return the masks as COCO annotations; see `unipixel.output.coco`."""
        from unipixel.output.coco import to_coco

        return to_coco(self)

    def to_supervision(self, frame: int | None = None) -> Any:
        """Return the `supervision.Detections` of a frame, or an iterator of (frame index, detections) of all frames.

        `tracker_id` is the object id, `confidence` the score; masks are bool (N, H, W).

        Raises:
            ImportError: `supervision` is not installed: install the extra `eval`.
            ValueError: No object has a record of this frame.
        """
        from unipixel.output.detections import detections_of_frame, iterate_detections

        return iterate_detections(self) if frame is None else detections_of_frame(self, frame)

    def save(self, folder: str | os.PathLike[str], **options: Any) -> Path:
        """Write `result.json`, the masks and an overlay into a folder; see `unipixel.output.saving.save_result`."""
        from unipixel.output.saving import save_result

        return save_result(self, folder, **options)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Result:
        """Read a result that `save` or a command wrote; see `unipixel.output.saving.load_result`."""
        from unipixel.output.saving import load_result

        return load_result(folder)

    def plot(self, frame: int | None = None, *, axes: Any = None) -> Any:
        """Draw a frame with its masks on matplotlib axes; see `unipixel.output.display.plot_result`."""
        from unipixel.output.display import plot_result

        return plot_result(self, frame, axes=axes)

    def show(self, frame: int | None = None) -> None:
        """Show the clip with its masks in a notebook, else one frame in a window; see `unipixel.output.display`."""
        from unipixel.output.display import show_result

        show_result(self, frame)

    def _repr_html_(self) -> str:
        from unipixel.output.display import to_html

        return to_html(self)

    def __repr__(self) -> str:
        name = os.path.basename(self.video.path) or self.video.path
        asked = f" {self.question!r:.60} -> {self.text!r:.60}" if self.question else ""
        objects = "; ".join(item.describe() for item in list(self.objects.values())[:4])
        more = f"; {len(self.objects) - 4} more" if len(self.objects) > 4 else ""
        return f"<Result{' (partial)' if self.is_partial else ''} {name}:{asked} {objects or 'no objects'}{more}>"


def _mark(object_id: int, prompt: PromptRecord) -> PromptMark | None:
    """Return the mark of a point or box; None for a mask."""
    if prompt.kind == "point":
        x, y = prompt.coords
        return PromptMark(object_id, prompt.frame_index, point_xy=(x, y), is_positive=prompt.is_positive)
    if prompt.kind == "box":
        left, top, right, bottom = prompt.coords
        return PromptMark(object_id, prompt.frame_index, box_xyxy=(left, top, right, bottom))
    return None
