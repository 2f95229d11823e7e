"""Configuration of a UniPixel model, in the published config.json format."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from unipixel.memory.representation import short_repr
from unipixel.model.config_values import check_integer_field, check_sizes
from unipixel.sail.model_type import is_sail_config
from unipixel.tracking.config import SegmenterConfig

# Imported where they are used: a checkpoint that cannot be read is refused before transformers and torch are imported.
if TYPE_CHECKING:
    from transformers import Qwen2_5_VLConfig

    from unipixel.model.qwen import RopeLayout

MODEL_TYPE = "pixel_qwen2_5_vl"
ARCHITECTURE = "PixelQwen2_5_VLForConditionalGeneration"
PoolOrder = Literal["window", "raster"]
PoolWeighting = Literal["uniform", "coverage"]
# Written beside config.json if the segmenter is not one of the published sizes: in config.json itself, which the
# published code can read, `sam2_config` can only name a file.
SEGMENTER_FILE = "sam2_config.json"
_PUBLISHED_MEMORY: dict[str, Any] = {
    "memory_pool_order": "window",
    "memory_pool_weighting": "uniform",
    "memory_position_embedding": False,
}
_REQUIRED = ("ref_token_id", "seg_token_id", "mem_token_id", "sam2_config", "sam2_image_size")


@dataclass(frozen=True)
class UniPixelConfig:
    """Sizes, token ids and settings of a UniPixel model.

    Attributes:
        qwen: Sizes of Qwen2.5-VL.
        segmenter: Sizes of SAM 2.1.
        ref_token_id: Id of `<|ref|>`.
        seg_token_id: Id of `<|seg|>`.
        mem_token_id: Id of `<|mem|>`.
        num_mask_tokens: SAM prompt tokens per `<|seg|>`.
        memory_pool_order: Order of the features under a mask in raster order: `window`, in which the published
            weights were trained by mistake, or `raster`, the correct one.
        memory_pool_weighting: `uniform`, the mean over all tokens that a mask touches, as published; `coverage`
            weights each token by the share of its cell that the mask covers.
        memory_position_embedding: Whether an embedding of the mask's box and of the frame's time is added to each
            `<|mem|>`; False as published.
        eos_token_ids: Ids that end an answer.
        extra: All fields of the config.json that it was read from, written back unchanged.
    """

    __repr__ = short_repr

    qwen: Qwen2_5_VLConfig
    segmenter: SegmenterConfig
    ref_token_id: int
    seg_token_id: int
    mem_token_id: int
    num_mask_tokens: int = 2
    memory_pool_order: PoolOrder = "raster"
    memory_pool_weighting: PoolWeighting = "uniform"
    memory_position_embedding: bool = False
    eos_token_ids: tuple[int, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.memory_pool_order not in get_args(PoolOrder):
            raise ValueError(f"memory_pool_order must be one of {get_args(PoolOrder)}, got {self.memory_pool_order!r}")
        if self.memory_pool_weighting not in get_args(PoolWeighting):
            raise ValueError(
                f"memory_pool_weighting must be one of {get_args(PoolWeighting)}, got {self.memory_pool_weighting!r}"
            )
        if not isinstance(self.memory_position_embedding, bool):
            raise ValueError(f"memory_position_embedding must be true or false, got {self.memory_position_embedding!r}")
        if self.num_mask_tokens < 1:
            raise ValueError(f"num_mask_tokens must be at least 1, got {self.num_mask_tokens}")
        vocabulary = self.qwen.text_config.vocab_size
        for name in ("ref_token_id", "seg_token_id", "mem_token_id"):
            if not 0 <= getattr(self, name) < vocabulary:
                raise ValueError(f"{name} = {getattr(self, name)} is outside the vocabulary of {vocabulary} tokens")
        if self.qwen.vision_config.out_hidden_size != self.width:
            raise ValueError(
                f"the vision transformer outputs {self.qwen.vision_config.out_hidden_size} channels, "
                f"the language model takes {self.width}"
            )

    @property
    def max_positions(self) -> int:
        """Tokens that the language model can process: clip, questions and answers."""
        return int(self.qwen.text_config.max_position_embeddings)

    @property
    def width(self) -> int:
        """Width of the language model."""
        return int(self.qwen.text_config.hidden_size)

    @property
    def pooled_width(self) -> int:
        """Width of a merger input: vision width times merged patches."""
        vision = self.qwen.vision_config
        return int(vision.hidden_size * vision.spatial_merge_size**2)

    @property
    def is_tied(self) -> bool:
        """Whether the output projection shares the input embedding's weights."""
        return bool(self.qwen.tie_word_embeddings)

    @property
    def rope_layout(self) -> RopeLayout:
        """Values that determine position ids."""
        from unipixel.model.qwen import RopeLayout

        vision = self.qwen.vision_config
        return RopeLayout(
            visual_ids=(self.qwen.image_token_id, self.qwen.video_token_id),
            merge_size=vision.spatial_merge_size,
            tokens_per_second=vision.tokens_per_second,
        )

    @classmethod
    def from_dict(
        cls,
        fields: Mapping[str, Any],
        *,
        segmenter: SegmenterConfig | None = None,
        memory_pool_order: PoolOrder | None = None,
        generation: Mapping[str, Any] | None = None,
    ) -> UniPixelConfig:
        """Read the fields of a config.json.

        Args:
            fields: The file's content.
            segmenter: Sizes of SAM 2.1, if `sam2_config` does not name a published one.
            memory_pool_order: Overrides that of the file; a file without one means `window`.
            generation: Content of generation_config.json, whose `eos_token_id` takes precedence.

        Raises:
            ValueError: A field is missing or out of range, or the checkpoint requires remote code.
        """
        return cls(
            segmenter=read_segmenter(fields, segmenter=segmenter),
            qwen=read_qwen_config(fields),
            ref_token_id=fields["ref_token_id"],
            seg_token_id=fields["seg_token_id"],
            mem_token_id=fields["mem_token_id"],
            num_mask_tokens=fields.get("sam2_hidden_tokens", 2),
            **{name: fields.get(name, published) for name, published in _PUBLISHED_MEMORY.items()}
            | ({"memory_pool_order": memory_pool_order} if memory_pool_order else {}),
            eos_token_ids=read_eos_ids(generation or {}, fields, fields.get("text_config") or {}),
            extra=copy.deepcopy(dict(fields)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a config.json; unknown fields of the original are kept."""
        fields = copy.deepcopy(dict(self.extra))
        if "vision_config" not in fields:
            fields = self._qwen_fields() | fields
        fields.update(
            model_type=MODEL_TYPE,
            architectures=[ARCHITECTURE],
            ref_token_id=self.ref_token_id,
            seg_token_id=self.seg_token_id,
            mem_token_id=self.mem_token_id,
            sam2_hidden_tokens=self.num_mask_tokens,
            sam2_image_size=self.segmenter.image_size,
        )
        fields.setdefault("sam2_config", "configs/sam2.1_hiera_custom")
        # Only what differs from the published model: its config.json has none of these fields.
        for name, published in _PUBLISHED_MEMORY.items():
            if getattr(self, name) != published or name in fields:
                fields[name] = getattr(self, name)
        return fields

    def _qwen_fields(self) -> dict[str, Any]:
        """Return the fields of Qwen2.5-VL as transformers 4 wrote them: nested, and repeated at the top level."""
        fields: dict[str, Any] = self.qwen.to_dict()
        text = fields["text_config"]
        rope = text.pop("rope_parameters")
        text["rope_theta"] = rope.pop("rope_theta")
        text["rope_scaling"] = {**rope, "type": rope["rope_type"]}
        fields["vision_config"].pop("rope_parameters", None)
        for key, value in text.items():
            fields.setdefault(key, value)
        return fields


def read_segmenter(fields: Mapping[str, Any], *, segmenter: SegmenterConfig | None = None) -> SegmenterConfig:
    """Check the fields of a config.json, and return the sizes of SAM 2.1 that it names.

    Args:
        fields: The file's content.
        segmenter: Sizes of SAM 2.1, if `sam2_config` does not name a published one.

    Raises:
        ValueError: A field is missing or out of range, or the checkpoint requires remote code.
    """
    if fields.get("auto_map"):
        raise ValueError(f"config.json requires remote code (auto_map = {fields['auto_map']}): it is refused")
    if is_sail_config(fields):
        raise ValueError("config.json is that of a Pixel-SAIL checkpoint: load it with PixelSail.from_pretrained")
    if fields.get("model_type") != MODEL_TYPE:
        raise ValueError(
            f"config.json has model_type {fields.get('model_type')!r}, a UniPixel checkpoint has {MODEL_TYPE!r}; "
            "to start from Qwen2.5-VL and SAM 2.1 use UniPixel.from_base"
        )
    if missing := [name for name in _REQUIRED if fields.get(name) is None]:
        raise ValueError(f"config.json lacks {missing}: is this a UniPixel checkpoint?")
    for name in ("ref_token_id", "seg_token_id", "mem_token_id", "image_token_id", "video_token_id"):
        check_integer_field(fields, name)
    check_integer_field(fields, "sam2_hidden_tokens", low=1, high=64)
    check_integer_field(fields, "sam2_image_size", low=1, high=2**14)
    if not isinstance(fields["sam2_config"], str):
        raise ValueError(f"config.json has sam2_config = {fields['sam2_config']!r:.80}: it must be a text")
    if segmenter is None:
        return SegmenterConfig.preset(fields["sam2_config"], image_size=fields["sam2_image_size"])
    if segmenter.image_size != fields["sam2_image_size"]:
        raise ValueError(
            f"sam2_image_size is {fields['sam2_image_size']} in config.json and {segmenter.image_size} in the "
            "configuration of SAM 2.1"
        )
    return segmenter


def read_qwen_config(fields: Mapping[str, Any]) -> Qwen2_5_VLConfig:
    """Read the sizes of Qwen2.5-VL from the fields of a config.json, nested or at the top level.

    Raises:
        ValueError: A size is out of range, the fields contradict each other, or transformers refuses a value.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import Qwen2_5_VLConfig

    check_sizes(fields)
    kept = copy.deepcopy(dict(fields))
    for name in ("model_type", "architectures", "auto_map", "transformers_version"):
        kept.pop(name, None)
    if kept.get("text_config"):
        names = ("text_config", "vision_config", "image_token_id", "video_token_id", "vision_start_token_id",
                 "vision_end_token_id", "tie_word_embeddings")  # fmt: skip
        kept = {name: kept[name] for name in names if kept.get(name) is not None}
        # None is the absence of a token; elsewhere it means the default.
        is_token = ("bos_token_id", "eos_token_id", "pad_token_id")
        text = {key: value for key, value in kept["text_config"].items() if value is not None or key in is_token}
        kept["text_config"] = _with_rope_parameters(text)
    try:
        return Qwen2_5_VLConfig(**kept)
    # What transformers raises for values of other types.
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, StrictDataclassError) as error:
        raise ValueError(
            f"config.json has a value that transformers refuses: {' '.join(str(error).split())}"
        ) from error


def _with_rope_parameters(text: dict[str, Any]) -> dict[str, Any]:
    """Convert `rope_theta` and `rope_scaling` of transformers 4 to the `rope_parameters` of transformers 5."""
    scaling = text.pop("rope_scaling", None) or {}
    theta = text.pop("rope_theta", None)
    if not isinstance(scaling, dict):
        raise ValueError(f"config.json has rope_scaling = {scaling!r:.80}: it must be an object")
    if "rope_parameters" not in text:
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        text["rope_parameters"] = {key: value for key, value in scaling.items() if key != "type"} | {
            # Published configurations have the type "mrope"; the frequencies are the default ones.
            "rope_type": "default" if kind == "mrope" else kind,
            "rope_theta": 1_000_000.0 if theta is None else theta,
        }
    return text


def read_eos_ids(*sources: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the `eos_token_id`, a number or a list, of the first mapping that has any.

    Raises:
        ValueError: It is neither.
    """
    for source in sources:
        ids = source.get("eos_token_id")
        # An empty list counts as absent: no token would end an answer.
        if ids is not None and ids != []:
            ids = ids if isinstance(ids, (list, tuple)) else [ids]
            if not all(isinstance(token, int) and not isinstance(token, bool) and token >= 0 for token in ids):
                raise ValueError(f"eos_token_id must be a token id or a list of them, got {ids!r:.80}")
            return tuple(ids)
    return ()
