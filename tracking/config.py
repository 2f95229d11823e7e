"""Configuration of a SAM 2.1 segmenter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unipixel.memory.representation import short_repr

# The trunk settings in which the four published SAM 2.1 models differ (configs/sam2.1/*.yaml of the sam2 package).
_TRUNKS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "num_heads": 1, "stages": [1, 2, 7, 2], "global_att_blocks": [5, 7, 9],
             "window_pos_embed_bkg_spatial_size": [7, 7], "window_spec": [8, 4, 14, 7]},
    "small": {"embed_dim": 96, "num_heads": 1, "stages": [1, 2, 11, 2], "global_att_blocks": [7, 10, 13],
              "window_pos_embed_bkg_spatial_size": [7, 7], "window_spec": [8, 4, 14, 7]},
    "base_plus": {"embed_dim": 112, "num_heads": 2, "stages": [2, 3, 16, 3], "global_att_blocks": [12, 16, 20],
                  "window_pos_embed_bkg_spatial_size": [14, 14], "window_spec": [8, 4, 14, 7]},
    "large": {"embed_dim": 144, "num_heads": 2, "stages": [2, 6, 36, 4], "global_att_blocks": [23, 33, 43],
              "window_pos_embed_bkg_spatial_size": [7, 7], "window_spec": [8, 4, 16, 8]},
}  # fmt: skip
_ALIASES = {"t": "tiny", "s": "small", "b+": "base_plus", "l": "large"}

# Values of the package's configuration tree that this project supports; a tree that sets another value is refused.
_FIXED: dict[str, Any] = {
    "sigmoid_scale_for_mem_enc": 20.0,
    "sigmoid_bias_for_mem_enc": -10.0,
    "use_mask_input_as_output_without_sam": True,
    "directly_add_no_mem_embed": True,
    "use_high_res_features_in_sam": True,
    "multimask_output_in_sam": True,
    "iou_prediction_use_sigmoid": True,
    "use_obj_ptrs_in_encoder": True,
    "only_obj_ptrs_in_the_past_for_eval": True,
    "pred_obj_scores": True,
    "pred_obj_scores_mlp": True,
    "fixed_no_obj_ptr": True,
    "multimask_output_for_tracking": True,
    "use_multimask_token_for_obj_ptr": True,
    "multimask_min_pt_num": 0,
    "multimask_max_pt_num": 1,
    "use_mlp_for_obj_ptr_proj": True,
    "compile_image_encoder": False,
}
# Settings that are on in SAM 2.1 and off in SAM 2.0; the three of the pointers' encoding belong together.
_OCCLUSION_EMBEDDING = "no_obj_embed_spatial"
_POINTER_ENCODING = ("add_tpos_enc_to_obj_ptrs", "proj_tpos_enc_in_obj_ptrs", "use_signed_tpos_enc_to_obj_ptrs")
# The supported position encoding settings of memory attention.
_FIXED_ATTENTION: dict[str, bool] = {
    "pos_enc_at_input": True,
    "pos_enc_at_attn": False,
    "pos_enc_at_cross_attn_keys": True,
    "pos_enc_at_cross_attn_queries": False,
}
_SECTIONS = ("image_encoder", "memory_attention", "memory_encoder")
# The stride of the coarsest trunk map.
_IMAGE_SIZE_STEP = 32
FEATURE_STRIDE = 16


@dataclass(frozen=True)
class SegmenterConfig:
    """Architecture of a SAM 2.1 or SAM 2.0 segmenter.

    The three mappings are the keyword arguments of the sam2 package's modules, nested as in its configuration
    files. Use `preset` or `from_tree` to create a configuration.

    Attributes:
        image_size: Side of the square input in pixels, a multiple of 32.
        num_maskmem: Temporal positions of mask memories: one for prompted frames, the others for recent frames.
        max_pointers: Frames whose object pointers are attended to, prompted frames not counted.
        has_occlusion_embedding: Whether memories of frames without the object are marked, as in SAM 2.1.
        has_pointer_encoding: Whether object pointers have a temporal position encoding, as in SAM 2.1.
        image_encoder: `trunk` (Hiera) and `neck` (feature pyramid) keywords.
        memory_attention: Keywords of memory attention.
        memory_encoder: Keywords of the memory encoder.
    """

    __repr__ = short_repr

    image_size: int = 1024
    num_maskmem: int = 7
    max_pointers: int = 16
    has_occlusion_embedding: bool = True
    has_pointer_encoding: bool = True
    image_encoder: Mapping[str, Any] = field(default_factory=dict)
    memory_attention: Mapping[str, Any] = field(default_factory=dict)
    memory_encoder: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image_size <= 0 or self.image_size % _IMAGE_SIZE_STEP:
            raise ValueError(f"image_size must be a positive multiple of {_IMAGE_SIZE_STEP}, got {self.image_size}")
        if self.num_maskmem < 1:
            raise ValueError(f"num_maskmem must be at least 1, got {self.num_maskmem}")
        if self.max_pointers < 2:
            raise ValueError(f"max_pointers must be at least 2, got {self.max_pointers}")

    @property
    def embed_dim(self) -> int:
        """Channels of the frame embedding and of prompt tokens (256 in SAM 2.1)."""
        return int(self.image_encoder["neck"]["d_model"])

    @property
    def memory_dim(self) -> int:
        """Channels of a stored memory (64 in SAM 2.1)."""
        return int(self.memory_encoder["out_dim"])

    @property
    def feature_size(self) -> int:
        """Side of the frame embedding, image_size / 16."""
        return self.image_size // FEATURE_STRIDE

    @property
    def mask_size(self) -> int:
        """Side of the low-resolution mask logits, image_size / 4."""
        return self.image_size // 4

    @classmethod
    def preset(cls, name: str, *, image_size: int = 1024) -> SegmenterConfig:
        """Return a published size of SAM 2.1 or SAM 2.0.

        Args:
            name: `tiny`, `small`, `base_plus` or `large` of SAM 2.1, or a configuration name of the package or
                of a published UniPixel checkpoint, such as `configs/sam2.1_hiera_b+`; `sam2_hiera_b+` is of SAM 2.0.
            image_size: Side of the square input in pixels, a multiple of 32.

        Raises:
            ValueError: The name is not one of these.
        """
        short = name.rsplit("/", 1)[-1].removesuffix(".yaml")
        is_first_version = short.startswith("sam2_hiera_")
        short = short.removeprefix("sam2_hiera_").removeprefix("sam2.1_hiera_")
        short = _ALIASES.get(short, short)
        if short not in _TRUNKS:
            allowed = ", ".join(_TRUNKS)
            raise ValueError(
                f"unknown SAM 2.1 size {name!r}: allowed are {allowed}, sam2.1_hiera_{{t,s,b+,l}} and "
                "sam2_hiera_{t,s,b+,l}; use `from_tree` for another size"
            )
        settings = dict.fromkeys((_OCCLUSION_EMBEDDING, *_POINTER_ENCODING), not is_first_version)
        return cls.from_tree({"image_size": image_size, "image_encoder": {"trunk": _TRUNKS[short]}, **settings})

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> SegmenterConfig:
        """Read a keyword tree nested as in the package's configuration files.

        Missing values are those of SAM 2.1 tiny; missing widths are derived from `image_encoder.neck.d_model` and
        `memory_encoder.out_dim`.

        Raises:
            ValueError: An unknown key, or a value that this project does not support.
        """
        versioned = (_OCCLUSION_EMBEDDING, *_POINTER_ENCODING)
        known = {"image_size", "num_maskmem", "max_obj_ptrs_in_encoder", *_SECTIONS, *_FIXED, *versioned}
        if unknown := sorted(set(tree) - known - {"_target_"}):
            raise ValueError(f"unknown SAM 2.1 settings {unknown}: allowed are {sorted(known)}")
        for key, value in _FIXED.items():
            if tree.get(key, value) != value:
                raise ValueError(f"SAM 2.1 setting {key} = {tree[key]!r} is not supported: it must be {value!r}")
        if len({bool(tree.get(key, True)) for key in _POINTER_ENCODING}) > 1:
            raise ValueError(f"the SAM 2.1 settings {', '.join(_POINTER_ENCODING)} must be equal")
        image_size = int(tree.get("image_size", 1024))
        sections = _merge(_defaults(tree, image_size), {name: tree.get(name, {}) for name in _SECTIONS})
        attention = sections["memory_attention"]
        for key, required in _FIXED_ATTENTION.items():
            value = attention.get(key, attention["layer"].get(key, required))
            if value != required:
                raise ValueError(f"SAM 2.1 memory attention {key} = {value!r} is not supported: it must be {required}")
        grid = [image_size // FEATURE_STRIDE] * 2
        for kind in ("self_attention", "cross_attention"):
            # RoPE attention would otherwise rebuild its table for the actual size.
            attention["layer"][kind]["feat_sizes"] = grid
        return cls(
            image_size=image_size,
            num_maskmem=int(tree.get("num_maskmem", 7)),
            max_pointers=int(tree.get("max_obj_ptrs_in_encoder", 16)),
            has_occlusion_embedding=bool(tree.get(_OCCLUSION_EMBEDDING, True)),
            has_pointer_encoding=bool(tree.get(_POINTER_ENCODING[0], True)),
            **sections,
        )

    def to_tree(self) -> dict[str, Any]:
        """Return the configuration as the plain values that `from_tree` reads."""
        sections = {name: _merge({}, getattr(self, name)) for name in _SECTIONS}
        # Only what differs from SAM 2.1.
        versioned: dict[str, bool] = {} if self.has_occlusion_embedding else {_OCCLUSION_EMBEDDING: False}
        if not self.has_pointer_encoding:
            versioned |= dict.fromkeys(_POINTER_ENCODING, False)
        return {
            "image_size": self.image_size,
            "num_maskmem": self.num_maskmem,
            "max_obj_ptrs_in_encoder": self.max_pointers,
            **versioned,
            **sections,
        }


def _defaults(tree: Mapping[str, Any], image_size: int) -> dict[str, Any]:
    """Return SAM 2.1 tiny with the widths of the given tree."""
    trunk = {**_TRUNKS["tiny"], **tree.get("image_encoder", {}).get("trunk", {})}
    d_model = tree.get("image_encoder", {}).get("neck", {}).get("d_model", 256)
    memory_dim = tree.get("memory_encoder", {}).get("out_dim", 64)
    attention = {
        "embedding_dim": d_model,
        "num_heads": 1,
        "rope_theta": 10000.0,
        "downsample_rate": 1,
        "dropout": 0.1,
    }
    channels = [int(trunk["embed_dim"] * 2**stage) for stage in range(len(trunk["stages"]))]
    return {
        "image_encoder": {
            "scalp": 1,
            "trunk": trunk,
            "neck": {
                "d_model": d_model,
                "backbone_channel_list": channels[::-1],
                "fpn_top_down_levels": [2, 3],
                "fpn_interp_model": "nearest",
                "position_encoding": _sine_encoding(d_model),
            },
        },
        "memory_attention": {
            "d_model": d_model,
            "num_layers": 4,
            "pos_enc_at_input": True,
            "layer": {
                "d_model": d_model,
                "activation": "relu",
                "dim_feedforward": 2048,
                "dropout": 0.1,
                "pos_enc_at_attn": False,
                "pos_enc_at_cross_attn_keys": True,
                "pos_enc_at_cross_attn_queries": False,
                "self_attention": dict(attention),
                "cross_attention": {**attention, "rope_k_repeat": True, "kv_in_dim": memory_dim},
            },
        },
        "memory_encoder": {
            "in_dim": d_model,
            "out_dim": memory_dim,
            "position_encoding": _sine_encoding(memory_dim),
            "mask_downsampler": {"kernel_size": 3, "stride": 2, "padding": 1, "embed_dim": d_model},
            "fuser": {
                "num_layers": 2,
                "layer": {"dim": d_model, "kernel_size": 7, "padding": 3, "layer_scale_init_value": 1e-6,
                          "use_dwconv": True},
            },
        },
    }  # fmt: skip


def _sine_encoding(width: int) -> dict[str, Any]:
    return {"num_pos_feats": width, "normalize": True, "scale": None, "temperature": 10000}


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `base` updated recursively with `over`; class names are dropped."""
    merged: dict[str, Any] = {
        key: _merge(value, {}) if isinstance(value, Mapping) else value for key, value in base.items()
    }
    for key, value in over.items():
        if key == "_target_":
            continue
        merged[key] = _merge(merged.get(key) or {}, value) if isinstance(value, Mapping) else value
    return merged
