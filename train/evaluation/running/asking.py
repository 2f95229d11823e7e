"""Ways to ask a model about a sample: for the masks of what a text describes, or for the masks of tracked objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.rle import encode_rle
from unipixel.session.session import Session
from unipixel.train.evaluation.running.predictions import Prediction
from unipixel.train.evaluation.running.sample_context import SampleContext


def ask_referring(context: SampleContext) -> Prediction:
    """Ask for the mask of what an expression describes; the mask is the union of all objects in the answer.

    An answer without an object has empty masks: the model states that there is no such object.

    Raises:
        OSError: A frame cannot be read.
        ValueError: The question cannot be asked.
    """
    session = context.clip_session()
    answer = session.ask(context.sample.question)
    unions = (_encode(np.asarray(masks.any(axis=0))) for masks in frame_masks(session, answer.new_ids))
    frames = dict(zip(context.sample.frames, unions, strict=True))
    return Prediction(sample=context.sample.name, masks=(frames,), text=answer.text)


def ask_tracker(context: SampleContext) -> Prediction:
    """Track the objects of the first masks, without the language model.

    The predictions are disjoint, as those of a label image: where objects overlap, the lower id has the pixel.

    Raises:
        OSError: A frame or mask cannot be read.
        ValueError: There is no mask to start from.
    """
    prompts = context.sample.prompts()
    if not prompts:
        raise ValueError(f"{context.sample.name}: the first frame has no object")
    session = context.session()
    for object_id, given in prompts.items():
        session.prompt(object_id, *given)
    session.objects.track()
    ids = sorted(prompts)
    tracks: list[dict[str, Any]] = [dict.fromkeys(context.sample.frames) for _ in range(max(ids))]
    for name, masks in zip(context.sample.frames, frame_masks(session, ids), strict=True):
        is_taken = np.zeros(masks.shape[1:], dtype=bool)
        for object_id, mask in zip(ids, masks, strict=True):
            tracks[object_id - 1][name] = _encode(mask & ~is_taken)
            is_taken |= mask
    return Prediction(sample=context.sample.name, masks=tuple(tracks))


def frame_masks(session: Session, object_ids: Sequence[int]) -> Iterator[NDArray[np.bool_]]:
    """Yield the masks (O, H, W) of objects in each frame of a session."""
    for index in range(session.objects.video.info.num_frames or 0):
        yield session.bank.masks_on([index], object_ids=tuple(object_ids))[0]


def _encode(mask: NDArray[np.bool_]) -> dict[str, Any] | None:
    """Encode a mask (H, W); an empty one is None."""
    return encode_rle(mask) if mask.any() else None
