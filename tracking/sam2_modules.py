"""Builds the modules of SAM 2.1 from the sam2 package without Hydra."""

from __future__ import annotations

from typing import Any

from torch import nn

from unipixel.tracking.config import FEATURE_STRIDE, SegmenterConfig


def build_modules(config: SegmenterConfig) -> dict[str, nn.Module]:
    """Return the modules by their names in SAM 2 checkpoints.

    The package is imported inside the functions, because importing it initialises Hydra's global state.

    Raises:
        ImportError: The sam2 package is missing.
        TypeError: The package does not accept a keyword of the configuration.
    """
    from sam2.modeling.sam2_utils import MLP

    width, memory_width = config.embed_dim, config.memory_dim
    return {
        "image_encoder": _image_encoder(config),
        "mask_downsample": nn.Conv2d(1, 1, kernel_size=4, stride=4),
        "memory_attention": _memory_attention(config),
        "memory_encoder": _memory_encoder(config),
        "sam_prompt_encoder": build_prompt_encoder(embed_dim=width, image_size=config.image_size),
        "sam_mask_decoder": _mask_decoder(width),
        "obj_ptr_proj": MLP(width, width, width, 3),
        "obj_ptr_tpos_proj": nn.Linear(width, memory_width) if config.has_pointer_encoding else nn.Identity(),
    }


def build_prompt_encoder(*, embed_dim: int, image_size: int) -> nn.Module:
    """Return SAM's encoder of points, boxes and masks for a square input of `image_size` pixels."""
    from sam2.modeling.sam.prompt_encoder import PromptEncoder

    grid = (image_size // FEATURE_STRIDE, image_size // FEATURE_STRIDE)
    return PromptEncoder(
        embed_dim=embed_dim,
        image_embedding_size=grid,
        input_image_size=(image_size, image_size),
        mask_in_chans=16,
    )


def _image_encoder(config: SegmenterConfig) -> nn.Module:
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    neck: dict[str, Any] = dict(config.image_encoder["neck"])
    encoding = PositionEmbeddingSine(**neck.pop("position_encoding"))
    return ImageEncoder(
        trunk=Hiera(**config.image_encoder["trunk"]),
        neck=FpnNeck(position_encoding=encoding, **neck),
        scalp=config.image_encoder["scalp"],
    )


def _memory_attention(config: SegmenterConfig) -> nn.Module:
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.sam.transformer import RoPEAttention

    attention: dict[str, Any] = dict(config.memory_attention)
    layer: dict[str, Any] = dict(attention.pop("layer"))
    kinds = {kind: RoPEAttention(**layer.pop(kind)) for kind in ("self_attention", "cross_attention")}
    return MemoryAttention(layer=MemoryAttentionLayer(**kinds, **layer), **attention)


def _memory_encoder(config: SegmenterConfig) -> nn.Module:
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine

    encoder: dict[str, Any] = dict(config.memory_encoder)
    fuser: dict[str, Any] = dict(encoder.pop("fuser"))
    return MemoryEncoder(
        position_encoding=PositionEmbeddingSine(**encoder.pop("position_encoding")),
        mask_downsampler=MaskDownSampler(**encoder.pop("mask_downsampler")),
        fuser=Fuser(CXBlock(**fuser.pop("layer")), **fuser),
        **encoder,
    )


def _mask_decoder(width: int) -> nn.Module:
    """Build the mask decoder; its depths and inner widths are constants of the package (sam2_base.py)."""
    from sam2.modeling.sam.mask_decoder import MaskDecoder
    from sam2.modeling.sam.transformer import TwoWayTransformer

    return MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=width, mlp_dim=2048, num_heads=8),
        transformer_dim=width,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
    )
