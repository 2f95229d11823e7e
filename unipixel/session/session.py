"""A session: one video, the objects in it, and the conversation about them (UniPixel, section 3.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import MemoryInjection
from unipixel.model.unipixel import UniPixel
from unipixel.processing.answer_parser import ParsedAnswer, parse_answer
from unipixel.processing.chat_template import Turn
from unipixel.processing.frame_sampling import select_frames
from unipixel.processing.processor import Processor
from unipixel.processing.prompt_templates import SegmentationForm, default_form, mark_references, segmentation_question
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.session.callbacks import FrameSink, Progress, TextSink
from unipixel.session.conversation import Conversation, ConversationMark, check_question
from unipixel.session.prefilling import accepted_ids, readable_prompts
from unipixel.session.settings import SessionSettings
from unipixel.session.video_objects import VideoObjects
from unipixel.video.open import Video

# Below this, SAM's own estimate of a mask on frame 0, another frame is tried: bundled model, clips of the split `val`.
_DOUBTED_BELOW = 0.3


@dataclass(frozen=True)
class Answer:
    """What a session answers.

    Attributes:
        question: As it was asked.
        text: With objects as `[id]`, without special tokens.
        parsed: The answer taken apart.
        new_ids: Objects that this turn added to the memory, by prompts or by the answer.
        prefilled_ids: Prompted objects that the model was asked to segment before it answered.
        generated_ids: Those of them that it wrote by itself.
        accepted_ids: Those whose mask was taken; the others were segmented from their prompts.
        num_read_tokens: Tokens that the language model read before it answered.
        timings_seconds: Seconds by stage.
    """

    question: str
    text: str
    parsed: ParsedAnswer
    new_ids: tuple[int, ...]
    prefilled_ids: tuple[int, ...]
    generated_ids: tuple[int, ...]
    accepted_ids: tuple[int, ...]
    num_read_tokens: int
    timings_seconds: dict[str, float]


@dataclass(frozen=True)
class _Prefilling:
    """What pre-filling came to: ids as in `Answer`, tokens and anchors of those whose mask fits."""

    asked_ids: tuple[int, ...] = ()
    generated_ids: tuple[int, ...] = ()
    tokens: Mapping[int, Tensor] = field(default_factory=dict)
    anchors: Mapping[int, int] = field(default_factory=dict)


class Session:
    """One video, its object memory, and the conversation about it.

    Several sessions may share a model, from several threads: the model keeps nothing. A session itself
    is for one thread at a time.
    """

    def __init__(
        self,
        model: UniPixel,
        processor: Processor,
        video: Video | Any,
        *,
        settings: SessionSettings | None = None,
        bank: ObjectMemoryBank | None = None,
    ) -> None:
        """Open a session; nothing is computed yet.

        Args:
            model: The model.
            processor: Prepares its inputs.
            video: A finite video, or what `open_video` takes.
            settings: How to work.
            bank: Object memory that an earlier session about the video saved; the model is told of it again.

        Raises:
            OSError: The video cannot be read.
            ValueError: It is a stream, or the memory is of another video.
        """
        self.settings = settings or SessionSettings()
        self.scene = VideoObjects(
            model.sam2,
            video,
            memory_dtype=self.settings.memory_dtype or model.dtype,
            max_objects=self.settings.max_objects,
            is_postprocessed=self.settings.is_postprocessed,
            max_feature_bytes=self.settings.max_feature_bytes,
        )
        if bank is not None:
            self.scene.adopt(bank)
        self.timings: dict[str, float] = {}
        self._model, self._processor = model, processor
        self._dialogue: Conversation | None = None
        self._seen_version = 0

    @property
    def bank(self) -> ObjectMemoryBank:
        """What is remembered of each object."""
        return self.scene.bank

    @property
    def num_encoded_frames(self) -> int:
        """How often SAM's image encoder ran."""
        return self.scene.follower.clip.num_encoded

    @property
    def num_bytes(self) -> int:
        """Memory that encoded frames and the conversation hold, the model left out."""
        return self.scene.follower.clip.num_cache_bytes + (self._dialogue.num_bytes if self._dialogue else 0)

    def prompt(self, object_id: int, *prompts: VisualPrompt) -> None:
        """Point at an object, or correct one that is remembered; it is followed when it is next needed.

        Args:
            object_id: New or known id, from 0.
            prompts: Points, a box or a mask, in pixels of the original frames.

        Raises:
            ValueError: A prompt is not on the video, or there are too many objects.
        """
        self.scene.prompt(object_id, *prompts)

    def ask(
        self,
        question: str,
        *,
        on_text: TextSink | None = None,
        on_frame: FrameSink | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Answer:
        """Ask about the video and its objects; `[id]` in the question names an object.

        Args:
            question: What to ask.
            on_text: Receives the answer as it is written.
            on_frame: Receives each frame with the objects that were followed into it; a frame comes
                again where other objects are followed later.
            should_stop: Asked before each token and each frame; True ends the work with `Cancelled`.

        Raises:
            ValueError: The question is empty or names an object that is neither prompted nor remembered.
            Cancelled: The work was stopped. The conversation is as before, and no object is half followed.
        """
        return self._ask(question, expression=question, progress=Progress(on_text, on_frame, should_stop))

    def _ask(self, question: str, *, expression: str, progress: Progress) -> Answer:
        check_question(question, known_ids=self.scene.known_ids)
        self.timings = {}
        with self._whole_turn():
            return self._answer(question, expression=expression, progress=progress)

    def _answer(self, question: str, *, expression: str, progress: Progress) -> Answer:
        before = set(self.bank.ids)
        prefilling = self._prefill(question, progress)
        with self._timed("track"):
            self.scene.track(progress, tokens=prefilling.tokens, anchors=prefilling.anchors)
        turn = Turn(question, memory=self._injection())
        with self._timed("answer"):
            reply = self._talk().ask(turn, on_text=progress.text_sink)
        parsed = parse_answer(reply.text, taken_ids=self.bank.ids, next_id=1)
        tokens = {
            segment.object_id: reply.mask_tokens[segment.mask_index]
            for segment in parsed.masks
            # An object that is remembered keeps its masks; only a new id, or none, adds one.
            if segment.mask_index is not None and segment.object_id not in self.bank
        }
        with self._timed("segment"):
            if tokens:
                self.scene.follow_named(tokens, self._anchors(tokens, {}), expression=expression, progress=progress)
        return Answer(
            question=question,
            text=parsed.display,
            parsed=parsed,
            new_ids=tuple(object_id for object_id in self.bank.ids if object_id not in before),
            prefilled_ids=prefilling.asked_ids,
            generated_ids=prefilling.generated_ids,
            accepted_ids=tuple(prefilling.tokens),
            num_read_tokens=reply.num_read_tokens,
            timings_seconds=dict(self.timings),
        )

    def segment(
        self,
        query: str,
        *,
        form: SegmentationForm | None = None,
        on_text: TextSink | None = None,
        on_frame: FrameSink | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Answer:
        """Segment what a text means: a noun phrase, or a question about it.

        Args:
            query: What to find.
            form: Wording of the question; by default `sentence` for a query that ends with `?`, else `query`.
            on_text: See `ask`.
            on_frame: See `ask`.
            should_stop: See `ask`.

        Raises:
            ValueError: The query is empty.
            Cancelled: See `ask`.
        """
        num_frames = self._talk().layout.num_frames
        question = segmentation_question(query, form=form or default_form(query), num_frames=num_frames)
        return self._ask(question, expression=query.strip(), progress=Progress(on_text, on_frame, should_stop))

    def restart(self) -> None:
        """Begin the conversation anew; the clip need not be read again, the model is told of the objects again."""
        if self._dialogue is not None:
            self._dialogue.rewind(ConversationMark())
        self._seen_version = 0

    def forget(self, object_id: int) -> None:
        """Forget an object; what the conversation already says of it stays said.

        Raises:
            KeyError: The object is neither remembered nor prompted.
        """
        self.scene.forget(object_id)

    def _talk(self) -> Conversation:
        """The conversation; its clip is read at the first use, with the frames that show what was prompted."""
        if self._dialogue is None:
            with self._timed("read_video"):
                waiting = {prompt.frame_index for prompts in self.scene.waiting.values() for prompt in prompts}
                # Objects that were followed before the first question are told of by their masks on frames seen.
                prompted = sorted(waiting | {self.bank[object_id].anchor_frame for object_id in self.bank.ids})
                count = self.settings.num_frames or self._processor.budget.num_frames
                num_frames = self.scene.video.info.num_frames or 0
                indices = select_frames(num_frames, count, kept=prompted[:count])
                images = [frame.image for frame in self.scene.video.read(indices)]
                clip = self._processor.clip(images, frame_indices=indices, num_video_frames=num_frames)
            self._dialogue = Conversation(self._model, self._processor, clip, settings=self.settings.generation)
        return self._dialogue

    def _prefill(self, question: str, progress: Progress) -> _Prefilling:
        """Let the model segment the new objects that the question names by a point or box.

        Masks of it that are found not to show what was pointed at give way to the prompts.
        """
        if self.settings.prefill == "tracker" or not self.scene.waiting:
            return _Prefilling()
        pointed = readable_prompts(self.scene, self._talk().layout.frame_indices)
        _, order = mark_references(question, list(pointed))
        if not order:
            return _Prefilling()
        with self._timed("prefill"):
            chosen = {object_id: pointed[object_id] for object_id in order}
            filled = self._talk().prefill(question, chosen, on_text=progress.silent_sink)
            is_checked = self.settings.prefill == "model"
            fitting = accepted_ids(self.scene.follower, filled.tokens, chosen) if is_checked else order
            tokens = {object_id: filled.tokens[object_id] for object_id in fitting}
            anchors = self._anchors(tokens, {object_id: chosen[object_id].frame_index for object_id in fitting})
        return _Prefilling(order, filled.generated_ids, tokens, anchors)

    def _anchors(self, tokens: Mapping[int, Tensor], prompted: Mapping[int, int]) -> dict[int, int]:
        """Choose the frame on which each object is segmented first; `prompted` knows some of them."""
        choice = self.settings.anchor
        if choice == "first":
            return dict.fromkeys(tokens, 0)
        if choice == "best" and tokens:
            return self.scene.follower.select_anchor_frames(tokens)
        anchors = {object_id: prompted.get(object_id, 0) for object_id in tokens}
        found = {object_id: own for object_id, own in tokens.items() if object_id not in prompted}
        if choice == "auto" and found:
            first = self.scene.follower.segment_frame(found, 0)
            is_seen = (first.is_present & (first.confidence >= _DOUBTED_BELOW)).tolist()
            missed = {key: own for (key, own), seen in zip(found.items(), is_seen, strict=True) if not seen}
            anchors |= self.scene.follower.select_anchor_frames(missed) if missed else {}
        return anchors

    def _injection(self) -> MemoryInjection | None:
        """The memory of objects that are new or changed since the last turn and that the model sees."""
        memory = self._talk().memory(self.bank, since_version=self._seen_version)
        self._seen_version = self.bank.version
        return memory

    @contextmanager
    def _whole_turn(self) -> Iterator[None]:
        """Add a turn to the conversation whole or, where it fails, not at all."""
        mark = self._dialogue.mark() if self._dialogue else ConversationMark()
        seen_version = self._seen_version
        try:
            yield
        except BaseException:
            if self._dialogue is not None:
                self._dialogue.rewind(mark)
            self._seen_version = seen_version
            raise

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - started
