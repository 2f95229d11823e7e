"""Text generation: greedy or sampled, streamed, batched, continuing a reusable prompt cache.

Shape letters: B samples, L tokens, D language width, C SAM width, n tokens per mask, K masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor
from transformers import DynamicCache

from unipixel.memory.representation import short_repr
from unipixel.model.inputs import ModelInputs, VideoFeatures
from unipixel.model.language_model import LanguageModel
from unipixel.model.qwen import PromptCache
from unipixel.model.token_decoding import CacheImplementation, open_decoder

StopReason = Literal["end", "stop_string", "length"]
Decoder = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class GenerationSettings:
    """Settings of one generation.

    Attributes:
        max_new_tokens: Maximum number of generated tokens.
        temperature: 0 selects the most likely token; above 0 samples.
        top_p: Probability mass that sampling keeps, in (0, 1].
        top_k: Number of tokens that sampling keeps; None keeps all.
        seed: Seed of the sampling; None uses a random one.
        stop_strings: Strings that end the answer as soon as it contains one of them.
        cache_implementation: How keys and values of generated tokens are kept: `dynamic` in a cache that grows,
            `static` in one of fixed size, whose steps a GPU captures as a CUDA graph, or `auto`, see `open_decoder`.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop_strings: tuple[str, ...] = ()
    cache_implementation: CacheImplementation = "auto"

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be 0 (greedy) or above, got {self.temperature}")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be in [0, 2**63), got {self.seed}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1 or None, got {self.top_k}")
        if self.cache_implementation not in get_args(CacheImplementation):
            allowed = ", ".join(get_args(CacheImplementation))
            raise ValueError(f"cache_implementation must be one of {allowed}, got {self.cache_implementation!r}")


@dataclass(frozen=True)
class GeneratedToken:
    """One generated token.

    Attributes:
        sample: Row in the batch.
        token_id: The token.
        mask_tokens: (n, C) tokens of the mask that this token stands for, see `Generation`; None unless it is the
            token of a mask.
    """

    sample: int
    token_id: int
    mask_tokens: Tensor | None = None


@dataclass(frozen=True)
class Generation:
    """A finished answer.

    Attributes:
        token_ids: All generated tokens, including the one that ends the answer.
        mask_tokens: (K, n, C), one set per `<|seg|>` in order: SAM prompt tokens of UniPixel, mask queries (n = 1) of
            Pixel-SAIL.
        stop_reason: `end` of turn, `stop_string`, or `length` at the maximum.
        num_read_tokens: Prompt tokens that were processed, without those in the prompt cache.
        prompt_cache: The conversation up to the end of this answer, to be continued; None for batches.
        prompt_mask_tokens: (K', n, C), one set per `<|seg|>` in the new tokens of the prompt: masks of a forced answer.
    """

    __repr__ = short_repr

    token_ids: tuple[int, ...]
    mask_tokens: Tensor
    stop_reason: StopReason
    num_read_tokens: int
    prompt_cache: PromptCache | None
    prompt_mask_tokens: Tensor


@dataclass(frozen=True)
class PrefillOutput:
    """Result of a prefill.

    Attributes:
        hidden_states: (B, L, D) states of the new tokens, see `LanguageModel.decode`.
        cache: Keys and values, including those of the continued prompt cache.
        attention_mask: (B, cached) bool, or None where nothing is padded.
        next_positions: (B,) position of the token that follows each sample.
        lengths: New tokens of each sample.
        prompt_cache: The conversation up to the end of these tokens; None for batches.
        input_ids: (B, L) the new tokens, with the pending ones of the prompt cache.
    """

    hidden_states: Tensor
    cache: DynamicCache
    attention_mask: Tensor | None
    next_positions: Tensor
    lengths: list[int]
    prompt_cache: PromptCache | None
    input_ids: Tensor


