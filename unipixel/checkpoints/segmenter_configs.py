"""Sizes of SAM 2.1 and SAM 2.0 from transformers' config.json, or from the tensors of an official checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unipixel.checkpoints.segmenter_tensors import official_shapes
from unipixel.tracking.config import FEATURE_STRIDE, SegmenterConfig

MODEL_TYPE = "sam2_video"
_EXAMPLE = "such as facebook/sam2.1-hiera-tiny"
_REMEDIES = {
    "sam2": f"which is SAM 2 for images and has no memory: give a video checkpoint, {_EXAMPLE}",
    "sam3": f"which is SAM 3, whose tracker has another architecture: give SAM 2.1 or SAM 2.0, {_EXAMPLE}",
}
# Settings of transformers that this project supports; absent ones have these values there too.
_FIXED: dict[str, Any] = {
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "multimask_output_in_sam": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "multimask_output_for_tracking": True,
    "max_cond_frame_num": -1,
    "memory_attention_feed_forward_hidden_act": "relu",
    "mask_downsampler_total_stride": 16,
    "mask_downsampler_hidden_act": "gelu",
    "memory_fuser_hidden_act": "gelu",
    "vision_config.model_type": "sam2_vision_model",
    "vision_config.fpn_kernel_size": 1,
    "vision_config.fpn_stride": 1,
    "vision_config.fpn_padding": 0,
    "vision_config.num_feature_levels": 3,
    "vision_config.backbone_config.model_type": "sam2_hiera_det_model",
    "vision_config.backbone_config.patch_kernel_size": [7, 7],
    "vision_config.backbone_config.patch_stride": [4, 4],
    "vision_config.backbone_config.patch_padding": [3, 3],
    "vision_config.backbone_config.query_stride": [2, 2],
    "vision_config.backbone_config.num_query_pool_stages": 3,
    "vision_config.backbone_config.mlp_ratio": 4.0,
    "vision_config.backbone_config.hidden_act": "gelu",
    "prompt_encoder_config.patch_size": FEATURE_STRIDE,
    "prompt_encoder_config.mask_input_channels": 16,
    "prompt_encoder_config.num_point_embeddings": 4,
    "mask_decoder_config.mlp_dim": 2048,
    "mask_decoder_config.num_hidden_layers": 2,
    "mask_decoder_config.num_attention_heads": 8,
    "mask_decoder_config.attention_downsample_rate": 2,
    "mask_decoder_config.num_multimask_outputs": 3,
    "mask_decoder_config.iou_head_depth": 3,
    "mask_decoder_config.iou_head_hidden_dim": 256,
    "mask_decoder_config.dynamic_multimask_stability_delta": 0.05,
    "mask_decoder_config.dynamic_multimask_stability_thresh": 0.98,
}


def read_transformers_config(fields: Mapping[str, Any]) -> SegmenterConfig:
    """Return the sizes in a config.json of transformers' `Sam2VideoModel`.

    Args:
        fields: The file's content.

    Raises:
        ValueError: It is of another model type, requires remote code, or has a setting that is not supported.
    """
    if fields.get("auto_map"):
        raise ValueError(f"config.json requires remote code (auto_map = {fields['auto_map']}): it is refused")
    kind = str(fields.get("model_type"))
    if kind != MODEL_TYPE:
        remedy = _REMEDIES.get(kind) or next((text for name, text in _REMEDIES.items() if kind.startswith(name)), None)
        remedy = remedy or f"not {MODEL_TYPE!r}: give a UniPixel checkpoint, SAM 2.1 or SAM 2.0, {_EXAMPLE}"
        raise ValueError(f"config.json has model_type {kind!r}, {remedy}")
    for name, value in _FIXED.items():
        given = _value(fields, name, value)
        if given != value and given != [value, value]:
            raise ValueError(f"config.json sets {name} = {given!r}, which is not supported: it must be {value!r}")
    trunk = _trunk(fields)
    attention = {
        "embedding_dim": _number(fields, "memory_attention_hidden_size", 256),
        "num_heads": _number(fields, "memory_attention_num_attention_heads", 1),
        "downsample_rate": _number(fields, "memory_attention_downsample_rate", 1),
        "rope_theta": float(
            (fields.get("rope_parameters") or {}).get("rope_theta") or fields.get("memory_attention_rope_theta") or 1e4
        ),
    }
    has_pointer_encoding = bool(fields.get("enable_temporal_pos_encoding_for_object_pointers", True))
    return SegmenterConfig.from_tree(
        {
            "image_size": _image_size(fields),
            "num_maskmem": _number(fields, "num_maskmem", 7),
            "max_obj_ptrs_in_encoder": _number(fields, "max_object_pointers_in_encoder", 16),
            "no_obj_embed_spatial": bool(fields.get("enable_occlusion_spatial_embedding", True)),
            "add_tpos_enc_to_obj_ptrs": has_pointer_encoding,
            "proj_tpos_enc_in_obj_ptrs": has_pointer_encoding,
            "use_signed_tpos_enc_to_obj_ptrs": has_pointer_encoding,
            "image_encoder": {
                "trunk": trunk,
                "neck": {
                    "d_model": _number(fields, "vision_config.fpn_hidden_size", 256),
                    "fpn_top_down_levels": list(_value(fields, "vision_config.fpn_top_down_levels", [2, 3])),
                },
            },
            "memory_attention": {
                "num_layers": _number(fields, "memory_attention_num_layers", 4),
                "layer": {
                    "dim_feedforward": _number(fields, "memory_attention_feed_forward_hidden_size", 2048),
                    "self_attention": attention,
                    "cross_attention": attention,
                },
            },
            "memory_encoder": {
                "out_dim": _number(fields, "memory_encoder_output_channels", 64),
                "mask_downsampler": {
                    "kernel_size": _number(fields, "mask_downsampler_kernel_size", 3),
                    "stride": _number(fields, "mask_downsampler_stride", 2),
                    "padding": _number(fields, "mask_downsampler_padding", 1),
                    "embed_dim": _number(fields, "mask_downsampler_embed_dim", 256),
                },
                "fuser": {
                    "num_layers": _number(fields, "memory_fuser_num_layers", 2),
                    "layer": {
                        "dim": _number(fields, "memory_fuser_embed_dim", 256),
                        "kernel_size": _number(fields, "memory_fuser_kernel_size", 7),
                        "padding": _number(fields, "memory_fuser_padding", 3),
                    },
                },
            },
        }
    )


def infer_official_config(shapes: Mapping[str, tuple[int, ...]], *, image_size: int = 1024) -> SegmenterConfig:
    """Return the published size of SAM 2.1 or SAM 2.0 to which official tensors belong.

    Args:
        shapes: Shapes by name.
        image_size: Side of the SAM input in pixels.

    Raises:
        ValueError: They belong to none.
    """
    if any(name.startswith(("detector.", "tracker.")) for name in shapes):
        raise ValueError(f"these are the tensors of another architecture, {_REMEDIES['sam3']}")
    version = "sam2.1" if {"obj_ptr_tpos_proj.weight", "no_obj_embed_spatial"} & set(shapes) else "sam2"
    for size in ("t", "s", "b+", "l"):
        config = SegmenterConfig.preset(f"{version}_hiera_{size}", image_size=image_size)
        if _trunk_shapes(official_shapes(config)) == _trunk_shapes(shapes):
            return config
    raise ValueError(
        f"these {len(shapes)} tensors, such as {next(iter(shapes), 'none')}, have none of the published sizes tiny, "
        "small, base_plus and large of SAM 2.1 and SAM 2.0: give their sizes as sam2_config"
    )


def _trunk_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shapes in which the published sizes differ; a missing tensor is reported later, by its name."""
    blocks = {name.split(".")[3] for name in shapes if name.startswith("image_encoder.trunk.blocks.")}
    kept = ("image_encoder.trunk.pos_embed", "image_encoder.trunk.patch_embed.proj.weight")
    return {name: shapes[name] for name in kept if name in shapes} | {"blocks": (len(blocks),)}


