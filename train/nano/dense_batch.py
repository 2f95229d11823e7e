"""Conversations about clips of one grid as arrays, from the processes that draw them to the device.

Shape letters: B conversations, L tokens, M `<|mem|>` tokens, R `<|ref|>` tokens, G `<|seg|>` tokens, K reference
targets (of `<|mem|>` and `<|ref|>`), c cells of one frame, N cells of a clip, A attributes, P positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unipixel.memory.mask_pooling import TokenMasks
from unipixel.model.inputs import ReferencePrompt
from unipixel.model.qwen import rope_positions
from unipixel.processing.processor import IGNORED_LABEL, Processor
from unipixel.train.datasets.preprocessing import Example
from unipixel.train.nano.clip_pool import ClipArrays

# Lengths are rounded up, so that few shapes are met.
_LENGTH_STEP = 32


@dataclass(frozen=True)
class PackedBatch:
    """A batch as a worker process sends it.

    Attributes:
        clip_ids: (B,) clip of each conversation.
        arrays: By name, as in `DenseBatch`.
        references: (coords, frame, num_frames) of each `<|ref|>`.
    """

    clip_ids: tuple[int, ...]
    arrays: Mapping[str, NDArray[Any]]
    references: tuple[tuple[NDArray[np.float32], int, int], ...]


@dataclass(frozen=True)
class DenseBatch:
    """A batch on its device.

    Attributes:
        frames: (B, T, H, W, 3) uint8.
        attributes: (B, N, A) of the cells of each clip.
        positions: (B, N, P) of the cells of each clip.
        input_ids: (B, L), padded on the right.
        is_supervised: (B, L) bool, the tokens that are learned.
        position_ids: (3, B, L) time, row and column of each token.
        memory_rows: (M,) conversation of each `<|mem|>`, in the order of the text.
        memory_frames: (M,) frame that it shows.
        memory_slots: (M,) its number among those of the same conversation and frame.
        memory_coverage: (M, c) fraction of each cell of this frame that its object covers.
        memory_boxes_xyxy: (M, 4) box of its object on this frame, see `TokenMasks`.
        memory_times: (M,) time of this frame, see `TokenMasks`.
        num_memory_slots: Most `<|mem|>` of one conversation and frame.
        references: One per `<|ref|>`.
        mask_rows: (G,) conversation of each `<|seg|>`.
        mask_boxes: (G, 2, 2) corners of its object's box, x, y in pixels of SAM's input; NaN where it is not visible.
        mask_attributes: (G, A) numbers of the object's attributes.
        mask_coverage: (G, N) fraction of each cell that it covers on the frame on which its mask is asked for.
        reference_attributes: (K, A) attributes of what each `<|mem|>` or `<|ref|>` shows.
        reference_positions: (K, P) positions of what each `<|mem|>` or `<|ref|>` shows.
    """

    frames: Tensor
    attributes: Tensor
    positions: Tensor
    input_ids: Tensor
    is_supervised: Tensor
    position_ids: Tensor
    memory_rows: Tensor
    memory_frames: Tensor
    memory_slots: Tensor
    memory_coverage: Tensor
    memory_boxes_xyxy: Tensor
    memory_times: Tensor
    num_memory_slots: int
    references: tuple[ReferencePrompt, ...]
    mask_rows: Tensor
    mask_boxes: Tensor
    mask_attributes: Tensor
    mask_coverage: Tensor
    reference_attributes: Tensor
    reference_positions: Tensor

    @property
    def num_samples(self) -> int:
        """Number of conversations B."""
        return len(self.input_ids)


def pack(conversations: Sequence[tuple[int, Example]], processor: Processor) -> PackedBatch:
    """Lay out conversations about clips of one grid.

    Args:
        conversations: Clip and encoded conversation of each.
        processor: That of the model.
    """
    examples = [example for _, example in conversations]
    references = [reference for example in examples for reference in example.encoded.inputs.references]
    arrays = {**_pack_text(examples, processor), **_pack_memory(examples), **_pack_targets(examples)}
    return PackedBatch(
        tuple(clip_id for clip_id, _ in conversations),
        arrays,
        tuple((reference.coords.numpy(), reference.frame, reference.num_frames) for reference in references),
    )


def _pack_text(examples: Sequence[Example], processor: Processor) -> dict[str, NDArray[Any]]:
    lengths = [example.encoded.inputs.input_ids.shape[1] for example in examples]
    shape = len(examples), -(-max(lengths) // _LENGTH_STEP) * _LENGTH_STEP
    ids = np.full(shape, processor.tokenizer.pad_token_id, np.int32)
    is_supervised, position_ids = np.zeros(shape, bool), np.zeros((3, *shape), np.int32)
    for row, (example, length) in enumerate(zip(examples, lengths, strict=True)):
        inputs = example.encoded.inputs
        ids[row, :length] = inputs.input_ids[0].numpy()
        is_supervised[row, :length] = (example.encoded.labels[0] != IGNORED_LABEL).numpy()
        own, _ = rope_positions(inputs.input_ids, [length], inputs.videos, processor.config.rope_layout)
        position_ids[:, row, :length] = own[:, 0].numpy()
    return {"input_ids": ids, "is_supervised": is_supervised, "position_ids": position_ids}


def _pack_memory(examples: Sequence[Example]) -> dict[str, NDArray[Any]]:
    rows, frames, slots = [], [], []
    coverage, boxes, times = [torch.empty(0, 1)], [torch.empty(0, 4)], [torch.empty(0)]
    for row, example in enumerate(examples):
        own = [masks for masks in example.encoded.inputs.memory_masks if masks is not None]
        if not own:
            continue
        masks = TokenMasks.cat(own)
        is_visible = masks.is_visible
        rows += [row] * masks.num_tokens
        frames += is_visible.nonzero()[:, 1].tolist()
        # Number among the objects that are visible on the same frame.
        slots += (is_visible.cumsum(dim=0) - 1)[is_visible].tolist()
        coverage.append(masks.coverage.transpose(0, 1)[is_visible].flatten(1))
        boxes.append(masks.token_boxes_xyxy)
        times.append(masks.token_times)
    numbers = {"memory_rows": rows, "memory_frames": frames, "memory_slots": slots}
    return {
        **{name: np.array(values, np.int64) for name, values in numbers.items()},
        "memory_coverage": torch.cat(coverage[1:] or coverage).numpy(),
        "memory_boxes_xyxy": torch.cat(boxes).numpy(),
        "memory_times": torch.cat(times).numpy(),
    }


def _pack_targets(examples: Sequence[Example]) -> dict[str, NDArray[Any]]:
    """Join the targets of `<|seg|>`, `<|mem|>` and `<|ref|>` tokens."""
    targets = []
    for example in examples:
        if example.targets is None:
            raise ValueError(f"{example.name} has no dense targets: build examples with has_dense_targets")
        targets.append(example.targets)
    rows = [row for row, example in enumerate(examples) for _ in example.boxes]
    references = [own.references for own in targets]
    return {
        "mask_rows": np.array(rows, np.int64),
        "mask_boxes": torch.cat([example.boxes for example in examples]).numpy().astype(np.float32),
        "mask_attributes": torch.cat([own.target_attributes for own in targets]).numpy().astype(np.int8),
        "mask_coverage": torch.cat([own.anchor_coverage for own in targets]).numpy().astype(np.float16),
        "reference_attributes": torch.cat([own.attributes for own in references]).numpy().astype(np.int8),
        "reference_positions": torch.cat([own.positions for own in references]).numpy().astype(np.float16),
    }


@dataclass(frozen=True)
class DeviceBatch:
    """A batch on the device, without its clips.

    Attributes:
        clip_ids: Clip of each conversation.
        tensors: By name, as in `DenseBatch`.
        references: One per `<|ref|>`.
        num_memory_slots: As in `DenseBatch`.
    """

    clip_ids: tuple[int, ...]
    tensors: Mapping[str, Tensor]
    references: tuple[ReferencePrompt, ...]
    num_memory_slots: int


class DeviceClips:
    """Clips on the device of the training, each sent once."""

    def __init__(self, device: torch.device) -> None:
        """Start with none."""
        self._device = device
        self._clips: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def __len__(self) -> int:
        """Number of clips."""
        return len(self._clips)

    def add(self, clip: ClipArrays) -> None:
        """Send a clip to the device."""
        self._clips[clip.clip_id] = (
            torch.from_numpy(clip.frames).to(self._device),
            torch.from_numpy(clip.attributes).to(self._device),
            torch.from_numpy(clip.positions).to(self._device),
        )

    def send(self, packed: PackedBatch) -> DeviceBatch:
        """Send a batch to the device, without its clips."""
        tensors = {}
        for name, array in packed.arrays.items():
            tensor = torch.from_numpy(array)
            if self._device.type == "cuda":
                tensor = tensor.pin_memory()
            tensors[name] = tensor.to(self._device, non_blocking=True)
        references = tuple(
            ReferencePrompt(torch.from_numpy(coords), frame=frame, num_frames=count)
            for coords, frame, count in packed.references
        )
        slots = packed.arrays["memory_slots"]
        return DeviceBatch(packed.clip_ids, tensors, references, int(slots.max(initial=-1)) + 1)

    def join(self, batch: DeviceBatch) -> DenseBatch:
        """Add the clips of a batch to it."""
        clips = [self._clips[clip_id] for clip_id in batch.clip_ids]
        frames, attributes, positions = (torch.stack(parts) for parts in zip(*clips, strict=True))
        tensors = dict(batch.tensors)
        tensors["input_ids"], tensors["position_ids"] = tensors["input_ids"].long(), tensors["position_ids"].long()
        return DenseBatch(
            frames=frames, attributes=attributes, positions=positions, references=batch.references,
            num_memory_slots=batch.num_memory_slots, **tensors,
        )  # fmt: skip
