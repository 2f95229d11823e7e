"""Conversion of samples into model inputs and targets.

Training uses the processor, templates and memory of inference (`unipixel.processing.processor`).

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
from unipixel.processing.special_tokens import REF, SEG
from unipixel.processing.visual_prompts import BoxPrompt, PointPrompt, VisualPrompt
from unipixel.train.datasets.samples import PromptAnnotation
from unipixel.train.datasets.synthetic import Sample
from unipixel.train.losses import label_masks
from unipixel.train.nano.dense_targets import ClipTargets, DenseTargets, clip_targets, conversation_targets


@dataclass(frozen=True)
class Example:
    """One conversation with its masks.

    Attributes:
        name: Identifies the sample.
        encoded: Inputs and labels of the model; a batch of one.
        sam_frames: (T, 3, S, S) frames of the clip for SAM; empty where no masks are trained.
        masks: Per `<|seg|>` in the order of the text its masks (T, S, S) bool; none where no masks are trained.
        anchors: Per `<|seg|>` the frame where a session would first predict its mask: the prompted one, else the first
            where the object is visible.
        boxes: (G, 2, 2) per `<|seg|>` the corners of its object's box on that frame, x, y in pixels of SAM's input;
            NaN where the object is not visible.
        targets: Dense targets of the clip and the conversation, where the builder computes them.
        batch_number: Number of the example's micro batch in the run, over all processes.
    """

    name: str
    encoded: EncodedSample
    sam_frames: Tensor
    masks: tuple[Tensor, ...]
    anchors: tuple[int, ...]
    boxes: Tensor
    targets: DenseTargets | None = None
    batch_number: int = 0


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
            processor: Processor of the model.
            max_tokens: Longest conversation; None is no limit.
            has_masks: Whether examples have masks and frames for SAM; they have boxes in any case.
            has_dense_targets: Whether examples have targets of every token, which only synthetic clips have.
        """
        self._processor = processor
        self._has_masks = has_masks
        self._has_dense_targets = has_dense_targets
        self._max_tokens = max_tokens

    def prepare_clip(self, sample: Sample) -> tuple[ClipInput, ClipTargets | None]:
        """Prepare a clip for the model, with its dense targets where the builder computes them."""
        clip = self._processor.clip(list(sample.clip.frames))
        return clip, clip_targets(sample, clip.layout) if self._has_dense_targets else None

    def build(
        self, sample: Sample, *, seed: int = 0, prepared: tuple[ClipInput, ClipTargets | None] | None = None
    ) -> Example:
        """Build the example of a sample.

        Args:
            sample: A clip with turns; see `unipixel.train.datasets.samples`.
            seed: Seed of the wordings and of the choice between pre-filling and a question with memory.
            prepared: Result of `prepare_clip`; None prepares the clip.

        Raises:
            ValueError: The sample is inconsistent, or too long.
        """
        generator = random.Random(seed)
        if not len(sample.clip.frames):
            encoded = self._processor.encode([tokens.Turn(turn.question, turn.answer) for turn in sample.turns])
            self._check_length(encoded)
            return Example(_name(sample), encoded, torch.empty(0), (), (), torch.empty(0, 2, 2))
        clip, clip_dense = self.prepare_clip(sample) if prepared is None else prepared
        script = self._script(sample, clip.layout, generator)
        encoded = self._processor.encode(script.turns, clip=clip, prompts=script.prompts)
        self._check_length(encoded)
        side = self._processor.config.segmenter.image_size
        # Masks of prompted objects are first predicted on the prompted frame.
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
        targets = None
        if clip_dense is not None:
            targets = _conversation_targets(sample, clip.layout, script, clip_dense, anchors)
        boxes = torch.stack([box for _, box in found]) if found else torch.empty(0, 2, 2)
        return Example(_name(sample), encoded, frames, tuple(masks), anchors, boxes, targets)

    def _check_length(self, encoded: EncodedSample) -> None:
        num_tokens = encoded.inputs.input_ids.shape[1]
        if self._max_tokens is not None and num_tokens > self._max_tokens:
            raise ValueError(f"the conversation has {num_tokens} tokens, allowed are {self._max_tokens}")

    def _script(self, sample: Sample, layout: ClipLayout, generator: random.Random) -> _Script:
        prompted = [name for name, prompt in sample.prompts.items() if prompt.kind in ("point", "box")]
        if prompted and sample.task == "caption":
            return _refer(sample, generator)
        if prompted:
            return self._prefill(sample, layout, generator)
        return self._converse(sample, layout, known=tuple(sample.prompts))

    def _prefill(self, sample: Sample, layout: ClipLayout, generator: random.Random) -> _Script:
        """Return one step of memory pre-filling (section 3.2): masks of prompts, or the question with memory."""
        turn = sample.turns[0]
        marked, order = templates.mark_references(turn.question, tuple(sample.prompts))
        # A session pre-fills on a copy of the cache: the question has the masks in its context, not the pre-filling.
        # Published sets for pre-filling have other questions than those with memory.
        if sample.task != "prefill" and generator.random() < 0.5:
            return self._converse(sample, layout, known=order)
        question = templates.prefill_question(marked, generator=generator)
        prompts = [_to_prompt(sample.prompts[object_id]) for object_id in order]
        turns = [tokens.Turn(question, templates.prefill_answer(order))]
        return _Script(turns, prompts, list(order), list(order))

    def _converse(self, sample: Sample, layout: ClipLayout, *, known: Sequence[int]) -> _Script:
        """Return a conversation in which each turn starts with the memory of objects segmented since the last."""
        turns: list[tokens.Turn] = []
        seg_ids: list[int] = []
        # Sorted by id, as in a session.
        pending, injected = sorted(known), set[int]()
        for turn in sample.turns:
            if turn.answer.count(SEG) != len(turn.target_ids):
                raise ValueError(
                    f"the answer {turn.answer!r} has {turn.answer.count(SEG)} {SEG}, "
                    f"but {len(turn.target_ids)} target objects"
                )
            memory = None
            if pending:
                masks = np.stack([sample.clip.masks_of(object_id) for object_id in pending], axis=1)
                memory = self._processor.memory(pending, masks, layout, is_update=bool(turns))
                injected.update(pending)
            turns.append(tokens.Turn(turn.question, turn.answer, memory))
            seg_ids += turn.target_ids
            pending = []
            if sample.task == "conversation":
                pending = sorted({name for name in turn.target_ids if name not in injected})
        return _Script(turns, [], [], seg_ids)


