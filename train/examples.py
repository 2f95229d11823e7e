"""From a clip and what is said about it to what the model reads and is to answer.

Training comes through the same processor, templates and memory as inference (`unipixel.processor`).

Shape letters: T frames, S SAM image size, H, W frame size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unipixel import templates, tokens
from unipixel.clip import ClipLayout
from unipixel.processor import Processor
from unipixel.processor import Sample as EncodedSample
from unipixel.prompts import BoxPrompt, PointPrompt, VisualPrompt
from unipixel.special import SEG
from unipixel.train.datasets.world import Sample
from unipixel.train.datasets.world.schema import VisualPrompt as DrawnPrompt
from unipixel.train.losses import label_masks
from unipixel.train.sight import Sight, see_clip


@dataclass(frozen=True)
class Example:
    """One conversation with the masks it names.

    Attributes:
        name: Says where it comes from.
        encoded: What the model reads; a batch of one.
        sam_frames: (T, 3, S, S) frames of the clip for SAM.
        masks: Per `<|seg|>` in the order of the text its masks (T, S, S) bool.
        anchors: Per `<|seg|>` the frame on which a session would begin to follow the object: the prompted one,
            else the first where it is in sight.
        sight: What is where in the clip; None where it is not asked for.
    """

    name: str
    encoded: EncodedSample
    sam_frames: Tensor
    masks: tuple[Tensor, ...]
    anchors: tuple[int, ...]
    sight: Sight | None = None


@dataclass(frozen=True)
class _Script:
    """A conversation before it is encoded."""

    turns: list[tokens.Turn]
    prompts: list[VisualPrompt]
    referred_ids: list[int]
    seg_ids: list[int]


class ExampleBuilder:
    """Turns samples into examples for one model."""

    def __init__(
        self,
        processor: Processor,
        *,
        max_tokens: int | None = None,
        has_sight: bool = False,
        has_outlines: bool = False,
    ) -> None:
        """Prepare to build.

        Args:
            processor: That of the model to be trained.
            max_tokens: Longest conversation that is accepted.
            has_sight: Whether to say what is where, which only the drawn world knows.
            has_outlines: Whether to describe outlines with it.
        """
        self._processor = processor
        self._has_sight, self._has_outlines = has_sight, has_outlines
        self._max_tokens = max_tokens

    def build(self, sample: Sample, *, seed: int = 0) -> Example:
        """Write the conversation of a sample.

        Args:
            sample: A clip with turns; see `unipixel.train.datasets.world.schema`.
            seed: Decides wordings and whether points and boxes are read before or as memory.

        Raises:
            ValueError: The sample contradicts itself, or is too long.
        """
        generator = random.Random(seed)
        clip = self._processor.clip(list(sample.clip.frames))
        script = self._script(sample, clip.layout, generator)
        encoded = self._processor.encode(script.turns, clip=clip, prompts=script.prompts)
        if self._max_tokens is not None and encoded.inputs.input_ids.shape[1] > self._max_tokens:
            raise ValueError(f"{encoded.inputs.input_ids.shape[1]} tokens, allowed are {self._max_tokens}")
        side = self._processor.config.segmenter.image_size
        masks = []
        for object_id in script.seg_ids:
            coverage = torch.from_numpy(np.ascontiguousarray(sample.clip.masks_of(object_id)))
            masks.append(label_masks(coverage, (side, side)))
        frames = torch.stack(list(self._processor.sam_frames(sample.clip.frames))) if masks else torch.empty(0)
        # A question that points is answered on the frame it points at.
        prompted = {name: prompt.frame for name, prompt in sample.prompts.items() if script.prompts}
        anchors = tuple(prompted.get(name, _first_seen(mask)) for name, mask in zip(script.seg_ids, masks, strict=True))
        memories = [turn.memory for turn in script.turns if turn.memory is not None]
        sight = None
        if self._has_sight:
            places = [clip.layout.place(prompt.frame_index) for prompt in script.prompts]
            named = list(zip(script.seg_ids, anchors, strict=True))
            referred = list(zip(script.referred_ids, places, strict=True))
            sight = see_clip(
                sample, clip.layout, named=named, memories=memories, referred=referred, has_outlines=self._has_outlines
            )
        return Example(f"{sample.split}/{sample.task}/{sample.seed}", encoded, frames, tuple(masks), anchors, sight)

    def _script(self, sample: Sample, layout: ClipLayout, generator: random.Random) -> _Script:
        pointed = [name for name, prompt in sample.prompts.items() if prompt.kind in ("point", "box")]
        if pointed and sample.task == "caption":
            return _refer(sample, generator)
        if pointed:
            return self._prefill(sample, layout, generator)
        return self._converse(sample, layout, known=tuple(sample.prompts))

    def _prefill(self, sample: Sample, layout: ClipLayout, generator: random.Random) -> _Script:
        """Memory pre-filling: points and boxes become masks, and masks the memory of the question (section 3.2)."""
        turn = sample.turns[0]
        marked, order = templates.mark_references(turn.question, tuple(sample.prompts))
        # A session localizes on a fork: the question that follows sees the masks, not the localizing.
        if generator.random() < 0.5:
            return self._converse(sample, layout, known=order)
        question = templates.prefill_question(marked, generator=generator)
        prompts = [_to_prompt(sample.prompts[object_id]) for object_id in order]
        return _Script([tokens.Turn(question, templates.prefill_answer(order))], prompts, list(order), list(order))

    def _converse(self, sample: Sample, layout: ClipLayout, *, known: Sequence[int]) -> _Script:
        """A conversation in which each turn opens with the memory of objects found since the last."""
        turns: list[tokens.Turn] = []
        seg_ids: list[int] = []
        # In the order of a session, which injects by id.
        waiting, remembered = sorted(known), set[int]()
        for turn in sample.turns:
            if turn.answer.count(SEG) != len(turn.target_ids):
                raise ValueError(
                    f"the answer {turn.answer!r} holds {turn.answer.count(SEG)} {SEG}, "
                    f"its masks belong to {len(turn.target_ids)} objects"
                )
            memory = None
            if waiting:
                masks = np.stack([sample.clip.masks_of(object_id) for object_id in waiting], axis=1)
                memory = self._processor.memory(waiting, masks, layout, is_update=bool(turns))
                remembered.update(waiting)
            turns.append(tokens.Turn(turn.question, turn.answer, memory))
            seg_ids += turn.target_ids
            waiting = []
            if sample.task == "conversation":
                waiting = sorted({name for name in turn.target_ids if name not in remembered})
        return _Script(turns, [], [], seg_ids)


def _first_seen(masks: Tensor) -> int:
    """First frame of masks (T, S, S) that shows anything, or 0."""
    return int(masks.flatten(1).any(dim=1).int().argmax())


def _refer(sample: Sample, generator: random.Random) -> _Script:
    """A caption of what a point or box shows: the reference stands in the question itself (stage 1)."""
    turn = sample.turns[0]
    marked, order = templates.mark_references(turn.question, tuple(sample.prompts))
    prompts = [_to_prompt(sample.prompts[object_id]) for object_id in order]
    return _Script([tokens.Turn(marked, turn.answer)], prompts, list(order), list(turn.target_ids))


def _to_prompt(prompt: DrawnPrompt) -> VisualPrompt:
    if prompt.point is not None:
        return PointPrompt(prompt.point[0], prompt.point[1], frame_index=prompt.frame)
    if prompt.box_xyxy is not None:
        return BoxPrompt(prompt.box_xyxy, frame_index=prompt.frame)
    raise ValueError(f"a prompt of the kind {prompt.kind!r} cannot stand in a question: it goes into the memory")