@torch.no_grad()
def prefill(model: LanguageModel, inputs: ModelInputs, *, prompt_cache: PromptCache | None = None) -> PrefillOutput:
    """Process a prompt, or the continuation of one; cached tokens are not processed again.

    Args:
        model: The model.
        inputs: New tokens. Several samples share the prompt cache. Clips that are not encoded yet are encoded.
        prompt_cache: The text that they continue; it is not changed.

    Raises:
        ValueError: Placeholders do not match their values, or a clip is given although the prompt cache contains one.
    """
    batch_size = inputs.input_ids.shape[0]
    if prompt_cache is not None and prompt_cache.video is not None and inputs.videos:
        raise ValueError("the prompt cache already contains a clip: start a new conversation for another")
    pending = prompt_cache.pending_ids if prompt_cache else ()
    inputs = _with_pending(inputs, pending)
    features = model.encode_videos(inputs.videos)
    cached_video = prompt_cache.video if prompt_cache else None
    memory_of = [cached_video] * len(inputs.memory_masks) if isinstance(cached_video, VideoFeatures) else None
    start = prompt_cache.next_position if prompt_cache else 0
    embedded = model.embed(inputs, features, start=start, memory_of=memory_of)
    cache = prompt_cache.fork(batch_size) if prompt_cache else model.new_cache()
    mask = inputs.attention_mask
    if mask is not None and bool(mask.all()):
        mask = None
    if mask is not None:
        mask = mask.to(model.device)
        num_cached = prompt_cache.num_tokens if prompt_cache else 0
        mask = torch.cat([mask.new_ones(batch_size, num_cached), mask], dim=1)
    hidden = model.decode(
        embedded.embeds, embedded.position_ids, attention_mask=mask, cache=cache, blocks=embedded.blocks
    )
    extended = None
    if batch_size == 1 and mask is None:
        extended = PromptCache(
            cache=_frozen(cache),
            num_tokens=cache.get_seq_length(),
            next_position=int(embedded.next_positions[0]),
            video=model.kept_visual(inputs, features, hidden) if features else cached_video,
        )
    return PrefillOutput(hidden, cache, mask, embedded.next_positions, inputs.lengths, extended, inputs.input_ids)


class AnswerStream(Iterator[GeneratedToken]):
    """A running generation: iterate over its tokens, then call `finish` for the answers.

    All state of a generation is in this object; the model is stateless.
    """

    def __init__(
        self,
        model: LanguageModel,
        inputs: ModelInputs,
        *,
        prompt_cache: PromptCache | None = None,
        settings: GenerationSettings | None = None,
        decode: Decoder | None = None,
    ) -> None:
        """Process the prompt; tokens are generated on iteration.

        Args:
            model: The model.
            inputs: The prompt, or its continuation of `prompt_cache`; one or several samples.
            prompt_cache: Cached text that all samples continue.
            settings: Defaults to greedy decoding.
            decode: Converts token ids to text; required for stop strings.

        Raises:
            ValueError: Stop strings without `decode`, or placeholders that do not match their values.
        """
        self.settings = settings or GenerationSettings()
        if self.settings.stop_strings and decode is None:
            raise ValueError("stop_strings require `decode`, a function from token ids to text")
        self._model, self._decode = model, decode
        output = prefill(model, inputs, prompt_cache=prompt_cache)
        rows = torch.arange(len(output.lengths), device=output.hidden_states.device)
        last = torch.tensor(output.lengths, device=rows.device) - 1
        self._states = output.hidden_states[rows, last]
        self._is_padded = output.attention_mask is not None
        self._decoder = open_decoder(
            model,
            output.cache,
            attention_mask=output.attention_mask,
            next_positions=output.next_positions,
            implementation=self.settings.cache_implementation,
        )
        self._video = output.prompt_cache.video if output.prompt_cache else None
        self._num_read_tokens = output.lengths
        self._prompt_mask_tokens = [
            model.mask_tokens(model.seg_states_of(states[:length], ids[:length].to(states.device)))
            for states, ids, length in zip(output.hidden_states, output.input_ids, output.lengths, strict=True)
        ]
        self._answers = [_PartialGeneration() for _ in output.lengths]
        self._queue: list[GeneratedToken] = []
        self._selected: Tensor | None = None
        self._random = torch.Generator(device=rows.device)
        if self.settings.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(self.settings.seed)

    def __repr__(self) -> str:
        count, length = len(self._num_read_tokens), self.settings.max_new_tokens
        return f"<AnswerStream of {count} answers of at most {length} tokens>"

    def __next__(self) -> GeneratedToken:
        """Return the next token of any answer.

        Raises:
            StopIteration: All answers are finished.
        """
        if not self._queue:
            if all(answer.stop_reason for answer in self._answers):
                raise StopIteration
            self._advance()
        return self._queue.pop(0)

    def finish(self) -> list[Generation]:
        """Generate until all answers end, and return them, one per sample."""
        for _ in self:
            pass
        return [self._generation(sample) for sample in range(len(self._answers))]

    @torch.no_grad()
    def _advance(self) -> None:
        """Select one token for every unfinished answer."""
        if self._selected is not None:
            self._states = self._decoder.step(self._selected)
        selected = self._select(self._model.logits(self._states).float())
        self._selected = selected
        running = [sample for sample, answer in enumerate(self._answers) if not answer.stop_reason]
        # The one wait for the device in a step.
        token_ids = selected.tolist()
        seg_id = self._model.config.seg_token_id
        if self._model.has_own_seg_state and any(token_ids[sample] == seg_id for sample in running):
            self._states = self._decoder.step(selected)
            self._selected = None
        for sample in running:
            answer, token_id = self._answers[sample], token_ids[sample]
            mask_tokens = None
            if token_id == seg_id:
                mask_tokens = self._model.mask_tokens(self._states[sample])
                answer.mask_tokens.append(mask_tokens)
            answer.token_ids.append(token_id)
            answer.stop_reason = self._stop_reason(answer)
            self._queue.append(GeneratedToken(sample, token_id, mask_tokens))

    def _select(self, logits: Tensor) -> Tensor:
        settings = self.settings
        if settings.temperature == 0:
            return logits.argmax(dim=-1)
        logits = logits / settings.temperature
        if settings.top_k is not None:
            kept = logits.topk(min(settings.top_k, logits.shape[-1]), dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < kept, float("-inf"))
        if settings.top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True)
            before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
            ordered = ordered.masked_fill(before >= settings.top_p, float("-inf"))
            logits = torch.full_like(logits, float("-inf")).scatter(-1, order, ordered)
        return torch.multinomial(logits.softmax(dim=-1), 1, generator=self._random)[:, 0]

    def _stop_reason(self, answer: _PartialGeneration) -> StopReason | None:
        if answer.token_ids[-1] in self._model.config.eos_token_ids:
            return "end"
        if self.settings.stop_strings and self._decode is not None:
            text = self._decode(answer.token_ids)
            if any(stop in text for stop in self.settings.stop_strings):
                return "stop_string"
        return "length" if len(answer.token_ids) >= self.settings.max_new_tokens else None

    def _generation(self, sample: int) -> Generation:
        answer = self._answers[sample]
        empty = self._states.new_zeros(0, *self._model.mask_token_shape, dtype=torch.float32)
        prompt_cache = None
        if len(self._answers) == 1 and not self._is_padded:
            # A last token that was selected but not processed is processed first by the next continuation.
            cache = self._decoder.cache()
            prompt_cache = PromptCache(
                cache=_frozen(cache),
                num_tokens=cache.get_seq_length(),
                next_position=self._decoder.next_position,
                pending_ids=() if self._selected is None else (answer.token_ids[-1],),
                video=self._video,
            )
        return Generation(
            token_ids=tuple(answer.token_ids),
            mask_tokens=torch.stack(answer.mask_tokens) if answer.mask_tokens else empty,
            stop_reason=answer.stop_reason or "length",
            num_read_tokens=self._num_read_tokens[sample],
            prompt_cache=prompt_cache,
            prompt_mask_tokens=self._prompt_mask_tokens[sample],
        )


