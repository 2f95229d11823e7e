"""Writing an answer: greedy or sampled, streamed, batched, over a reusable prefix.

Shape letters: B samples, L tokens, D language width, C SAM width, n tokens per mask, K masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from unipixel.model.inputs import ModelInputs
from unipixel.model.qwen import PromptCache
from unipixel.model.unipixel import UniPixel

StopReason = Literal["end", "stop_string", "length"]
Decoder = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class GenerationSettings:
    """How an answer is written.

    Attributes:
        max_new_tokens: Ceiling on generated tokens.
        temperature: 0 takes the likeliest token; above 0 samples.
        top_p: Share of probability that sampling keeps, in (0, 1].
        top_k: Number of tokens that sampling keeps; None keeps all.
        seed: Seed of the sampling; None draws one.
        stop_strings: Texts that end the answer once it contains one of them.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    seed: int | None = None
    stop_strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must be 0 (greedy) or above, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1 or None, got {self.top_k}")


@dataclass(frozen=True)
class GeneratedToken:
    """One token of one answer.

    Attributes:
        sample: Row of the batch.
        token_id: The token.
        mask_tokens: (n, C) SAM prompt of the mask that this token triggers; None unless it is `<|seg|>`.
    """

    sample: int
    token_id: int
    mask_tokens: Tensor | None = None


@dataclass(frozen=True)
class Generation:
    """One finished answer.

    Attributes:
        token_ids: All generated tokens, the ending one included.
        mask_tokens: (K, n, C) SAM prompts, one per `<|seg|>` in order.
        stop_reason: `end` of turn, `stop_string`, or `length` at the ceiling.
        num_read_tokens: Tokens of the prompt that the language model had to process.
        prefix: The conversation up to here, to go on from; None for batches.
    """

    token_ids: tuple[int, ...]
    mask_tokens: Tensor
    stop_reason: StopReason
    num_read_tokens: int
    prefix: PromptCache | None


@dataclass(frozen=True)
class PrefillOutput:
    """What the language model made of a text.

    Attributes:
        hidden_states: (B, L, D) before the final norm, of the tokens read now.
        cache: Keys and values, those of the prefix included.
        attention_mask: (B, cached) bool, or None where nothing is padded.
        next_positions: (B,).
        lengths: Tokens read of each sample.
        prefix: The conversation up to here; None for batches.
    """

    hidden_states: Tensor
    cache: DynamicCache
    attention_mask: Tensor | None
    next_positions: Tensor
    lengths: list[int]
    prefix: PromptCache | None


@torch.no_grad()
def read(model: UniPixel, inputs: ModelInputs, *, prefix: PromptCache | None = None) -> PrefillOutput:
    """Read a text, or the continuation of one; tokens of the prefix are not processed again.

    Args:
        model: The model.
        inputs: New tokens. Several samples share the prefix. Without a prefix, clips are encoded.
        prefix: What they continue; it is not changed.

    Raises:
        ValueError: Placeholders do not match their values, or a clip is given after a prefix that holds one.
    """
    batch_size = inputs.input_ids.shape[0]
    if prefix is not None and prefix.video is not None and inputs.videos:
        raise ValueError("the prefix holds a clip already: a conversation has one, start a new one for another clip")
    pending = prefix.pending_ids if prefix else ()
    inputs = _with_pending(inputs, pending)
    features = model.encode_videos(inputs.videos)
    memory_of = [prefix.video] * len(inputs.memory_masks) if prefix and prefix.video else None
    start = prefix.next_position if prefix else 0
    embedded = model.embed(inputs, features, start=start, memory_of=memory_of)
    cache = prefix.fork(batch_size) if prefix else DynamicCache(config=model.config.qwen.text_config)
    mask = inputs.attention_mask
    if mask is not None and bool(mask.all()):
        mask = None
    if mask is not None:
        mask = mask.to(model.device)
        num_cached = prefix.num_tokens if prefix else 0
        mask = torch.cat([mask.new_ones(batch_size, num_cached), mask], dim=1)
    hidden = model.model(embedded.embeds, embedded.position_ids, attention_mask=mask, cache=cache)
    extended = None
    if batch_size == 1 and mask is None:
        extended = PromptCache(
            cache=_frozen(cache),
            num_tokens=cache.get_seq_length(),
            next_position=int(embedded.next_positions[0]),
            video=features[0] if features else (prefix.video if prefix else None),
        )
    return PrefillOutput(hidden, cache, mask, embedded.next_positions, inputs.lengths, extended)


