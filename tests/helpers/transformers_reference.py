"""transformers' `Sam2VideoModel` with the weights of one of our segmenters."""

from __future__ import annotations

import json
import re
from typing import Any

import torch
from parity.weights import PARITY

from helpers.tracker_reference import tiny_segmenter
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.segmenter import Segmenter

# Patterns of SAM 2's parameter names and their replacements in transformers, applied in order.
_RENAMED = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"(blocks\.\d+\.mlp|transformer\.layers\.\d\.mlp)\.layers\.0", r"\1.proj_in"),
    (r"(blocks\.\d+\.mlp|transformer\.layers\.\d\.mlp)\.layers\.1", r"\1.proj_out"),
    (r"^sam_prompt_encoder\.pe_layer\..*", "prompt_encoder.shared_embedding.positional_embedding"),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(hypernetworks_mlps\.\d|score_head|prediction_head|obj_ptr_proj)\.layers\.0\.", r"\1.proj_in."),
    (r"(hypernetworks_mlps\.\d|score_head|prediction_head|obj_ptr_proj)\.layers\.1\.", r"\1.layers.0."),
    (r"(hypernetworks_mlps\.\d|score_head|prediction_head|obj_ptr_proj)\.layers\.2\.", r"\1.proj_out."),
    (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"\.norm", ".layer_norm"),
    (r"\.out_proj\.", ".o_proj."),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
)  # fmt: skip
_DOWNSAMPLER = re.compile(r"(mask_downsampler)\.encoder\.(\d+)\.")


def wider_segmenter() -> Segmenter:
    """Return the tiny segmenter at the smallest widths that transformers supports."""
    tree = json.loads((PARITY / "sam2_tiny.json").read_text(encoding="utf-8"))
    width, memory_dim = 128, 64
    neck, attention, memory = tree["image_encoder"]["neck"], tree["memory_attention"], tree["memory_encoder"]
    neck["d_model"] = neck["position_encoding"]["num_pos_feats"] = attention["d_model"] = width
    layer = attention["layer"]
    layer["d_model"] = layer["self_attention"]["embedding_dim"] = layer["cross_attention"]["embedding_dim"] = width
    layer["cross_attention"]["kv_in_dim"] = memory_dim
    memory["in_dim"] = memory["mask_downsampler"]["embed_dim"] = memory["fuser"]["layer"]["dim"] = width
    memory["out_dim"] = memory["position_encoding"]["num_pos_feats"] = memory_dim
    return tiny_segmenter(config=SegmenterConfig.from_tree(tree))


def transformers_model(segmenter: Segmenter) -> Any:
    """Return transformers' model of the same sizes and weights."""
    from transformers import Sam2VideoModel

    model = Sam2VideoModel(_config(segmenter.config)).eval()
    state = {_renamed(name): tensor for name, tensor in segmenter.state_dict().items()}
    points = [state.pop(f"prompt_encoder.point_embeddings.{index}.weight") for index in range(4)]
    state["prompt_encoder.point_embed.weight"] = torch.cat(points)
    state["shared_image_embedding.positional_embedding"] = state["prompt_encoder.shared_embedding.positional_embedding"]
    model.load_state_dict(state)
    return model


def transformers_processor(segmenter: Segmenter) -> Any:
    """Return transformers' processor for the input size of a segmenter."""
    from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

    side = segmenter.config.image_size
    size = {"height": side, "width": side}
    return Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size))


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return _DOWNSAMPLER.sub(_downsampler, name)


def _downsampler(match: re.Match[str]) -> str:
    index = int(match[2])
    return f"{match[1]}.layers.{index // 3}.{'layer_norm' if index % 3 else 'conv'}."


def _config(config: SegmenterConfig) -> Any:
    from transformers import Sam2VideoConfig

    trunk, grid, width = config.image_encoder["trunk"], config.feature_size, config.embed_dim
    attention, fuser = config.memory_attention, config.memory_encoder["fuser"]
    sides = [[4 * grid] * 2, [2 * grid] * 2, [grid] * 2]
    vision = {
        "image_size": config.image_size,
        "backbone_feature_sizes": sides,
        "backbone_channel_list": config.image_encoder["neck"]["backbone_channel_list"],
        "fpn_hidden_size": width,
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "image_size": [config.image_size] * 2,
            "hidden_size": trunk["embed_dim"],
            "num_attention_heads": trunk["num_heads"],
            "blocks_per_stage": trunk["stages"],
            "embed_dim_per_stage": [trunk["embed_dim"] * 2**stage for stage in range(4)],
            "num_attention_heads_per_stage": [trunk["num_heads"] * 2**stage for stage in range(4)],
            "window_size_per_stage": trunk["window_spec"],
            "global_attention_blocks": trunk["global_att_blocks"],
            "window_positional_embedding_background_size": trunk["window_pos_embed_bkg_spatial_size"],
        },
    }
    settings = Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": config.image_size, "hidden_size": width},
        mask_decoder_config={"hidden_size": width},
        image_size=config.image_size,
        num_maskmem=config.num_maskmem,
        memory_attention_hidden_size=width,
        memory_attention_num_layers=attention["num_layers"],
        memory_attention_feed_forward_hidden_size=attention["layer"]["dim_feedforward"],
        memory_attention_rope_feat_sizes=[grid, grid],
        memory_encoder_hidden_size=width,
        memory_encoder_output_channels=config.memory_dim,
        mask_downsampler_embed_dim=width,
        memory_fuser_num_layers=fuser["num_layers"],
        memory_fuser_embed_dim=width,
        memory_fuser_intermediate_dim=4 * width,
    )
    settings._attn_implementation = "sdpa"
    return settings
