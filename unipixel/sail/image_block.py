"""The image block of a sequence: where it is, the positions of its patches, and its full attention.

Shape letters: B samples, L tokens, D width, h, w rows and columns of patches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unipixel.sail.sail_config import PixelSailConfig
from unipixel.sail.sail_inputs import ImagePatches

MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ImageSpan:
    """The image tokens of one sample.

    Attributes:
        start: Index of the first image token.
        stop: Index after the last one.
        image: The image.
    """

    start: int
    stop: int
    image: ImagePatches


def find_image_spans(
    input_ids: Tensor, lengths: Sequence[int], images: Sequence[ImagePatches], *, config: PixelSailConfig
) -> list[ImageSpan | None]:
    """Find the image tokens of each sample.

    Args:
        input_ids: (B, L), padded on the right.
        lengths: Tokens of each sample without padding.
        images: In the order of the samples that have one.
        config: Has the id of image tokens, and their number for a grid.

    Returns:
        One span per sample, None for a sample of text only.

    Raises:
        ValueError: The numbers of image tokens and of patches differ, or a sample has two images.
    """
    remaining = iter(images)
    spans: list[ImageSpan | None] = []
    for sample, (start, stop, count) in enumerate(_image_tokens(input_ids, lengths, config.image_token_id)):
        if not count:
            spans.append(None)
            continue
        image = next(remaining, None)
        if image is None:
            raise ValueError(f"the text has image tokens for more images than the {len(images)} that were given")
        expected = config.num_image_tokens(image.grid)
        if stop - start != count or count != expected:
            raise ValueError(
                f"sample {sample}: the image has {expected} tokens, the text {count} image tokens"
                f"{'' if stop - start == count else ' with text between them'}: give one image per sample"
            )
        spans.append(ImageSpan(start, stop, image))
    if next(remaining, None) is not None:
        raise ValueError(f"{len(images)} images were given, the text has image tokens for fewer")
    return spans


def _image_tokens(input_ids: Tensor, lengths: Sequence[int], token_id: int) -> list[tuple[int, int, int]]:
    """Return the first index, the index after the last one, and the number of image tokens of each sample."""
    num_tokens = input_ids.shape[1]
    is_inside = torch.arange(num_tokens) < torch.tensor(lengths)[:, None]
    is_image = ((input_ids == token_id) & is_inside.to(input_ids.device)).int()
    stops = num_tokens - is_image.flip(1).argmax(dim=1)
    rows = torch.stack([is_image.argmax(dim=1), stops, is_image.sum(dim=1)], dim=1).tolist()
    return [(start, stop, count) for start, stop, count in rows]


def add_pooled_prompts(embeds: Tensor, input_ids: Tensor, span: ImageSpan, *, token_ids: Sequence[int]) -> Tensor:
    """Add the mean of the patch embeddings under each prompt to its token, which follows the image block.

    This is the plain baseline of the paper (section 3.1), with the id of the object kept in its token.

    Args:
        embeds: (L, D) of one sample.
        input_ids: (L,) of the sample.
        span: Its image tokens.
        token_ids: Ids of `<Prompt0>`, `<Prompt1>`, ...

    Returns:
        (L, D).

    Raises:
        ValueError: The tokens of the prompts do not follow the image.
    """
    numbers = span.image.prompts
    expected = [token_ids[number] for number in numbers]
    # After `</vision>`.
    start, stop = span.stop + 1, span.stop + 1 + len(numbers)
    if input_ids[start:stop].tolist() != expected:
        raise ValueError(
            f"the text lacks the tokens of the prompts {numbers} after the image: encode it with SailProcessor.encode"
        )
    if not numbers:
        return embeds
    patches = embeds[span.start : span.stop]
    pooled = torch.stack([patches[span.image.prompt_ids == number].mean(dim=0) for number in numbers])
    return torch.cat([embeds[:start], embeds[start:stop] + pooled, embeds[stop:]])


def prefix_positions(
    lengths: Sequence[int], spans: Sequence[ImageSpan | None], *, num_tokens: int
) -> tuple[Tensor, Tensor]:
    """Compute the (time, row, column) position of each token of a batch.

    A patch (i, j) of an image whose first token is at index s has (s, s + i, s + j); later tokens count on from the
    largest of these on all axes.

    Args:
        lengths: Tokens of each sample without padding.
        spans: Image tokens of each sample, None without an image.
        num_tokens: L, with padding, whose positions are 0.

    Returns:
        (3, B, L), and the position (B,) of the token that follows each sample.
    """
    table = [(0, 0, 1, 0) if own is None else (own.start, own.stop, own.image.grid[1], max(own.image.grid))
             for own in spans]  # fmt: skip
    start, stop, columns, extent = torch.tensor(table).T[..., None]
    own_lengths, token = torch.tensor(lengths)[:, None], torch.arange(num_tokens)
    skipped = stop - start - extent
    text = torch.where(token >= stop, token - skipped, token)
    patch = token - start
    is_image = (patch >= 0) & (token < stop)
    image = [start, start + patch // columns, start + patch % columns]
    positions = torch.stack([torch.where(is_image, own, text) for own in image])
    return positions.masked_fill(token >= own_lengths, 0), (own_lengths - skipped)[:, 0]


def block_bounds(spans: Sequence[ImageSpan | None], *, num_border_tokens: int) -> Tensor | None:
    """Return the (B, 2) first index and index after the last of each image block.

    Args:
        spans: Image tokens of each sample; a sample without an image has an empty block.
        num_border_tokens: Tokens before and after the image tokens that belong to the block: 1 for `<vision>` and
            `</vision>`.

    Returns:
        None if no sample has an image.
    """
    if all(span is None for span in spans):
        return None
    border = num_border_tokens
    return torch.tensor([(0, 0) if span is None else (span.start - border, span.stop + border) for span in spans])


def block_attention(bounds: Tensor) -> MaskFunction:
    """Return a mask function of transformers that lets the tokens of an image block attend to each other.

    Args:
        bounds: (B, 2) from `block_bounds`, on the device of the model.
    """
    first, after = bounds[:, 0], bounds[:, 1]

    def is_allowed(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del head
        inside = (query >= first[batch]) & (query < after[batch])
        return inside & (key >= first[batch]) & (key < after[batch])

    return is_allowed
