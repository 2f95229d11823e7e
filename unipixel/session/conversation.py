"""The language part of a session: an append-only conversation about one clip."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import MemoryInjection, visible_ids
from unipixel.model.generation import AnswerStream, Generation, GenerationSettings, prefill, stream_text
from unipixel.model.inputs import ModelInputs
from unipixel.model.qwen import PromptCache
from unipixel.model.unipixel import UniPixel
from unipixel.processing.answer_parser import parse_answer
from unipixel.processing.chat_template import Turn
from unipixel.processing.clip_layout import ClipInput
from unipixel.processing.processor import Processor, stack_inputs
from unipixel.processing.prompt_templates import mark_references, prefill_question
from unipixel.processing.special_tokens import ADDED_TOKENS, CONTROL_TOKENS, IM_END, SEG, VISION_END
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.session.callbacks import TextCallback

# Tokens per object of a pre-filled answer: `[12] <|seg|> ` in bytes, with a margin.
_PREFILL_TOKENS = 16


@dataclass(frozen=True)
class Reply:
    """Output of the model in one turn.

    Attributes:
        text: The answer with its special tokens.
        mask_tokens: (K, n, C), one per `<|seg|>`; of Pixel-SAIL the logits (K, H, W) of the masks.
        num_read_tokens: Tokens that were processed before the answer.
        num_generated_tokens: Tokens of the answer, with the one that ends it.
    """

    text: str
    mask_tokens: Tensor
    num_read_tokens: int
    num_generated_tokens: int = field(default=0, kw_only=True)


@dataclass(frozen=True)
class PrefilledObjects:
    """Result of memory pre-filling.

    Attributes:
        tokens: SAM prompt tokens (n, C) by id.
        generated_ids: Ids that the model generated itself; the others were forced.
    """

    tokens: dict[int, Tensor]
    generated_ids: tuple[int, ...]


@dataclass(frozen=True)
class ConversationSnapshot:
    """State of a conversation.

    Attributes:
        prompt_cache: Keys and values of all turns; None before the first turn.
        has_ended: Whether the last answer ended with its end token.
        has_memory: Whether a turn has injected object memory.
    """

    prompt_cache: PromptCache | None = None
    has_ended: bool = True
    has_memory: bool = False


def check_question(question: str, *, known_ids: Collection[int]) -> None:
    """Check that a question can be asked.

    Raises:
        TypeError: It is not a text.
        ValueError: It is empty, contains a special token, or names an unknown object.
    """
    if not isinstance(question, str):
        raise TypeError(f"a question is a text, got {type(question).__name__}")
    if not question.strip():
        raise ValueError("the question is empty: give a question, or a text to segment")
    if found := [token for token in (*ADDED_TOKENS, *CONTROL_TOKENS) if token in question]:
        raise ValueError(f"the question contains the special token {found[0]}: name objects as [1]")
    named = {segment.object_id for segment in parse_answer(question).objects}
    if unknown := sorted(named - set(known_ids)):
        raise ValueError(
            f"the question names [{unknown[0]}], which is neither prompted nor in the object memory: "
            f"known ids are {sorted(known_ids) or 'none'}"
        )


class Conversation:
    """A conversation about a clip; the KV cache of the clip and of earlier turns is reused."""

    def __init__(
        self, model: UniPixel, processor: Processor, clip: ClipInput, *, settings: GenerationSettings | None = None
    ) -> None:
        """Start a conversation without computing anything.

        Args:
            model: The model.
            processor: Prepares the inputs of the model.
            clip: The clip.
            settings: Settings of the text generation.
        """
        self.layout = clip.layout
        self._model, self._processor, self._clip = model, processor, clip
        self._settings = settings or GenerationSettings()
        self._clip_cache: PromptCache | None = None
        self._state = ConversationSnapshot()

    @property
    def num_bytes(self) -> int:
        """Bytes of the clip and of all cached keys and values."""
        pixels = self._clip.video.pixel_values
        caches = [cache.num_bytes for cache in (self._clip_cache, self._state.prompt_cache) if cache is not None]
        return pixels.numel() * pixels.element_size() + sum(caches)

    def snapshot(self) -> ConversationSnapshot:
        """Return the state, for `restore`."""
        return self._state

    def restore(self, snapshot: ConversationSnapshot) -> None:
        """Go back to an earlier state; the turns since then are removed."""
        self._state = snapshot

    def injection(self, bank: ObjectMemoryBank, *, since_version: int) -> MemoryInjection | None:
        """Return the memory to inject before the next question; None if nothing of it is visible in the clip.

        Args:
            bank: The objects.
            since_version: Version of the bank at the previous turn; later additions and changes are injected.
        """
        frames = self.layout.frame_indices
        changes = bank.changes_since(since_version, frame_indices=frames)
        ids = sorted([*changes.added, *changes.changed])
        masks = bank.masks_on(frames, object_ids=ids)
        visible = visible_ids(ids, masks)
        if not visible:
            return None
        rows = [ids.index(object_id) for object_id in visible]
        return self._processor.memory(visible, masks[:, rows], self.layout, is_update=self._state.has_memory)

    def ask(self, turn: Turn, *, on_text: TextCallback | None = None) -> Reply:
        """Generate an answer, and append question and answer to the conversation.

        Args:
            turn: The question with the injected memory.
            on_text: Receives the generated text piece by piece, with its special tokens; called at every token. If
                it raises, the turn ends and the conversation is not changed.

        Raises:
            ValueError: The conversation is longer than the positions of the model.
        """
        prompt_cache, inputs = self._next_inputs(turn, [])
        generation = self._generate(prompt_cache, inputs, self._settings, on_text)
        self._state = ConversationSnapshot(
            generation.prompt_cache,
            has_ended=generation.stop_reason == "end",
            has_memory=self._state.has_memory or turn.memory is not None,
        )
        return Reply(
            turn.answer_prefix + self._decode(generation.token_ids),
            generation.mask_tokens,
            generation.num_read_tokens,
            num_generated_tokens=len(generation.token_ids),
        )

    def ask_each(self, turns: Sequence[Turn], *, on_text: TextCallback | None = None) -> list[Reply]:
        """Generate the answers of several turns in one batch, each as if it were the next turn.

        The conversation is not changed, and no answer depends on another question.

        Args:
            turns: At least one.
            on_text: Called with an empty text at every token of every answer. If it raises, the turns end.

        Raises:
            ValueError: See `ask`.
        """
        nexts = [self._next_inputs(turn, []) for turn in turns]
        # All turns continue the same one.
        prompt_cache = nexts[0][0]
        inputs = stack_inputs([inputs for _, inputs in nexts], padding_id=self._processor.tokenizer.pad_token_id or 0)
        stream = AnswerStream(
            self._model, inputs, prompt_cache=prompt_cache, settings=self._settings, decode=self._decode
        )
        for _ in stream:
            if on_text is not None:
                on_text("")
        return [
            Reply(
                turn.answer_prefix + self._decode(generation.token_ids),
                generation.mask_tokens,
                generation.num_read_tokens,
                num_generated_tokens=len(generation.token_ids),
            )
            for turn, generation in zip(turns, stream.finish(), strict=True)
        ]

    def prefill(
        self, question: str, prompts: Mapping[int, VisualPrompt], *, on_text: TextCallback | None = None
    ) -> PrefilledObjects:
        """Let the model generate the ids and masks of the objects that a question names.

        This does not change the conversation. For ids that the model does not generate, `<|seg|>` is forced
        (memory pre-filling, UniPixel section 3.2).

        Args:
            question: Names objects as `[id]`.
            prompts: A point or box for each of them.
            on_text: Receives the generated text, as in `ask`.
        """
        marked, order = mark_references(question, list(prompts))
        turn = Turn(prefill_question(marked))
        prompt_cache, inputs = self._next_inputs(turn, [prompts[object_id] for object_id in order])
        settings = GenerationSettings(max_new_tokens=_PREFILL_TOKENS * len(order) + _PREFILL_TOKENS)
        generation = self._generate(prompt_cache, inputs, settings, on_text)
        parsed = parse_answer(self._decode(generation.token_ids))
        tokens: dict[int, Tensor] = {}
        for segment in parsed.masks:
            if segment.object_id in order and segment.mask_index is not None and not segment.is_new:
                tokens.setdefault(segment.object_id, generation.mask_tokens[segment.mask_index])
        generated_ids = tuple(tokens)
        missing = [object_id for object_id in order if object_id not in tokens]
        tokens |= self._force_mask_tokens(generation.prompt_cache, missing)
        return PrefilledObjects({object_id: tokens[object_id] for object_id in order}, generated_ids)

    def _next_inputs(self, turn: Turn, prompts: Sequence[VisualPrompt]) -> tuple[PromptCache, ModelInputs]:
        """Return the cache that a turn continues, and its new inputs."""
        if self._state.prompt_cache is not None:
            sample = self._processor.encode_later_turn(
                turn, layout=self.layout, prompts=prompts, has_ended=self._state.has_ended
            )
            self._check_length(sample.inputs, num_cached=self._state.prompt_cache.num_tokens)
            return self._state.prompt_cache, sample.inputs
        inputs = self._processor.encode([turn], clip=self._clip, prompts=prompts).inputs
        self._check_length(inputs, num_cached=0)
        end_id = self._processor.tokenizer.convert_tokens_to_ids(VISION_END)
        # All first turns start with the same tokens: the system prompt and the clip.
        cut = int((inputs.input_ids[0] == end_id).nonzero()[0]) + 1
        if self._clip_cache is None:
            clip_inputs = ModelInputs(inputs.input_ids[:, :cut], videos=inputs.videos)
            self._clip_cache = _single(prefill(self._model, clip_inputs).prompt_cache)
        return self._clip_cache, replace(inputs, input_ids=inputs.input_ids[:, cut:], videos=())

    def _check_length(self, inputs: ModelInputs, *, num_cached: int) -> None:
        num_tokens, limit = num_cached + inputs.input_ids.shape[1], self._model.config.max_positions
        if num_tokens >= limit:
            raise ValueError(
                f"the clip and the question have {num_tokens} tokens, the model takes at most {limit - 1}: "
                "shorten the question, give fewer frames, or start a new session"
            )

    def _generate(
        self, prompt_cache: PromptCache, inputs: ModelInputs, settings: GenerationSettings, on_text: TextCallback | None
    ) -> Generation:
        stream = AnswerStream(self._model, inputs, prompt_cache=prompt_cache, settings=settings, decode=self._decode)
        return stream_text(stream, to_text=self._decode, on_text=on_text)

    @torch.no_grad()
    def _force_mask_tokens(self, prompt_cache: PromptCache | None, object_ids: Sequence[int]) -> dict[int, Tensor]:
        """Append `[id] <|seg|>` to an answer for each id and return the mask tokens."""
        cache, tokens = _single(prompt_cache), {}
        end_id = self._processor.tokenizer.convert_tokens_to_ids(IM_END)
        cache = replace(cache, pending_ids=tuple(token for token in cache.pending_ids if token != end_id))
        seg_id = self._processor.tokenizer.convert_tokens_to_ids(SEG)
        for object_id in object_ids:
            ids = self._processor.tokenizer.encode(f" [{object_id}] ", add_special_tokens=False)
            output = prefill(self._model, ModelInputs(torch.tensor([ids])), prompt_cache=cache)
            tokens[object_id] = self._model.mask_tokens(output.hidden_states[0, -1])
            cache = replace(_single(output.prompt_cache), pending_ids=(seg_id,))
        return tokens

    def _decode(self, ids: Sequence[int]) -> str:
        text = self._processor.tokenizer.decode(ids, skip_special_tokens=False)
        return text.removesuffix(IM_END) if isinstance(text, str) else "".join(text)


def _single(prompt_cache: PromptCache | None) -> PromptCache:
    """Return the prompt cache of a batch of one, which always has one."""
    if prompt_cache is None:
        raise RuntimeError("a batch of one has no prompt cache")
    return prompt_cache
