"""Samples of Pixel-SAIL: an image, regions with ids, turns, and one mask per `[SEG]`.

Shape letters: B samples, L tokens, H, W image in pixels, K masks, h, w rows and columns of patches, C most words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from unipixel.model.inputs import ModelInputs
from unipixel.processing.chat_template import Turn
from unipixel.processing.processor import IGNORED_LABEL, EncodedSample
from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.sail_config import SEG_TOKEN
from unipixel.sail.sail_inputs import ImagePatches
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.datasets.collate import InvalidExample

_NO_WORD = IGNORED_LABEL
_MIN_COVERAGE = 0.3


@dataclass(frozen=True)
class NamedRegion:
    """A region of an image with the words that describe it.

    Attributes:
        mask: (H, W) bool.
        words: Such as its colour and its shape.
        prompt_id: Id of the prompt that marks it, if there is one.
    """

    mask: NDArray[np.bool_]
    words: tuple[str, ...]
    prompt_id: int | None = None


@dataclass(frozen=True)
class SailSample:
    """One image with a conversation about it.

    Attributes:
        image: (H, W, 3) uint8 RGB; None for a conversation without an image.
        turns: Questions and answers, with prompts as `<PromptK>` and masks as `[SEG]`.
        masks: (H, W) bool, one per `[SEG]` of the answers, in their order; all False for "no target".
        prompts: Regions that the turns name.
        regions: All objects of the image with their words, where they are known.
    """

    image: NDArray[np.uint8] | None
    turns: tuple[Turn, ...]
    masks: tuple[NDArray[np.bool_], ...] = ()
    prompts: tuple[RegionPrompt, ...] = ()
    regions: tuple[NamedRegion, ...] = ()

    def __post_init__(self) -> None:
        named = sum((turn.answer or "").count(SEG_TOKEN) for turn in self.turns)
        if named != len(self.masks):
            raise ValueError(f"the answers have {named} {SEG_TOKEN}, the sample has {len(self.masks)} masks")


@dataclass(frozen=True)
class SailExample:
    """An encoded sample.

    Attributes:
        encoded: Ids, labels and the patches of the image.
        masks: (K, H, W) uint8, one per `[SEG]`; they are reduced to the grid of the loss by the objective.
        image: (H, W, 3) uint8 RGB for teachers; None without teachers or without an image.
        object_words: (L, C) ids of the words of the object of each token, see `encode_object_words`; None without them.
    """

    encoded: EncodedSample
    masks: Tensor
    image: Tensor | None = None
    object_words: Tensor | None = None


@dataclass(frozen=True)
class SailBatch:
    """Several encoded samples.

    Attributes:
        inputs: Ids, padded on the right, and the images.
        labels: (B, L), -100 where nothing is learned.
        masks: Per sample (K, H, W) uint8.
        invalid: Samples that were left out of the batch; without any other, `inputs` is None.
        images: (H, W, 3) uint8 of the samples that have an image, for teachers; empty without teachers.
        object_words: (B, L, C) ids of the words of the object of each token, -100 where there are fewer; None without.
    """

    inputs: ModelInputs | None
    labels: Tensor
    masks: tuple[Tensor, ...]
    invalid: tuple[InvalidExample, ...] = ()
    images: tuple[Tensor, ...] = ()
    object_words: Tensor | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pack the tensors of all samples into a few: between processes each tensor costs a file descriptor."""
        videos = () if self.inputs is None else cast("tuple[ImagePatches, ...]", self.inputs.videos)
        inputs = None if self.inputs is None else replace(self.inputs, videos=())
        sizes = [(image.grid, image.image_size) for image in videos]
        packed = [
            _pack(tensors)
            for tensors in (
                [image.patches for image in videos],
                [image.prompt_ids for image in videos],
                self.masks,
                self.images,
            )
        ]
        return _unpack_batch, (inputs, self.labels, self.invalid, self.object_words, sizes, packed)


def encode_sail(
    sample: SailSample,
    processor: SailProcessor,
    *,
    max_tokens: int | None = None,
    has_image: bool = False,
    has_object_words: bool = False,
) -> SailExample:
    """Encode a sample for training.

    Args:
        sample: The sample.
        processor: That of the model.
        max_tokens: Longest sequence; the end of a longer one is cut, with the masks of cut `[SEG]`.
        has_image: Whether the example contains the image itself, for teachers.
        has_object_words: Whether the example contains the words of the objects of patches and prompts.

    Raises:
        ValueError: A prompt disappears on the grid, or the image alone is too long.
    """
    image = None if sample.image is None else processor.image(sample.image, sample.prompts)
    encoded = processor.encode(sample.turns, image=image, max_tokens=max_tokens)
    kept = int((encoded.inputs.input_ids == processor.config.seg_token_id).sum())
    masks = [torch.from_numpy(np.asarray(mask, dtype=np.uint8)) for mask in sample.masks[:kept]]
    stacked = torch.stack(masks) if masks else torch.empty(0, 1, 1, dtype=torch.uint8)
    return SailExample(
        encoded,
        stacked,
        torch.from_numpy(np.array(sample.image)) if has_image and sample.image is not None else None,
        encode_object_words(sample, encoded, processor) if has_object_words else None,
    )