class AnswerStream(Iterator[GeneratedToken]):
    """Answers in the making: iterate for tokens as they come, then take the finished answers.

    The one object that holds the state of a generation; the model holds none.
    """

    def __init__(
        self,
        model: UniPixel,
        inputs: ModelInputs,
        *,
        prefix: PromptCache | None = None,
        settings: GenerationSettings | None = None,
        decode: Decoder | None = None,
    ) -> None:
        """Read the prompt; the first token is chosen when it is asked for.

        Args:
            model: The model.
            inputs: The prompt, or its continuation of `prefix`; one or several samples.
            prefix: Start that all samples share.
            settings: How to write.
            decode: Turns token ids into text; needed for stop strings.

        Raises:
            ValueError: Stop strings without `decode`, or placeholders that do not match their values.
        """
        self.settings = settings or GenerationSettings()
        if self.settings.stop_strings and decode is None:
            raise ValueError("stop_strings need `decode`, a function from token ids to text")
        self._model, self._decode = model, decode
        reading = read(model, inputs, prefix=prefix)
        rows = torch.arange(len(reading.lengths), device=reading.hidden_states.device)
        last = torch.tensor(reading.lengths, device=rows.device) - 1
        self._states = reading.hidden_states[rows, last]
        self._cache, self._mask = reading.cache, reading.attention_mask
        self._positions = reading.next_positions
        self._video = reading.prefix.video if reading.prefix else None
        self._num_read = reading.lengths
        self._answers = [_Answer() for _ in reading.lengths]
        self._queue: list[GeneratedToken] = []
        self._chosen: Tensor | None = None
        self._random = torch.Generator(device=rows.device)
        if self.settings.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(self.settings.seed)

    def __next__(self) -> GeneratedToken:
        """Return the next token of any of the answers.

        Raises:
            StopIteration: All answers are finished.
        """
        if not self._queue:
            if all(answer.stop_reason for answer in self._answers):
                raise StopIteration
            self._advance()
        return self._queue.pop(0)

    def finish(self) -> list[Generation]:
        """Write to the end and return the answers, one per sample."""
        for _ in self:
            pass
        return [self._generation(sample) for sample in range(len(self._answers))]

    @torch.no_grad()
    def _advance(self) -> None:
        """Choose one token for every unfinished answer."""
        if self._chosen is not None:
            self._read_chosen(self._chosen)
        self._chosen = self._choose(self._model.logits(self._states).float())
        for sample, answer in enumerate(self._answers):
            if answer.stop_reason:
                continue
            token_id = int(self._chosen[sample])
            mask_tokens = None
            if token_id == self._model.config.seg_token_id:
                mask_tokens = self._model.mask_tokens(self._states[sample])
                answer.mask_tokens.append(mask_tokens)
            answer.token_ids.append(token_id)
            answer.stop_reason = self._stop_reason(answer)
            self._queue.append(GeneratedToken(sample, token_id, mask_tokens))

    def _read_chosen(self, chosen: Tensor) -> None:
        embeds = self._model.model.language_model.embed_tokens(chosen[:, None])
        positions = self._positions[None, :, None].expand(3, -1, -1)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(chosen), 1)], dim=1)
        states = self._model.model(embeds, positions, attention_mask=self._mask, cache=self._cache)
        self._states = states[:, -1]
        self._positions = self._positions + 1

    def _choose(self, logits: Tensor) -> Tensor:
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

    def _stop_reason(self, answer: _Answer) -> StopReason | None:
        if answer.token_ids[-1] in self._model.config.eos_token_ids:
            return "end"
        if self.settings.stop_strings and self._decode is not None:
            text = self._decode(answer.token_ids)
            if any(stop in text for stop in self.settings.stop_strings):
                return "stop_string"
        return "length" if len(answer.token_ids) >= self.settings.max_new_tokens else None

    def _generation(self, sample: int) -> Generation:
        answer = self._answers[sample]
        config = self._model.config
        empty = self._states.new_zeros(0, config.num_mask_tokens, config.segmenter.embed_dim, dtype=torch.float32)
        prefix = None
        if len(self._answers) == 1 and self._mask is None:
            # The last token was chosen but not read: what comes next reads it first.
            prefix = PromptCache(
                cache=_frozen(self._cache),
                num_tokens=self._cache.get_seq_length(),
                next_position=int(self._positions[0]),
                pending_ids=(answer.token_ids[-1],),
                video=self._video,
            )
        return Generation(
            token_ids=tuple(answer.token_ids),
            mask_tokens=torch.stack(answer.mask_tokens) if answer.mask_tokens else empty,
            stop_reason=answer.stop_reason or "length",
            num_read_tokens=self._num_read[sample],
            prefix=prefix,
        )


@dataclass
class _Answer:
    token_ids: list[int] = field(default_factory=list)
    mask_tokens: list[Tensor] = field(default_factory=list)
    stop_reason: StopReason | None = None


def _with_pending(inputs: ModelInputs, pending: Sequence[int]) -> ModelInputs:
    if not pending:
        return inputs
    ids, mask = inputs.input_ids, inputs.attention_mask
    first = torch.tensor(pending, device=ids.device).expand(len(ids), -1)
    return ModelInputs(
        torch.cat([first, ids], dim=1),
        None if mask is None else torch.cat([torch.ones_like(first, dtype=torch.bool), mask.bool()], dim=1),
        inputs.videos,
        inputs.references,
        inputs.memory_masks,
    )


def _frozen(cache: DynamicCache) -> DynamicCache:
    """A view of the cache as it is now: updates of the original replace its tensors and do not reach the view."""
    return PromptCache(cache, 0, 0).fork()