def _trunk(fields: Mapping[str, Any]) -> dict[str, Any]:
    def value(name: str, default: Any) -> Any:
        return _value(fields, f"vision_config.backbone_config.{name}", default)

    stages = list(value("blocks_per_stage", [1, 2, 7, 2]))
    width, heads = value("hidden_size", 96), value("num_attention_heads", 1)
    for name, first in (("embed_dim_per_stage", width), ("num_attention_heads_per_stage", heads)):
        doubled = [first * 2**stage for stage in range(len(stages))]
        if (given := list(value(name, doubled))) != doubled:
            raise ValueError(f"config.json sets {name} = {given}, which is not supported: it must be {doubled}")
    return {
        "embed_dim": width,
        "num_heads": heads,
        "stages": stages,
        "global_att_blocks": list(value("global_attention_blocks", [5, 7, 9])),
        "window_pos_embed_bkg_spatial_size": list(value("window_positional_embedding_background_size", [7, 7])),
        "window_spec": list(value("window_size_per_stage", [8, 4, 14, 7])),
    }


def _image_size(fields: Mapping[str, Any]) -> int:
    sizes = [_value(fields, name, 1024) for name in ("image_size", "prompt_encoder_config.image_size")]
    sides = {side for size in sizes for side in (size if isinstance(size, list) else [size])}
    if len(sides) != 1:
        raise ValueError(f"config.json has the image sizes {sizes}: they must be one square")
    return int(sides.pop())


def _number(fields: Mapping[str, Any], name: str, default: int) -> int:
    value = _value(fields, name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 2**16:
        raise ValueError(f"config.json sets {name} = {value!r}: it must be a number from 1 to {2**16}")
    return value


def _value(fields: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return a nested value, and the default where it is absent or null."""
    value: Any = fields
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return default if value is None else value
