"""A live session: it receives a stream frame by frame, tracks objects and answers questions at any time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import MAX_OBJECT_ID
from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.processing.clip_layout import ClipInput
from unipixel.processing.processor import Processor
from unipixel.processing.prompt_templates import SegmentationForm
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.session.base_session import Answer, BaseSession
from unipixel.session.callbacks import Callbacks, TextCallback
from unipixel.session.settings import LanguageMasks, choose_segmenters
from unipixel.session.stream_objects import StreamObjects
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.types import ObjectMask
from unipixel.video.frame import Frame


@dataclass(frozen=True)
class LiveSettings:
    """Settings of a live session.

    Attributes:
        num_frames: Frames stored for the language model, at their full size; None is the budget of the processor.
        max_objects: Maximum number of objects.
        memory_dtype: Type of SAM 2.1's memories; None is the type of the language model.
        is_postprocessed: Whether SAM 2's mask post-processing is applied.
        redetect_after: Frames without an object after which the tracker also searches for it by its prompted
            memories; None for never.
        spill_folder: Folder for masks of frames that are no longer stored; None discards them.
        segmenter: See `SessionSettings`; the model's own also encodes frames in which it searches for objects.
        language_masks: See `SessionSettings`.
        generation: Settings of the text generation.
    """

    num_frames: int | None = None
    max_objects: int = 64
    memory_dtype: torch.dtype | None = None
    is_postprocessed: bool = False
    redetect_after: int | None = None
    spill_folder: Path | None = None
    segmenter: Segmenter | None = None
    language_masks: LanguageMasks = "model"
    generation: GenerationSettings = field(default_factory=GenerationSettings)

    def __post_init__(self) -> None:
        for name in ("num_frames", "max_objects", "redetect_after"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class LiveSession(BaseSession):
    """A stream, the objects in it, and questions about them; its size does not grow with the stream.

    A question is about the frames of the frame buffer, which include the latest one. Questions between two
    frames continue one conversation. A new frame changes the buffer, so the next question starts a new
    conversation. The object memory is kept, and `[id]` remains valid. A session must be used by one thread
    at a time; several may share a model.

    Attributes:
        objects: Frame buffer, tracker and object memory.
        settings: The settings.
    """

    def __init__(self, model: UniPixel, processor: Processor, *, settings: LiveSettings | None = None) -> None:
        """Open a session before the first frame.

        Args:
            model: The model.
            processor: Prepares the inputs of the model.
            settings: The settings.

        Raises:
            TypeError: The model is not a UniPixel.
        """
        if not isinstance(model, UniPixel):
            raise TypeError(f"a stream needs a UniPixel, {type(model).__name__} reads images: give another checkpoint")
        self.settings = settings or LiveSettings()
        super().__init__(self.settings.generation)
        self._model, self._processor = model, processor
        segmenter, language_segmenter = choose_segmenters(
            model.sam2, self.settings.segmenter, self.settings.language_masks
        )
        self.objects = StreamObjects(
            segmenter,
            language_segmenter=language_segmenter,
            num_frames=self.settings.num_frames or processor.budget.num_frames,
            max_objects=self.settings.max_objects,
            memory_dtype=self.settings.memory_dtype or model.dtype,
            is_postprocessed=self.settings.is_postprocessed,
            redetect_after=self.settings.redetect_after,
            spill_folder=self.settings.spill_folder,
        )

    @property
    def bank(self) -> ObjectMemoryBank:
        """The object memory. See `StreamObjects.bank`."""
        return self.objects.bank

    def step(self, frame: Frame | NDArray[Any], timestamp_seconds: float | None = None) -> dict[int, ObjectMask]:
        """Track every object on the next frame. See `StreamObjects.step`."""
        masks = self.objects.step(frame, timestamp_seconds)
        # The conversation was about the frames before this one.
        self._conversation, self._injected_version = None, 0
        return masks

    def prompt(self, object_id: int, *prompts: VisualPrompt) -> dict[int, ObjectMask]:
        """Prompt a new object on the latest frame, or correct a known one. See `StreamObjects.prompt`."""
        return self.objects.prompt(object_id, *prompts)

    def forget(self, object_id: int) -> None:
        """Stop tracking an object and remove it from the memory.

        Raises:
            KeyError: There is no such object.
        """
        self.objects.forget(object_id)

    def ask(self, question: str, *, on_text: TextCallback | None = None) -> Answer:
        """Ask about the stream up to the latest frame; `[id]` in the question names an object.

        A `<|seg|>` in the answer adds an object, which is segmented on the latest frame, or, if it is not
        visible there, on the first later frame on which it is.

        Args:
            question: The question.
            on_text: Receives the answer piece by piece.

        Raises:
            RuntimeError: There was no frame yet.
            ValueError: The question is empty or names an unknown object, or the answer adds too many objects.
        """
        return self._ask(question, Callbacks(on_text))

    def segment(
        self, query: str, *, form: SegmentationForm | None = None, on_text: TextCallback | None = None
    ) -> Answer:
        """Segment what a text describes, and track it from now on.

        Args:
            query: A noun phrase, or a question.
            form: Wording of the question; by default `sentence` for a query that ends with `?`, else `query`.
            on_text: Receives the answer piece by piece.

        Raises:
            RuntimeError: There was no frame yet.
            ValueError: The query is empty, or the answer adds too many objects.
        """
        return self._segment(query, form=form, callbacks=Callbacks(on_text))

    def __repr__(self) -> str:
        # There is no memory before the first frame.
        return super().__repr__() if self.objects.buffer.frames else "<LiveSession before the first frame>"

    @property
    def _known_ids(self) -> Collection[int]:
        return self.bank.ids

    @property
    def _first_new_id(self) -> int:
        # The ids of forgotten objects are not used again before the range is exhausted.
        return self.bank.next_id if self.bank.next_id <= MAX_OBJECT_ID else 1

    def _read_clip(self) -> ClipInput:
        # `latest_frame` raises before the first frame.
        frames = (*self.objects.buffer.frames[:-1], self.objects.latest_frame)
        return self._processor.clip([frame.image for frame in frames], frame_indices=[frame.index for frame in frames])

    def _add_objects(self, tokens: Mapping[int, Tensor], *, expression: str, callbacks: Callbacks) -> None:
        del callbacks  # nothing here takes long enough
        self.objects.add_tokens(tokens, expression=expression)
