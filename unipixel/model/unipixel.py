"""UniPixel: Qwen2.5-VL with points, boxes and masks as inputs, and masks through SAM 2.1 as outputs.

Shape letters: B samples, L tokens, D language width, C SAM width, n tokens per mask, O objects,
T frames, S SAM image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import DynamicCache

from unipixel.memory.mask_pooling import TokenMasks
from unipixel.model.config import UniPixelConfig
from unipixel.model.connector import MaskTokenHead, MemoryProjector, pool_memory
from unipixel.model.inputs import EmbeddedInputs, ModelInputs, ModelOutput, VideoFeatures, VideoInput, VisualInput
from unipixel.model.language_model import has_quantized_layers
from unipixel.model.model_methods import ModelMethods
from unipixel.model.qwen import QwenVL, rope_positions
from unipixel.model.visual_prompt_encoder import VisualPromptEncoder
from unipixel.sail.sail_inputs import ImagePatches
from unipixel.tracking.clip_features import EncodedClip
from unipixel.tracking.propagation import ClipPrompt, propagate_in_video
from unipixel.tracking.segmenter import Segmenter
from unipixel.tracking.tracker_core import TrackerCore, empty_masks
from unipixel.tracking.types import FrameFeatures, FrameMasks, Segmentation, SegmentPrompt

if TYPE_CHECKING:
    from unipixel.model.generation import Decoder, Generation, GenerationSettings
    from unipixel.model.qwen import PromptCache
    from unipixel.processing.processor import Processor
    from unipixel.tracking.config import SegmenterConfig


class UniPixel(ModelMethods):
    """The model of the UniPixel paper (arXiv:2509.18094).

    It is stateless: features, prompt caches and masks are returned, and passed in again.
    SAM 2.1 and the prompt encoder stay in float32 when the model is cast.

    Attributes:
        has_own_seg_state: See `LanguageModel`.
    """

    has_own_seg_state = False

    def __init__(self, config: UniPixelConfig, *, attention: str = "sdpa") -> None:
        """Build a model with new weights.

        Args:
            config: Sizes and token ids.
            attention: `sdpa`, `eager` or `flash_attention_2`.
        """
        super().__init__()
        self.config = config
        sizes = {"width": config.width, "sam_width": config.segmenter.embed_dim}
        self.model = QwenVL(config.qwen, pooling_order=config.memory_pool_order, attention=attention)
        self.lm_head = nn.Linear(config.width, config.qwen.text_config.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, std=config.qwen.text_config.initializer_range)
        self.sam2 = Segmenter(config.segmenter)
        self.prompt_encoder = VisualPromptEncoder(
            image_size=config.segmenter.image_size, has_memory_positions=config.memory_position_embedding, **sizes
        )
        self.msk_proj = MemoryProjector(pooled_width=config.pooled_width, width=config.width)
        self.seg_head = MaskTokenHead(num_tokens=config.num_mask_tokens, **sizes)
        self.tie_weights()

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> UniPixel:
        """Load a checkpoint: a bundled name, a folder or a hub id.

        Args:
            source: See `unipixel.checkpoints.loading.load`.
            options: Those of `load`, also in the names of transformers (`dtype` or `torch_dtype`, `device_map`,
                `attn_implementation`), and those of the hub (`revision`, `token`, `local_files_only`, `cache_dir`).

        Raises:
            OSError: See `load`, as for the other errors.
            TypeError: An option is unknown or given twice.
        """
        from unipixel.checkpoints.hub_options import resolve_with_options, split_options
        from unipixel.checkpoints.loading import load

        hub_options, load_options = split_options(options)
        return load(cls, resolve_with_options(source, **hub_options) if hub_options else source, **load_options)

    @classmethod
    def from_base(
        cls, qwen: str | Path, sam2: str | Path, *, sam2_config: SegmenterConfig | None = None, **options: Any
    ) -> UniPixel:
        """Start from Qwen2.5-VL and SAM 2.1. See `unipixel.checkpoints.from_base.load_base`."""
        from unipixel.checkpoints.from_base import load_base

        return load_base(cls, qwen, sam2, sam2_config=sam2_config, **options)

    @classmethod
    def build_empty(cls, config: UniPixelConfig, *, attention: str = "sdpa") -> UniPixel:
        """Build a model with parameters on the meta device: names and shapes are known, tensors can be assigned.

        Raises:
            ValueError: The configuration, which may be untrusted, does not describe a model.
        """
        try:
            with init_empty_weights(include_buffers=False):
                return cls(config, attention=attention)
        # What torch, transformers and sam2 raise for sizes that contradict each other.
        except (TypeError, RuntimeError, AssertionError, LookupError, ArithmeticError, AttributeError) as error:
            raise ValueError(f"the configuration does not describe a model: {' '.join(str(error).split())}") from error

    def save_pretrained(self, folder: str | Path, *, processor: Processor | None = None, **options: Any) -> None:
        """Write the published layout. See `unipixel.checkpoints.loading.save`.

        Args:
            folder: The folder.
            processor: Written into the same folder, with its tokenizer.
            options: See `save`.
        """
        from unipixel.checkpoints.loading import save

        save(self, folder, **options)
        if processor is not None:
            processor.save_pretrained(folder)

    def push_to_hub(self, repo_id: str, *, processor: Processor | None = None, **options: Any) -> str:
        """Upload the checkpoint. See `unipixel.checkpoints.uploading.upload`."""
        from unipixel.checkpoints.uploading import upload

        return upload(partial(self.save_pretrained, processor=processor), repo_id, **options)

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of tokens."""
        return self.model.language_model.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """Return the output projection of the language model."""
        return self.lm_head

    def __repr__(self) -> str:
        text, dtype = self.config.qwen.text_config, str(self.dtype).removeprefix("torch.")
        return (
            f"<UniPixel of {self.num_parameters() / 1e6:.4g} million parameters, {dtype} on {self.device}: "
            f"{text.num_hidden_layers} layers of width {text.hidden_size}, "
            f"SAM 2.1 at {self.config.segmenter.image_size} pixels>"
        )

    def tie_weights(self) -> None:
        """Share the output projection with the input embedding if the configuration ties them."""
        if self.config.is_tied:
            self.lm_head.weight = self.model.language_model.embed_tokens.weight

    @property
    def mask_token_shape(self) -> tuple[int, int]:
        """Shape (n, C) of the SAM prompt tokens of one mask."""
        return self.config.num_mask_tokens, self.config.segmenter.embed_dim

    @property
    def device(self) -> torch.device:
        """Device of the language model."""
        return self.model.language_model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the language model."""
        return self.model.language_model.embed_tokens.weight.dtype

    @property
    def attention(self) -> str:
        """Attention implementation of the language model."""
        return str(self.model.language_model.config._attn_implementation)

    @property
    def is_quantized(self) -> bool:
        """Whether the language model is quantised."""
        return has_quantized_layers(self.model.language_model)

    def forward(self, inputs: ModelInputs) -> ModelOutput:
        """Run the model over whole samples.

        Raises:
            ValueError: The placeholders in the text do not match the prompts, masks or clips.
        """
        features = self.encode_videos(inputs.videos)
        embedded = self.embed(inputs, features)
        hidden = self.model(embedded.embeds, embedded.position_ids, attention_mask=embedded.attention_mask)
        return ModelOutput(self.logits(hidden), hidden, embedded.embeds, embedded.position_ids, features)

    def encode_videos(self, videos: Sequence[VisualInput]) -> tuple[VideoFeatures, ...]:
        """Run the vision transformer over the clips that are not encoded yet.

        Raises:
            TypeError: One of them is an image of Pixel-SAIL.
        """
        if any(isinstance(video, ImagePatches) for video in videos):
            raise TypeError("UniPixel reads clips (from Processor.clip), got ImagePatches, which Pixel-SAIL reads")
        encoded = iter(self.model.encode_videos([video for video in videos if isinstance(video, VideoInput)]))
        return tuple(video if isinstance(video, VideoFeatures) else next(encoded) for video in videos)

    def embed(
        self,
        inputs: ModelInputs,
        features: Sequence[VideoFeatures],
        *,
        start: int = 0,
        memory_of: Sequence[VideoFeatures] | None = None,
    ) -> EmbeddedInputs:
        """Embed the tokens, with the values of all placeholders, and compute their positions.

        Args:
            inputs: Ids, references and masks; its videos are not used.
            features: The encoded clips whose tokens are in the text.
            start: Position of the first token, if the text continues a prompt cache.
            memory_of: Clips that `inputs.memory_masks` refer to; by default `features`. The memory of a later turn
                refers to the clip of the prompt cache.

        Raises:
            ValueError: The numbers of placeholders and of their values differ.
        """
        ids, lengths = inputs.input_ids.to(self.device), inputs.lengths
        embeds = self.model.language_model.embed_tokens(ids)
        real = torch.ones_like(ids, dtype=torch.bool) if inputs.attention_mask is None else inputs.attention_mask
        layout = self.config.rope_layout
        positions, following = rope_positions(ids, lengths, features, layout)
        visual = torch.cat([clip.tokens for clip in features]) if features else None
        is_visual = torch.isin(ids, torch.tensor(layout.visual_ids, device=ids.device))
        embeds = _fill(embeds, is_visual & real.to(ids.device), visual, "visual tokens")
        references = self.prompt_encoder(inputs.references) if inputs.references else None
        embeds = _fill(embeds, ids == self.config.ref_token_id, references, "<|ref|>")
        memory = self._memory(inputs.memory_masks, features if memory_of is None else memory_of)
        embeds = _fill(embeds, ids == self.config.mem_token_id, memory, "<|mem|>")
        return EmbeddedInputs(embeds, positions + start, following + start, inputs.attention_mask)

    def encode_memory(self, features: Sequence[VideoFeatures], masks: Sequence[TokenMasks]) -> Tensor:
        """Pool clips under their objects' masks and embed the result.

        Args:
            features: Clips.
            masks: Per clip, on its grid.

        Returns:
            (N, D), one per `<|mem|>`, clip by clip in the order of `TokenMasks`.

        Raises:
            ValueError: Masks are not on the grid of their clip.
        """
        weighting = self.config.memory_pool_weighting
        pooled = [pool_memory(clip, own, weighting=weighting) for clip, own in zip(features, masks, strict=True)]
        boxes, times = [own.token_boxes_xyxy for own in masks], [own.token_times for own in masks]
        return self.embed_memory(torch.cat(pooled), torch.cat(boxes), torch.cat(times))

    def embed_memory(self, pooled: Tensor, boxes_xyxy: Tensor, times: Tensor) -> Tensor:
        """Compute the embeddings of `<|mem|>` tokens: the projected features, with their position where configured.

        Args:
            pooled: (N, 4 * vision width) from `pool_memory`.
            boxes_xyxy: (N, 4) box of each mask in [0, 1], as `TokenMasks.token_boxes_xyxy`.
            times: (N,) in [0, 1], as `TokenMasks.token_times`.

        Returns:
            (N, D).
        """
        embeds = self.msk_proj(pooled)
        if self.config.memory_position_embedding:
            embeds = embeds + self.prompt_encoder.memory_positions(boxes_xyxy, times).to(embeds.dtype)
        return embeds

    def add_memory_positions(self) -> None:
        """Turn on `memory_position_embedding` for weights that were trained without it; outputs stay as they are."""
        if not self.config.memory_position_embedding:
            self.prompt_encoder.add_memory_positions()
            self.config = replace(self.config, memory_position_embedding=True)

    def generate(
        self,
        inputs: ModelInputs,
        *,
        prompt_cache: PromptCache | None = None,
        settings: GenerationSettings | None = None,
        decode: Decoder | None = None,
    ) -> list[Generation]:
        """Generate one answer per sample. To stream the tokens, use `unipixel.model.generation.AnswerStream`."""
        from unipixel.model.generation import AnswerStream

        return AnswerStream(self, inputs, prompt_cache=prompt_cache, settings=settings, decode=decode).finish()

    def logits(self, hidden_states: Tensor) -> Tensor:
        """Compute logits (..., V) from states (..., D) before the final norm."""
        return self.lm_head(self.model.language_model.norm(hidden_states))

    def mask_tokens(self, hidden_states: Tensor) -> Tensor:
        """Compute the SAM prompt tokens (..., n, C) of masks from the states (..., D) that precede their `<|seg|>`."""
        return self.seg_head(hidden_states)

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Embed ids (...) of text as (..., D)."""
        embeds: Tensor = self.model.language_model.embed_tokens(ids)
        return embeds

    def new_cache(self) -> DynamicCache:
        """Return an empty cache of keys and values."""
        return DynamicCache(config=self.config.qwen.text_config)

    def decode(
        self,
        embeds: Tensor,
        position_ids: Tensor,
        *,
        attention_mask: Tensor | None = None,
        cache: DynamicCache | None = None,
        blocks: Tensor | None = None,
    ) -> Tensor:
        """Run the language model; see `QwenVL.forward`. All attention is causal: there are no `blocks`."""
        del blocks
        hidden: Tensor = self.model(embeds, position_ids, attention_mask=attention_mask, cache=cache)
        return hidden

    def kept_visual(
        self, inputs: ModelInputs, features: Sequence[VideoFeatures], hidden_states: Tensor
    ) -> VideoFeatures:
        """Return the features of the clip of a single sample, from which later turns pool memory."""
        del inputs, hidden_states
        return features[0]

    def seg_states_of(self, hidden_states: Tensor, input_ids: Tensor) -> Tensor:
        """Select the states (K, D) that precede each `<|seg|>` of one sample, from (L, D) and (L,) ids."""
        return hidden_states[:-1][input_ids[1:] == self.config.seg_token_id]

    def seg_states(self, output: ModelOutput, input_ids: Tensor) -> Tensor:
        """Select the states (O, D) that precede each `<|seg|>` of the text, sample by sample.

        As in the published model: the positions whose logits predict `<|seg|>`, not those of `<|seg|>`.
        """
        is_next = input_ids[:, 1:] == self.config.seg_token_id
        return output.hidden_states[:, :-1][is_next.to(output.hidden_states.device)]

    def segment(self, features: FrameFeatures, mask_tokens: Tensor) -> Segmentation:
        """Decode the masks of O objects on one frame (N = 1) from their tokens (O, n, C)."""
        start = self.sam2.embed_without_memory(features, num_objects=len(mask_tokens))
        return self.sam2.decode(features, start, SegmentPrompt(tokens=mask_tokens))

    def segment_video(
        self,
        sam_frames: Tensor,
        mask_tokens: Tensor,
        *,
        memory_dtype: torch.dtype | None = None,
    ) -> list[FrameMasks]:
        """Segment O objects on the first frame and propagate their masks through the clip.

        Args:
            sam_frames: (T, 3, S, S) normalised frames.
            mask_tokens: (O, n, C) from `mask_tokens`.
            memory_dtype: Type of SAM's memories; None is that of the language model, as published.

        Returns:
            The masks of each frame.
        """
        if not len(mask_tokens):
            return [empty_masks(self.sam2, index) for index in range(len(sam_frames))]
        clip = EncodedClip(self.sam2, sam_frames)
        core = TrackerCore(self.sam2, memory_dtype=memory_dtype or self.dtype, num_frames=len(clip))
        prompts = [ClipPrompt(row, 0, SegmentPrompt(tokens=own[None])) for row, own in enumerate(mask_tokens)]
        return [frame.masks for frame in propagate_in_video(core, clip, prompts, direction="forward")]

    def _memory(self, masks: Sequence[TokenMasks | None], features: Sequence[VideoFeatures]) -> Tensor | None:
        given = [(clip, own) for clip, own in zip(features, masks, strict=True) if own is not None] if masks else []
        return self.encode_memory([clip for clip, _ in given], [own for _, own in given]) if given else None


def _fill(embeds: Tensor, is_placeholder: Tensor, values: Tensor | None, name: str) -> Tensor:
    """Replace the embedding of each placeholder by the next value."""
    num_placeholders, num_values = int(is_placeholder.sum()), 0 if values is None else len(values)
    if num_placeholders != num_values:
        remedy = {
            "visual tokens": "give the clip whose grid the text was rendered for",
            "<|ref|>": "give one point or box per <|ref|>",
            "<|mem|>": "give masks that touch as many frame pairs as the text has <|mem|>; "
            "an object whose mask is empty has none",
        }[name]
        raise ValueError(f"the text has {num_placeholders} {name}, {num_values} were given: {remedy}")
    if values is None:
        return embeds
    return embeds.masked_scatter(is_placeholder[..., None], values.to(embeds.dtype))
