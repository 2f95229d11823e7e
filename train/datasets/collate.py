"""Collation of examples: padded texts, joined clips, and the frames on which masks are trained.

Shape letters: F frames of all clips, M tracks, L frames of a track, S SAM image size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unipixel.processing.processor import EncodedSample, Processor
from unipixel.train.datasets.preprocessing import Example
from unipixel.train.recipe import AnchorFrame


@dataclass(frozen=True)
class InvalidExample:
    """A sample that cannot be used.

    Attributes:
        name: Identifies it.
        reason: Why it is invalid.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class MaskSampling:
    """Sampling of the frames on which masks are trained.

    Attributes:
        num_frames: Frames of a track.
        max_objects: Masks per sample, chosen at random.
        anchor_frame: `first`, as in the paper: a track starts on the clip's first frame. `visible`: it starts as in a
            session, see `Example.anchors`, and runs in either direction.
        single_frame_fraction: Fraction of the batches whose tracks have one frame.
    """

    num_frames: int
    max_objects: int = 5
    anchor_frame: AnchorFrame = "first"
    single_frame_fraction: float = 0.0

    def track(self, count: int, *, anchor: int, is_single: bool, generator: random.Random) -> tuple[int, ...]:
        """Choose the frames of one object's track.

        Args:
            count: Frames of the clip.
            anchor: Frame where a session would predict its mask first.
            is_single: Whether the track has one frame.
            generator: Source of randomness.

        Returns:
            Frames in the order of tracking.
        """
        length = 1 if is_single else self.num_frames
        if self.anchor_frame == "first":
            steps = [round(step * (count - 1) / max(length - 1, 1)) for step in range(length)]
            return tuple(steps if count > length else range(count))
        directions = [list(range(anchor, count)), list(range(anchor, -1, -1))]
        complete = [frames for frames in directions if len(frames) >= length]
        frames = generator.choice(complete) if complete else max(directions, key=len)
        # Short tracks repeat their last frame.
        return tuple((frames + frames[-1:] * length)[:length])


_TENSORS = ("frames", "seg_indices", "tracks", "labels", "lengths")


@dataclass(frozen=True)
class ExampleBatch:
    """Conversations with their masks.

    Attributes:
        encoded: Texts, clips and prompts.
        frames: (F, 3, S, S) frames for SAM, only those with trained masks.
        seg_indices: (M,) index of each track's `<|seg|>` among those of the batch, in the order of the texts.
        tracks: (M, L) indices into `frames`.
        labels: (M, L, S, S) bool.
        lengths: (M,) frames of each track; the rest of a row repeats its last frame and is not trained.
        invalid: Samples that were left out of the batch.
    """

    encoded: EncodedSample | None
    frames: Tensor
    seg_indices: Tensor
    tracks: Tensor
    labels: Tensor
    lengths: Tensor
    invalid: tuple[InvalidExample, ...] = ()

    @property
    def num_samples(self) -> int:
        """Samples of the batch, invalid ones included."""
        return len(self.invalid) + (0 if self.encoded is None else len(self.encoded.inputs.input_ids))

    def to(self, device: torch.device) -> ExampleBatch:
        """Return the batch on a device."""
        encoded = self.encoded
        if encoded is not None:
            encoded = replace(encoded, inputs=encoded.inputs.to(device), labels=encoded.labels.to(device))
        moved = {name: getattr(self, name).to(device) for name in _TENSORS}
        return replace(self, encoded=encoded, **moved)


class ExampleCollator:
    """Collates examples of one task."""

    def __init__(self, processor: Processor, mask_sampling: MaskSampling | None) -> None:
        """Prepare to collate.

        Args:
            processor: Processor of the model.
            mask_sampling: Frames on which masks are trained; None trains none.
        """
        self._processor = processor
        self._mask_sampling = mask_sampling

    def __call__(self, examples: Sequence[Example | InvalidExample]) -> dict[str, ExampleBatch]:
        """Return the batch under the objective's keyword; invalid samples are left out and listed."""
        valid = [example for example in examples if isinstance(example, Example)]
        invalid = tuple(example for example in examples if isinstance(example, InvalidExample))
        encoded = self._processor.stack([example.encoded for example in valid]) if valid else None
        return {"batch": replace(self._masks(valid), encoded=encoded, invalid=invalid)}

    def _masks(self, examples: Sequence[Example]) -> ExampleBatch:
        """Choose the tracks.

        The random choices follow from the name of each sample and the number of the batch in the run, not from the
        other samples: a batch that is divided among processes has the same tracks.
        """
        sampling = self._mask_sampling
        no_indices = torch.empty(0, dtype=torch.long)
        empty = ExampleBatch(None, torch.empty(0), no_indices, no_indices, torch.empty(0, dtype=torch.bool), no_indices)
        if sampling is None or not any(example.masks for example in examples):
            return empty
        is_single = random.Random(examples[0].batch_number).random() < sampling.single_frame_fraction
        frames: list[Tensor] = []
        positions: dict[tuple[int, int], int] = {}
        seg_indices, tracks, labels, first = [], [], [], 0
        for number, example in enumerate(examples):
            count, generator = len(example.masks), random.Random(example.name)
            for row in sorted(generator.sample(range(count), min(sampling.max_objects, count))):
                masks, anchor = example.masks[row], example.anchors[row]
                track = sampling.track(len(masks), anchor=anchor, is_single=is_single, generator=generator)
                for frame in track:
                    if (number, frame) not in positions:
                        positions[number, frame] = len(frames)
                        frames.append(example.sam_frames[frame])
                seg_indices.append(first + row)
                tracks.append([positions[number, frame] for frame in track])
                labels.append(masks[list(track)])
            first += count
        lengths = [len(track) for track in tracks]
        steps = torch.arange(max(lengths))
        return replace(
            empty,
            frames=torch.stack(frames),
            seg_indices=torch.tensor(seg_indices),
            tracks=torch.stack([torch.tensor(track)[steps.clamp(max=len(track) - 1)] for track in tracks]),
            labels=torch.stack([label[steps.clamp(max=len(label) - 1)] for label in labels]),
            lengths=torch.tensor(lengths),
        )
