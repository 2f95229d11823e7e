"""Examples into batches: texts padded, clips joined, and which masks are trained on which frames.

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
from unipixel.train.recipe import Anchor


@dataclass(frozen=True)
class InvalidExample:
    """A sample that could not be used.

    Attributes:
        name: Says where it comes from.
        reason: What is wrong with it.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class MaskSampling:
    """On which frames the masks of a sample are trained.

    Attributes:
        num_frames: Frames of a track.
        max_objects: Masks per sample, a random choice of them.
        anchor: `first`, as in the paper: a track starts on the clip's first frame. `visible`: it starts
            where a session would, see `Example.anchors`, and runs in either direction.
        single_frame_fraction: Share of the batches in which only the first frame of a track is segmented.
    """

    num_frames: int
    max_objects: int = 5
    anchor: Anchor = "first"
    single_frame_fraction: float = 0.0

    def track(self, count: int, *, anchor: int, is_single: bool, generator: random.Random) -> tuple[int, ...]:
        """Choose frames of one object.

        Args:
            count: Frames of the clip.
            anchor: Frame on which a session would begin to follow it.
            is_single: Whether only the first frame is wanted.
            generator: Source of the choices.

        Returns:
            Frames in the order of tracking.
        """
        length = 1 if is_single else self.num_frames
        if self.anchor == "first":
            steps = [round(step * (count - 1) / max(length - 1, 1)) for step in range(length)]
            return tuple(steps if count > length else range(count))
        ways = [list(range(anchor, count)), list(range(anchor, -1, -1))]
        long = [way for way in ways if len(way) >= length]
        way = generator.choice(long) if long else max(ways, key=len)
        # What is still too short rests on its last frame, as a clip that stands still.
        return tuple((way + way[-1:] * length)[:length])


@dataclass(frozen=True)
class ExampleBatch:
    """Conversations with the masks they name.

    Attributes:
        encoded: Texts, clips and prompts.
        frames: (F, 3, S, S) frames for SAM, only those that are trained on.
        owners: (M,) which `<|seg|>` of the batch each track belongs to, in the order of the texts.
        tracks: (M, L) indices into `frames`.
        labels: (M, L, S, S) bool.
        broken: Samples that are missing from the batch.
    """

    encoded: EncodedSample | None
    frames: Tensor
    owners: Tensor
    tracks: Tensor
    labels: Tensor
    broken: tuple[InvalidExample, ...] = ()

    def to(self, device: torch.device) -> ExampleBatch:
        """Return the same batch on a device."""
        encoded = self.encoded
        if encoded is not None:
            encoded = replace(encoded, inputs=encoded.inputs.to(device), labels=encoded.labels.to(device))
        moved = {name: getattr(self, name).to(device) for name in ("frames", "owners", "tracks", "labels")}
        return replace(self, encoded=encoded, **moved)


class ExampleCollator:
    """Joins examples of one task."""

    def __init__(self, processor: Processor, plan: MaskSampling | None) -> None:
        """Prepare to join.

        Args:
            processor: That of the model.
            plan: Where masks are trained; None where they are not (stage 1).
        """
        self._processor = processor
        self._plan = plan

    def __call__(self, examples: Sequence[Example | InvalidExample]) -> dict[str, ExampleBatch]:
        """Return the batch under the objective's keyword; broken samples are left out and named."""
        whole = [example for example in examples if isinstance(example, Example)]
        broken = tuple(example for example in examples if isinstance(example, InvalidExample))
        encoded = self._processor.stack([example.encoded for example in whole]) if whole else None
        return {"batch": replace(self._masks(whole), encoded=encoded, broken=broken)}

    def _masks(self, examples: Sequence[Example]) -> ExampleBatch:
        """Lay out the tracks; the names of the samples decide every choice."""
        plan = self._plan
        nothing = torch.empty(0, dtype=torch.long)
        empty = ExampleBatch(None, torch.empty(0), nothing, nothing, torch.empty(0, dtype=torch.bool))
        if plan is None or not any(example.masks for example in examples):
            return empty
        generator = random.Random("|".join(example.name for example in examples))
        is_single = generator.random() < plan.single_frame_fraction
        frames: list[Tensor] = []
        places: dict[tuple[int, int], int] = {}
        owners, tracks, labels, first = [], [], [], 0
        for number, example in enumerate(examples):
            count = len(example.masks)
            for row in sorted(generator.sample(range(count), min(plan.max_objects, count))):
                masks, anchor = example.masks[row], example.anchors[row]
                track = plan.track(len(masks), anchor=anchor, is_single=is_single, generator=generator)
                for frame in track:
                    if (number, frame) not in places:
                        places[number, frame] = len(frames)
                        frames.append(example.sam_frames[frame])
                owners.append(first + row)
                tracks.append([places[number, frame] for frame in track])
                labels.append(masks[list(track)])
            first += count
        length = min(len(track) for track in tracks)
        return replace(
            empty,
            frames=torch.stack(frames),
            owners=torch.tensor(owners),
            tracks=torch.tensor([track[:length] for track in tracks]),
            labels=torch.stack([label[:length] for label in labels]),
        )
