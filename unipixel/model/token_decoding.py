"""Decoding one token per sample and step: with a cache that grows, or one of fixed size whose step a GPU captures.

A step of a large model starts about a thousand kernels. On a GPU, Python starts them slower than they run; a CUDA graph
repeats them with one call, but needs tensors that keep their shapes and addresses. Keys and values are therefore kept
in tensors whose length is a power of two, and unused entries are masked.

Shape letters: B samples, L tokens, D language width, S entries of the fixed cache.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from unipixel.model.language_model import LanguageModel

CacheImplementation = Literal["auto", "dynamic", "static"]
"""Names of transformers: `dynamic` grows with each token, `static` has a fixed size."""
MIN_CACHE_LENGTH = 64
"""Entries of the smallest fixed cache; longer ones are powers of two."""
Step = Callable[[], Tensor]
_logger = logging.getLogger(__name__)


class TokenDecoder(Protocol):
    """Computes the states of one more token per sample."""

    def step(self, ids: Tensor) -> Tensor:
        """Process the selected ids (B,) and return their states (B, D)."""

    @property
    def next_position(self) -> int:
        """Position of the next token of the first sample."""

    def cache(self) -> DynamicCache:
        """Return the keys and values of all tokens; later steps do not change them."""


def open_decoder(
    model: LanguageModel,
    cache: DynamicCache,
    *,
    attention_mask: Tensor | None,
    next_positions: Tensor,
    implementation: CacheImplementation = "auto",
) -> TokenDecoder:
    """Return the decoder that continues a processed prompt.

    Args:
        model: The model.
        cache: Keys and values of the prompt.
        attention_mask: (B, L) bool over the entries of the cache, False on padding; None where nothing is padded.
        next_positions: (B,) position of the next token of each sample.
        implementation: `auto` is `static` on a GPU where the model allows it, and `dynamic` elsewhere: on a CPU, the
            masked entries cost more than the fixed size saves.

    Raises:
        ValueError: `static` for a model that does not allow it.
    """
    obstacle = _static_obstacle(model, cache)
    if implementation == "static" and obstacle:
        raise ValueError(f"cache_implementation 'static' needs other settings: {obstacle}; use 'auto' or 'dynamic'")
    is_automatic = implementation == "auto" and next_positions.device.type == "cuda" and not obstacle
    if implementation == "static" or is_automatic:
        device = next_positions.device
        prepare = partial(capture_graph, device=device) if device.type == "cuda" else None
        return StaticCacheDecoder(
            model, cache, attention_mask=attention_mask, next_positions=next_positions, prepare=prepare
        )
    return DynamicCacheDecoder(model, cache, attention_mask=attention_mask, next_positions=next_positions)


def _static_obstacle(model: LanguageModel, cache: DynamicCache) -> str | None:
    """Return why a cache of fixed size cannot be used, or None."""
    if model.attention not in ("sdpa", "eager"):
        return f"the attention is {model.attention}, and only sdpa and eager take its mask"
    if any(getattr(layer, "is_sliding", False) for layer in cache.layers):
        return "a layer has sliding attention"
    if model.is_quantized:
        return "the weights are quantised, whose matrix products a CUDA graph may not capture"
    # Autocast keeps converted weights, which would be freed while the graph still reads them.
    if torch.is_autocast_enabled(model.device.type):
        return "autocast is on"
    return None


class DynamicCacheDecoder:
    """Appends each token to a cache that grows."""

    def __init__(
        self, model: LanguageModel, cache: DynamicCache, *, attention_mask: Tensor | None, next_positions: Tensor
    ) -> None:
        """Continue a processed prompt; see `open_decoder`. The cache is extended in place."""
        self._model, self._cache, self._mask, self._positions = model, cache, attention_mask, next_positions

    def step(self, ids: Tensor) -> Tensor:
        """Process the selected ids (B,) and return their states (B, D)."""
        embeds = self._model.embed_tokens(ids[:, None])
        positions = self._positions[None, :, None].expand(3, -1, -1)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(ids), 1)], dim=1)
        states = self._model.decode(embeds, positions, attention_mask=self._mask, cache=self._cache)
        self._positions = self._positions + 1
        return states[:, -1]

    @property
    def next_position(self) -> int:
        """Position of the next token of the first sample."""
        return int(self._positions[0])

    def cache(self) -> DynamicCache:
        """Return the keys and values of all tokens; later steps replace the tensors."""
        return self._cache


class StaticCacheDecoder:
    """Writes each token into a cache of fixed size; a full cache is replaced by one of twice the size."""

    def __init__(
        self,
        model: LanguageModel,
        cache: DynamicCache,
        *,
        attention_mask: Tensor | None,
        next_positions: Tensor,
        prepare: Callable[[Step], Step] | None = None,
    ) -> None:
        """Continue a processed prompt; see `open_decoder`. The given cache is not changed.

        Args:
            model: The model.
            cache: Keys and values of the prompt.
            attention_mask: See `open_decoder`.
            next_positions: See `open_decoder`.
            prepare: Makes the step faster, such as `capture_graph` or `torch.compile`. It gets a function without
                arguments that reads and writes the same tensors in each call, after its first call for each size.
        """
        self._model, self._prepare = model, prepare
        # Each size needs other kernels: its first step is computed as it is, which also loads them.
        self._step: Step | None = None
        self._run: Step | None = None
        self._count = cache.get_seq_length()
        self._positions = next_positions.clone()
        self._ids = torch.zeros_like(next_positions)
        self._index = torch.full((1,), self._count, device=next_positions.device)
        length = cache_length(self._count + 1)
        self._entries = _StaticEntries(cache, length, self._index)
        dtype = self._entries.keys[0].dtype
        self._allowed = torch.zeros(1, 1, 1, 1, dtype=dtype, device=self._index.device)
        if attention_mask is None:
            attention_mask = torch.ones(len(next_positions), self._count, dtype=torch.bool, device=self._index.device)
        mask = torch.full((len(next_positions), self._count), float("-inf"), dtype=dtype, device=self._index.device)
        mask.masked_fill_(attention_mask.bool(), 0)
        self._mask = _pad(mask[:, None, None], length, dim=3, value=float("-inf"))

    def step(self, ids: Tensor) -> Tensor:
        """Process the selected ids (B,) and return their states (B, D); the next call overwrites them on a GPU."""
        if self._count == self._mask.shape[-1]:
            self._grow()
        self._ids.copy_(ids)
        if self._step is None:
            self._step = self._compute
        elif self._run is None:
            self._run = self._prepare(self._compute) if self._prepare else self._compute
        self._count += 1
        return (self._run or self._step)()

    @property
    def next_position(self) -> int:
        """Position of the next token of the first sample."""
        return int(self._positions[0])

    def cache(self) -> DynamicCache:
        """Return a copy of the keys and values of all tokens, without unused entries."""
        return self._entries.to_dynamic(self._count)

    def _compute(self) -> Tensor:
        """Compute one token from the tensors of this object alone, and advance them."""
        embeds = self._model.embed_tokens(self._ids[:, None])
        self._mask.index_copy_(3, self._index, self._allowed.expand(len(self._mask), -1, -1, -1))
        positions = self._positions[None, :, None].expand(3, -1, -1)
        cache: Any = self._entries
        states = self._model.decode(embeds, positions, attention_mask=self._mask, cache=cache)
        self._positions.add_(1)
        self._index.add_(1)
        return states[:, -1]

    def _grow(self) -> None:
        length = 2 * self._mask.shape[-1]
        self._entries.grow(length)
        self._mask = _pad(self._mask, length, dim=3, value=float("-inf"))
        self._step = self._run = None


def cache_length(num_tokens: int) -> int:
    """Return the entries of a fixed cache for a number of tokens: the next power of two."""
    return max(MIN_CACHE_LENGTH, 1 << (num_tokens - 1).bit_length())


def capture_graph(step: Step, *, device: torch.device) -> Step:
    """Capture a step as a CUDA graph; where CUDA refuses, the step itself is returned and a warning is logged.

    Other threads may use the GPU meanwhile. The result of the returned function is overwritten by its next call.

    Args:
        step: Reads and writes the same tensors in each call; it has been called before.
        device: CUDA device of the tensors.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    torch.cuda.synchronize(device)
    try:
        # Not the context manager `torch.cuda.graph`, which empties the cache of the allocator in each call.
        with torch.cuda.stream(stream):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                result = step()
            finally:
                graph.capture_end()
    except RuntimeError as error:
        _logger.warning("tokens are decoded without a CUDA graph: %s", " ".join(str(error).split())[:200])
        return step

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


