"""Names and shapes of the tensors of SAM 2.1 and SAM 2.0, computed without torch.

They are known before torch is imported, so that a checkpoint that does not fit is refused at once. Two layouts are
known: `official`, the names of the sam2 package and of `Segmenter`, and `transformers`, those of its
`Sam2VideoModel`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

from unipixel.tracking.config import SegmenterConfig

Shapes = dict[str, tuple[int, ...]]

GAUSSIAN = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
TRANSFORMERS_GAUSSIANS = (
    "shared_image_embedding.positional_embedding",
    "prompt_encoder.shared_embedding.positional_embedding",
)
"""Two names of one matrix in the layout of transformers, whose versions write one of them or both."""
POINTS = "prompt_encoder.point_embed.weight"
NUM_POINT_EMBEDDINGS = 4
"""Positive click, negative click and two corners of a box: one tensor each, and one tensor in transformers."""
_POINT = re.compile(r"sam_prompt_encoder\.point_embeddings\.(\d)\.weight")
_MLP_HEADS = r"(hypernetworks_mlps\.\d|score_head|prediction_head|obj_ptr_proj)"
# Patterns of official names and their replacements in transformers, applied in order.
_RENAMED = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"(blocks\.\d+\.mlp|transformer\.layers\.\d\.mlp)\.layers\.0", r"\1.proj_in"),
    (r"(blocks\.\d+\.mlp|transformer\.layers\.\d\.mlp)\.layers\.1", r"\1.proj_out"),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (_MLP_HEADS + r"\.layers\.0\.", r"\1.proj_in."),
    (_MLP_HEADS + r"\.layers\.1\.", r"\1.layers.0."),
    (_MLP_HEADS + r"\.layers\.2\.", r"\1.proj_out."),
    (r"mask_downsampler\.encoder\.12\.", "mask_downsampler.final_conv."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    (r"norm_final_attn", "layer_norm_final_attn"),
    (r"\.norm(\d?)\.", r".layer_norm\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
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


def transformers_name(name: str) -> str:
    """Return the name in transformers of an official tensor; the four point embeddings have the same one."""
    if name == GAUSSIAN:
        return TRANSFORMERS_GAUSSIANS[0]
    if _POINT.fullmatch(name):
        return POINTS
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return _DOWNSAMPLER.sub(_downsampler_name, name)


def point_row(name: str) -> int | None:
    """Return the row of an official tensor in transformers' tensor of point embeddings; None for other tensors."""
    match = _POINT.fullmatch(name)
    return int(match[1]) if match else None


def transformers_shapes(official: Mapping[str, tuple[int, ...]]) -> Shapes:
    """Return the shapes in the layout of transformers, with the first of `TRANSFORMERS_GAUSSIANS` only."""
    shapes = {transformers_name(name): shape for name, shape in official.items()}
    shapes[POINTS] = (NUM_POINT_EMBEDDINGS, shapes[POINTS][1])
    return shapes


def official_shapes(config: SegmenterConfig) -> Shapes:
    """Return the official names and shapes of all tensors of a segmenter."""
    width, memory = config.embed_dim, config.memory_dim
    shapes: Shapes = {
        "maskmem_tpos_enc": (config.num_maskmem, 1, 1, memory),
        "no_mem_embed": (1, 1, width),
        "no_mem_pos_enc": (1, 1, width),
        "no_obj_ptr": (1, width),
        **_conv("mask_downsample", 1, 1, 4),
        **_mlp("obj_ptr_proj", width, width, width, width),
    }
    if config.has_occlusion_embedding:
        shapes["no_obj_embed_spatial"] = (1, memory)
    if config.has_pointer_encoding:
        shapes |= _linear("obj_ptr_tpos_proj", memory, width)
    shapes |= dict(_trunk_and_neck(config))
    shapes |= _memory_attention_shapes(config) | _memory_encoder_shapes(config)
    return shapes | _prompt_encoder_shapes(width) | _mask_decoder_shapes(width)


