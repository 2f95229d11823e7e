"""The common part of sessions about videos and about streams: turns of a conversation with an object memory."""

from __future__ import annotations

import abc
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import MemoryInjection
from unipixel.memory.representation import short_repr
from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.processing.answer_parser import ParsedAnswer, parse_answer
from unipixel.processing.answer_text import AnswerText
from unipixel.processing.chat_template import Turn
from unipixel.processing.clip_layout import ClipInput
from unipixel.processing.processor import Processor
from unipixel.processing.prompt_templates import SegmentationForm, segmentation_question
from unipixel.session.callbacks import Callbacks
from unipixel.session.conversation import Conversation, ConversationSnapshot, Reply, check_question


@dataclass(frozen=True)
class Answer:
    """Answer to one question.

    Attributes:
        question: The question as it was asked.
        text: The answer, with objects as `[id]` and without special tokens.
        parsed: The answer split into text and segments.
        new_ids: Objects that this turn added to the memory, by prompts or by the answer.
        prefilled_ids: Prompted objects that the model was asked to segment before it answered.
        generated_ids: Those of `prefilled_ids` that the model generated itself.
        accepted_ids: Those of `prefilled_ids` whose mask was used; the others were segmented from their prompts.
        num_read_tokens: Tokens that the language model processed before the answer.
        timings_seconds: Seconds by stage.
        num_generated_tokens: Tokens of the answer, with the one that ends it.
    """

    __repr__ = short_repr

    question: str
    text: str
    parsed: ParsedAnswer
    new_ids: tuple[int, ...]
    prefilled_ids: tuple[int, ...]
    generated_ids: tuple[int, ...]
    accepted_ids: tuple[int, ...]
    num_read_tokens: int
    timings_seconds: dict[str, float]
    num_generated_tokens: int = 0


@dataclass(frozen=True)
class PrefillSummary:
    """Objects of one memory pre-filling, with the ids of `Answer`."""

    prefilled_ids: tuple[int, ...] = ()
    generated_ids: tuple[int, ...] = ()
    accepted_ids: tuple[int, ...] = ()


