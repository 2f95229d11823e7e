"""SAM 2.1 as stateless verbs over the modules of the sam2 package.

Shape letters: N frames, B objects, C embedding width, D memory width, h/w side of the embedding
(image_size / 16), S image_size, M memories, P pointers, K candidate masks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from unipixel.tracking.build import build_modules
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.precision import Float32Module

# Logits that stand for "object absent" and for the two sides of a given mask (sam2_base.py).
ABSENT_LOGIT = -1024.0
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0
# Earlier logits are clamped to this before they are fed back with a correction (sam2_video_predictor.py).
_FEEDBACK_LOGIT = 32.0


@dataclass(frozen=True)
class FrameFeatures:
    """What the image encoder says of N frames.

    Attributes:
        embedding: (N, C, h, w), stride 16.
        high_res: Maps for the mask decoder: (N, C/8, 4h, 4w) and (N, C/4, 2h, 2w).
    """

    embedding: Tensor
    high_res: tuple[Tensor, Tensor]

    def __len__(self) -> int:
        return self.embedding.shape[0]

    def __getitem__(self, index: int) -> FrameFeatures:
        """Return the features of one frame, N = 1."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)} encoded frames")
        start = index % len(self)
        frame = slice(start, start + 1)
        return FrameFeatures(self.embedding[frame], (self.high_res[0][frame], self.high_res[1][frame]))


@dataclass(frozen=True)
class SegmentPrompt:
    """Prompts of B objects on one frame; all objects of a batch share the same layout.

    Attributes:
        coords: (B, P, 2) float32 x, y in pixels of the square SAM input.
        labels: (B, P) int: 1 positive click, 0 negative click, 2 and 3 corners of a box, -1 padding.
        tokens: (B, n, C) language tokens that follow the points.
        mask_logits: (B, 4h, 4w) earlier logits that a correction starts from.
    """

    coords: Tensor | None = None
    labels: Tensor | None = None
    tokens: Tensor | None = None
    mask_logits: Tensor | None = None

    @property
    def num_points(self) -> int:
        """Points and box corners given for each object."""
        return 0 if self.labels is None else int(self.labels.shape[1])


@dataclass(frozen=True)
class Segmentation:
    """Masks of B objects on one frame.

    Attributes:
        mask_logits: (B, 4h, 4w) of the chosen candidate; -1024 everywhere where the object is absent.
        pointer: (B, C) object pointer, the learned "no object" pointer where it is absent.
        object_score: (B,) logit that the object is in the frame.
        candidate_logits: (B, K, 4h, 4w), not gated by the object score.
        candidate_ious: (B, K) IoU that the decoder predicts for each candidate.
    """

    mask_logits: Tensor
    pointer: Tensor
    object_score: Tensor
    candidate_logits: Tensor
    candidate_ious: Tensor

    @property
    def iou(self) -> Tensor:
        """(B,) predicted IoU of the chosen candidate."""
        return self.candidate_ious.max(dim=-1).values


@dataclass(frozen=True)
class MemoryBatch:
    """Memories of B objects that hold equally many.

    Attributes:
        features: (B, M, h*w, D).
        slots: (B, M) int, temporal slot of each memory: 0 prompted, 1 the oldest recent frame,
            num_maskmem - 1 the previous frame.
        pointers: (B, P, C).
        offsets: (B, P) float, frames between each pointer and now, in the direction of tracking.
        max_offset: Offset that the temporal encoding maps to 1, min(num_frames, max_pointers) - 1.
    """

    features: Tensor
    slots: Tensor
    pointers: Tensor
    offsets: Tensor
    max_offset: int


