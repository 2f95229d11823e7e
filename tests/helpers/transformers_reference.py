"""transformers' `Sam2VideoModel` with the weights of one of our segmenters."""

from __future__ import annotations

import json
from typing import Any

import torch
from parity.weights import PARITY

from helpers.tracker_reference import tiny_segmenter
from unipixel.checkpoints.segmenter_tensors import (
    GAUSSIAN,
    POINTS,
    TRANSFORMERS_GAUSSIANS,
    point_row,
    transformers_name,
)
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.segmenter import Segmenter


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
    ours = segmenter.state_dict()
    state = {transformers_name(name): tensor for name, tensor in ours.items()}
    state[POINTS] = torch.cat([tensor for name, tensor in ours.items() if point_row(name) is not None])
    state |= dict.fromkeys(TRANSFORMERS_GAUSSIANS, ours[GAUSSIAN])
    model.load_state_dict(state)
    return model


def transformers_processor(segmenter: Segmenter) -> Any:
    """Return transformers' processor for the input size of a segmenter."""
    from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

    side = segmenter.config.image_size
    size = {"height": side, "width": side}
    return Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size))


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
        enable_occlusion_spatial_embedding=config.has_occlusion_embedding,
        enable_temporal_pos_encoding_for_object_pointers=config.has_pointer_encoding,
    )
    settings._attn_implementation = "sdpa"
    return settings
