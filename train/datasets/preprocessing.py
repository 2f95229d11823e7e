"""From a clip and what is said about it to what the model reads and is to answer.

Training comes through the same processor, templates and memory as inference (`unipixel.processing.processor`).

Shape letters: T frames, S SAM image size, H, W frame size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unipixel.processing import chat_template as tokens
from unipixel.processing import prompt_templates as templates
from unipixel.processing.clip_layout import ClipInput, ClipLayout
from unipixel.processing.processor import EncodedSample, Processor
from unipixel.processing.special_tokens import SEG
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt, VisualPrompt
from unipixel.train.datasets.samples import PromptAnnotation
from unipixel.train.datasets.synthetic import Sample
from unipixel.train.losses import label_masks
from unipixel.train.nano.dense_targets import ClipTargets, DenseTargets, clip_targets, conversation_targets


@dataclass(frozen=True)
class Example:
    """One conversation with the masks it names.

    Attributes:
        name: Says where it comes from.
        encoded: What the model reads; a batch of one.
        sam_frames: (T, 3, S, S) frames of the clip for SAM; empty where no masks are trained.
        masks: Per `<|seg|>` in the order of the text its masks (T, S, S) bool; none where no masks are trained.
        anchors: Per `<|seg|>` the frame on which a session would begin to follow the object: the prompted one,
            else the first where it is in sight.
        boxes: (G, 2, 2) per `<|seg|>` the corners of the box of its object on that frame, x, y in pixels of SAM's
            input; NaN where it is out of sight.
        targets: Dense targets of the clip and the conversation; None where they are not asked for.
    """

    name: str
    encoded: EncodedSample
    sam_frames: Tensor
    masks: tuple[Tensor, ...]
    anchors: tuple[int, ...]
    boxes: Tensor
    targets: DenseTargets | None = None


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
        has_masks: bool = True,
        has_dense_targets: bool = False,
    ) -> None:
        """Prepare to build.

        Args:
            processor: That of the model to be trained.
            max_tokens: Longest conversation that is accepted.
            has_masks: Whether to prepare what masks are trained on; the boxes of their objects come in any case.
            has_dense_targets: Whether to prepare targets of every token, which only synthetic clips have.
        """
        self._processor = processor
        self._has_masks = has_masks
        self._has_dense_targets = has_dense_targets
        self._max_tokens = max_tokens

    def prepare_clip(self, sample: Sample) -> tuple[ClipInput, ClipTargets | None]:
        """Prepare a clip for the model, with its dense targets where they are asked for."""
        clip = self._processor.clip(list(sample.clip.frames))
        return clip, clip_targets(sample, clip.layout) if self._has_dense_targets else None

    def build(
        self, sample: Sample, *, seed: int = 0, prepared: tuple[ClipInput, ClipTargets | None] | None = None
    ) -> Example:
        """Write the conversation of a sample.

        Args:
            sample: A clip with turns; see `unipixel.train.datasets.samples`.
            seed: Decides wordings and whether points and boxes are read before or as memory.
            prepared: From `prepare_clip`, where the clip was prepared before.

        Raises:
            ValueError: The sample contradicts itself, or is too long.
        """
        generator = random.Random(seed)
        clip, own_targets = self.prepare_clip(sample) if prepared is None else prepared
        script = self._script(sample, clip.layout, generator)
        encoded = self._processor.encode(script.turns, clip=clip, prompts=script.prompts)
        if self._max_tokens is not None and encoded.inputs.input_ids.shape[1] > self._max_tokens:
            raise ValueError(f"{encoded.inputs.input_ids.shape[1]} tokens, allowed are {self._max_tokens}")
        side = self._processor.config.segmenter.image_size
        # A question that points is answered on the frame it points at.
        prompted = {name: prompt.frame for name, prompt in sample.prompts.items() if script.prompts}
        coverages = [torch.from_numpy(np.ascontiguousarray(sample.clip.masks_of(name))) for name in script.seg_ids]
        found = [
            _anchor(coverage, side, prompted.get(name))
            for name, coverage in zip(script.seg_ids, coverages, strict=True)
        ]
        anchors = tuple(anchor for anchor, _ in found)
        masks: list[Tensor] = []
        frames = torch.empty(0)
        if self._has_masks and coverages:
            masks = [label_masks(coverage, (side, side)) for coverage in coverages]
            frames = torch.stack(list(self._processor.sam_frames(sample.clip.frames)))
        memories = [turn.memory for turn in script.turns if turn.memory is not None]
        targets = None
        if own_targets is not None:
            places = [clip.layout.frame_position(prompt.frame_index) for prompt in script.prompts]
            named = [
                (name, clip.layout.frame_position(frame)) for name, frame in zip(script.seg_ids, anchors, strict=True)
            ]
            referred = list(zip(script.referred_ids, places, strict=True))
            targets = conversation_targets(
                own_targets,
                sample.clip.object_ids,
                named=named,
                memories=memories,
                referred=referred,
            )
        boxes = torch.stack([box for _, box in found]) if found else torch.empty(0, 2, 2)
        name = f"{sample.split}/{sample.task}/{sample.seed}"
        return Example(name, encoded, frames, tuple(masks), anchors, boxes, targets)

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
        turns = [tokens.Turn(question, templates.prefill_answer(order))]
        return _Script(turns, prompts, list(order), list(order))

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


def _anchor(coverage: Tensor, side: int, prompted: int | None) -> tuple[int, Tensor]:
    """Frame on which an object (T, H, W) is pointed at, or first seen, and its box (2, 2) there at SAM's size."""
    candidates = range(len(coverage)) if prompted is None else (prompted,)
    for frame in candidates:
        if coverage[frame].any():
            places = label_masks(coverage[frame : frame + 1], (side, side))[0].nonzero().flip(1).float()
            if len(places):
                return frame, torch.stack([places.amin(dim=0), places.amax(dim=0) + 1])
    return candidates[0], torch.full((2, 2), float("nan"))


def _refer(sample: Sample, generator: random.Random) -> _Script:
    """A caption of what a point or box shows: the reference stands in the question itself (stage 1)."""
    turn = sample.turns[0]
    marked, order = templates.mark_references(turn.question, tuple(sample.prompts))
    prompts = [_to_prompt(sample.prompts[object_id]) for object_id in order]
    turns = [tokens.Turn(marked, turn.answer)]
    return _Script(turns, prompts, list(order), list(turn.target_ids))


def _to_prompt(prompt: PromptAnnotation) -> VisualPrompt:
    if prompt.point is not None:
        return PointPrompt(prompt.point[0], prompt.point[1], frame_index=prompt.frame)
    if prompt.box_xyxy is not None:
        return BoxPrompt(prompt.box_xyxy, frame_index=prompt.frame)
    raise ValueError(f"a prompt of the kind {prompt.kind!r} cannot stand in a question: it goes into the memory")
