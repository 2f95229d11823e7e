"""The work of `unipixel stream`: prompts and questions at their frames, and a line of JSON per frame."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from unipixel.commands._options import (
    check_model,
    choose_device,
    generation_settings,
    load_chosen_segmenter,
    load_model,
)
from unipixel.commands._prompts import prompt_marks, read_prompts
from unipixel.memory.injection import check_object_ids
from unipixel.memory.records import MAX_FRAME_INDEX
from unipixel.output.folder import BackgroundWriter, OutputFolder
from unipixel.output.result_object import ResultFrame
from unipixel.output.writers import OverlayVideoWriter, overlay_writer
from unipixel.processing.prompt_checks import check_prompt, check_prompt_group
from unipixel.processing.prompt_templates import normalize_query
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame, VideoInfo
from unipixel.video.latest_frame import LatestFrame
from unipixel.video.live import is_address
from unipixel.video.open import Video, open_video

# Sessions import torch and transformers, which takes seconds: the source and the prompts are checked before.
if TYPE_CHECKING:
    from unipixel.session.live_session import LiveSession
    from unipixel.session.stream_objects import StreamObjects

# Addresses of files, which are delivered as fast as they are read.
_FILE_SCHEMES = {"http", "https", "file"}


@dataclass(frozen=True)
class StreamPlan:
    """Parsed options of `unipixel stream`.

    Attributes:
        every: Distance between processed frames.
        max_frames: Number of processed frames after which the command ends; None for no limit.
        query: Text to segment.
        retry_seconds: Interval between attempts to segment it.
        questions: Time in seconds and text of each question, ordered by time.
        prompts: Frame index, object id, and the prompts of the object on that frame, ordered by frame.
        is_dropping: Whether frames that arrive during the processing of another frame are dropped.
    """

    every: int
    max_frames: int | None
    query: str | None
    retry_seconds: float
    questions: tuple[tuple[float, str], ...]
    prompts: tuple[tuple[int, int, tuple[VisualPrompt, ...]], ...]
    is_dropping: bool

    @property
    def needs_language(self) -> bool:
        """Whether the language model is needed."""
        return self.query is not None or bool(self.questions)


def read_plan(arguments: argparse.Namespace) -> StreamPlan:
    """Check the options of a command line.

    Raises:
        ValueError: One is out of range, or there is nothing to do.
        OSError: A mask file cannot be read.
    """
    for name in ("every", "max_frames", "redetect_after"):
        value = getattr(arguments, name)
        if value is not None and not 1 <= value <= MAX_FRAME_INDEX:
            raise ValueError(f"--{name.replace('_', '-')} must be in 1 to {MAX_FRAME_INDEX}, got {value:.6g}")
    for value in (arguments.retry, *arguments.ask_at):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"--ask-at and --retry must be seconds of at least 0, got {value:g}")
    times = arguments.ask_at or [0.0] * len(arguments.ask)
    if len(times) != len(arguments.ask):
        raise ValueError(f"{len(arguments.ask)} --ask and {len(times)} --ask-at were given: give one time per question")
    for text in (*arguments.ask, *([] if arguments.query is None else [arguments.query])):
        if not normalize_query(text):
            raise ValueError(f"the question {text!r} is empty: give a question, or a text to segment")
    grouped: dict[tuple[int, int], list[VisualPrompt]] = {}
    for object_id, prompts in read_prompts(arguments).items():
        for prompt in prompts:
            grouped.setdefault((prompt.frame_index, object_id), []).append(prompt)
    if not (grouped or arguments.ask or arguments.query):
        raise ValueError("nothing to track: give a text, --point, --box, --mask or --ask")
    return StreamPlan(
        every=arguments.every,
        max_frames=arguments.max_frames,
        query=arguments.query,
        retry_seconds=arguments.retry,
        questions=tuple(sorted(zip(times, arguments.ask, strict=True), key=lambda question: question[0])),
        prompts=tuple((*key, tuple(prompts)) for key, prompts in sorted(grouped.items())),
        is_dropping=_is_live(arguments.source) if arguments.drop == "auto" else arguments.drop == "always",
    )


def run_plan(arguments: argparse.Namespace, plan: StreamPlan) -> int:
    """Process a stream to its end, and return the exit code.

    Raises:
        ValueError: A prompt is outside the video.
        OSError: The source, the model or the output folder cannot be used.
        BrokenPipeError: The reader of the output has closed it; the overlay up to then is complete.
    """
    is_pipe_open, start = True, time.perf_counter()
    with contextlib.ExitStack() as stack:
        out = None
        if arguments.out is not None:
            out = stack.enter_context(OutputFolder(arguments.out, overwrite=arguments.overwrite))
        video = open_video(arguments.source)
        reader = _FrameReader(video, plan)
        stack.callback(reader.close)
        _check_prompts(plan, video.info)
        overlay = None if out is None else _StreamOverlay(out, video.info, plan)
        processor = _StreamProcessor(plan, *_open_session(arguments, plan), overlay)
        try:
            for frame in reader.frames():
                processor.process(frame)
        except BrokenPipeError:
            is_pipe_open = False
    if not is_pipe_open:
        raise BrokenPipeError
    summary = f"{processor.num_processed} frames in {time.perf_counter() - start:.1f} s, {reader.num_dropped} dropped"
    print(summary if out is None else f"{summary}; overlay in {arguments.out}", file=sys.stderr)
    return 2 if processor.finish() else 0


class _StreamProcessor:
    """Tracks, prompts, segments, asks and prints, frame by frame."""

    def __init__(
        self, plan: StreamPlan, objects: StreamObjects, session: LiveSession | None, overlay: _StreamOverlay | None
    ) -> None:
        self.num_processed = 0
        self._plan, self._objects, self._session, self._overlay = plan, objects, session, overlay
        self._prompts, self._questions = list(plan.prompts), list(plan.questions)
        self._next_query_seconds = 0.0 if plan.query is not None else math.inf
        self._num_failed = 0

    def process(self, frame: Frame) -> None:
        """Process a frame, then print its line and the answers of its questions."""
        (self._session or self._objects).step(frame)
        if self.num_processed == 0 and self._prompts:
            # Objects that the language model adds must not use the ids of later prompts.
            self._objects.bank.next_id = 1 + max(object_id for _, object_id, _ in self._prompts)
        self.num_processed += 1
        while self._prompts and self._prompts[0][0] <= frame.index:
            _, object_id, prompts = self._prompts.pop(0)
            moved = [replace(prompt, frame_index=frame.index) for prompt in prompts]
            self._objects.prompt(object_id, *moved)
            if self._overlay is not None:
                self._overlay.mark(object_id, moved)
        answers: list[dict[str, Any]] = []
        if self._session is not None:
            self._segment_query(self._session, frame.timestamp_seconds)
            answers = self._answer_due(self._session, frame.timestamp_seconds)
        for line in (frame_line(frame, self._objects.masks), *answers):
            print(json.dumps(line, ensure_ascii=False, allow_nan=False), flush=True)
        if self._overlay is not None:
            self._overlay.write(frame, self._objects.masks)

    def finish(self) -> int:
        """Report the prompts and questions that were not reached, and return the number of all failures."""
        for frame_index, object_id, _ in self._prompts:
            self._fail(f"the stream ended before frame {frame_index}, the prompted frame of object {object_id}")
        for seconds, question in self._questions:
            self._fail(f"the stream ended before {seconds:g} s, the time of the question {question!r}")
        return self._num_failed

    def _segment_query(self, session: LiveSession, now: float) -> None:
        if now < self._next_query_seconds:
            return
        try:
            is_done = bool(session.segment(self._plan.query or "").new_ids)
        except ValueError as error:
            # The query was checked before, so the answer of the model is invalid and would be so again.
            self._fail(str(error))
            is_done = True
        self._next_query_seconds = math.inf if is_done else now + self._plan.retry_seconds

    def _answer_due(self, session: LiveSession, now: float) -> list[dict[str, Any]]:
        lines = []
        while self._questions and self._questions[0][0] <= now:
            _, question = self._questions.pop(0)
            line: dict[str, Any] = {"question": question, "answer": None, "timestamp_seconds": now}
            try:
                line["answer"] = session.ask(question).text
            except ValueError as error:
                line["error"] = str(error)
                self._fail(str(error))
            lines.append(line)
        return lines

    def _fail(self, reason: str) -> None:
        self._num_failed += 1
        print(f"unipixel: {' '.join(reason.split())}", file=sys.stderr)


class _FrameReader:
    """Yields the frames of a video that are to be processed."""

    def __init__(self, video: Video, plan: StreamPlan) -> None:
        self._video, self._plan = video, plan
        self._latest: LatestFrame | None = None

    @property
    def num_dropped(self) -> int:
        return self._latest.num_dropped if self._latest else 0

    def frames(self) -> Iterable[Frame]:
        if self._plan.is_dropping:
            self._latest = LatestFrame(self._video)
        next_index = num_processed = 0
        for frame in self._latest or self._video:
            if frame.index < next_index:
                continue
            yield frame
            num_processed, next_index = num_processed + 1, frame.index + self._plan.every
            if num_processed == self._plan.max_frames:
                return

    def close(self) -> None:
        # A container must not be closed while a blocked thread reads it; the end of the process closes it.
        if self._latest is None or self._latest.close():
            self._video.close()


class _StreamOverlay:
    """The overlay video, drawn and encoded in the background."""

    def __init__(self, folder: OutputFolder, info: VideoInfo, plan: StreamPlan) -> None:
        shown = replace(info, fps=info.fps / plan.every if info.fps else None)
        # With dropped frames the frames of the prompts are not known in advance.
        self._is_marking = plan.is_dropping
        marks = (
            [] if plan.is_dropping else prompt_marks((key, each) for _, key, group in plan.prompts for each in group)
        )
        self._video = overlay_writer(folder.path, shown, prompts=marks)
        self._writer = folder.add(BackgroundWriter(self._video))

    def mark(self, object_id: int, prompts: Iterable[VisualPrompt]) -> None:
        if self._is_marking and isinstance(self._video, OverlayVideoWriter):
            for mark in prompt_marks((object_id, prompt) for prompt in prompts):
                self._video.add_prompt(mark)

    def write(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        self._writer.write(frame, objects)


def frame_line(frame: Frame, objects: Mapping[int, ObjectMask]) -> dict[str, Any]:
    """Return the line of JSON of a frame."""
    records = [(object_id, ResultFrame.of(frame, object_id, objects[object_id])) for object_id in sorted(objects)]
    return {
        "frame_index": frame.index,
        "timestamp_seconds": frame.timestamp_seconds,
        "objects": [
            {
                "id": object_id,
                "visible": record.visible,
                "score": record.score,
                "box_xyxy": record.box_xyxy,
                "rle": record.rle,
            }
            for object_id, record in records
        ],
    }


def _open_session(arguments: argparse.Namespace, plan: StreamPlan) -> tuple[StreamObjects, LiveSession | None]:
    """Load the models that the plan needs: only SAM 2.1 if nothing is asked."""
    if not plan.needs_language:
        from unipixel.checkpoints.devices import check_device
        from unipixel.checkpoints.segmenters import find_segmenter, load_segmenter

        if arguments.device != "auto":
            check_device(arguments.device)
        found = find_segmenter(arguments.segmenter or arguments.model)
        from unipixel.session.stream_objects import StreamObjects

        segmenter = load_segmenter(found, device=choose_device(arguments.device))
        options = {"is_postprocessed": arguments.postprocess, "redetect_after": arguments.redetect_after}
        return StreamObjects(segmenter, num_frames=1, **options), None
    check_model(arguments)
    from unipixel.session.live_session import LiveSession, LiveSettings

    settings = LiveSettings(
        segmenter=load_chosen_segmenter(arguments),
        language_masks=arguments.language_masks,
        num_frames=arguments.frames,
        is_postprocessed=arguments.postprocess,
        redetect_after=arguments.redetect_after,
        generation=generation_settings(arguments),
    )
    session = LiveSession(*load_model(arguments), settings=settings)
    return session.objects, session


def _check_prompts(plan: StreamPlan, info: VideoInfo) -> None:
    num_frames = info.num_frames or MAX_FRAME_INDEX
    known: set[int] = set()
    for frame_index, object_id, prompts in plan.prompts:
        check_object_ids([object_id])
        check_prompt_group(prompts, is_known=object_id in known)
        known.add(object_id)
        for prompt in prompts:
            check_prompt(prompt, frame_size=(info.height, info.width), num_video_frames=num_frames)
        if frame_index % plan.every and not plan.is_dropping:
            raise ValueError(
                f"object {object_id} is prompted on frame {frame_index}, but --every {plan.every} processes "
                f"multiples of {plan.every} only"
            )


def _is_live(source: str) -> bool:
    """Return whether a source delivers frames at its own speed: a camera or a live address."""
    if is_address(source):
        return urlsplit(source).scheme.lower() not in _FILE_SCHEMES
    return source.isdecimal() and not os.path.exists(source)
