"""Tracks of prompted objects, from the processes that draw them to the device, where they are cut from their clips.

Shape letters: N clips of a batch, L frames of a track, T frames of a rendered clip, B objects, P prompts of a kind,
S image size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from unipixel.tracking.clip_features import normalise_colours
from unipixel.tracking.types import SegmentPrompt
from unipixel.train.losses import LABEL_THRESHOLD
from unipixel.train.memory_rollout import FirstFramePrompts
from unipixel.train.nano.segmenter.first_frame_prompts import NUM_BOXES, UNKNOWN_ATTRIBUTES, ObjectPrompt
from unipixel.train.segmenter_objective import TrackBatch

_POINT_LABELS = {"point": (1,), "box": (2, 3)}


@dataclass(frozen=True)
class TrackClip:
    """What training keeps of a clip on its device.

    Attributes:
        clip_id: Number of the clip in the run.
        frames: (T, H, W, 3) uint8.
        owners: (T, H, W) uint8, 1 + the row of the object that is visible in each pixel, or 0.
    """

    clip_id: int
    frames: NDArray[np.uint8]
    owners: NDArray[np.uint8]


@dataclass(frozen=True)
class TrackView:
    """Which part of a clip a track shows.

    Attributes:
        clip_id: Number of the clip in the run.
        frames: Its L frames, in the order of tracking.
        crop: Rows and columns of the part.
        is_mirrored: Whether it is mirrored.
        channels: Order of the colour channels.
        rows: Row of each prompted object; None for a box without an object.
    """

    clip_id: int
    frames: tuple[int, ...]
    crop: tuple[slice, slice]
    is_mirrored: bool
    channels: tuple[int, ...]
    rows: tuple[int | None, ...]


@dataclass(frozen=True)
class PackedTracks:
    """A batch as a worker process sends it.

    Attributes:
        views: The N parts of clips.
        prompt_rows: By kind, (P,) the objects that it prompts, in the order of the views and of their rows.
        coords: By kind, (P, ...) points, boxes or candidate boxes in pixels of the image; none for masks.
        attributes: (P, A) attributes that the tokens contain.
        num_trained: Number of the last frames on which masks are trained.
        is_stream: Whether the clips are tracked as streams of unknown length.
    """

    views: tuple[TrackView, ...]
    prompt_rows: Mapping[str, NDArray[np.int64]]
    coords: Mapping[str, NDArray[np.float32]]
    attributes: NDArray[np.int64]
    num_trained: int
    is_stream: bool


def pack_tracks(
    views: Sequence[TrackView], prompts: Sequence[ObjectPrompt], *, num_trained: int, is_stream: bool
) -> PackedTracks:
    """Lay out the views of a batch with the prompts of all their objects, in their order."""
    rows: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt.kind, []).append(row)
    coords = {
        kind: torch.stack([prompts[row].coords for row in chosen]).numpy()
        for kind, chosen in rows.items()
        if kind != "mask"
    }
    attributes = [prompts[row].attributes for row in rows.get("token", ())]
    return PackedTracks(
        views=tuple(views),
        prompt_rows={kind: np.array(chosen, np.int64) for kind, chosen in rows.items()},
        coords=coords,
        attributes=(torch.stack(attributes) if attributes else UNKNOWN_ATTRIBUTES.expand(0, -1)).numpy(),
        num_trained=num_trained,
        is_stream=is_stream,
    )


class DeviceTracks:
    """Clips on the device of the training, each sent once."""

    def __init__(self, device: torch.device, *, side: int) -> None:
        """Start with none; `side` is the side S of the segmenter's input in pixels."""
        self._device, self._side = device, side
        self._clips: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, clip: TrackClip) -> None:
        """Send a clip to the device."""
        self._clips[clip.clip_id] = self._upload(clip.frames), self._upload(clip.owners)

    def send(self, packed: PackedTracks) -> tuple[PackedTracks, dict[str, Tensor]]:
        """Send the prompts of a batch to the device."""
        arrays: dict[str, NDArray[Any]] = {f"rows/{kind}": rows for kind, rows in packed.prompt_rows.items()}
        arrays |= {f"coords/{kind}": coords for kind, coords in packed.coords.items()}
        arrays["attributes"] = packed.attributes
        arrays["samples"] = np.repeat(np.arange(len(packed.views)), [len(view.rows) for view in packed.views])
        return packed, {name: self._upload(array) for name, array in arrays.items()}

    def join(self, batch: tuple[PackedTracks, dict[str, Tensor]]) -> TrackBatch:
        """Cut the frames and masks of a batch from their clips."""
        packed, tensors = batch
        parts = [self._cut(view) for view in packed.views]
        frames = normalise_colours(torch.cat([frames for frames, _ in parts]))
        labels = torch.cat([labels for _, labels in parts])
        length = labels.shape[1]
        prompts = []
        for kind, rows in packed.prompt_rows.items():
            rows_tensor = tensors[f"rows/{kind}"]
            if kind == "mask":
                prompts.append(FirstFramePrompts(rows_tensor, masks=labels[rows_tensor, 0]))
            elif kind in _POINT_LABELS:
                point_labels = torch.tensor(_POINT_LABELS[kind], device=self._device).expand(len(rows), -1)
                prompt = SegmentPrompt(coords=tensors[f"coords/{kind}"], labels=point_labels)
                prompts.append(FirstFramePrompts(rows_tensor, prompt))
        empty = frames.new_empty(0, NUM_BOXES, 2, 2)
        starts = tensors["samples"] * length
        return TrackBatch(
            frames=frames,
            tracks=starts[:, None] + torch.arange(length, device=self._device),
            labels=labels,
            prompts=tuple(prompts),
            token_rows=tensors.get("rows/token", starts[:0]),
            boxes_xyxy=tensors.get("coords/token", empty),
            attributes=tensors["attributes"],
            samples=tensors["samples"],
            num_samples=len(packed.views),
            num_frames=None if packed.is_stream else length,
            first_step=length - packed.num_trained,
        )

    def _cut(self, view: TrackView) -> tuple[Tensor, Tensor]:
        """Return frames (L, 3, S, S) in [0, 1] and masks (b, L, S, S) of a view."""
        frames, owners = self._clips[view.clip_id]
        part = (list(view.frames), *view.crop)
        pixels = frames[part][..., list(view.channels)].permute(0, 3, 1, 2).float() / 255
        # No object has the number 0 of the background here.
        numbers = [255 if row is None else row + 1 for row in view.rows]
        masks = owners[part][:, None] == torch.tensor(numbers, device=self._device)[:, None, None]
        planes = torch.cat([pixels, masks.float()], dim=1)
        if view.is_mirrored:
            planes = planes.flip(-1)
        planes = F.interpolate(planes, size=(self._side, self._side), mode="bilinear", antialias=True)
        return planes[:, :3], (planes[:, 3:] > LABEL_THRESHOLD).transpose(0, 1)

    def _upload(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return (tensor.pin_memory() if self._device.type == "cuda" else tensor).to(self._device, non_blocking=True)
