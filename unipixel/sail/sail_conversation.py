"""The conversation of Pixel-SAIL about one image: the image is processed once, later turns read new tokens only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unipixel.model.generation import AnswerStream, GenerationSettings, prefill, stream_text
from unipixel.model.inputs import ModelInputs
from unipixel.model.qwen import PromptCache
from unipixel.processing.chat_template import Turn
from unipixel.processing.special_tokens import CONTROL_TOKENS, SEG
from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_config import SEG_TOKEN, VISION_TOKENS
from unipixel.sail.sail_inputs import ImagePatches, PatchStates
from unipixel.sail.sail_processor import SailProcessor, from_prompt_tokens
from unipixel.session.callbacks import TextCallback
from unipixel.session.conversation import Reply

# What may still become `<Prompt3>`, `</p>` or `[SEG]`.
_INCOMPLETE = re.compile(r"(?:<[^<>\s]*|\[[A-Z]*)$")


@dataclass(frozen=True)
class SailReply(Reply):
    """Output of the model in one turn, without the tokens of empty masks; `mask_tokens` are logits (K, H, W).

    Attributes:
        num_masks: Masks of the answer, including empty ones: "no target" is an empty mask.
    """

    num_masks: int


@dataclass(frozen=True)
class SailConversationState:
    """State of a conversation.

    Attributes:
        prompts: Regions that are drawn into the image.
        image: The image with these prompts.
        image_cache: Keys and values of the image alone; None before the first turn, and where the image is a part of
            the first message.
        prompt_cache: Keys and values of the image and all turns; None before the first turn.
        turns: All turns with their answers, to be processed again when the prompts change.
        has_ended: Whether the last answer ended with its end token.
        num_masks: Masks of the last answer.
    """

    prompts: tuple[RegionPrompt, ...] = ()
    image: ImagePatches | None = None
    image_cache: PromptCache | None = None
    prompt_cache: PromptCache | None = None
    turns: tuple[Turn, ...] = ()
    has_ended: bool = True
    num_masks: int = 0


class SailConversation:
    """A conversation about one image; the KV cache of the image and of earlier turns is reused."""

    def __init__(
        self,
        model: PixelSail,
        processor: SailProcessor,
        image: NDArray[np.uint8],
        *,
        settings: GenerationSettings | None = None,
        max_upsampled_bytes: int = 0,
    ) -> None:
        """Start a conversation without computing anything.

        Args:
            model: The model.
            processor: Prepares the inputs of the model.
            image: (H, W, 3) uint8 RGB.
            settings: Settings of the text generation.
            max_upsampled_bytes: Bytes up to which the upsampled image is kept for the masks of later turns.
        """
        self._model, self._processor, self._image = model, processor, image
        self._settings = settings or GenerationSettings()
        self._max_upsampled_bytes = max_upsampled_bytes
        self._state = SailConversationState()
        self._features: tuple[PatchStates, Tensor] | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the image, of all cached keys and values, and of the upsampled image."""
        state = self._state
        parts = (state.image, state.image_cache, state.prompt_cache)
        features = self._features[1] if self._features else None
        kept = 0 if features is None else features.numel() * features.element_size()
        return self._image.nbytes + kept + sum(part.num_bytes for part in parts if part is not None)

    def snapshot(self) -> SailConversationState:
        """Return the state, for `restore`."""
        return self._state

    def restore(self, snapshot: SailConversationState) -> None:
        """Go back to an earlier state; the turns since then are removed."""
        self._state = snapshot

    def ask(
        self, turn: Turn, prompts: Sequence[RegionPrompt] = (), *, on_text: TextCallback | None = None
    ) -> SailReply:
        """Generate an answer, and append question and answer to the conversation.

        Other prompts than in the last turn are drawn into the image, which is then read again with all turns.

        Args:
            turn: The question, with prompts as `<PromptK>`. A beginning of the answer that contains `[SEG]` is the
                whole answer: its mask is given without generating a token.
            prompts: Regions with their ids.
            on_text: Receives the generated text piece by piece, up to the first mask: empty masks are removed from the
                answer when they are known. Called at every token; if it raises, the turn ends and the conversation is
                not changed.

        Raises:
            ValueError: A prompt is invalid, see `SailProcessor.image`, or the conversation is too long.
        """
        before, inputs, num_earlier = self._next_inputs(self._with_prompts(prompts), turn)
        cache = before.prompt_cache or before.image_cache
        self._check_length(inputs, cache)
        num_generated = 0
        if SEG_TOKEN in turn.answer_prefix:
            text, queries, after, num_read, has_ended = self._force(inputs, cache, turn)
        else:
            stream = AnswerStream(self._model, inputs, prompt_cache=cache, settings=self._settings, decode=self._decode)
            generation = stream_text(stream, to_text=self._text_before_masks, on_text=on_text)
            text = turn.answer_prefix + self._decode(generation.token_ids)
            num_generated = len(generation.token_ids)
            queries, after = generation.mask_tokens, generation.prompt_cache
            num_read, has_ended = generation.num_read_tokens, generation.stop_reason == "end"
        if after is None:
            raise RuntimeError("a batch of one has no prompt cache")
        # The image was read before this turn in the same call.
        num_read += num_earlier
        masks = self._masks(after, queries)
        answered = replace(turn, answer=_without_control_tokens(text) or None, answer_prefix="")
        self._state = replace(
            before,
            prompt_cache=after,
            turns=(*before.turns, answered) if answered.answer else before.turns,
            has_ended=has_ended,
            num_masks=len(masks),
        )
        is_empty = [not bool((mask > 0).any()) for mask in masks]
        kept = masks[[index for index, empty in enumerate(is_empty) if not empty]]
        return SailReply(
            _without_empty(from_prompt_tokens(text), is_empty),
            kept,
            num_read,
            len(masks),
            num_generated_tokens=num_generated,
        )

    def _with_prompts(self, prompts: Sequence[RegionPrompt]) -> SailConversationState:
        """Return the state to continue from; the image and the turns are to be read again if the prompts differ."""
        state = self._state
        if state.image is not None and _are_equal(state.prompts, prompts):
            return state
        image = self._processor.image(self._image, prompts)
        return SailConversationState(tuple(prompts), image, turns=state.turns)

    def _next_inputs(self, state: SailConversationState, turn: Turn) -> tuple[SailConversationState, ModelInputs, int]:
        """Return the state with the image read, the inputs of a turn, and the tokens of the image if it is read now."""
        if state.prompt_cache is not None:
            return state, self._processor.encode_later_turn(turn, has_ended=state.has_ended).inputs, 0
        image = state.image
        sample = self._processor.encode([*state.turns, turn], image=image).inputs
        if image is None or not self._processor.chat_format.is_visual_first:
            return state, sample, 0
        block = self._processor.image_block(image).inputs
        num_block = block.input_ids.shape[1]
        self._check_length(sample, None)
        # The block alone, as its tokens see each other but no text: all turns can continue it.
        state = replace(state, image_cache=prefill(self._model, block).prompt_cache)
        return state, replace(sample, input_ids=sample.input_ids[:, num_block:], videos=()), num_block

    @torch.no_grad()
    def _force(
        self, inputs: ModelInputs, cache: PromptCache | None, turn: Turn
    ) -> tuple[str, Tensor, PromptCache | None, int, bool]:
        """Read a question with its whole answer and return the queries of its masks."""
        output = prefill(self._model, inputs, prompt_cache=cache)
        states = self._model.seg_states_of(output.hidden_states[0], output.input_ids[0].to(self._model.device))
        return turn.answer_prefix, self._model.mask_tokens(states), output.prompt_cache, output.lengths[0], False

    @torch.no_grad()
    def _masks(self, cache: PromptCache, queries: Tensor) -> Tensor:
        """Return the logits (K, H, W) of masks."""
        if not len(queries):
            return queries.new_zeros(0, *self._image.shape[:2])
        patches = cache.video
        if not isinstance(patches, PatchStates):
            raise ValueError("the conversation has no image to segment: ask about an image")
        if self._features is None or self._features[0] is not patches:
            self._features = None
            if self._model.num_feature_bytes(patches) <= self._max_upsampled_bytes:
                self._features = (patches, self._model.pixel_features(patches))
        features = self._features[1] if self._features else None
        return self._model.segment(patches, queries, features=features).cpu()

    def _check_length(self, inputs: ModelInputs, cache: PromptCache | None) -> None:
        total = inputs.input_ids.shape[1] + (cache.num_tokens if cache else 0)
        limit = self._model.config.max_positions
        if total >= limit:
            raise ValueError(
                f"the image and the conversation have {total} tokens, the model takes at most {limit - 1}: start a new "
                "session, or give a smaller image"
            )

    def _decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode(list(ids))

    def _text_before_masks(self, ids: Sequence[int]) -> str:
        """Return the text up to the first mask, or to a token that is incomplete."""
        text, _, _ = from_prompt_tokens(self._decode(ids)).partition(SEG)
        return _INCOMPLETE.sub("", text).rstrip()


def _without_control_tokens(text: str) -> str:
    """Remove what an untrained model may generate but a turn of a conversation must not contain."""
    for token in (*VISION_TOKENS, *CONTROL_TOKENS):
        text = text.replace(token, "")
    return text.strip()


def _without_empty(text: str, is_empty: Sequence[bool]) -> str:
    """Remove the tokens of empty masks from a text, with the space before them."""
    pieces = text.split(SEG)
    joined = pieces[0]
    for empty, piece in zip(is_empty, pieces[1:], strict=True):
        joined = joined.rstrip() + piece if empty else joined + SEG + piece
    return joined


def _are_equal(first: Sequence[RegionPrompt], second: Sequence[RegionPrompt]) -> bool:
    return [prompt.prompt_id for prompt in first] == [prompt.prompt_id for prompt in second] and all(
        np.array_equal(ours.mask, theirs.mask) for ours, theirs in zip(first, second, strict=True)
    )
