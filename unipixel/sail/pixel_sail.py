"""Pixel-SAIL: one transformer that reads pixels, visual prompts and text, and answers in text and masks.

Shape letters: B samples, L tokens, D width, h, w rows and columns of patches, K masks, C mask channels,
H, W image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import DynamicCache

from unipixel.model.inputs import EmbeddedInputs, ModelInputs
from unipixel.model.language_model import has_quantized_layers
from unipixel.model.model_methods import ModelMethods
from unipixel.sail.eve_decoder import EveDecoder
from unipixel.sail.image_block import (
    ImageSpan,
    add_pooled_prompts,
    block_bounds,
    find_image_spans,
    prefix_positions,
)
from unipixel.sail.sail_config import PixelSailConfig
from unipixel.sail.sail_decoder import PrefixDecoder
from unipixel.sail.sail_inputs import ImagePatches, PatchStates, SailOutput
from unipixel.sail.upsampler import MaskHead, PlainHead

if TYPE_CHECKING:
    from unipixel.model.generation import Decoder, Generation, GenerationSettings
    from unipixel.model.qwen import PromptCache

_NONE = torch.empty(0, dtype=torch.long)


class PixelSail(ModelMethods):
    """The model of the Pixel-SAIL paper (arXiv:2504.10465).

    It is stateless: patch states, prompt caches and masks are returned, and passed in again.

    Attributes:
        config: Sizes, token ids and settings.
        has_own_seg_state: See `LanguageModel`: a mask is described by the state at its own `[SEG]`.
    """

    has_own_seg_state = True

    def __init__(self, config: PixelSailConfig, *, attention: str = "sdpa") -> None:
        """Build a model with new weights.

        Args:
            config: Sizes and token ids.
            attention: `sdpa` or `eager`; image blocks have an attention mask that flash-attn lacks.
        """
        super().__init__()
        self.config = config
        decoder = PrefixDecoder if config.decoder == "prefix" else EveDecoder
        self.single_transformer = decoder(config, attention=attention)
        num_blocks = config.num_upsample_blocks
        self.mask_head: MaskHead | PlainHead = (
            MaskHead(config.width, mask_channels=config.mask_channels, num_blocks=num_blocks)
            if num_blocks
            else PlainHead(config.width)
        )
        self.tie_weights()

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> PixelSail:
        """Load a checkpoint: a folder or a hub id.

        Args:
            source: See `unipixel.sail.sail_checkpoint.load_sail`.
            options: Those of `load_sail`, also in the names of transformers, and those of the hub; see
                `UniPixel.from_pretrained`.

        Raises:
            OSError: See `load_sail`, as for the other errors.
            TypeError: An option is unknown or given twice.
        """
        from unipixel.checkpoints.hub_options import resolve_with_options, split_options
        from unipixel.sail.sail_checkpoint import load_sail

        hub_options, load_options = split_options(options)
        return load_sail(cls, resolve_with_options(source, **hub_options) if hub_options else source, **load_options)

    @classmethod
    def from_base(cls, base: str | Path, **options: Any) -> PixelSail:
        """Start from a Qwen2.5 language model. See `unipixel.sail.sail_checkpoint.load_sail_base`."""
        from unipixel.sail.sail_checkpoint import load_sail_base

        return load_sail_base(cls, base, **options)

    @classmethod
    def build_empty(cls, config: PixelSailConfig, *, attention: str = "sdpa") -> PixelSail:
        """Build a model with parameters on the meta device: names and shapes are known, tensors can be assigned."""
        with init_empty_weights(include_buffers=False):
            return cls(config, attention=attention)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """Write a checkpoint with the published tensor names. See `unipixel.sail.sail_checkpoint.save_sail`."""
        from unipixel.sail.sail_checkpoint import save_sail

        save_sail(self, folder, **options)

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of tokens."""
        return self.single_transformer.model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """Return the output projection of the transformer."""
        return self.single_transformer.lm_head

    def tie_weights(self) -> None:
        """Share the output projection with the input embedding if the configuration ties them."""
        if self.config.is_tied:
            self.single_transformer.lm_head.weight = self.single_transformer.model.embed_tokens.weight

    @property
    def device(self) -> torch.device:
        """Device of the transformer."""
        return self.single_transformer.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the transformer."""
        return self.single_transformer.model.embed_tokens.weight.dtype

    @property
    def attention(self) -> str:
        """Attention implementation of the transformer."""
        return self.single_transformer.attention

    @property
    def is_quantized(self) -> bool:
        """Whether the transformer is quantised."""
        return has_quantized_layers(self.single_transformer)

    @property
    def mask_token_shape(self) -> tuple[int, int]:
        """Shape (1, C) of the query of one mask."""
        return 1, self.config.mask_width

    def forward(self, inputs: ModelInputs) -> SailOutput:
        """Run the model over whole samples in one pass, as in training.

        Args:
            inputs: Ids and images; at most one image per sample, before its text.

        Raises:
            ValueError: The image tokens in the text do not match the images.
        """
        images = self.encode_videos(inputs.videos)
        embedded = self.embed(inputs, images)
        embeds, device = embedded.embeds, embedded.embeds.device.type
        if torch.is_autocast_enabled(device):
            # As with weights of that type: otherwise every layer converts its input and output.
            embeds = embeds.to(torch.get_autocast_dtype(device))
        hidden = self.decode(
            embeds, embedded.position_ids, attention_mask=embedded.attention_mask, blocks=embedded.blocks
        )
        # Found where the ids are, so that a GPU is not waited for.
        is_seg = inputs.input_ids == self.config.seg_token_id
        if inputs.attention_mask is not None:
            is_seg = is_seg & inputs.attention_mask
        seg_states = _select_rows(hidden, [own.nonzero()[:, 0] for own in is_seg])
        patch_states = self._patch_states(hidden, self._spans(inputs, images))
        return SailOutput(self.logits(hidden), hidden, embedded.embeds, embedded.position_ids, patch_states, seg_states)

    def encode_videos(self, videos: Sequence[Any]) -> tuple[ImagePatches, ...]:
        """Return the images as they are: there is no encoder.

        Raises:
            TypeError: One of them is not an image of this model.
        """
        for video in videos:
            if not isinstance(video, ImagePatches):
                raise TypeError(f"Pixel-SAIL reads images (ImagePatches from SailProcessor.image), got "
                                f"{type(video).__name__}")  # fmt: skip
        return tuple(videos)

    def embed(
        self,
        inputs: ModelInputs,
        features: Sequence[ImagePatches],
        *,
        start: int = 0,
        memory_of: Sequence[object] | None = None,
    ) -> EmbeddedInputs:
        """Embed the tokens and the patches with their prompts, and compute the positions.

        Args:
            inputs: Ids; their images are not used.
            features: The images whose tokens are in the text.
            start: Position of the first token, if the text continues a prompt cache.
            memory_of: Not used: prompts are in the images.

        Raises:
            ValueError: The image tokens in the text do not match the images, or there are references or memory masks.
        """
        del memory_of
        if inputs.references or inputs.memory_masks:
            raise ValueError("Pixel-SAIL has no references and no object memory: give prompts to SailProcessor.image")
        ids = inputs.input_ids.to(self.device)
        spans = self._spans(inputs, features)
        embeds = self.embed_tokens(ids)
        if features:
            tokens = [_NONE if span is None else torch.arange(span.start, span.stop) for span in spans]
            indices = _flat_indices(tokens, length=ids.shape[1]).to(embeds.device)
            images = self._embed_images(features).to(embeds.dtype)
            embeds = embeds.flatten(0, 1).index_copy(0, indices, images).view_as(embeds)
        if self.config.prompt_encoding == "pooling":
            embeds = torch.stack(
                [
                    row if span is None else add_pooled_prompts(row, own, span, token_ids=self.config.prompt_token_ids)
                    for row, own, span in zip(embeds, ids, spans, strict=True)
                ]
            )
        is_grid = self.config.decoder == "prefix"
        grids = spans if is_grid else [None] * len(spans)
        positions, following = prefix_positions(inputs.lengths, grids, num_tokens=ids.shape[1])
        bounds = block_bounds(spans, num_border_tokens=int(is_grid))
        return EmbeddedInputs(
            embeds,
            positions.to(self.device) + start,
            following.to(self.device) + start,
            inputs.attention_mask,
            bounds,
        )

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed ids (...) of text as (..., D); the placeholder of the EVEv2 variant is embedded as token 0."""
        embeds: Tensor = self.single_transformer.model.embed_tokens(ids.clamp(min=0))
        return embeds

    def new_cache(self) -> DynamicCache:
        """Return an empty cache of keys and values."""
        return DynamicCache(config=self.config.text)

    def decode(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        cache: DynamicCache | None = None,
        blocks: Tensor | None = None,
    ) -> Tensor:
        """Compute the states (B, L, D) after the final norm; see `PrefixDecoder.forward`."""
        hidden: Tensor = self.single_transformer(
            embeds, position_ids, attention_mask=attention_mask, cache=cache, blocks=blocks
        )
        return hidden

    def kept_visual(
        self, inputs: ModelInputs, features: Sequence[ImagePatches], hidden_states: Tensor
    ) -> PatchStates | None:
        """Return the patch states of a single sample, from which the masks of all later turns are computed."""
        return next(iter(self._patch_states(hidden_states, self._spans(inputs, features))), None)

    def generate(
        self,
        inputs: ModelInputs,
        *,
        prompt_cache: PromptCache | None = None,
        settings: GenerationSettings | None = None,
        decode: Decoder | None = None,
    ) -> list[Generation]:
        """Generate one answer per sample; the tokens of its masks are queries for `segment`.

        To stream the tokens, use `unipixel.model.generation.AnswerStream`.
        """
        from unipixel.model.generation import AnswerStream

        return AnswerStream(self, inputs, prompt_cache=prompt_cache, settings=settings, decode=decode).finish()

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Compute logits (..., V) from states (..., D)."""
        logits: Tensor = self.single_transformer.lm_head(hidden_states)
        return logits

    def mask_tokens(self, hidden_states: Tensor) -> Tensor:
        """Compute the queries (..., 1, C) of masks from the states (..., D) at their `[SEG]`."""
        return self.mask_head.queries(hidden_states)[..., None, :].float()

    def seg_states_of(self, hidden_states: Tensor, input_ids: Tensor) -> Tensor:
        """Select the states (K, D) at each `[SEG]` of one sample, from (L, D) and (L,) ids."""
        return hidden_states[input_ids == self.config.seg_token_id]

    def pixel_features(self, patches: PatchStates) -> Tensor:
        """Upsample an image once, for the masks of several turns; see `num_feature_bytes` for the size."""
        return self.mask_head.pixel_features(patches.states.view(*patches.grid, -1))

    def num_feature_bytes(self, patches: PatchStates) -> int:
        """Return the bytes of `pixel_features`: 0.94 GB for 0.5B, 1024 x 1024 pixels, stride 2 and float32."""
        num_pixels = len(patches.states) * 4**self.config.num_upsample_blocks
        return int(num_pixels * self.mask_head.pixel_width * self.mask_head.dtype.itemsize)

    def mask_logits(self, patches: PatchStates, mask_tokens: Tensor, *, features: Tensor | None = None) -> Tensor:
        """Compute the logits of masks at the stride of the model.

        Args:
            patches: Of the image.
            mask_tokens: (K, 1, C) queries from `mask_tokens`.
            features: From `pixel_features`; None computes them strip by strip, without storing them.

        Returns:
            (K, rows, columns) float32, `config.mask_stride` pixels of the resized image apart.
        """
        queries = mask_tokens[:, 0].to(self.mask_head.dtype)
        if features is not None:
            return self.mask_head.logits_of(features, queries)
        return self.mask_head.mask_logits(patches.states.view(*patches.grid, -1), queries)

    def segment(self, patches: PatchStates, mask_tokens: Tensor, *, features: Tensor | None = None) -> Tensor:
        """Compute masks at the size of the image.

        Args:
            patches: Of the image.
            mask_tokens: (K, 1, C) queries from `mask_tokens`.
            features: See `mask_logits`.

        Returns:
            (K, H, W) float32 logits; a pixel belongs to the mask where they are positive.
        """
        logits = self.mask_logits(patches, mask_tokens, features=features)
        if not len(logits):
            return logits.new_zeros(0, *patches.image_size)
        return F.interpolate(logits[None], size=patches.image_size, mode="bilinear", align_corners=False)[0]

    def _spans(self, inputs: ModelInputs, images: Sequence[ImagePatches]) -> list[ImageSpan | None]:
        return find_image_spans(inputs.input_ids, inputs.lengths, images, config=self.config)

    def _embed_images(self, images: Sequence[ImagePatches]) -> Tensor:
        """Embed the tokens of images (tokens, D), one after another, with the prompts on their cells."""
        table = self.embed_tokens(torch.tensor(self.config.prompt_token_ids, dtype=torch.long, device=self.device))
        table = torch.cat([table, table.new_zeros(1, self.config.width)])
        # The last row, zero, stands for cells without a prompt, whose entry is -1.
        prompts = torch.cat([image.prompt_ids for image in images]).to(self.device)
        embeds = self.single_transformer.embed_images(images, table[prompts])
        if self.config.decoder == "eve":
            return embeds
        return embeds + self.embed_tokens(torch.tensor(self.config.image_token_id, device=self.device))

    def _patch_states(self, hidden_states: Tensor, spans: Sequence[ImageSpan | None]) -> tuple[PatchStates, ...]:
        """Select the states of the patches of each image, from the states (B, L, D)."""
        states = _select_rows(hidden_states, [_NONE if span is None else self._patch_indices(span) for span in spans])
        return tuple(
            PatchStates(own, span.image.grid, span.image.image_size)
            for own, span in zip(states, spans, strict=True)
            if span is not None
        )

    def _patch_indices(self, span: ImageSpan) -> Tensor:
        """Return which tokens of a sample are patches (h * w,)."""
        tokens = torch.arange(span.start, span.stop)
        if self.config.decoder == "prefix":
            return tokens
        # The token before the image and the one after each row have no pixels.
        rows, columns = span.image.grid
        return tokens[1:].view(rows, columns + 1)[:, :columns].flatten()


def _flat_indices(tokens: Sequence[Tensor], *, length: int) -> Tensor:
    """Return the indices of tokens (n,) of each sample in the flattened tokens of a batch of `length` tokens each."""
    return torch.cat([own + row * length for row, own in enumerate(tokens)])


def _select_rows(states: Tensor, tokens: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Select states of each sample (n, D) from (B, L, D), in one operation for the whole batch."""
    indices = _flat_indices(tokens, length=states.shape[1]).to(states.device)
    return states.flatten(0, 1).index_select(0, indices).split([len(own) for own in tokens])
