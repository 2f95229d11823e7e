"""Samples of Pixel-SAIL: an image, regions with ids, turns, and one mask per `[SEG]`.

Shape letters: H, W image in pixels, K masks, h, w rows and columns of patches, W words of a patch, N patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from unipixel.model.inputs import ModelInputs
from unipixel.processing.chat_template import Turn
from unipixel.processing.processor import EncodedSample
from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.sail_config import SEG_TOKEN
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.datasets.collate import InvalidExample

_NO_WORD = -100
_MIN_COVERAGE = 0.3


@dataclass(frozen=True)
class NamedRegion:
    """A region of an image with the words that describe it.

    Attributes:
        mask: (H, W) bool.
        words: Such as its colour and its shape.
    """

    mask: NDArray[np.bool_]
    words: tuple[str, ...]


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
        patch_words: (h * w, W) ids of the words of each patch, -100 where there are fewer; None without them.
    """

    encoded: EncodedSample
    masks: Tensor
    image: Tensor | None = None
    patch_words: Tensor | None = None


@dataclass(frozen=True)
class SailBatch:
    """Several encoded samples.

    Attributes:
        inputs: Ids, padded on the right, and the images.
        labels: (B, L), -100 where nothing is learned.
        masks: Per sample (K, H, W) uint8.
        invalid: Samples that were left out of the batch; without any other, `inputs` is None.
        images: (H, W, 3) uint8 of the samples that have an image, for teachers; empty without teachers.
        patch_words: (N, W) ids of the words of the patches of all images, -100 where there are fewer; None without.
    """

    inputs: ModelInputs | None
    labels: Tensor
    masks: tuple[Tensor, ...]
    invalid: tuple[InvalidExample, ...] = ()
    images: tuple[Tensor, ...] = ()
    patch_words: Tensor | None = None


def encode_sail(
    sample: SailSample,
    processor: SailProcessor,
    *,
    max_tokens: int | None = None,
    has_image: bool = False,
    has_patch_words: bool = False,
) -> SailExample:
    """Encode a sample for training.

    Args:
        sample: The sample.
        processor: That of the model.
        max_tokens: Longest sequence; the end of a longer one is cut, with the masks of cut `[SEG]`.
        has_image: Whether the example contains the image itself, for teachers.
        has_patch_words: Whether the example contains the words of each patch.

    Raises:
        ValueError: A prompt disappears on the grid, or the image alone is too long.
    """
    image = None if sample.image is None else processor.image(sample.image, sample.prompts)
    encoded = processor.encode(sample.turns, image=image, max_tokens=max_tokens)
    kept = int((encoded.inputs.input_ids == processor.config.seg_token_id).sum())
    masks = [torch.from_numpy(np.asarray(mask, dtype=np.uint8)) for mask in sample.masks[:kept]]
    stacked = torch.stack(masks) if masks else torch.empty(0, 1, 1, dtype=torch.uint8)
    if sample.image is None:
        return SailExample(encoded, stacked)
    return SailExample(
        encoded,
        stacked,
        torch.from_numpy(np.array(sample.image)) if has_image else None,
        encode_patch_words(sample, processor) if has_patch_words else None,
    )


def encode_patch_words(sample: SailSample, processor: SailProcessor) -> Tensor:
    """Return the words of the object that each patch of an image shows.

    Args:
        sample: With an image and its regions.
        processor: That of the model. Words of several tokens are left out.

    Returns:
        (h * w, W) int64 ids, -100 where a patch has fewer words; a patch shows the object that covers most of it, if
        that is at least `_MIN_COVERAGE`.
    """
    height, width = (0, 0) if sample.image is None else sample.image.shape[:2]
    size, patch = processor.fit_size(height, width), processor.config.patch_size
    num_patches = (size[0] // patch) * (size[1] // patch)
    if not sample.regions:
        return torch.full((num_patches, 1), _NO_WORD)
    masks = torch.from_numpy(np.stack([region.mask for region in sample.regions])).float()
    cells = F.interpolate(masks[None], size=(size[0] // patch, size[1] // patch), mode="area")[0].flatten(1)
    coverage, owner = cells.max(dim=0)
    tokenizer = processor.tokenizer
    tokens = [[tokenizer.encode(f" {word}", add_special_tokens=False) for word in own.words] for own in sample.regions]
    rows = [[ids[0] for ids in own if len(ids) == 1] for own in tokens]
    longest = max(1, *map(len, rows))
    table = torch.tensor([row + [_NO_WORD] * (longest - len(row)) for row in rows])
    return torch.where((coverage >= _MIN_COVERAGE)[:, None], table[owner], _NO_WORD)


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
        words = [example.patch_words for example in valid if example.patch_words is not None]
        joined = _join_words(words) if words else None
        return {"batch": SailBatch(stacked.inputs, stacked.labels, masks, invalid, images, joined)}


def _join_words(words: Sequence[Tensor]) -> Tensor:
    """Join the words (h * w, W) of several images to (N, W)."""
    longest = max(own.shape[1] for own in words)
    return torch.cat([F.pad(own, (0, longest - own.shape[1]), value=_NO_WORD) for own in words])