def _conversation_targets(
    sample: Sample, layout: ClipLayout, script: _Script, clip_dense: ClipTargets, anchors: Sequence[int]
) -> DenseTargets:
    """Compute the dense targets of a conversation, given the anchor frame of each `<|seg|>`."""
    positions = [layout.frame_position(prompt.frame_index) for prompt in script.prompts]
    return conversation_targets(
        clip_dense,
        sample.clip.object_ids,
        named=[(name, layout.frame_position(frame)) for name, frame in zip(script.seg_ids, anchors, strict=True)],
        memories=[turn.memory for turn in script.turns if turn.memory is not None],
        referred=list(zip(script.referred_ids, positions, strict=True)),
    )


def _anchor(coverage: Tensor, side: int, prompted: int | None) -> tuple[int, Tensor]:
    """Return the prompted or first visible frame of an object (T, H, W), and its box (2, 2) there in SAM's input."""
    candidates = range(len(coverage)) if prompted is None else (prompted,)
    for frame in candidates:
        if coverage[frame].any():
            pixels = label_masks(coverage[frame : frame + 1], (side, side))[0].nonzero().flip(1).float()
            if len(pixels):
                return frame, torch.stack([pixels.amin(dim=0), pixels.amax(dim=0) + 1])
    return candidates[0], torch.full((2, 2), float("nan"))


def _refer(sample: Sample, generator: random.Random) -> _Script:
    """Return a caption of prompted objects, with the prompts in the question itself (stage 1)."""
    turn = sample.turns[0]
    marked, order = templates.mark_references(turn.question, tuple(sample.prompts))
    if REF in turn.question:
        # Published captions write the prompt without an id.
        marked, order = turn.question, tuple(sample.prompts)
    prompts = [_to_prompt(sample.prompts[object_id]) for object_id in order]
    turns = [tokens.Turn(marked, turn.answer)]
    return _Script(turns, prompts, list(order), list(turn.target_ids))


def _name(sample: Sample) -> str:
    return f"{sample.split}/{sample.task}/{sample.seed}"


def _to_prompt(prompt: PromptAnnotation) -> VisualPrompt:
    if prompt.point is not None:
        return PointPrompt(prompt.point[0], prompt.point[1], frame_index=prompt.frame)
    if prompt.box_xyxy is not None:
        return BoxPrompt(prompt.box_xyxy, frame_index=prompt.frame)
    raise ValueError(f"a prompt of the kind {prompt.kind!r} cannot be part of a question: it belongs to the memory")
