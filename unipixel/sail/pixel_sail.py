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
        ids = inputs.input_ids.to(self.device)
        seg_states = tuple(
            self.seg_states_of(states[:length], row[:length])
            for states, row, length in zip(hidden, ids, inputs.lengths, strict=True)
        )
        patch_states = tuple(
            self._patch_states(states, span)
            for states, span in zip(hidden, self._spans(inputs, images), strict=True)
            if span is not None
        )
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
        return tuple(video.to(self.device) for video in videos)

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
        ids, lengths = inputs.input_ids.to(self.device), inputs.lengths
        spans = self._spans(inputs, features)
        embeds = self.embed_tokens(ids)
        positions = torch.zeros(3, *ids.shape, dtype=torch.long)
        following = torch.zeros(len(lengths), dtype=torch.long)
        pieces = []
        for sample, (length, span) in enumerate(zip(lengths, spans, strict=True)):
            row = embeds[sample]
            if span is not None:
                row = torch.cat([row[: span.start], self._embed_image(span.image), row[span.stop :]])
                if self.config.prompt_encoding == "pooling":
                    row = add_pooled_prompts(row, ids[sample], span, token_ids=self.config.prompt_token_ids)
            pieces.append(row)
            is_grid = self.config.decoder == "prefix"
            positions[:, sample, :length], following[sample] = prefix_positions(length, span if is_grid else None)
        bounds = block_bounds(spans, num_border_tokens=1 if self.config.decoder == "prefix" else 0)
        return EmbeddedInputs(
            torch.stack(pieces),
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
        span = self._spans(inputs, features)[0]
        return None if span is None else self._patch_states(hidden_states[0], span)

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

    def _embed_image(self, image: ImagePatches) -> Tensor:
        """Embed the tokens of an image (tokens, D), with the prompts on its cells."""
        table = self.embed_tokens(torch.tensor(self.config.prompt_token_ids, dtype=torch.long, device=self.device))
        table = torch.cat([table, table.new_zeros(1, self.config.width)])
        # The last row, zero, stands for cells without a prompt, whose entry is -1.
        embeds = self.single_transformer.embed_image(image, table[image.prompt_ids])
        if self.config.decoder == "eve":
            return embeds
        return embeds + self.embed_tokens(torch.tensor(self.config.image_token_id, device=self.device))

    def _patch_states(self, hidden_states: Tensor, span: ImageSpan) -> PatchStates:
        """Select the states of the patches of one sample (L, D)."""
        states = hidden_states[span.start : span.stop]
        rows, columns = span.image.grid
        if self.config.decoder == "eve":
            # The token before the image and the one after each row have no pixels.
            states = states[1:].view(rows, columns + 1, -1)[:, :columns].flatten(0, 1)
        return PatchStates(states, span.image.grid, span.image.image_size)