class BaseSession(abc.ABC):
    """Questions about a video or stream and its objects; a question that fails changes nothing.

    Attributes:
        timings: Seconds by stage of the latest question.
    """

    # Set by the sessions whose conversation is that of UniPixel.
    _model: UniPixel
    _processor: Processor

    def __init__(self, generation: GenerationSettings) -> None:
        """Open a session without computing anything.

        Args:
            generation: Settings of the text generation.
        """
        self.timings: dict[str, float] = {}
        self._generation = generation
        self._conversation: Conversation | None = None
        # Version of the object memory at the latest injection.
        self._injected_version = 0

    def __repr__(self) -> str:
        ids = ", ".join(f"[{object_id}]" for object_id in sorted(self._known_ids)) or "none"
        return f"<{type(self).__name__} about {self._describe_source()}: objects {ids}>"

    def _describe_source(self) -> str:
        """Describe the video or stream in a few words."""
        return "a stream"

    @property
    @abc.abstractmethod
    def bank(self) -> ObjectMemoryBank:
        """The object memory."""

    @property
    @abc.abstractmethod
    def _known_ids(self) -> Collection[int]:
        """Ids that a question may name."""

    @property
    def _first_new_id(self) -> int:
        """Lowest id of an object that an answer adds without an id."""
        return 1

    @abc.abstractmethod
    def _read_clip(self) -> ClipInput:
        """Read the frames that the language model receives."""

    @abc.abstractmethod
    def _add_objects(self, tokens: Mapping[int, Tensor], *, expression: str, callbacks: Callbacks) -> None:
        """Add the objects of an answer from their mask tokens (n, C) by id."""

    def _track_prompted(self, question: str, callbacks: Callbacks) -> PrefillSummary:
        """Track the objects that were prompted since the last turn; streams track prompts at once."""
        del question, callbacks
        return PrefillSummary()

    def _segment(self, query: str, *, form: SegmentationForm | None, callbacks: Callbacks) -> Answer:
        if not isinstance(query, str):
            raise TypeError(f"a query is a text, got {type(query).__name__}")
        self.timings = {}
        form = form or ("sentence" if query.strip().endswith("?") else "query")
        question = segmentation_question(query, form=form, num_frames=self._num_read_frames())
        return self._answer(question, expression=query.strip(), callbacks=callbacks)

    def _ask(self, question: str, callbacks: Callbacks, *, answer_prefix: str = "") -> Answer:
        self.timings = {}
        return self._answer(question, expression=question, callbacks=callbacks, answer_prefix=answer_prefix)

    def _answer(self, question: str, *, expression: str, callbacks: Callbacks, answer_prefix: str = "") -> Answer:
        check_question(question, known_ids=self._known_ids)
        with self._transaction():
            ids_before = set(self.bank.ids)
            prefill = self._track_prompted(question, callbacks)
            turn = Turn(question, memory=self._injection(), answer_prefix=answer_prefix)
            shown = AnswerText(callbacks.on_text, prefix=answer_prefix) if callbacks.on_text is not None else None
            with self._timed("answer"):
                reply = self._reply(turn, replace(callbacks, on_text=shown.write if shown else None))
            return self._complete(
                question, reply, expression=expression, prefill=prefill, ids_before=ids_before, shown=shown,
                callbacks=callbacks,
            )  # fmt: skip

    def _complete(
        self, question: str, reply: Reply, *, expression: str, prefill: PrefillSummary, ids_before: Collection[int],
        callbacks: Callbacks, shown: AnswerText | None = None,
    ) -> Answer:  # fmt: skip
        """Add the objects of a reply, and return its answer."""
        parsed = parse_answer(reply.text, taken_ids=self.bank.ids, next_id=self._first_new_id)
        if shown is not None:
            shown.finish(parsed.display)
        tokens = {
            segment.object_id: reply.mask_tokens[segment.mask_index]
            for segment in parsed.masks
            # A known object keeps its masks; only a new id, or none, adds an object.
            if segment.mask_index is not None and segment.object_id not in self.bank
        }
        with self._timed("segment"):
            if tokens:
                self._add_objects(tokens, expression=expression, callbacks=callbacks)
        return Answer(
            question=question,
            text=parsed.display,
            parsed=parsed,
            new_ids=tuple(object_id for object_id in self.bank.ids if object_id not in ids_before),
            prefilled_ids=prefill.prefilled_ids,
            generated_ids=prefill.generated_ids,
            accepted_ids=prefill.accepted_ids,
            num_read_tokens=reply.num_read_tokens,
            timings_seconds=dict(self.timings),
            num_generated_tokens=reply.num_generated_tokens,
        )

    def _num_read_frames(self) -> int:
        """Return the number of frames that the language model receives."""
        return self._open_conversation().layout.num_frames

    def _reply(self, turn: Turn, callbacks: Callbacks) -> Reply:
        """Let the model answer a turn."""
        return self._open_conversation().ask(turn, on_text=callbacks.text_callback)

    def _reply_each(self, turns: Sequence[Turn], callbacks: Callbacks) -> list[Reply]:
        """Let the model answer several turns, each as if it were the next one."""
        return self._open_conversation().ask_each(turns, on_text=callbacks.stop_callback)

    def _open_conversation(self) -> Conversation:
        """Return the conversation; its clip is read on first use."""
        if self._conversation is None:
            with self._timed("read_video"):
                clip = self._read_clip()
            self._conversation = Conversation(self._model, self._processor, clip, settings=self._generation)
        return self._conversation

    def _injection(self) -> MemoryInjection | None:
        """Return the memory of objects that were added or changed since the previous turn."""
        memory = self._open_conversation().injection(self.bank, since_version=self._injected_version)
        self._injected_version = self.bank.version
        return memory

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Restore the conversation if the block raises."""
        snapshot = self._conversation.snapshot() if self._conversation else ConversationSnapshot()
        injected_version = self._injected_version
        try:
            yield
        except BaseException:
            if self._conversation is not None:
                self._conversation.restore(snapshot)
            self._injected_version = injected_version
            raise

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - start