class Segmenter(Float32Module):
    """SAM 2.1 (arXiv:2408.00714): encode a frame, condition on memory, decode a mask, encode a memory.

    Holds parameters only; what was seen and decided is the caller's. Parameter names are those of the
    official checkpoints. It stays in float32 when a model around it is cast; run it under
    `torch.autocast` for speed.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        for name, module in build_modules(config).items():
            self.add_module(name, module)
        width, memory_width = config.embed_dim, config.memory_dim
        self.maskmem_tpos_enc = nn.Parameter(torch.zeros(config.num_maskmem, 1, 1, memory_width))
        self.no_mem_embed = nn.Parameter(torch.zeros(1, 1, width))
        # Unused while `directly_add_no_mem_embed` holds, but part of every checkpoint.
        self.no_mem_pos_enc = nn.Parameter(torch.zeros(1, 1, width))
        self.no_obj_ptr = nn.Parameter(torch.zeros(1, width))
        self.no_obj_embed_spatial = nn.Parameter(torch.zeros(1, memory_width))
        for parameter in self.parameters(recurse=False):
            nn.init.trunc_normal_(parameter, std=0.02)

    def encode(self, frames: Tensor) -> FrameFeatures:
        """Encode frames, independent of any object.

        Args:
            frames: (N, 3, S, S) normalised float.

        Raises:
            ValueError: The frames are not of the configured size.
        """
        side = self.config.image_size
        if frames.ndim != 4 or tuple(frames.shape[1:]) != (3, side, side):
            raise ValueError(f"frames must be (N, 3, {side}, {side}), got {tuple(frames.shape)}")
        maps = self._pyramid(self.image_encoder.trunk(frames))
        decoder = self.sam_mask_decoder
        return FrameFeatures(maps[2], (decoder.conv_s0(maps[0]), decoder.conv_s1(maps[1])))

    def decode(self, features: FrameFeatures, embedding: Tensor, prompt: SegmentPrompt | None = None) -> Segmentation:
        """Decode the masks of B objects on one frame.

        Three candidates are predicted and the one of highest predicted IoU is taken, unless more than
        one point is given (SAM 2.1's multimask setting).

        Args:
            features: The frame (N = 1, shared by the objects), or one frame per object (N = B).
            embedding: (B, C, h, w) from `start` or `condition`.
            prompt: Prompts of the B objects, or None when the memory alone decides.
        """
        prompt = prompt or SegmentPrompt()
        if prompt.mask_logits is not None:
            prompt = replace(prompt, mask_logits=prompt.mask_logits.clamp(-_FEEDBACK_LOGIT, _FEEDBACK_LOGIT))
        sparse, dense = self._prompt_tokens(prompt, embedding.shape[0])
        return self._decode(features, embedding, sparse, dense, multimask=prompt.num_points <= 1)

    def adopt(self, features: FrameFeatures, masks: Tensor) -> Segmentation:
        """Take given masks as the segmentation of one frame; the decoder only makes their pointers.

        Args:
            features: The frame, N = 1 or N = B.
            masks: (B, S, S) in {0, 1}.
        """
        masks = masks.float()
        is_present = masks.flatten(1).any(dim=1, keepdim=True)
        high_res = masks[:, None] * _MASK_SCALE + _MASK_BIAS
        low_res = F.interpolate(high_res, scale_factor=0.25, mode="bilinear", antialias=True)[:, 0]
        embedding = features.embedding.expand(len(masks), -1, -1, -1)
        prompt = SegmentPrompt(mask_logits=self.mask_downsample(masks[:, None])[:, 0])
        sparse, dense = self._prompt_tokens(prompt, len(masks))
        decoded = self._decode(features, embedding, sparse, dense, multimask=False)
        return Segmentation(
            mask_logits=low_res,
            pointer=torch.where(is_present, decoded.pointer, self.no_obj_ptr),
            object_score=torch.where(is_present[:, 0], _MASK_SCALE + _MASK_BIAS, _MASK_BIAS),
            candidate_logits=low_res[:, None],
            candidate_ious=torch.ones_like(low_res[:, :1, 0]),
        )

    def start(self, features: FrameFeatures, *, num_objects: int) -> Tensor:
        """Return the embedding (B, C, h, w) of a frame for objects that have no memory yet."""
        embedding = features.embedding + self.no_mem_embed.transpose(1, 2)[..., None]
        return embedding.expand(num_objects, -1, -1, -1)

    def condition(self, features: FrameFeatures, memory: MemoryBatch) -> Tensor:
        """Return the embedding (B, C, h, w) of a frame in the light of what B objects remember."""
        num_objects, width = memory.features.shape[0], self.config.embed_dim
        tokens, positions = self._memory_tokens(memory, features.embedding.dtype)
        current = features.embedding.flatten(2).permute(2, 0, 1)
        current_position = self.image_encoder.neck.position_encoding(features.embedding[:1])
        current_position = current_position.to(current.dtype).flatten(2).permute(2, 0, 1)
        conditioned = self.memory_attention(
            curr=current.expand(-1, num_objects, -1),
            curr_pos=current_position.expand(-1, num_objects, -1),
            memory=tokens.transpose(0, 1),
            memory_pos=positions.transpose(0, 1),
            num_obj_ptr_tokens=memory.pointers.shape[1] * (width // self.config.memory_dim),
        )
        side = self.config.feature_size
        return conditioned.permute(1, 2, 0).reshape(num_objects, width, side, side)

    def remember(self, features: FrameFeatures, segmentation: Segmentation) -> Tensor:
        """Encode how B objects look in one frame.

        Returns:
            Memories (B, h*w, D).
        """
        logits = F.interpolate(
            segmentation.mask_logits[:, None].float(), size=[self.config.image_size] * 2, mode="bilinear"
        )
        masks = logits.sigmoid() * _MASK_SCALE + _MASK_BIAS
        encoder = self.memory_encoder
        # Without its call, which would also build the position encoding: that is constant and added on reading.
        fused = encoder.fuser(encoder.pix_feat_proj(features.embedding) + encoder.mask_downsampler(masks))
        memories = encoder.out_proj(fused).flatten(2).transpose(1, 2)
        is_absent = (segmentation.object_score <= 0).to(memories.dtype)[:, None, None]
        return memories + is_absent * self.no_obj_embed_spatial

    def _pyramid(self, trunk_maps: list[Tensor]) -> list[Tensor]:
        """The neck's maps, finest first, without the position encodings that its own call adds."""
        neck = self.image_encoder.neck
        last = len(trunk_maps) - 1
        maps: list[Tensor] = []
        above: Tensor | None = None
        for level in range(last, -1, -1):
            merged = neck.convs[last - level](trunk_maps[level])
            if above is not None and level in neck.fpn_top_down_levels:
                upsampled = F.interpolate(above.float(), scale_factor=2.0, mode=neck.fpn_interp_model)
                merged = merged + upsampled.to(merged.dtype)
            above = merged
            maps.insert(0, merged)
        return maps[: len(maps) - self.image_encoder.scalp]

    def _prompt_tokens(self, prompt: SegmentPrompt, num_objects: int) -> tuple[Tensor, Tensor]:
        """Sparse tokens (B, n, C) and dense embedding (B, C, h, w) of a prompt."""
        device = self.no_mem_embed.device
        coords, labels, mask = prompt.coords, prompt.labels, prompt.mask_logits
        if coords is None or labels is None:
            # Without points SAM 2 still feeds one that is marked as padding.
            coords = torch.zeros(num_objects, 1, 2, device=device)
            labels = torch.full((num_objects, 1), -1, device=device)
        masks = None if mask is None else mask[:, None]
        sparse, dense = self.sam_prompt_encoder(points=(coords.float(), labels), boxes=None, masks=masks)
        if prompt.tokens is not None:
            sparse = torch.cat([sparse, prompt.tokens.to(sparse.dtype)], dim=1)
        return sparse, dense

    def _decode(
        self, features: FrameFeatures, embedding: Tensor, sparse: Tensor, dense: Tensor, *, multimask: bool
    ) -> Segmentation:
        logits, ious, tokens, score = self.sam_mask_decoder(
            image_embeddings=embedding,
            image_pe=self.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            repeat_image=False,
            high_res_features=list(features.high_res),
        )
        logits = logits.float()
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

    def _memory_tokens(self, memory: MemoryBatch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys (B, M*h*w + P*C/D, D) of the memories and pointers, and their position encodings."""
        from sam2.modeling.sam2_utils import get_1d_sine_pe

        num_objects, num_memories, _area, width = memory.features.shape
        side = self.config.feature_size
        grid = memory.features.new_zeros((1, 1, side, side), dtype=dtype)
        spatial = self.memory_encoder.position_encoding(grid).flatten(2).transpose(1, 2)
        temporal = self.maskmem_tpos_enc[self.config.num_maskmem - 1 - memory.slots].reshape(
            num_objects, num_memories, 1, width
        )
        mask_positions = (spatial[:, None] + temporal).flatten(1, 2)
        # A pointer is C wide and is cut into C/D tokens that share one temporal encoding.
        pointers = memory.pointers.reshape(num_objects, -1, width)
        sine = get_1d_sine_pe(memory.offsets / memory.max_offset, dim=self.config.embed_dim)
        pointer_positions = self.obj_ptr_tpos_proj(sine).repeat_interleave(self.config.embed_dim // width, dim=1)
        tokens = torch.cat([memory.features.flatten(1, 2).to(dtype), pointers.to(dtype)], dim=1)
        return tokens, torch.cat([mask_positions, pointer_positions], dim=1).to(dtype)
