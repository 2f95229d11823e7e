"""transformers' `Sam2VideoModel` in the published sizes, with random weights, and the masks that it tracks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from helpers.tracker_reference import HEIGHT, WIDTH

# As in the config.json files of the hub (facebook/sam2.1-hiera-*).
_BACKBONES: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"blocks_per_stage": [1, 2, 11, 2], "global_attention_blocks": [7, 10, 13]},
    "base-plus": {
        "hidden_size": 112, "num_attention_heads": 2, "blocks_per_stage": [2, 3, 16, 3],
        "global_attention_blocks": [12, 16, 20], "embed_dim_per_stage": [112, 224, 448, 896],
        "num_attention_heads_per_stage": [2, 4, 8, 16], "window_positional_embedding_background_size": [14, 14],
    },
    "large": {
        "hidden_size": 144, "num_attention_heads": 2, "blocks_per_stage": [2, 6, 36, 4],
        "global_attention_blocks": [23, 33, 43], "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16], "window_size_per_stage": [8, 4, 16, 8],
    },
}  # fmt: skip
SIZES = tuple(_BACKBONES)


def published_config(size: str, *, image_size: int = 1024, is_first_version: bool = False) -> Any:
    """Return transformers' configuration of a published size, of SAM 2.0 if `is_first_version`."""
    from transformers import Sam2VideoConfig

    backbone = {"model_type": "sam2_hiera_det_model", "image_size": [image_size] * 2, **_BACKBONES[size]}
    width, grid = backbone.get("hidden_size", 96), image_size // 16
    config = Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model",
            "image_size": image_size,
            "backbone_config": backbone,
            "backbone_channel_list": [width * 2**stage for stage in (3, 2, 1, 0)],
            "backbone_feature_sizes": [[4 * grid] * 2, [2 * grid] * 2, [grid] * 2],
        },
        prompt_encoder_config={"image_size": image_size},
        image_size=image_size,
        memory_attention_rope_feat_sizes=[grid, grid],
        enable_occlusion_spatial_embedding=not is_first_version,
        enable_temporal_pos_encoding_for_object_pointers=not is_first_version,
    )
    config._attn_implementation = "sdpa"
    return config


def random_model(config: Any) -> Any:
    """Return a model whose random weights give masks with an outline."""
    from accelerate import init_empty_weights
    from transformers import Sam2VideoModel

    generator = torch.Generator().manual_seed(0)
    with init_empty_weights(include_buffers=False):
        model = Sam2VideoModel(config)
    state = {}
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        values = torch.empty(shape).normal_(generator=generator)
        if len(shape) == 1:
            values = 1 + 0.1 * values if name.endswith("weight") else 0.1 * values
        elif "embed" in name and "conv" not in name and "proj" not in name:
            values = 0.5 * values
        else:
            # Small in the residual blocks, of which up to 48 would amplify the rounding.
            gain = 0.7 if name.startswith("vision_encoder.") else 1.4
            values = gain * values / np.sqrt(np.prod(shape[1:]))
        state[name] = values
    # Objects are present on all frames.
    state["mask_decoder.pred_obj_score_head.proj_out.bias"] += 10
    shared = "shared_image_embedding.positional_embedding"
    state["prompt_encoder.shared_embedding.positional_embedding"] = state[shared].clone()
    model.load_state_dict(state, assign=True)
    return model.eval()


def video_processor(image_size: int) -> Any:
    """Return transformers' processor for an image size."""
    from transformers import Sam2ImageProcessor, Sam2VideoProcessor, Sam2VideoVideoProcessor

    size = {"height": image_size, "width": image_size}
    return Sam2VideoProcessor(Sam2ImageProcessor(size=size), Sam2VideoVideoProcessor(size=size))


def tracked_logits(model: Any, processor: Any, session: Any, prompts: list[dict[str, Any]]) -> Tensor:
    """Prompt an object on frame 0 by each of some inputs, and return the logits (T, B, H, W) of all frames."""
    for object_id, inputs in enumerate(prompts, start=1):
        processor.add_inputs_to_inference_session(session, 0, object_id, **inputs)
    # transformers' processor replaces the objects of its previous call.
    session.obj_with_new_inputs = list(range(1, len(prompts) + 1))
    model(session, frame_idx=0)
    outputs = [output.pred_masks.clone() for output in model.propagate_in_video_iterator(session)]
    sizes = [(HEIGHT, WIDTH)] * len(outputs)
    return torch.stack(processor.post_process_masks(outputs, sizes, 0.0, False))[:, :, 0]
