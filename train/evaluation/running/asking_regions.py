"""Ways to ask a model about objects that masks, points or boxes mark, and multiple-choice questions.

Shape letters: O objects, T frames, H, W frame size, n tokens of a mask, C their width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unipixel.memory.injection import MemoryInjection
from unipixel.memory.rle import encode_rle
from unipixel.model.generation import prefill
from unipixel.processing.answer_parser import parse_answer
from unipixel.processing.chat_template import Turn
from unipixel.processing.prompt_templates import CHOICE_REQUEST, prefill_answer
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import FORCED_ANSWER
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.prefilling import accepted_ids
from unipixel.session.session import Session
from unipixel.train.evaluation.running.asking import frame_masks
from unipixel.train.evaluation.running.predictions import FrameMasks, Prediction
from unipixel.train.evaluation.running.sample_context import SampleContext
from unipixel.train.evaluation.running.set_of_mark import draw_marks

BEST_OPTION = "The best option is ("
"""Published beginning of the answers of VideoRefer-Bench-Q and PixelQA."""
MVBENCH_OPTION = "Best Option: ("
"""Published beginning of the answers of MVBench."""

_PROMPT = re.compile(r"<Prompt(\d+)>")


def ask_choice(context: SampleContext) -> Prediction:
    """Ask a multiple-choice question about a video (MVBench)."""
    conversation = _open(context, _images(context.session()))
    text = _ask(context, conversation, context.sample.question, prefix=MVBENCH_OPTION)
    return Prediction(sample=context.sample.name, text=text)


def ask_regions(context: SampleContext, *, prefix: str = "", has_masks: bool = False) -> Prediction:
    """Ask about objects whose masks are given (VideoRefer-Bench, PerBench, region captions).

    Args:
        context: The sample and the model.
        prefix: Published beginning of the answer.
        has_masks: Whether the masks of the answer are predicted too; they start from frame 0.
    """
    question = _PROMPT.sub(r"[\1]", str(context.sample.fields.get("query", context.sample.question)))
    if isinstance(context.model, PixelSail):
        # The captions and choices of PerBench have no masks to force.
        is_segmented = has_masks and context.sample.fields.get("task", "vres") == "vres"
        return _ask_image_regions(context, question, has_masks=is_segmented)
    session = context.session()
    conversation = _open(context, _images(session))
    memory = _given_memory(context, conversation)
    prefix = prefix if context.has_published_wording else ""
    reply = conversation.ask(Turn(question, memory=memory, answer_prefix=prefix))
    masks = None
    if has_masks and len(reply.mask_tokens):
        first_id = max(context.sample.prompts(), default=0) + 1
        tokens = {first_id + row: mask_tokens for row, mask_tokens in enumerate(reply.mask_tokens)}
        session.objects.add_tokens(tokens, dict.fromkeys(tokens, 0), expression=question)
        masks = _encode_tracks(context, session, list(tokens))
    return Prediction(sample=context.sample.name, masks=masks, text=_text(reply, prefix))


def _ask_image_regions(context: SampleContext, question: str, *, has_masks: bool) -> Prediction:
    """Ask Pixel-SAIL about objects that are drawn into an image.

    Where a mask is wanted and the answer has none, "It is [SEG]." is forced, as in its published evaluation.
    """
    session = context.session()
    prompts = context.sample.prompts()
    for object_id, given in prompts.items():
        session.prompt(object_id, *given)
    answer = session.ask(question)
    new_ids = [object_id for object_id in answer.new_ids if object_id not in prompts]
    if has_masks and not new_ids:
        session.restart()
        new_ids = list(session.ask(question, answer_prefix=FORCED_ANSWER).new_ids)
    masks = _encode_tracks(context, session, new_ids) if has_masks else None
    return Prediction(sample=context.sample.name, masks=masks, text=answer.text)


def ask_pixelqa(context: SampleContext) -> Prediction:
    """Ask about objects that points or boxes mark: the model segments them first, then answers (PixelQA).

    The ids and masks are those that the model generates (memory pre-filling). With the wording of sessions, this is
    `Session.ask`.
    """
    session = context.session()
    query = str(context.sample.fields["query"])
    named = _spatial_prompts(context)
    for object_id, prompt in named.items():
        session.prompt(object_id, prompt)
    if not context.has_published_wording:
        answer = session.ask(f"{query}\n{CHOICE_REQUEST}")
        session.objects.track()
        masks = _encode_tracks(context, session, list(named))
        return Prediction(sample=context.sample.name, masks=masks, text=answer.text)
    conversation = _open(context, _images(session))
    tokens = conversation.prefill(query, named).tokens
    tracker = session.objects.tracker
    kept = accepted_ids(tracker, tokens, named) if context.settings.prefill == "model" else tuple(named)
    accepted = {object_id: tokens[object_id] for object_id in kept}
    return _answer_about_tracks(context, session, conversation, accepted, list(named))


def ask_pixelqa_forced(context: SampleContext) -> Prediction:
    """Ask as the published evaluation of PixelQA does: the ids of round 1 are given, only the masks are predicted.

    Each mask starts from frame 0.
    """
    session = context.session()
    named = _spatial_prompts(context)
    for object_id, prompt in named.items():
        session.prompt(object_id, prompt)
    images = _images(session)
    tokens = forced_tokens(context, images, list(named.values()), list(named))
    return _answer_about_tracks(context, session, _open(context, images), tokens, list(named), anchor=0)


def ask_set_of_mark(context: SampleContext) -> Prediction:
    """Ask about marks that are drawn into the frames, without masks or memory (set-of-mark, arXiv:2310.11441)."""
    images = _images(context.session())
    for object_id, prompt in _spatial_prompts(context).items():
        images[prompt.frame_index] = draw_marks(images[prompt.frame_index], {object_id: prompt})
    question = f"{context.sample.fields['query']}\n{CHOICE_REQUEST}"
    text = _ask(context, _open(context, images), question, prefix=BEST_OPTION)
    return Prediction(sample=context.sample.name, text=text)


@torch.no_grad()
def forced_tokens(
    context: SampleContext,
    images: Sequence[NDArray[np.uint8]],
    prompts: Sequence[PointPrompt | BoxPrompt],
    object_ids: Sequence[int],
) -> dict[int, Tensor]:
    """Return the mask tokens (n, C) of each object after the given answer `[id] <|seg|> ...` of round 1.

    Args:
        context: The sample, whose question is that of round 1, and the model.
        images: Frames (H, W, 3).
        prompts: A point or box for each `<|ref|>`.
        object_ids: Their ids.
    """
    clip = context.processor.clip(images)
    turn = Turn(context.sample.question, prefill_answer(object_ids))
    inputs = context.processor.encode([turn], clip=clip, prompts=prompts).inputs
    states = prefill(context.model, inputs).hidden_states[0]
    positions = (inputs.input_ids[0] == context.model.config.seg_token_id).nonzero()[:, 0].tolist()
    # The state before a <|seg|> is the one that predicts it.
    rows = [context.model.mask_tokens(states[position - 1]) for position in positions]
    return dict(zip(object_ids, rows, strict=True))


def round_two_memory(
    context: SampleContext, conversation: Conversation, object_ids: Sequence[int], masks: NDArray[np.bool_]
) -> MemoryInjection:
    """Return the memory of the predicted masks; an object without a pixel marks the whole frames, as published.

    Args:
        context: The model.
        conversation: The conversation that it is for.
        object_ids: Ids in the order of the masks.
        masks: (T, O, H, W).
    """
    is_found = np.asarray(masks.any(axis=(0, 2, 3)))
    filled = np.where(is_found[None, :, None, None], masks, True)
    return context.processor.memory(list(object_ids), filled, conversation.layout)


def _answer_about_tracks(
    context: SampleContext,
    session: Session,
    conversation: Conversation,
    tokens: Mapping[int, Tensor],
    object_ids: Sequence[int],
    *,
    anchor: int | None = None,
) -> Prediction:
    """Track the objects from their mask tokens, or from their prompts where there are none, and ask round 2."""
    anchors = {
        object_id: session.objects.pending_prompts[object_id][0].frame_index if anchor is None else anchor
        for object_id in tokens
    }
    session.objects.track(tokens=tokens, anchors=anchors)
    masks = np.stack(list(frame_masks(session, object_ids)))
    memory = round_two_memory(context, conversation, object_ids, masks)
    question = f"{context.sample.fields['query']}\n{CHOICE_REQUEST}"
    text = _ask(context, conversation, question, prefix=BEST_OPTION, memory=memory)
    return Prediction(sample=context.sample.name, masks=_encode_tracks(context, session, object_ids), text=text)


def _ask(
    context: SampleContext,
    conversation: Conversation,
    question: str,
    *,
    prefix: str = "",
    memory: MemoryInjection | None = None,
) -> str:
    """Return the answer without its published beginning."""
    beginning = prefix if context.has_published_wording else ""
    return _text(conversation.ask(Turn(question, memory=memory, answer_prefix=beginning)), beginning)


def _text(reply: Reply, prefix: str) -> str:
    return parse_answer(reply.text.removeprefix(prefix)).display


def _open(context: SampleContext, images: Sequence[NDArray[np.uint8]]) -> Conversation:
    clip = context.processor.clip(images)
    return Conversation(context.model, context.processor, clip, settings=context.settings.generation)


def _images(session: Session) -> list[NDArray[np.uint8]]:
    """Return all frames (H, W, 3) of a session; a sample with regions or options has at most 32."""
    video = session.objects.video
    return [frame.image for frame in video.read(range(video.info.num_frames or 0))]


def _given_memory(context: SampleContext, conversation: Conversation) -> MemoryInjection | None:
    """Return the memory of the given masks, or None if no object has a pixel."""
    prompts = context.sample.prompts()
    if not prompts:
        return None
    layout = conversation.layout
    masks = np.zeros((layout.num_frames, len(prompts), *layout.frame_size), bool)
    for row, (object_id, given) in enumerate(prompts.items()):
        for prompt in given:
            if not isinstance(prompt, MaskPrompt):
                raise TypeError(f"object {object_id} must be given by masks, got {type(prompt).__name__}")
            if prompt.mask.shape != layout.frame_size:
                raise ValueError(
                    f"the mask of object {object_id} has (H, W) = {prompt.mask.shape}, the frames {layout.frame_size}"
                )
            masks[prompt.frame_index, row] = prompt.mask
    return context.processor.memory(list(prompts), masks, layout)


def _spatial_prompts(context: SampleContext) -> dict[int, PointPrompt | BoxPrompt]:
    """Return the point or box of each object."""
    prompts: dict[int, PointPrompt | BoxPrompt] = {}
    for object_id, given in context.sample.prompts().items():
        if len(given) != 1 or isinstance(given[0], MaskPrompt):
            raise TypeError(f"object {object_id} must be given by one point or box")
        prompts[object_id] = given[0]
    return prompts


def _encode_tracks(context: SampleContext, session: Session, object_ids: Sequence[int]) -> tuple[FrameMasks, ...]:
    tracks: list[dict[str, dict[str, object] | None]] = [{} for _ in object_ids]
    for name, masks in zip(context.sample.frames, frame_masks(session, object_ids), strict=True):
        for track, mask in zip(tracks, masks, strict=True):
            track[name] = encode_rle(mask) if mask.any() else None
    return tuple(tracks)