class _StaticEntries:
    """Keys and values (B, heads, S, head size) of all layers, with the method that attention calls on a cache.

    Not transformers' `StaticCache`, whose arguments differ among the supported releases, and which is filled by a
    prompt instead of by another cache.
    """

    is_compileable = True

    def __init__(self, cache: DynamicCache, length: int, index: Tensor) -> None:
        self.keys = [_pad(layer.keys, length, dim=2) for layer in cache.layers]
        self.values = [_pad(layer.values, length, dim=2) for layer in cache.layers]
        self._index = index

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the entries of the new token, and return all entries of the layer."""
        self.keys[layer_idx].index_copy_(2, self._index, keys)
        self.values[layer_idx].index_copy_(2, self._index, values)
        return self.keys[layer_idx], self.values[layer_idx]

    def grow(self, length: int) -> None:
        """Replace the tensors by longer ones with the same entries."""
        self.keys = [_pad(tensor, length, dim=2) for tensor in self.keys]
        self.values = [_pad(tensor, length, dim=2) for tensor in self.values]

    def to_dynamic(self, count: int) -> DynamicCache:
        """Return a copy of the first entries."""
        cache = DynamicCache()
        for index, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(keys[:, :, :count].clone(), values[:, :, :count].clone(), index)
        return cache


def _pad(tensor: Tensor, length: int, *, dim: int, value: float = 0.0) -> Tensor:
    """Return a new contiguous tensor that continues another one along a dimension."""
    shape = list(tensor.shape)
    count, shape[dim] = shape[dim], length
    padded = tensor.new_full(shape, value)
    padded.narrow(dim, 0, count).copy_(tensor)
    return padded
