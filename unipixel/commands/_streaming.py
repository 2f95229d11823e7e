"""Runs `unipixel stream`: what is due on which frame, and what is printed of it."""

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
from typing import Any
from urllib.parse import urlsplit

from unipixel.commands._options import choose_device, generation_settings, load_model
from unipixel.commands._prompts import marks, read_prompts
from unipixel.memory.injection import check_object_ids
from unipixel.memory.records import MAX_FRAME_INDEX
from unipixel.output.folder import BackgroundWriter, OutputFolder
from unipixel.output.result import ResultFrame
from unipixel.output.writers import OverlayVideoWriter, overlay_writer
from unipixel.processing.clip_layout import check_prompt
from unipixel.processing.prompt_templates import normalize_query
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.session.live_session import LiveSession, LiveSettings
from unipixel.session.stream_objects import StreamObjects
from unipixel.session.video_tracker import check_prompt_group
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame, VideoInfo
from unipixel.video.latest_frame import LatestFrame
from unipixel.video.live import is_address
from unipixel.video.open import Video, open_video

# Addresses of files, which wait for their reader.
_PATIENT_SCHEMES = {"http", "https", "file"}


@dataclass(frozen=True)
class StreamPlan:
    """What a command line asks of a stream.

    Attributes:
        every: Frames from one that is treated to the next.
        max_frames: Treated frames after which it ends; None for never.
        query: Text that is looked for.
        retry_seconds: Time from one look to the next.
        questions: When and what is asked, in order of time.
        prompts: Frame, object, and prompts that go together, in order of frames.
        is_dropping: Whether frames that arrive while the model works are dropped.
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
        """Whether a language model takes part."""
        return self.query is not None or bool(self.questions)


def read_plan(arguments: argparse.Namespace) -> StreamPlan:
    """Check the options of a command line.

    Raises:
        ValueError: One is out of range, or there is nothing to do.
        OSError: A mask file cannot be read.
    """
    for name in ("every", "max_frames", "redetect_after"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    for value in (arguments.retry, *arguments.ask_at):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"--ask-at and --retry take seconds from 0 on, got {value:g}")
    times = arguments.ask_at or [0.0] * len(arguments.ask)
    if len(times) != len(arguments.ask):
        raise ValueError(f"{len(arguments.ask)} --ask and {len(times)} --ask-at were given: give one time per question")
    for text in (*arguments.ask, *([] if arguments.query is None else [arguments.query])):
        if not normalize_query(text):
            raise ValueError(f"the question {text!r} is empty: say what is to be answered or segmented")
    grouped: dict[tuple[int, int], list[VisualPrompt]] = {}
    for object_id, own in read_prompts(arguments).items():
        for prompt in own:
            grouped.setdefault((prompt.frame_index, object_id), []).append(prompt)
    if not (grouped or arguments.ask or arguments.query):
        raise ValueError("nothing to follow: give a text, --point, --box, --mask or --ask")
    return StreamPlan(
        every=arguments.every,
        max_frames=arguments.max_frames,
        query=arguments.query,
        retry_seconds=arguments.retry,
        questions=tuple(sorted(zip(times, arguments.ask, strict=True), key=lambda question: question[0])),
        prompts=tuple((*key, tuple(own)) for key, own in sorted(grouped.items())),
        is_dropping=_is_live(arguments.source) if arguments.drop == "auto" else arguments.drop == "always",
    )


def run_plan(arguments: argparse.Namespace, plan: StreamPlan) -> int:
    """Follow a stream to its end, and return the exit code.

    Raises:
        ValueError: A prompt is not on the video.
        OSError: The source, the model or the output folder cannot be used.
        BrokenPipeError: Nobody reads what is printed; the overlay up to then is kept.
    """
    is_read, started = True, time.perf_counter()
    with contextlib.ExitStack() as stack:
        out = None
        if arguments.out is not None:
            out = stack.enter_context(OutputFolder(arguments.out, overwrite=arguments.overwrite))
        video = open_video(arguments.source)
        reader = _Reader(video, plan)
        stack.callback(reader.close)
        _check_prompts(plan, video.info)
        overlay = None if out is None else _Overlay(out, video.info, plan)
        stream = _Stream(plan, *_open_session(arguments, plan), overlay)
        try:
            for frame in reader.frames():
                stream.treat(frame)
        except BrokenPipeError:
            is_read = False
    if not is_read:
        raise BrokenPipeError
    seconds = time.perf_counter() - started
    told = f"{stream.num_treated} frames in {seconds:.1f} s, {reader.num_dropped} dropped"
    print(told if out is None else f"{told}; overlay in {arguments.out}", file=sys.stderr)
    return 2 if stream.finish() else 0


class _Stream:
    """Treats frames: follows, prompts, looks, asks, prints."""

    def __init__(
        self, plan: StreamPlan, scene: StreamObjects, session: LiveSession | None, overlay: _Overlay | None
    ) -> None:
        self.num_treated = 0
        self._plan, self._scene, self._session, self._overlay = plan, scene, session, overlay
        self._prompts, self._questions = list(plan.prompts), list(plan.questions)
        self._look_at = 0.0 if plan.query is not None else math.inf
        self._num_failed = 0

    def treat(self, frame: Frame) -> None:
        """Do what is due on a frame, then print its line and the answers given on it."""
        (self._session or self._scene).step(frame)
        if self.num_treated == 0 and self._prompts:
            # Objects that language finds stay clear of the ids that later prompts will name.
            self._scene.bank.next_id = 1 + max(object_id for _, object_id, _ in self._prompts)
        self.num_treated += 1
        while self._prompts and self._prompts[0][0] <= frame.index:
            _, object_id, prompts = self._prompts.pop(0)
            moved = [replace(prompt, frame_index=frame.index) for prompt in prompts]
            self._scene.prompt(object_id, *moved)
            if self._overlay is not None:
                self._overlay.mark(object_id, moved)
        answers = self._talk(self._session, frame) if self._session is not None else []
        _print(frame_line(frame, self._scene.masks))
        for line in answers:
            _print(line)
        if self._overlay is not None:
            self._overlay.write(frame, self._scene.masks)

    def finish(self) -> int:
        """Tell what was not reached, and return how much of what was asked for failed."""
        for frame_index, object_id, _ in self._prompts:
            self._fail(f"the stream ended before frame {frame_index}, on which object {object_id} was to be prompted")
        for seconds, question in self._questions:
            self._fail(f"the stream ended before {seconds:g} s, when {question!r} was to be asked")
        return self._num_failed

    def _talk(self, session: LiveSession, frame: Frame) -> list[dict[str, Any]]:
        now = frame.timestamp_seconds
        if now >= self._look_at:
            self._look_at = now + self._plan.retry_seconds
            try:
                is_found = bool(session.segment(self._plan.query or "").new_ids)
            except ValueError as error:
                # Bad input was refused before; this is the model's, and would be so again.
                self._fail(str(error))
                is_found = True
            self._look_at = math.inf if is_found else self._look_at
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


class _Reader:
    """Yields the frames of a video that are to be treated."""

    def __init__(self, video: Video, plan: StreamPlan) -> None:
        self._video, self._plan = video, plan
        self._newest: LatestFrame | None = None

    @property
    def num_dropped(self) -> int:
        return self._newest.num_dropped if self._newest else 0

    def frames(self) -> Iterable[Frame]:
        if self._plan.is_dropping:
            self._newest = LatestFrame(self._video)
        due = num_treated = 0
        for frame in self._newest or self._video:
            if frame.index < due:
                continue
            yield frame
            num_treated, due = num_treated + 1, frame.index + self._plan.every
            if num_treated == self._plan.max_frames:
                return

    def close(self) -> None:
        # A container must not be closed under a thread that hangs in it; it goes with the process.
        if self._newest is None or self._newest.close():
            self._video.close()


class _Overlay:
    """The overlay, drawn and encoded in the background."""

    def __init__(self, folder: OutputFolder, info: VideoInfo, plan: StreamPlan) -> None:
        shown = replace(info, fps=info.fps / plan.every if info.fps else None)
        # Dropped frames decide where prompts of a live source land; those of others are known.
        drawn = [] if plan.is_dropping else marks((key, prompt) for _, key, own in plan.prompts for prompt in own)
        self._is_marking = plan.is_dropping
        self._video = overlay_writer(folder.path, shown, prompts=drawn)
        self._writer = folder.add(BackgroundWriter(self._video))

    def mark(self, object_id: int, prompts: Iterable[VisualPrompt]) -> None:
        if self._is_marking and isinstance(self._video, OverlayVideoWriter):
            for mark in marks((object_id, prompt) for prompt in prompts):
                self._video.add_prompt(mark)

    def write(self, frame: Frame, objects: Mapping[int, ObjectMask]) -> None:
        self._writer.write(frame, objects)


def frame_line(frame: Frame, objects: Mapping[int, ObjectMask]) -> dict[str, Any]:
    """Return what is printed of a frame."""
    shown = []
    for object_id in sorted(objects):
        record = ResultFrame.of(frame, object_id, objects[object_id])
        shown.append(
            {
                "id": object_id,
                "visible": record.visible,
                "score": record.score,
                "box_xyxy": record.box_xyxy,
                "rle": record.rle,
            }
        )
    return {"frame_index": frame.index, "timestamp_seconds": frame.timestamp_seconds, "objects": shown}


def _open_session(arguments: argparse.Namespace, plan: StreamPlan) -> tuple[StreamObjects, LiveSession | None]:
    """Load what the plan needs: SAM 2.1 alone where nothing is asked."""
    if not plan.needs_language:
        from unipixel.checkpoints.loading import load_segmenter

        segmenter = load_segmenter(arguments.model, device=choose_device(arguments.device))
        options = {"is_postprocessed": arguments.postprocess, "redetect_after": arguments.redetect_after}
        return StreamObjects(segmenter, num_frames=1, **options), None
    settings = LiveSettings(
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
                f"object {object_id} is prompted on frame {frame_index}, which is not treated with "
                f"--every {plan.every}: multiples of {plan.every} are"
            )


def _is_live(source: str) -> bool:
    """Whether a source goes on whether or not it is read."""
    if is_address(source):
        return urlsplit(source).scheme.lower() not in _PATIENT_SCHEMES
    return source.isdecimal() and not os.path.exists(source)


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line, ensure_ascii=False, allow_nan=False), flush=True)
