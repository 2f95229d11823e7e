"""Prepares the inputs of Pixel-SAIL from images, prompts and turns, for training and inference.

Shape letters: H, W image in pixels, L tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unipixel.model.inputs import ModelInputs
from unipixel.processing.chat_template import (
    ChatFormat,
    EncodedText,
    RenderedText,
    Tokenizer,
    Turn,
    encode_text,
    load_tokenizer,
    render_conversation,
    render_later_turn,
)
from unipixel.processing.image_processing import check_frames
from unipixel.processing.processor import EncodedSample, ids_and_labels, stack_samples
from unipixel.processing.special_tokens import END_OF_TEXT, IM_END, IM_START, SEG
from unipixel.sail.patch_grid import (
    PromptOrder,
    RegionPrompt,
    fit_area,
    fit_long_side,
    image_to_patches,
    prompt_index_map,
)
from unipixel.sail.sail_config import (
    IMAGE_PLACEHOLDER,
    PROMPT_TOKENS,
    SAIL_TOKENS,
    SEG_TOKEN,
    VISION_TOKENS,
    PixelSailConfig,
)
from unipixel.sail.sail_inputs import ImagePatches

IMAGE_TAG = "<image>"
PREFIX_FORMAT = ChatFormat(
    system="",
    visual_start="<vision>",
    visual_token="<vpatch>",
    visual_end="</vision>",
    is_visual_first=True,
    answer_start="",
    answer_end=END_OF_TEXT,
    separator="",
)
"""The format of Pixel-SAIL 0.5B and 3B: the image first, no role before an answer, nothing between turns."""
EVE_FORMAT = ChatFormat(
    system="",
    visual_start="",
    visual_token=IMAGE_TAG,
    visual_end="\n",
    is_visual_first=False,
    answer_start=f"{IM_START}assistant\n",
    answer_end=IM_END,
    separator="",
)
"""The format of the EVEv2 variant: ChatML with the image in the first message."""
FORCED_ANSWER = f"It is {SEG_TOKEN}."
"""Beginning of an answer that gives the mask of a question without generating a token."""

_MENTION = re.compile(r"\[(\d{1,4})\]")
_PROMPT = re.compile(r"<Prompt(\d{1,2})>")
_PHRASE_TAGS = re.compile(r"</?p>")


def to_prompt_tokens(text: str, *, num_prompts: int) -> str:
    """Name objects as the model does: `[3]` becomes `<Prompt3>`.

    Raises:
        ValueError: An id is out of range.
    """

    def rename(match: re.Match[str]) -> str:
        if int(match[1]) >= num_prompts:
            raise ValueError(
                f"the text names [{match[1]}]: Pixel-SAIL has prompt ids 0 to {num_prompts - 1}, give the object "
                "another id"
            )
        return f"<Prompt{int(match[1])}>"

    return _MENTION.sub(rename, text)


def from_prompt_tokens(text: str) -> str:
    """Convert generated text to the form of `parse_answer`: `<Prompt3>` to `[3]`, `[SEG]` to `<|seg|>`."""
    return _PHRASE_TAGS.sub("", _PROMPT.sub(r"[\1]", text.replace(SEG_TOKEN, SEG)))


class SailProcessor:
    """Prepares inputs for one Pixel-SAIL model; stateless.

    Attributes:
        config: Configuration of the model.
        tokenizer: Its tokenizer.
        chat_format: How its conversations are rendered.
    """

    def __init__(self, config: PixelSailConfig, tokenizer: Tokenizer) -> None:
        """Set up the preparation of inputs for a model.

        Args:
            config: Configuration of the model.
            tokenizer: Has the tokens of the configuration.

        Raises:
            ValueError: Tokenizer and configuration disagree on a token.
        """
        known = tokenizer.get_vocab()
        for token in config.required_tokens:
            if known.get(token) != config.token_ids[token]:
                raise ValueError(
                    f"{token} is {known.get(token)} in the tokenizer and {config.token_ids[token]} in the model's "
                    "configuration: load the tokenizer that the checkpoint was trained with"
                )
        self.config, self.tokenizer = config, tokenizer
        self.chat_format = PREFIX_FORMAT if config.decoder == "prefix" else EVE_FORMAT

    @classmethod
    def from_pretrained(cls, source: str | Path) -> SailProcessor:
        """Set up the preparation of inputs for a checkpoint: a folder or a hub id.

        Raises:
            OSError: The checkpoint cannot be found, or has no tokenizer.
            ValueError: It is incomplete, or its tokenizer does not match.
        """
        from unipixel.checkpoints.files import resolve
        from unipixel.sail.sail_checkpoint import read_sail_config

        folder = resolve(source)
        return cls(read_sail_config(folder), load_tokenizer(folder, added_tokens=()))

    @classmethod
    def from_base(cls, base: str | Path, config: PixelSailConfig) -> SailProcessor:
        """Set up the preparation of inputs for a model of `PixelSail.from_base`.

        Args:
            base: The language model that it started from, whose tokenizer gets the special tokens.
            config: Configuration of the model.

        Raises:
            OSError: The base cannot be found, or has no tokenizer.
        """
        from unipixel.checkpoints.files import resolve

        return cls(config, load_tokenizer(resolve(base), added_tokens=(*VISION_TOKENS, *SAIL_TOKENS)))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer into a checkpoint folder."""
        self.tokenizer.save_pretrained(str(folder))

    def fit_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width to which an image is resized.

        Raises:
            ValueError: The image is too narrow.
        """
        patch, side = self.config.patch_size, self.config.max_side
        if self.config.decoder == "eve":
            return fit_area(height, width, patch=patch, side=side)
        return fit_long_side(height, width, patch=patch, max_side=side)

    def image(
        self, image: NDArray[np.uint8], prompts: Sequence[RegionPrompt] = (), *, order: PromptOrder = "area"
    ) -> ImagePatches:
        """Resize and patch an image, and draw its prompts onto the grid of patches.

        Args:
            image: (H, W, 3) uint8 RGB.
            prompts: Regions that questions name as `<PromptK>`.
            order: Where prompts overlap: `area` draws the largest first, `given` in the order of `prompts`.

        Raises:
            TypeError: The image is not a uint8 array.
            ValueError: The image is too narrow; there are too many prompts, an id is out of range, or a mask is of
                another size or disappears on the grid.
        """
        height, width = check_frames([image])
        config = self.config
        size = self.fit_size(height, width)
        patches = image_to_patches(
            image,
            size,
            patch=config.patch_size,
            mean=config.image_mean,
            std=config.image_std,
            is_bicubic=config.decoder == "eve",
        )
        index = prompt_index_map(
            prompts,
            size,
            patch=config.patch_size,
            num_prompts=config.num_prompts,
            image_size=(height, width),
            order=order,
        )
        grid = (size[0] // config.patch_size, size[1] // config.patch_size)
        return ImagePatches(patches, grid, index, (height, width))

    def encode(
        self, turns: Sequence[Turn], *, image: ImagePatches | None = None, max_tokens: int | None = None
    ) -> EncodedSample:
        """Encode a conversation from its start, for training or for a first answer.

        Args:
            turns: Questions and answers, with prompts as `<PromptK>`; only the last may lack an answer.
            image: The image that they are about.
            max_tokens: Longest sequence; tokens beyond it are cut, as in training.

        Raises:
            ValueError: A turn is invalid, or the cut would fall into the image.
        """
        num_tokens = self.config.num_image_tokens(image.grid) if image else 0
        cleaned = [self._clean(turn) for turn in turns]
        rendered = render_conversation(
            cleaned, num_visual_tokens=num_tokens, chat_format=self._format_for(image) if image else self.chat_format
        )
        sample = self._sample(rendered, images=(image,) if image else ())
        if max_tokens is None or sample.inputs.input_ids.shape[1] <= max_tokens:
            return sample
        kept = sample.inputs.input_ids[:, :max_tokens]
        if image is not None and int((kept == self.config.image_token_id).sum()) < num_tokens:
            raise ValueError(f"max_tokens is {max_tokens}, the image alone has {num_tokens} tokens: reduce max_side")
        return EncodedSample(replace(sample.inputs, input_ids=kept), sample.labels[:, :max_tokens], sample.texts)

    def encode_later_turn(self, turn: Turn, *, has_ended: bool = True) -> EncodedSample:
        """Encode a turn that continues a prompt cache, which contains the image.

        Args:
            turn: The next question.
            has_ended: Whether the last answer ended with its end token; otherwise it is added.

        Raises:
            ValueError: The turn is invalid.
        """
        rendered = render_later_turn(self._clean(turn), has_ended=has_ended, chat_format=self.chat_format)
        return self._sample(rendered)

    def image_block(self, image: ImagePatches) -> EncodedSample:
        """Encode what precedes the text of every first turn: the image, for a prompt cache that all turns continue.

        Raises:
            ValueError: In the format of the model the image is a part of the first message.
        """
        if not self.chat_format.is_visual_first:
            raise ValueError("the image of the EVEv2 variant is a part of the first message: encode them together")
        block = self._format_for(image).visual_block(self.config.num_image_tokens(image.grid))
        return self._sample(RenderedText(block), images=(image,))

    def stack(self, samples: Sequence[EncodedSample]) -> EncodedSample:
        """Join samples into one batch; see `stack_samples`."""
        return stack_samples(samples, padding_id=self.config.token_ids[END_OF_TEXT])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens, without the token that ends it."""
        ends = self.config.eos_token_ids
        kept = ids[:-1] if ids and ids[-1] in ends else ids
        text = self.tokenizer.decode(list(kept), skip_special_tokens=False)
        return text if isinstance(text, str) else "".join(text)

    def _clean(self, turn: Turn) -> Turn:
        """Remove image tags, as the image always precedes the first question."""
        if turn.memory is not None:
            raise ValueError("Pixel-SAIL has no object memory: give prompts to SailProcessor.image")
        for text in (turn.question, turn.answer or "", turn.answer_prefix):
            if found := [token for token in VISION_TOKENS if token in text]:
                raise ValueError(f"questions and answers must not contain the tokens {found} of the image")
        return replace(turn, question=turn.question.replace(IMAGE_TAG, ""))

    def _format_for(self, image: ImagePatches) -> ChatFormat:
        """Return the format of a conversation about an image: pooled prompts are tokens after it."""
        if self.config.prompt_encoding == "injection":
            return self.chat_format
        tokens = "".join(PROMPT_TOKENS[number] for number in image.prompts)
        return replace(self.chat_format, visual_end=self.chat_format.visual_end + tokens)

    def _sample(self, rendered: RenderedText, *, images: tuple[ImagePatches, ...] = ()) -> EncodedSample:
        has_placeholder = images and self.config.image_token_id == IMAGE_PLACEHOLDER
        encoded = self._encode_around_image(rendered) if has_placeholder else encode_text(self.tokenizer, rendered)
        ids, labels = ids_and_labels(encoded)
        return EncodedSample(ModelInputs(ids, videos=images), labels, (rendered.text,))

    def _encode_around_image(self, rendered: RenderedText) -> EncodedText:
        """Tokenize the text before and after the image, which has no token in the vocabulary."""
        before, _, rest = rendered.text.partition(IMAGE_TAG)
        after = rest.replace(IMAGE_TAG, "")
        num_tokens = (len(rest) - len(after)) // len(IMAGE_TAG) + 1
        shift = len(rendered.text) - len(after)
        spans = tuple((start - shift, stop - shift) for start, stop in rendered.supervised)
        first, last = (
            encode_text(self.tokenizer, RenderedText(before)),
            encode_text(self.tokenizer, RenderedText(after, spans)),
        )
        return EncodedText(
            first.ids + (IMAGE_PLACEHOLDER,) * num_tokens + last.ids,
            first.is_supervised + (False,) * num_tokens + last.is_supervised,
        )