def encode_object_words(sample: SailSample, encoded: EncodedSample, processor: SailProcessor) -> Tensor:
    """Return the words of the object that each token stands for: a patch that shows it, a prompt of a question.

    Args:
        sample: With its regions; without any, no token has a word.
        encoded: The sample, encoded.
        processor: That of the model. Words of several tokens are left out.

    Returns:
        (L, C) int64 ids, -100 where a token has fewer words. A patch shows the object that covers most of it, if that
        is at least `_MIN_COVERAGE`. Prompts of answers have no words: their next token is learned.
    """
    ids, labels = encoded.inputs.input_ids[0], encoded.labels[0]
    if sample.image is None or not sample.regions:
        return torch.full((len(ids), 1), _NO_WORD)
    tokenizer, config = processor.tokenizer, processor.config
    tokens = [[tokenizer.encode(f" {word}", add_special_tokens=False) for word in own.words] for own in sample.regions]
    rows = [[word[0] for word in own if len(word) == 1] for own in tokens]
    longest = max(1, *map(len, rows))
    words = torch.tensor([row + [_NO_WORD] * (longest - len(row)) for row in rows])
    table = torch.full((len(ids), longest), _NO_WORD)
    size, patch = processor.fit_size(*sample.image.shape[:2]), config.patch_size
    masks = torch.from_numpy(np.stack([region.mask for region in sample.regions])).float()
    cells = F.interpolate(masks[None], size=(size[0] // patch, size[1] // patch), mode="area")[0].flatten(1)
    coverage, owner = cells.max(dim=0)
    table[ids == config.image_token_id] = torch.where((coverage >= _MIN_COVERAGE)[:, None], words[owner], _NO_WORD)
    for region, own in zip(sample.regions, words, strict=True):
        if region.prompt_id is not None:
            table[(ids == config.prompt_token_ids[region.prompt_id]) & (labels == IGNORED_LABEL)] = own
    return table


_Packed = tuple[Tensor, list[torch.Size]]


def _pack(tensors: Sequence[Tensor]) -> _Packed:
    flat = torch.cat([own.flatten() for own in tensors]) if tensors else torch.empty(0)
    return flat, [own.shape for own in tensors]


def _unpack(packed: _Packed) -> tuple[Tensor, ...]:
    flat, shapes = packed
    parts = flat.split([shape.numel() for shape in shapes])
    return tuple(part.view(shape) for part, shape in zip(parts, shapes, strict=True))


def _unpack_batch(
    inputs: ModelInputs | None,
    labels: Tensor,
    invalid: tuple[InvalidExample, ...],
    object_words: Tensor | None,
    sizes: list[tuple[tuple[int, int], tuple[int, int]]],
    packed: list[_Packed],
) -> SailBatch:
    """Undo `SailBatch.__reduce__`."""
    patches, prompt_ids, masks, images = (_unpack(own) for own in packed)
    if inputs is not None:
        videos = (
            ImagePatches(own, grid, prompts, image_size)
            for own, prompts, (grid, image_size) in zip(patches, prompt_ids, sizes, strict=True)
        )
        inputs = replace(inputs, videos=tuple(videos))
    return SailBatch(inputs, labels, masks, invalid, images, object_words)


class SailCollator:
    """Joins examples into batches, under the objective's keyword."""

    def __init__(self, processor: SailProcessor) -> None:
        self._processor = processor

    def __call__(self, examples: Sequence[SailExample | InvalidExample]) -> dict[str, SailBatch]:
        """Join examples, all padded to the longest one; invalid ones are left out and listed."""
        valid = [example for example in examples if isinstance(example, SailExample)]
        invalid = tuple(example for example in examples if isinstance(example, InvalidExample))
        if not valid:
            return {"batch": SailBatch(None, torch.empty(0, 0, dtype=torch.long), (), invalid)}
        stacked = self._processor.stack([example.encoded for example in valid])
        masks = tuple(example.masks for example in valid)
        images = tuple(example.image for example in valid if example.image is not None)
        words = [example.object_words for example in valid if example.object_words is not None]
        joined = _join_words(words) if words else None
        return {"batch": SailBatch(stacked.inputs, stacked.labels, masks, invalid, images, joined)}


def _join_words(words: Sequence[Tensor]) -> Tensor:
    """Join the words (L, C) of several samples to (B, L, C)."""
    length, longest = (max(own.shape[axis] for own in words) for axis in (0, 1))
    return torch.stack([F.pad(own, (0, longest - own.shape[1], 0, length - len(own)), value=_NO_WORD) for own in words])
