"""Samples of Pixel-SAIL: an image, regions with ids, turns, and one mask per `[SEG]`.

Shape letters: H, W image in pixels, K masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unipixel.model.inputs import ModelInputs
from unipixel.processing.chat_template import Turn
from unipixel.processing.processor import EncodedSample
from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.sail_config import SEG_TOKEN
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.datasets.collate import InvalidExample


@dataclass(frozen=True)
class SailSample:
    """One image with a conversation about it.

    Attributes:
        image: (H, W, 3) uint8 RGB; None for a conversation without an image.
        turns: Questions and answers, with prompts as `<PromptK>` and masks as `[SEG]`.
        masks: (H, W) bool, one per `[SEG]` of the answers, in their order; all False for "no target".
        prompts: Regions that the turns name.
    """

    image: NDArray[np.uint8] | None
    turns: tuple[Turn, ...]
    masks: tuple[NDArray[np.bool_], ...] = ()
    prompts: tuple[RegionPrompt, ...] = ()

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
    """

    encoded: EncodedSample
    masks: Tensor
    image: Tensor | None = None


@dataclass(frozen=True)
class SailBatch:
    """Several encoded samples.

    Attributes:
        inputs: Ids, padded on the right, and the images.
        labels: (B, L), -100 where nothing is learned.
        masks: Per sample (K, H, W) uint8.
        invalid: Samples that were left out of the batch; without any other, `inputs` is None.
        images: (H, W, 3) uint8 of the samples that have an image, for teachers; empty without teachers.
    """

    inputs: ModelInputs | None
    labels: Tensor
    masks: tuple[Tensor, ...]
    invalid: tuple[InvalidExample, ...] = ()
    images: tuple[Tensor, ...] = ()


def encode_sail(
    sample: SailSample, processor: SailProcessor, *, max_tokens: int | None = None, has_image: bool = False
) -> SailExample:
    """Encode a sample for training.

    Args:
        sample: The sample.
        processor: That of the model.
        max_tokens: Longest sequence; the end of a longer one is cut, with the masks of cut `[SEG]`.
        has_image: Whether the example contains the image itself, for teachers.

    Raises:
        ValueError: A prompt disappears on the grid, or the image alone is too long.
    """
    image = None if sample.image is None else processor.image(sample.image, sample.prompts)
    encoded = processor.encode(sample.turns, image=image, max_tokens=max_tokens)
    kept = int((encoded.inputs.input_ids == processor.config.seg_token_id).sum())
    masks = [torch.from_numpy(np.asarray(mask, dtype=np.uint8)) for mask in sample.masks[:kept]]
    stacked = torch.stack(masks) if masks else torch.empty(0, 1, 1, dtype=torch.uint8)
    is_kept = has_image and sample.image is not None
    return SailExample(encoded, stacked, torch.from_numpy(np.array(sample.image)) if is_kept else None)


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
        return {"batch": SailBatch(stacked.inputs, stacked.labels, masks, invalid, images)}
