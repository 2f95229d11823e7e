"""SAM 2.1 as stateless methods over the modules of the sam2 package.

Shape letters: N frames, B objects, C embedding width, D memory width, h/w side of the embedding
(image_size / 16), S image_size, M memories, P pointers, K candidate masks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unipixel.tracking import memory_attention as attention
from unipixel.tracking.acceleration.onednn_products import use_onednn
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.precision import Float32Module
from unipixel.tracking.sam2_modules import build_modules
from unipixel.tracking.types import FrameFeatures, MemoryBatch, Segmentation, SegmentPrompt

# Logit of an absent object, and the scale and bias that turn a binary mask into logits (sam2_base.py).
ABSENT_LOGIT = -1024.0
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0
# Earlier logits are clamped to this range before they prompt the decoder (sam2_video_predictor.py).
_MAX_PROMPT_LOGIT = 32.0
# The stability score of a single mask is the ratio of its areas at thresholds of plus and minus delta. Below this
# score it is replaced by the best of the three candidates (dynamic multimask via stability, build_sam.py).
_STABILITY_THRESHOLD, _STABILITY_DELTA = 0.98, 0.05
# Smallest side of a feature map on which fusing two convolutions into one saves time. Smaller maps are computed
# bit for bit as in the package, because bfloat16 memories of a small model amplify rounding differences.
_MIN_FUSED_SIDE = 64


class Segmenter(Float32Module):
    """SAM 2.1 or 2.0 (arXiv:2408.00714): image encoder, memory attention, mask decoder and memory encoder.

    Only parameters are stored; features, masks and memories are returned and passed in again. Parameter names
    are those of the official checkpoints. It stays in float32 when a model that contains it is cast; run it
    under `torch.autocast` for speed.
    """

    # The sam2 package is untyped.
    image_encoder: Any
    mask_downsample: nn.Conv2d
    memory_attention: Any
    memory_encoder: Any
    sam_prompt_encoder: Any
    sam_mask_decoder: Any
    obj_ptr_proj: nn.Module
    obj_ptr_tpos_proj: nn.Module
    no_obj_embed_spatial: nn.Parameter | None

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        for name, module in build_modules(config).items():
            self.add_module(name, module)
        use_onednn(self)
        width, memory_width = config.embed_dim, config.memory_dim
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(config.num_maskmem, 1, 1, memory_width))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, width))
        # Not used with `directly_add_no_mem_embed`, but part of every checkpoint.
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, width))
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, width))
        absent = nn.Parameter(torch.zeros(1, memory_width)) if config.has_occlusion_embedding else None
        self.register_parameter("no_obj_embed_spatial", absent)
        for parameter in self.parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=0.02)

    def encode(self, frames: Tensor) -> FrameFeatures:
        """Encode frames with the image encoder.

        Args:
            frames: (N, 3, S, S) normalised float.

        Raises:
            ValueError: The frames are not of the configured size.
        """
        side = self.config.image_size
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, side, side):
            raise ValueError(f"frames must be (N, 3, {side}, {side}), got {tuple(frames.shape)}")
        return self._feature_pyramid(self.image_encoder.trunk(frames))

    def decode(
        self,
        features: FrameFeatures,
        embedding: Tensor,
        prompt: SegmentPrompt | None = None,
        *,
        is_dynamic_multimask: bool = False,
    ) -> Segmentation:
        """Decode the masks of B objects on one frame.

        The candidate with the highest predicted IoU of three is selected, or the single mask if more than one
        point is given (SAM 2.1's multimask setting).

        Args:
            features: The frame (N = 1, shared by the objects), or one frame per object (N = B).
            embedding: (B, C, h, w) from `embed_without_memory` or `attend_memory`.
            prompt: Prompts of the B objects, or None to decode from memory alone.
            is_dynamic_multimask: Whether an unstable single mask is replaced by the best of three candidates.
        """
        prompt = prompt or SegmentPrompt()
        if prompt.mask_logits is not None:
            prompt = replace(prompt, mask_logits=prompt.mask_logits.clamp(-_MAX_PROMPT_LOGIT, _MAX_PROMPT_LOGIT))
        sparse, dense = self._prompt_tokens(prompt, embedding.shape[0])
        candidates = self._candidates(features, embedding, sparse, dense)
        if prompt.num_points > 1:
            candidates = _select_single_mask(candidates, is_dynamic_multimask=is_dynamic_multimask)
        else:
            candidates = candidates.multimask()
        return self._select_best(candidates)

    def use_mask(self, features: FrameFeatures, masks: Tensor, *, has_multimask_pointer: bool = False) -> Segmentation:
        """Use given masks as the segmentation of one frame; the decoder only computes their pointers.

        Args:
            features: The frame, N = 1 or N = B.
            masks: (B, S, S) in {0, 1}.
            has_multimask_pointer: Whether the pointer is that of the best of three candidates, as in transformers,
                instead of that of the single mask, as in the sam2 package.
        """
        masks = masks.float()
        is_present = masks.flatten(1).any(dim=1, keepdim=True)
        high_res = masks[:, None] * _MASK_SCALE + _MASK_BIAS
        low_res = F.interpolate(high_res, scale_factor=0.25, mode="bilinear", antialias=True)[:, 0]
        embedding = features.embedding.expand(len(masks), -1, -1, -1)
        prompt = SegmentPrompt(mask_logits=self.mask_downsample(masks[:, None])[:, 0])
        sparse, dense = self._prompt_tokens(prompt, len(masks))
        candidates = self._candidates(features, embedding, sparse, dense)
        decoded = self._select_best(
            candidates.multimask() if has_multimask_pointer
            else _select_single_mask(candidates, is_dynamic_multimask=False)
        )  # fmt: skip
        return Segmentation(
            mask_logits=low_res,
            pointer=torch.where(is_present, decoded.pointer, self.no_obj_ptr),
            object_score=torch.where(is_present[:, 0], _MASK_SCALE + _MASK_BIAS, _MASK_BIAS),
            candidate_logits=low_res[:, None],
            candidate_ious=torch.ones_like(low_res[:, :1, 0]),
        )

    def embed_without_memory(self, features: FrameFeatures, *, num_objects: int) -> Tensor:
        """Return the embedding (B, C, h, w) of a frame for objects without memory."""
        embedding = features.embedding + self.no_mem_embed.transpose(1, 2)[..., None]
        return embedding.expand(num_objects, -1, -1, -1)

    def prepare_queries(self, features: FrameFeatures) -> Tensor:
        """Return the part (N, h*w, C) of `attend_memory` that does not depend on the memories."""
        tokens = features.embedding.flatten(2).transpose(1, 2)
        position = self.image_encoder.neck.position_encoding(features.embedding).to(tokens.dtype)
        return attention.prepare_queries(
            self.memory_attention, tokens, position.flatten(2).transpose(1, 2), self._rotations("self_attention")
        )

    def attend_memory(self, features: FrameFeatures, memory: MemoryBatch, *, queries: Tensor | None = None) -> Tensor:
        """Return the embedding (B, C, h, w) of a frame after attention to the memories of B objects.

        Args:
            features: The frame, N = 1 or N = B.
            memory: Memories of the objects.
            queries: From `prepare_queries`, where several batches of objects share the frame.
        """
        side = self.config.feature_size
        tokens = attention.attend_memory(
            self.memory_attention,
            self.prepare_queries(features) if queries is None else queries,
            self._memory_tokens(memory, features.embedding.dtype),
            self._rotations("cross_attention"),
            num_rotated=memory.features.shape[1] * side * side,
        )
        return tokens.transpose(1, 2).unflatten(2, (side, side))

    def embed_boxes(self, boxes_xyxy: Tensor) -> Tensor:
        """Return the prompt tokens (B, 2, C) of boxes (B, 4), given in pixels of the square SAM input."""
        tokens, _ = self.sam_prompt_encoder(points=None, boxes=boxes_xyxy, masks=None)
        return tokens

    def encode_memory(
        self, features: FrameFeatures, segmentation: Segmentation, *, is_binary: bool = False,
        masks: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Encode the memories of B objects from one frame.

        Args:
            features: The frame, N = 1 or N = B.
            segmentation: Masks of the objects on the frame.
            is_binary: Whether masks are thresholded before they are encoded, instead of passed as probabilities.
            masks: Given masks (B, S, S) in {0, 1} that are encoded instead of the logits.

        Returns:
            Memories (B, h*w, D).
        """
        if masks is None:
            logits = self._full_size(segmentation)
            masks = (logits > 0).float() if is_binary else logits.sigmoid()
        else:
            masks = masks[:, None].float()
        masks = masks * _MASK_SCALE + _MASK_BIAS
        encoder = self.memory_encoder
        # The encoder's own forward also computes the position encoding, which is constant and added in memory
        # attention. Contiguous as in the package: another layout is rounded differently, and bfloat16 amplifies that.
        pixels = encoder.pix_feat_proj(features.embedding).contiguous()
        fused = encoder.fuser(pixels + encoder.mask_downsampler(masks))
        memories = encoder.out_proj(fused).flatten(2).transpose(1, 2)
        if self.no_obj_embed_spatial is None:
            return memories
        is_absent = (segmentation.object_score <= 0).to(memories.dtype)[:, None, None]
        return memories + is_absent * self.no_obj_embed_spatial

    def _full_size(self, segmentation: Segmentation) -> Tensor:
        """Return the mask logits (B, 1, S, S) in the size of the SAM input."""
        logits = segmentation.mask_logits[:, None].float()
        if logits.device.type == "cpu":
            # The package resizes all candidates of a tracked frame at once; torch rounds a single channel differently.
            logits = logits.expand(-1, segmentation.candidate_ious.shape[1], -1, -1)
        return F.interpolate(logits, size=[self.config.image_size] * 2, mode="bilinear")[:, :1]

    def _feature_pyramid(self, trunk_maps: list[Tensor]) -> FrameFeatures:
        """Compute the feature pyramid without the position encodings of the neck's own forward.

        The decoder applies a 1x1 convolution to each of the two finest maps. It is fused with the lateral
        convolution of the neck where no other level needs the map between them.
        """
        neck, decoder = self.image_encoder.neck, self.sam_mask_decoder
        projections = (decoder.conv_s0, decoder.conv_s1)
        last = len(trunk_maps) - 1
        maps: dict[int, Tensor] = {}
        for level in range(last, -1, -1):
            lateral = neck.convs[last - level].conv
            is_sum = level in neck.fpn_top_down_levels and level < last
            is_summand = level - 1 in neck.fpn_top_down_levels
            is_large = trunk_maps[level].shape[-1] >= _MIN_FUSED_SIDE
            if level < len(projections) and is_large and not is_sum and not is_summand:
                maps[level] = _fused_conv(trunk_maps[level], lateral, projections[level])
                continue
            maps[level] = lateral(trunk_maps[level])
            if is_sum:
                above = F.interpolate(maps[level + 1].float(), scale_factor=2.0, mode=neck.fpn_interp_model)
                maps[level] = maps[level] + above.to(maps[level].dtype)
        fine = [maps[level] if maps[level].shape[1] == conv.out_channels else conv(maps[level])
                for level, conv in enumerate(projections)]  # fmt: skip
        return FrameFeatures(maps[last - self.image_encoder.scalp], (fine[0], fine[1]))

    def _prompt_tokens(self, prompt: SegmentPrompt, num_objects: int) -> tuple[Tensor, Tensor]:
        """Return the sparse tokens (B, n, C) and the dense embedding (B, C, h, w) of a prompt."""
        device = self.no_mem_embed.device
        coords, labels, mask = prompt.coords, prompt.labels, prompt.mask_logits
        if coords is None or labels is None:
            # Without points, SAM 2 passes one padding point.
            coords = torch.zeros(num_objects, 1, 2, device=device)
            labels = torch.full((num_objects, 1), -1, device=device)
        masks = None if mask is None else mask[:, None]
        sparse, dense = self.sam_prompt_encoder(points=(coords.float(), labels), boxes=None, masks=masks)
        if prompt.tokens is not None:
            sparse = torch.cat([sparse, prompt.tokens.to(sparse.dtype)], dim=1)
        return sparse, dense

    def _candidates(self, features: FrameFeatures, embedding: Tensor, sparse: Tensor, dense: Tensor) -> _Candidates:
        """Predict four candidates: the single mask, then the three of the multimask output."""
        logits, ious, tokens, score = self.sam_mask_decoder.predict_masks(
            image_embeddings=embedding,
            image_pe=self.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=False,
            high_res_features=list(features.high_res),
        )
        return _Candidates(logits.float(), ious, tokens, score)

    def _select_best(self, candidates: _Candidates) -> Segmentation:
        logits, ious, tokens, score = candidates
        rows = torch.arange(len(logits), device=logits.device)
        best = ious.argmax(dim=-1)
        is_present = score > 0
        pointer = self.obj_ptr_proj(tokens[rows, best])
        return Segmentation(
            mask_logits=torch.where(is_present[..., None], logits[rows, best], ABSENT_LOGIT),
            pointer=torch.where(is_present, pointer, self.no_obj_ptr.to(pointer.dtype)),
            object_score=score[:, 0].float(),
            candidate_logits=logits,
            candidate_ious=ious.float(),
        )

    def _rotations(self, kind: str) -> Tensor:
        settings = self.config.memory_attention["layer"][kind]
        width = settings["embedding_dim"] // settings["downsample_rate"] // settings["num_heads"]
        device = self.no_mem_embed.device
        return attention.rotary_table(self.config.feature_size, width, float(settings["rope_theta"]), device)

    def _memory_tokens(self, memory: MemoryBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the tokens (B, M*h*w + P*C/D, D) of memories and pointers, and their position encodings."""
        from sam2.modeling.sam2_utils import get_1d_sine_pe

        num_objects, num_memories, _area, width = memory.features.shape
        side = self.config.feature_size
        grid = memory.features.new_zeros((1, 1, side, side), dtype=dtype)
        spatial = self.memory_encoder.position_encoding(grid).flatten(2).transpose(1, 2)
        temporal = self.maskmem_tpos_enc[self.config.num_maskmem - 1 - memory.slots].reshape(
            num_objects, num_memories, 1, width
        )
        mask_positions = (spatial[:, None] + temporal).flatten(1, 2)
        # A pointer of width C is split into C/D tokens that share one temporal encoding.
        pointers = memory.pointers.reshape(num_objects, -1, width)
        if self.config.has_pointer_encoding:
            sine = get_1d_sine_pe(memory.offsets / memory.max_offset, dim=self.config.embed_dim)
            pointer_positions = self.obj_ptr_tpos_proj(sine).repeat_interleave(self.config.embed_dim // width, dim=1)
        else:
            pointer_positions = torch.zeros_like(pointers)
        tokens = torch.cat([memory.features.flatten(1, 2).to(dtype), pointers.to(dtype)], dim=1)
        return tokens, torch.cat([mask_positions, pointer_positions], dim=1).to(dtype)


class _Candidates(NamedTuple):
    """Logits (B, K, 4h, 4w), predicted IoU (B, K), tokens (B, K, C) and object score (B, 1)."""

    logits: Tensor
    ious: Tensor
    tokens: Tensor
    score: Tensor

    def multimask(self) -> _Candidates:
        """Return the three candidates of the multimask output."""
        return _Candidates(self.logits[:, 1:], self.ious[:, 1:], self.tokens[:, 1:], self.score)


def _select_single_mask(candidates: _Candidates, *, is_dynamic_multimask: bool) -> _Candidates:
    """Select the single mask, or the best of the three multimask candidates if it is unstable."""
    logits, ious, tokens, score = candidates
    selected = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    if is_dynamic_multimask:
        union = (logits[:, 0] > -_STABILITY_DELTA).flatten(1).sum(dim=1)
        intersection = (logits[:, 0] > _STABILITY_DELTA).flatten(1).sum(dim=1)
        is_stable = intersection >= _STABILITY_THRESHOLD * union
        selected = torch.where(is_stable, selected, 1 + ious[:, 1:].argmax(dim=1))
    rows = torch.arange(len(logits), device=logits.device)
    # The pointer is always that of the single mask (mask_decoder.py).
    return _Candidates(logits[rows, selected][:, None], ious[rows, selected][:, None], tokens[:, :1], score)


def _fused_conv(maps: Tensor, first: Any, second: Any) -> Tensor:
    """Apply a convolution and the 1x1 convolution that follows it as one."""
    outer = second.weight.flatten(1)
    weight = (outer @ first.weight.flatten(1)).view(-1, *first.weight.shape[1:])
    bias = second.bias if first.bias is None else outer @ first.bias + second.bias
    return F.conv2d(maps, weight, bias, stride=first.stride, padding=first.padding)
