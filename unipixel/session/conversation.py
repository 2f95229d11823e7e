"""The language side of a session: an append-only conversation about one clip."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import MemoryInjection, visible_ids
from unipixel.model.generation import AnswerStream, Generation, GenerationSettings, read
from unipixel.model.inputs import ModelInputs
from unipixel.model.qwen import PromptCache
from unipixel.model.unipixel import UniPixel
from unipixel.processing.answer_parser import parse_answer, strip_tokens
from unipixel.processing.chat_template import Turn
from unipixel.processing.clip_layout import ClipInput
from unipixel.processing.processor import Processor
from unipixel.processing.prompt_templates import mark_references, prefill_question
from unipixel.processing.special_tokens import ADDED_TOKENS, CONTROL_TOKENS, IM_END, SEG, VISION_END
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.session.callbacks import TextSink

# Tokens that a pre-filled answer may take per object: `[12] <|seg|> ` in bytes, and some to spare.
_PREFILL_TOKENS = 16


@dataclass(frozen=True)
class Reply:
    """What the model wrote in one turn.

    Attributes:
        text: With its special tokens.
        mask_tokens: (K, n, C), one per `<|seg|>`.
        num_read_tokens: Tokens that had to be processed before the answer.
        num_written_tokens: Tokens of the answer.
    """

    text: str
    mask_tokens: Tensor
    num_read_tokens: int
    num_written_tokens: int


@dataclass(frozen=True)
class Prefilled:
    """Outcome of memory pre-filling.

    Attributes:
        tokens: SAM tokens (n, C) by id.
        generated_ids: Ids that the model wrote by itself; the others were completed.
    """

    tokens: dict[int, Tensor]
    generated_ids: tuple[int, ...]


@dataclass(frozen=True)
class ConversationMark:
    """Where a conversation stood.

    Attributes:
        prefix: What was read and written; None before the first turn.
        has_ended: Whether the last answer came to its end.
        has_memory: Whether a memory was told of.
    """

    prefix: PromptCache | None = None
    has_ended: bool = True
    has_memory: bool = False


def check_question(question: str, *, known_ids: Collection[int]) -> None:
    """Check that a question can be asked.

    Raises:
        ValueError: It is empty, holds a special token, or names an object that is not known.
    """
    if not question.strip():
        raise ValueError("the question is empty: say what is to be answered or segmented")
    if found := [token for token in (*ADDED_TOKENS, *CONTROL_TOKENS) if token in question]:
        raise ValueError(f"the question holds the special token {found[0]}: name objects as [1], and ask in words")
    named = {segment.object_id for segment in parse_answer(question).objects}
    if unknown := sorted(named - set(known_ids)):
        raise ValueError(
            f"the question names [{unknown[0]}], which is neither prompted nor remembered: "
            f"known are {sorted(known_ids) or 'none'}"
        )


class Conversation:
    """A conversation about a clip: the clip is read once, each turn only pays for its own tokens."""

    def __init__(
        self, model: UniPixel, processor: Processor, clip: ClipInput, *, settings: GenerationSettings | None = None
    ) -> None:
        """Start a conversation; nothing is computed yet.

        Args:
            model: The model.
            processor: Prepares its inputs.
            clip: What the conversation is about.
            settings: How answers are written.
        """
        self.layout = clip.layout
        self._model, self._processor, self._clip = model, processor, clip
        self._settings = settings or GenerationSettings()
        self._start: PromptCache | None = None
        self._prefix: PromptCache | None = None
        self._has_ended = True
        self._has_memory = False

    @property
    def num_bytes(self) -> int:
        """Memory that the conversation holds: the clip, and keys and values of what was read."""
        pixels = self._clip.video.pixel_values
        held = [prefix.num_bytes for prefix in (self._start, self._prefix) if prefix is not None]
        return pixels.numel() * pixels.element_size() + sum(held)

    def mark(self) -> ConversationMark:
        """Return where the conversation stands, to `rewind` to."""
        return ConversationMark(self._prefix, self._has_ended, self._has_memory)

    def rewind(self, mark: ConversationMark) -> None:
        """Take back what was said since a mark."""
        self._prefix, self._has_ended, self._has_memory = mark.prefix, mark.has_ended, mark.has_memory

    def memory(self, bank: ObjectMemoryBank, *, since_version: int) -> MemoryInjection | None:
        """Return the memory that the next turn opens with; None where the model would see nothing of it.

        Args:
            bank: The objects.
            since_version: The bank's version at the turn before; only what is new or changed since is told.
        """
        frames = self.layout.frame_indices
        changes = bank.changes_since(since_version, frame_indices=frames)
        ids = sorted([*changes.added, *changes.changed])
        masks = bank.masks_on(frames, object_ids=ids)
        visible = visible_ids(ids, masks)
        if not visible:
            return None
        rows = [ids.index(object_id) for object_id in visible]
        return self._processor.memory(visible, masks[:, rows], self.layout, is_update=self._has_memory)

    def ask(self, turn: Turn, *, on_text: TextSink | None = None) -> Reply:
        """Ask, and append question and answer to the conversation.

        Args:
            turn: The question with the memory that opens it.
            on_text: Receives the answer as it is written, piece by piece, without special tokens; called
                at every token. An error that it raises ends the turn, and leaves the conversation as it was.
        """
        prefix, inputs = self._continuation(turn, [])
        generation = self._write(prefix, inputs, self._settings, on_text)
        self._prefix = generation.prefix
        self._has_ended = generation.stop_reason == "end"
        self._has_memory = self._has_memory or turn.memory is not None
        return Reply(
            turn.prefill + self._text(generation.token_ids),
            generation.mask_tokens,
            generation.num_read_tokens,
            len(generation.token_ids),
        )

    def prefill(
        self, question: str, prompts: Mapping[int, VisualPrompt], *, on_text: TextSink | None = None
    ) -> Prefilled:
        """Let the model write the ids and masks of the objects that a question points at.

        Runs on a fork: the conversation does not see it. Ids that the model leaves out are completed by
        forcing their `<|seg|>` (memory pre-filling, UniPixel section 3.2).

        Args:
            question: Names objects as `[id]`.
            prompts: A point or box for each of them.
            on_text: Receives what the model writes by itself, as in `ask`.
        """
        marked, order = mark_references(question, list(prompts))
        turn = Turn(prefill_question(marked))
        prefix, inputs = self._continuation(turn, [prompts[object_id] for object_id in order])
        settings = GenerationSettings(max_new_tokens=_PREFILL_TOKENS * len(order) + _PREFILL_TOKENS)
        generation = self._write(prefix, inputs, settings, on_text)
        parsed = parse_answer(self._text(generation.token_ids))
        tokens: dict[int, Tensor] = {}
        for segment in parsed.masks:
            if segment.object_id in order and segment.mask_index is not None and not segment.is_new:
                tokens.setdefault(segment.object_id, generation.mask_tokens[segment.mask_index])
        written = tuple(tokens)
        tokens |= self._forced(generation, [object_id for object_id in order if object_id not in tokens])
        return Prefilled({object_id: tokens[object_id] for object_id in order}, written)

    def _continuation(self, turn: Turn, prompts: Sequence[VisualPrompt]) -> tuple[PromptCache, ModelInputs]:
        """The prefix that a turn continues, and the inputs that come after it."""
        if self._prefix is not None:
            sample = self._processor.encode_later_turn(
                turn, layout=self.layout, prompts=prompts, has_ended=self._has_ended
            )
            return self._prefix, sample.inputs
        inputs = self._processor.encode([turn], clip=self._clip, prompts=prompts).inputs
        end_id = self._processor.tokenizer.convert_tokens_to_ids(VISION_END)
        # Up to the end of the clip all first turns are equal: system prompt and visual tokens.
        cut = int((inputs.input_ids[0] == end_id).nonzero()[0]) + 1
        if self._start is None:
            self._start = read(self._model, ModelInputs(inputs.input_ids[:, :cut], videos=inputs.videos)).prefix
        if self._start is None:
            raise RuntimeError("a single clip always leaves a prefix")
        return self._start, replace(inputs, input_ids=inputs.input_ids[:, cut:], videos=())

    def _write(
        self, prefix: PromptCache, inputs: ModelInputs, settings: GenerationSettings, on_text: TextSink | None
    ) -> Generation:
        stream = AnswerStream(self._model, inputs, prefix=prefix, settings=settings, decode=self._text)
        written: list[int] = []
        shown = ""
        for step in stream:
            written.append(step.token_id)
            if on_text is not None:
                text = strip_tokens(self._text(written))
                # A character of several bytes may be unfinished; it shows as the replacement character.
                is_whole = text.startswith(shown) and not text.endswith("\N{REPLACEMENT CHARACTER}")
                piece = text[len(shown) :] if is_whole else ""
                shown += piece
                on_text(piece)
        return stream.finish()[0]

    @torch.no_grad()
    def _forced(self, generation: Generation, object_ids: Sequence[int]) -> dict[int, Tensor]:
        """Complete an answer with `[id] <|seg|>` for each id and return their tokens."""
        prefix, tokens = generation.prefix, {}
        if prefix is None:
            raise RuntimeError("a single answer always leaves a prefix")
        end_id = self._processor.tokenizer.convert_tokens_to_ids(IM_END)
        prefix = replace(prefix, pending_ids=tuple(token for token in prefix.pending_ids if token != end_id))
        seg_id = self._processor.tokenizer.convert_tokens_to_ids(SEG)
        for object_id in object_ids:
            ids = self._processor.tokenizer.encode(f" [{object_id}] ", add_special_tokens=False)
            reading = read(self._model, ModelInputs(torch.tensor([ids])), prefix=prefix)
            tokens[object_id] = self._model.mask_tokens(reading.hidden_states[0, -1])
            if reading.prefix is None:
                raise RuntimeError("a single answer always leaves a prefix")
            prefix = replace(reading.prefix, pending_ids=(seg_id,))
        return tokens

    def _text(self, ids: Sequence[int]) -> str:
        text = self._processor.tokenizer.decode(ids, skip_special_tokens=False)
        return text.removesuffix(IM_END) if isinstance(text, str) else "".join(text)