def stream_text(stream: AnswerStream, *, to_text: Decoder, on_text: Callable[[str], None] | None = None) -> Generation:
    """Generate the answer of one sample, and pass its text on piece by piece.

    Args:
        stream: A new stream of one sample.
        to_text: Converts the token ids of the answer so far to text.
        on_text: Receives the text; called at every token.
    """
    token_ids: list[int] = []
    sent = ""
    for step in stream:
        token_ids.append(step.token_id)
        if on_text is not None:
            text = to_text(token_ids)
            # An incomplete multi-byte character decodes to the replacement character.
            is_complete = text.startswith(sent) and not text.endswith("\N{REPLACEMENT CHARACTER}")
            piece = text[len(sent) :] if is_complete else ""
            sent += piece
            on_text(piece)
    return stream.finish()[0]


@dataclass
class _PartialGeneration:
    token_ids: list[int] = field(default_factory=list)
    mask_tokens: list[Tensor] = field(default_factory=list)
    stop_reason: StopReason | None = None


def _with_pending(inputs: ModelInputs, pending: Sequence[int]) -> ModelInputs:
    if not pending:
        return inputs
    ids, mask = inputs.input_ids, inputs.attention_mask
    first = torch.tensor(pending, device=ids.device).expand(len(ids), -1)
    return replace(
        inputs,
        input_ids=torch.cat([first, ids], dim=1),
        attention_mask=None
        if mask is None
        else torch.cat([torch.ones_like(first, dtype=torch.bool), mask.bool()], dim=1),
    )


def _frozen(cache: DynamicCache) -> DynamicCache:
    """Return a snapshot of the cache: later updates replace tensors of the original only."""
    return PromptCache(cache, 0, 0).fork()
