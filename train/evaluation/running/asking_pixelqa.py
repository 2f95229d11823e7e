"""Ways to ask PixelQA: end to end, with given ids as published, and with drawn marks (UniPixel, section 4.2).

Shape letters: O objects, T frames, H, W frame size, n tokens of a mask, C their width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unipixel.memory.injection import MemoryInjection
from unipixel.model.generation import prefill
from unipixel.processing.chat_template import Turn
from unipixel.processing.prompt_templates import CHOICE_REQUEST, prefill_answer
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt
from unipixel.session.conversation import Conversation
from unipixel.session.prefilling import accepted_ids
from unipixel.session.session import Session
from unipixel.train.evaluation.running.asking import frame_masks
from unipixel.train.evaluation.running.asking_regions import (
    BEST_OPTION,
    ask_text,
    encode_tracks,
    language_clip,
    open_conversation,
    read_images,
)
from unipixel.train.evaluation.running.predictions import Prediction
from unipixel.train.evaluation.running.sample_context import SampleContext
from unipixel.train.evaluation.running.set_of_mark import draw_marks


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
        masks = encode_tracks(context, session, list(named))
        return Prediction(sample=context.sample.name, masks=masks, text=answer.text)
    conversation = open_conversation(
        context, read_images(session), kept=[prompt.frame_index for prompt in named.values()]
    )
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
    images = read_images(session)
    tokens = forced_tokens(context, images, list(named.values()), list(named))
    conversation = open_conversation(context, images, kept=[prompt.frame_index for prompt in named.values()])
    return _answer_about_tracks(context, session, conversation, tokens, list(named), anchor=0)


def ask_set_of_mark(context: SampleContext) -> Prediction:
    """Ask about marks that are drawn into the frames, without masks or memory (set-of-mark, arXiv:2310.11441)."""
    images = read_images(context.session())
    named = _spatial_prompts(context)
    for object_id, prompt in named.items():
        images[prompt.frame_index] = draw_marks(images[prompt.frame_index], {object_id: prompt})
    question = f"{context.sample.fields['query']}\n{CHOICE_REQUEST}"
    conversation = open_conversation(context, images, kept=[prompt.frame_index for prompt in named.values()])
    text = ask_text(context, conversation, question, prefix=BEST_OPTION)
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
    clip = language_clip(context, images, kept=[prompt.frame_index for prompt in prompts])
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
        masks: (T, O, H, W) on all frames.
    """
    masks = masks[list(conversation.layout.frame_indices)]
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
    text = ask_text(context, conversation, question, prefix=BEST_OPTION, memory=memory)
    return Prediction(sample=context.sample.name, masks=encode_tracks(context, session, object_ids), text=text)


def _spatial_prompts(context: SampleContext) -> dict[int, PointPrompt | BoxPrompt]:
    """Return the point or box of each object."""
    prompts: dict[int, PointPrompt | BoxPrompt] = {}
    for object_id, given in context.sample.prompts().items():
        if len(given) != 1 or isinstance(given[0], MaskPrompt):
            raise TypeError(f"object {object_id} must be given by one point or box")
        prompts[object_id] = given[0]
    return prompts
