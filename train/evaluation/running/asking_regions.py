"""Ways to ask a model about objects that masks, points or boxes mark, and multiple-choice questions.

Shape letters: O objects, T frames, H, W frame size, n tokens of a mask, C their width.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.injection import MemoryInjection
from unipixel.memory.rle import encode_rle
from unipixel.processing.answer_parser import parse_answer
from unipixel.processing.chat_template import Turn
from unipixel.processing.clip_layout import ClipInput
from unipixel.processing.frame_sampling import select_frames
from unipixel.processing.visual_prompts import MaskPrompt
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_processor import FORCED_ANSWER
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.session import Session
from unipixel.train.evaluation.running.asking import frame_masks
from unipixel.train.evaluation.running.predictions import FrameMasks, Prediction
from unipixel.train.evaluation.running.sample_context import SampleContext

BEST_OPTION = "The best option is ("
"""Published beginning of the answers of VideoRefer-Bench-Q and PixelQA."""
MVBENCH_OPTION = "Best Option: ("
"""Published beginning of the answers of MVBench."""

# Frames of the published evaluation; a checkpoint whose budget has fewer was trained with those.
_PUBLISHED_FRAMES = 16
_PROMPT = re.compile(r"<Prompt(\d+)>")


def ask_choice(context: SampleContext) -> Prediction:
    """Ask a multiple-choice question about a video (MVBench)."""
    conversation = open_conversation(context, read_images(context.session()))
    text = ask_text(context, conversation, context.sample.question, prefix=MVBENCH_OPTION)
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
    shown = [given[0].frame_index for given in context.sample.prompts().values()]
    conversation = open_conversation(context, read_images(session), kept=shown)
    memory = _given_memory(context, conversation)
    prefix = prefix if context.has_published_wording else ""
    reply = conversation.ask(Turn(question, memory=memory, answer_prefix=prefix))
    masks = None
    if has_masks and len(reply.mask_tokens):
        first_id = max(context.sample.prompts(), default=0) + 1
        tokens = {first_id + row: mask_tokens for row, mask_tokens in enumerate(reply.mask_tokens)}
        session.objects.add_tokens(tokens, dict.fromkeys(tokens, 0), expression=question)
        masks = encode_tracks(context, session, list(tokens))
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
    masks = encode_tracks(context, session, new_ids) if has_masks else None
    return Prediction(sample=context.sample.name, masks=masks, text=answer.text)


def ask_text(
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


def open_conversation(
    context: SampleContext, images: Sequence[NDArray[np.uint8]], *, kept: Sequence[int] = ()
) -> Conversation:
    """Open a conversation about the frames of a sample; see `language_clip`."""
    clip = language_clip(context, images, kept=kept)
    return Conversation(context.model, context.processor, clip, settings=context.settings.generation)


def language_clip(context: SampleContext, images: Sequence[NDArray[np.uint8]], *, kept: Sequence[int]) -> ClipInput:
    """Return the frames of the sample that the language model gets, with those that have a prompt.

    These are all, as published, unless the settings or the budget of the checkpoint allow fewer.

    Args:
        context: The sample and the model.
        images: All frames (H, W, 3) of the sample.
        kept: Frames that have a prompt.
    """
    budget = context.processor.budget
    limit = len(images) if budget.num_frames >= _PUBLISHED_FRAMES else budget.num_frames
    count = context.settings.num_frames or limit
    indices = select_frames(len(images), count, kept=sorted(set(kept))[:count])
    return context.processor.clip(
        [images[index] for index in indices], frame_indices=indices, num_video_frames=len(images)
    )


def read_images(session: Session) -> list[NDArray[np.uint8]]:
    """Return all frames (H, W, 3) of a session; a sample with regions or options has at most 32."""
    video = session.objects.video
    return [frame.image for frame in video.read(range(video.info.num_frames or 0))]


def _given_memory(context: SampleContext, conversation: Conversation) -> MemoryInjection | None:
    """Return the memory of the given masks, or None if no object has a pixel on the frames of the conversation."""
    layout = conversation.layout
    positions = {frame: position for position, frame in enumerate(layout.frame_indices)}
    prompts = {
        object_id: shown
        for object_id, given in context.sample.prompts().items()
        if (shown := [prompt for prompt in given if prompt.frame_index in positions])
    }
    if not prompts:
        return None
    masks = np.zeros((layout.num_frames, len(prompts), *layout.frame_size), bool)
    for row, (object_id, given) in enumerate(prompts.items()):
        for prompt in given:
            if not isinstance(prompt, MaskPrompt):
                raise TypeError(f"object {object_id} must be given by masks, got {type(prompt).__name__}")
            if prompt.mask.shape != layout.frame_size:
                raise ValueError(
                    f"the mask of object {object_id} has (H, W) = {prompt.mask.shape}, the frames {layout.frame_size}"
                )
            masks[positions[prompt.frame_index], row] = prompt.mask
    return context.processor.memory(list(prompts), masks, layout)


def encode_tracks(context: SampleContext, session: Session, object_ids: Sequence[int]) -> tuple[FrameMasks, ...]:
    """Return the masks of objects on all frames of a sample, as a prediction has them."""
    tracks: list[dict[str, dict[str, object] | None]] = [{} for _ in object_ids]
    for name, masks in zip(context.sample.frames, frame_masks(session, object_ids), strict=True):
        for track, mask in zip(tracks, masks, strict=True):
            track[name] = encode_rle(mask) if mask.any() else None
    return tuple(tracks)