def _trunk_and_neck(config: SegmenterConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    trunk, neck = config.image_encoder["trunk"], config.image_encoder["neck"]
    name, width = "image_encoder.trunk", int(trunk["embed_dim"])
    yield f"{name}.pos_embed", (1, width, *trunk["window_pos_embed_bkg_spatial_size"])
    yield f"{name}.pos_embed_window", (1, width, trunk["window_spec"][0], trunk["window_spec"][0])
    yield from _conv(f"{name}.patch_embed.proj", width, 3, 7).items()
    starts = {sum(trunk["stages"][:stage]) for stage in range(1, len(trunk["stages"]))}
    for index in range(sum(trunk["stages"])):
        block, inner = f"{name}.blocks.{index}", width
        if index in starts:
            width *= 2
            yield from _linear(f"{block}.proj", width, inner).items()
        parts = (
            _norm(f"{block}.norm1", inner), _linear(f"{block}.attn.qkv", 3 * width, inner),
            _linear(f"{block}.attn.proj", width, width), _norm(f"{block}.norm2", width),
            _mlp(f"{block}.mlp", width, 4 * width, width),
        )  # fmt: skip
        for part in parts:
            yield from part.items()
    for level, channels in enumerate(neck["backbone_channel_list"]):
        yield from _conv(f"image_encoder.neck.convs.{level}.conv", neck["d_model"], channels, 1).items()


def _memory_attention_shapes(config: SegmenterConfig) -> Shapes:
    settings = config.memory_attention
    width, layer = int(settings["d_model"]), settings["layer"]
    shapes = _norm("memory_attention.norm", width)
    for index in range(settings["num_layers"]):
        name = f"memory_attention.layers.{index}"
        for kind, key in (("self_attn", "self_attention"), ("cross_attn_image", "cross_attention")):
            attention = layer[key]
            inner = attention["embedding_dim"] // attention["downsample_rate"]
            shapes |= _attention(f"{name}.{kind}", width, inner, attention.get("kv_in_dim") or width)
        shapes |= _linear(f"{name}.linear1", layer["dim_feedforward"], width)
        shapes |= _linear(f"{name}.linear2", width, layer["dim_feedforward"])
        for norm in (1, 2, 3):
            shapes |= _norm(f"{name}.norm{norm}", width)
    return shapes


def _memory_encoder_shapes(config: SegmenterConfig) -> Shapes:
    settings = config.memory_encoder
    width, sampler, fuser = settings["in_dim"], settings["mask_downsampler"], settings["fuser"]
    name, channels, step = "memory_encoder", 1, int(sampler["stride"])
    shapes = _conv(f"{name}.pix_feat_proj", width, width, 1) | _conv(f"{name}.out_proj", settings["out_dim"], width, 1)
    layer = 0
    while step**layer < sampler.get("total_stride", 16):
        reduced = channels * step**2
        shapes |= _conv(f"{name}.mask_downsampler.encoder.{3 * layer}", reduced, channels, sampler["kernel_size"])
        shapes |= _norm(f"{name}.mask_downsampler.encoder.{3 * layer + 1}", reduced)
        channels, layer = reduced, layer + 1
    shapes |= _conv(f"{name}.mask_downsampler.encoder.{3 * layer}", sampler["embed_dim"], channels, 1)
    inner = fuser["layer"]["dim"]
    for index in range(fuser["num_layers"]):
        block = f"{name}.fuser.layers.{index}"
        shapes[f"{block}.gamma"] = (inner,)
        shapes |= _conv(f"{block}.dwconv", inner, 1, fuser["layer"]["kernel_size"]) | _norm(f"{block}.norm", inner)
        shapes |= _linear(f"{block}.pwconv1", 4 * inner, inner) | _linear(f"{block}.pwconv2", inner, 4 * inner)
    return shapes


def _prompt_encoder_shapes(width: int) -> Shapes:
    name = "sam_prompt_encoder"
    embeddings = [f"point_embeddings.{index}" for index in range(NUM_POINT_EMBEDDINGS)]
    shapes: Shapes = {GAUSSIAN: (2, width // 2)}
    for embedding in (*embeddings, "not_a_point_embed", "no_mask_embed"):
        shapes[f"{name}.{embedding}.weight"] = (1, width)
    return shapes | _conv(f"{name}.mask_downscaling.0", 4, 1, 2) | _norm(f"{name}.mask_downscaling.1", 4) | (
        _conv(f"{name}.mask_downscaling.3", 16, 4, 2) | _norm(f"{name}.mask_downscaling.4", 16)
        | _conv(f"{name}.mask_downscaling.6", width, 16, 1)
    )  # fmt: skip


def _mask_decoder_shapes(width: int) -> Shapes:
    name, half = "sam_mask_decoder", width // 2
    shapes = _attention(f"{name}.transformer.final_attn_token_to_image", width, half, width)
    shapes |= _norm(f"{name}.transformer.norm_final_attn", width)
    for index in range(2):
        layer = f"{name}.transformer.layers.{index}"
        shapes |= _attention(f"{layer}.self_attn", width, width, width) | _mlp(f"{layer}.mlp", width, 2048, width)
        for kind in ("cross_attn_token_to_image", "cross_attn_image_to_token"):
            shapes |= _attention(f"{layer}.{kind}", width, half, width)
        for norm in (1, 2, 3, 4):
            shapes |= _norm(f"{layer}.norm{norm}", width)
    for tokens, count in (("iou_token", 1), ("mask_tokens", 4), ("obj_score_token", 1)):
        shapes[f"{name}.{tokens}.weight"] = (count, width)
    # Transposed convolutions have their input channels first.
    shapes |= {f"{name}.output_upscaling.0.weight": (width, width // 4, 2, 2),
               f"{name}.output_upscaling.0.bias": (width // 4,),
               f"{name}.output_upscaling.3.weight": (width // 4, width // 8, 2, 2),
               f"{name}.output_upscaling.3.bias": (width // 8,)}  # fmt: skip
    shapes |= _norm(f"{name}.output_upscaling.1", width // 4)
    shapes |= _conv(f"{name}.conv_s0", width // 8, width, 1) | _conv(f"{name}.conv_s1", width // 4, width, 1)
    for index in range(4):
        shapes |= _mlp(f"{name}.output_hypernetworks_mlps.{index}", width, width, width, width // 8)
    return shapes | _mlp(f"{name}.iou_prediction_head", width, 256, 256, 4) | (
        _mlp(f"{name}.pred_obj_score_head", width, width, width, 1)
    )  # fmt: skip


def _downsampler_name(match: re.Match[str]) -> str:
    index = int(match[2])
    return f"{match[1]}.layers.{index // 3}.{'layer_norm' if index % 3 else 'conv'}."


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _conv(name: str, outputs: int, inputs: int, side: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def _mlp(name: str, *widths: int) -> Shapes:
    shapes: Shapes = {}
    for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        shapes |= _linear(f"{name}.layers.{index}", outputs, inputs)
    return shapes


def _attention(name: str, width: int, inner: int, memory: int) -> Shapes:
    """Return the four projections of an attention over keys and values of width `memory`."""
    return _linear(f"{name}.q_proj", inner, width) | _linear(f"{name}.k_proj", inner, memory) | (
        _linear(f"{name}.v_proj", inner, memory) | _linear(f"{name}.out_proj", width, inner)
    )  # fmt: skip
