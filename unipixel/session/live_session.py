"""A live session: fed frame by frame, it follows objects at once and answers at any moment."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import MAX_OBJECT_ID
from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.processing.answer_parser import parse_answer
from unipixel.processing.chat_template import Turn
from unipixel.processing.processor import Processor
from unipixel.processing.prompt_templates import SegmentationForm, default_form, segmentation_question
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.session.conversation import Conversation, TextSink, check_question
from unipixel.session.session import Answer
from unipixel.session.stream_objects import StreamObjects
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame


@dataclass(frozen=True)
class LiveSettings:
    """How a live session works.

    Attributes:
        num_frames: Frames kept for the language model, at their full size; None is as many as its budget says.
        max_objects: Ceiling on the objects of a session.
        memory_dtype: Type of SAM's memories; None is the language model's own.
        is_postprocessed: Whether SAM 2's own post-processing is on.
        redetect_after: Frames without an object after which the tracker also looks for it as it looked
            where it was prompted; None for never.
        spill_folder: Where masks of frames go that are not kept; None forgets them.
        generation: How answers are written.
    """

    num_frames: int | None = None
    max_objects: int = 64
    memory_dtype: torch.dtype | None = None
    is_postprocessed: bool = False
    redetect_after: int | None = None
    spill_folder: Path | None = None
    generation: GenerationSettings = field(default_factory=GenerationSettings)

    def __post_init__(self) -> None:
        for name in ("num_frames", "max_objects", "redetect_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class LiveSession:
    """A stream, the objects in it, and questions about them; nothing in it grows with the stream's length.

    A question is about the frames of the scene's window, of which the newest is one. While no further
    frame comes, questions continue one conversation; a new frame makes another window, and the next
    question opens a new conversation over it. What carries over is the object memory: `[id]` stays
    valid. A session is for one thread at a time; several may share a model.

    Attributes:
        scene: Window, tracker and object memory.
    """

    def __init__(self, model: UniPixel, processor: Processor, *, settings: LiveSettings | None = None) -> None:
        """Open a session before its first frame.

        Args:
            model: The model.
            processor: Prepares its inputs.
            settings: How to work.
        """
        self.settings = settings or LiveSettings()
        self.scene = StreamObjects(
            model.sam2,
            num_frames=self.settings.num_frames or processor.budget.num_frames,
            max_objects=self.settings.max_objects,
            memory_dtype=self.settings.memory_dtype or model.dtype,
            is_postprocessed=self.settings.is_postprocessed,
            redetect_after=self.settings.redetect_after,
            spill_folder=self.settings.spill_folder,
        )
        self.timings: dict[str, float] = {}
        self._model, self._processor = model, processor
        self._dialogue: Conversation | None = None
        self._seen_version = 0

    @property
    def bank(self) -> ObjectMemoryBank:
        """What is remembered of each object. See `StreamObjects.bank`."""
        return self.scene.bank

    def step(self, frame: Frame | NDArray[Any], timestamp_seconds: float | None = None) -> dict[int, ObjectMask]:
        """Follow every object into the next frame. See `StreamObjects.step`."""
        masks = self.scene.step(frame, timestamp_seconds)
        # The conversation was about another window.
        self._dialogue, self._seen_version = None, 0
        return masks

    def prompt(self, object_id: int, *prompts: VisualPrompt) -> dict[int, ObjectMask]:
        """Point at an object on the newest frame, or correct one that is followed. See `StreamObjects.prompt`."""
        return self.scene.prompt(object_id, *prompts)

    def forget(self, object_id: int) -> None:
        """Stop following an object, and forget it.

        Raises:
            KeyError: There is no such object.
        """
        self.scene.forget(object_id)

    def ask(self, question: str, *, on_text: TextSink | None = None) -> Answer:
        """Ask about what was seen up to the newest frame; `[id]` in the question names an object.

        A `<|seg|>` in the answer adds an object, which is segmented on the newest frame, or, where that
        does not show it, on the first later one that does.

        Args:
            question: What to ask.
            on_text: Receives the answer as it is written.

        Raises:
            RuntimeError: No frame was seen yet.
            ValueError: The question is empty or names an unknown object, or the answer adds too many.
        """
        return self._ask(question, expression=question, on_text=on_text)

    def segment(self, query: str, *, form: SegmentationForm | None = None, on_text: TextSink | None = None) -> Answer:
        """Segment what a text means, and follow it from now on.

        Args:
            query: A noun phrase, or a question about it.
            form: Wording of the question; by default `sentence` for a query that ends with `?`, else `query`.
            on_text: Receives the answer as it is written.

        Raises:
            RuntimeError: No frame was seen yet.
            ValueError: The query is empty, or the answer adds too many objects.
        """
        num_frames = max(1, len(self.scene.window.frames))
        question = segmentation_question(query, form=form or default_form(query), num_frames=num_frames)
        return self._ask(question, expression=query.strip(), on_text=on_text)

    def _ask(self, question: str, *, expression: str, on_text: TextSink | None) -> Answer:
        check_question(question, known_ids=self.bank.ids)
        self.timings = {}
        dialogue = self._talk()
        told_version = self.bank.version
        turn = Turn(question, memory=dialogue.memory(self.bank, since_version=self._seen_version))
        with self._timed("answer"):
            reply = dialogue.ask(turn, on_text=on_text)
        # Only now: where a listener ends the turn, the model was told of nothing.
        self._seen_version = told_version
        next_id = self.bank.next_id if self.bank.next_id <= MAX_OBJECT_ID else 1
        parsed = parse_answer(reply.text, taken_ids=self.bank.ids, next_id=next_id)
        tokens = {
            segment.object_id: reply.mask_tokens[segment.mask_index]
            for segment in parsed.masks
            if segment.mask_index is not None and segment.object_id not in self.bank
        }
        with self._timed("segment"):
            self.scene.add_named(tokens, expression=expression)
        return Answer(
            question=question,
            text=parsed.display,
            parsed=parsed,
            new_ids=tuple(tokens),
            prefilled_ids=(),
            generated_ids=(),
            accepted_ids=(),
            num_read_tokens=reply.num_read_tokens,
            timings_seconds=dict(self.timings),
        )

    def _talk(self) -> Conversation:
        """The conversation about the current window."""
        if self._dialogue is None:
            with self._timed("read_video"):
                images = [frame.image for frame in self.scene.window.frames]
                clip = self._processor.clip(images, frame_indices=self.scene.window.indices)
            self._dialogue = Conversation(self._model, self._processor, clip, settings=self.settings.generation)
        return self._dialogue

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started
