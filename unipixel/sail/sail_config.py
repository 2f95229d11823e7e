"""Configuration of a Pixel-SAIL model, read from and written to config.json."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from transformers import Qwen2_5_VLTextConfig

from unipixel.model.config_values import check_integer_field, check_sizes
from unipixel.sail.model_type import SAIL_MODEL_TYPE, PromptEncoding, RotaryLayout, is_sail_config

DecoderKind = Literal["prefix", "eve"]
_TEXT_FIELDS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "hidden_act", "tie_word_embeddings",
    "initializer_range",
)  # fmt: skip
_REQUIRED_SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads",
)  # fmt: skip
MAX_PROMPTS = 15
# Ceilings of the sizes in an untrusted config.json.
_OWN_SIZES = {
    "num_upsample_blocks": 6,
    "mask_channels": 2**14,
    "num_prompts": MAX_PROMPTS,
    "max_side": 2**13,
    "eve_width": 2**14,
    "max_tokens": 2**24,
    "vision_patch_size": 256,
}
IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

SEG_TOKEN = "[SEG]"
VISION_TOKENS = ("<vision>", "<vpatch>", "<vrow_sep>", "<vframe_sep>", "</vision>", "<|vis_cls|>")
"""Tokens of the base transformer, of which the separators and the last one are not used."""
PROMPT_TOKENS = tuple(f"<Prompt{number}>" for number in range(MAX_PROMPTS))
SAIL_TOKENS = (SEG_TOKEN, "<p>", "</p>", *PROMPT_TOKENS, "<NO_Prompt>")
"""Tokens that Pixel-SAIL adds to the vocabulary of its base, in the order of their ids."""
_END_TOKENS = ("<|im_end|>", "<|endoftext|>")
IMAGE_PLACEHOLDER = -200
"""Id of an image token in the text of the EVEv2 variant, which has no token for it."""


@dataclass(frozen=True)
class PixelSailConfig:
    """Sizes, token ids and settings of a Pixel-SAIL model.

    Attributes:
        text: Sizes of the transformer.
        token_ids: Ids of the special tokens by their text.
        decoder: `prefix` is the text model of Qwen2.5-VL whose image block has full attention and row and column
            positions (0.5B, 3B); `eve` is EVEv2: causal, one position per token, a second branch of every layer for
            image tokens (7B).
        patch_size: Side of a patch in pixels.
        num_upsample_blocks: Doublings from the patch grid to the mask logits: 3 at patch 16 is a stride of 2 pixels,
            as published; 2 is the stride of 4 of the paper; 0 is its plain baseline, whose mask is the dot product of
            the states of the patches and of `[SEG]`.
        mask_channels: Width of mask features and queries; without upsampling blocks it is that of the transformer.
        num_prompts: Number of prompt ids.
        max_side: Longer side of a resized image in pixels (`prefix`), or the root of its area (`eve`).
        rotary_layout: `split`, as published: the fast rotary frequencies encode the row, the slow ones the column;
            `interleaved` alternates them.
        prompt_encoding: `injection`, as published, adds a prompt to the patches that it covers; `pooling` is the plain
            baseline of the paper: each prompt is one token after the image with the mean of the patch embeddings that
            it covers (`prefix` only).
        eve_width: Width of the first convolution of the patch embedding of `eve`.
        image_mean: Channel means that are subtracted from pixels in [0, 1].
        image_std: Channel deviations that they are divided by.
        max_tokens: Longest sequence in training; longer ones are cut at the end.
        extra: All fields of the config.json that it was read from, written back unchanged.
    """

    text: Qwen2_5_VLTextConfig
    token_ids: Mapping[str, int]
    decoder: DecoderKind = "prefix"
    patch_size: int = 16
    num_upsample_blocks: int = 3
    mask_channels: int = 512
    num_prompts: int = MAX_PROMPTS
    max_side: int = 1024
    rotary_layout: RotaryLayout = "split"
    prompt_encoding: PromptEncoding = "injection"
    eve_width: int = 1024
    image_mean: tuple[float, ...] = IMAGENET_STATISTICS[0]
    image_std: tuple[float, ...] = IMAGENET_STATISTICS[1]
    max_tokens: int = 8192
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in (
            ("decoder", DecoderKind),
            ("rotary_layout", RotaryLayout),
            ("prompt_encoding", PromptEncoding),
        ):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}")
        for name in ("patch_size", "num_upsample_blocks", "mask_channels", "max_side", "eve_width", "max_tokens"):
            low = 0 if name == "num_upsample_blocks" else 1
            if not isinstance(getattr(self, name), int) or getattr(self, name) < low:
                raise ValueError(f"{name} must be an integer of at least {low}, got {getattr(self, name)!r}")
        if not 0 <= self.num_prompts <= MAX_PROMPTS:
            raise ValueError(f"num_prompts must be in [0, {MAX_PROMPTS}], got {self.num_prompts}")
        if self.patch_size % 2**self.num_upsample_blocks:
            raise ValueError(
                f"{self.num_upsample_blocks} upsampling blocks do not divide a patch of {self.patch_size} pixels: "
                "the stride of the masks, patch_size / 2**num_upsample_blocks, must be a whole number"
            )
        if self.decoder == "eve" and self.prompt_encoding == "pooling":
            raise ValueError("the decoder eve has no prompt_encoding pooling: set injection")
        if self.decoder == "eve" and self.patch_size % 2:
            raise ValueError(f"the patch embedding of eve halves its patches: got patch_size {self.patch_size}")
        if self.text.hidden_size // self.text.num_attention_heads % 4:
            raise ValueError(f"the head size must be a multiple of 4, got {self.text.hidden_size} / "
                             f"{self.text.num_attention_heads}")  # fmt: skip
        if missing := [token for token in self.required_tokens if token not in self.token_ids]:
            raise ValueError(f"token_ids lacks {missing}: add the ids that the tokenizer has for them")
        if outside := {token: row for token, row in self.token_ids.items() if not 0 <= row < self.text.vocab_size}:
            raise ValueError(f"token_ids {outside} are outside the vocabulary of {self.text.vocab_size} tokens")

    @property
    def required_tokens(self) -> tuple[str, ...]:
        """Special tokens whose ids the model needs."""
        image = ("<vision>", "<vpatch>", "</vision>") if self.decoder == "prefix" else ()
        return (*image, SEG_TOKEN, *PROMPT_TOKENS[: self.num_prompts], *_END_TOKENS)

    @property
    def width(self) -> int:
        """Width of the transformer."""
        return int(self.text.hidden_size)

    @property
    def mask_stride(self) -> int:
        """Pixels of the resized image per mask logit, along each side."""
        return int(self.patch_size // 2**self.num_upsample_blocks)

    @property
    def mask_width(self) -> int:
        """Width of mask features and queries."""
        return self.mask_channels if self.num_upsample_blocks else self.width

    @property
    def seg_token_id(self) -> int:
        """Id of `[SEG]`."""
        return self.token_ids[SEG_TOKEN]

    @property
    def image_token_id(self) -> int:
        """Id of the token of which the text has one per patch."""
        return self.token_ids["<vpatch>"] if self.decoder == "prefix" else IMAGE_PLACEHOLDER

    def num_image_tokens(self, grid: tuple[int, int]) -> int:
        """Return the number of image tokens of a grid (h, w): `eve` adds one per row, and one before the image."""
        rows, columns = grid
        return rows * columns if self.decoder == "prefix" else 1 + rows * (columns + 1)

    @property
    def prompt_token_ids(self) -> tuple[int, ...]:
        """Ids of `<Prompt0>`, `<Prompt1>`, ..."""
        return tuple(self.token_ids[token] for token in PROMPT_TOKENS[: self.num_prompts])

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end an answer."""
        return tuple(self.token_ids[token] for token in _END_TOKENS)

    @property
    def max_positions(self) -> int:
        """Number of positions of the transformer."""
        return int(self.text.max_position_embeddings)

    @property
    def is_tied(self) -> bool:
        """Whether the output projection shares the input embedding's weights."""
        return bool(self.text.tie_word_embeddings)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PixelSailConfig:
        """Read the fields of a config.json.

        Raises:
            ValueError: A field is missing or out of range, or the checkpoint requires remote code.
        """
        if fields.get("auto_map"):
            raise ValueError(f"config.json requires remote code (auto_map = {fields['auto_map']}): it is refused")
        if not is_sail_config(fields):
            raise ValueError(
                f"config.json has model_type {fields.get('model_type')!r}, a Pixel-SAIL checkpoint has "
                f"{SAIL_MODEL_TYPE!r}: load a UniPixel checkpoint with UniPixel.from_pretrained, and start from a "
                "language model with PixelSail.from_base"
            )
        if missing := [name for name in (*_REQUIRED_SIZES, "token_ids") if fields.get(name) is None]:
            raise ValueError(f"config.json lacks {missing}: is this a Pixel-SAIL checkpoint?")
        _check_fields(fields)
        rotary = fields.get("rotary_layout", "split")
        decoder = fields.get("decoder", "prefix")
        mean, std = CLIP_STATISTICS if decoder == "eve" else IMAGENET_STATISTICS
        values: dict[str, Any] = {
            name: fields[name]
            for name in ("num_upsample_blocks", "mask_channels", "num_prompts", "max_side", "eve_width", "max_tokens")
            if fields.get(name) is not None
        }
        return cls(
            text=text_config({name: fields[name] for name in _TEXT_FIELDS if fields.get(name) is not None},
                             rope_theta=fields.get("rope_theta", 1_000_000.0), rotary_layout=rotary),
            token_ids=dict(fields["token_ids"]),
            decoder=decoder,
            patch_size=fields.get("vision_patch_size", 16),
            rotary_layout=rotary,
            prompt_encoding=fields.get("prompt_encoding", "injection"),
            image_mean=tuple(fields.get("image_mean", mean)),
            image_std=tuple(fields.get("image_std", std)),
            extra=copy.deepcopy(dict(fields)),
            **values,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a config.json; unknown fields of the original are kept."""
        text = self.text.to_dict()
        fields = copy.deepcopy(dict(self.extra)) | {name: text[name] for name in _TEXT_FIELDS}
        return fields | {
            "model_type": SAIL_MODEL_TYPE,
            "architectures": ["PixelSail"],
            "rope_theta": self.text.rope_parameters["rope_theta"],
            "token_ids": dict(self.token_ids),
            "decoder": self.decoder,
            "vision_patch_size": self.patch_size,
            "num_upsample_blocks": self.num_upsample_blocks,
            "mask_channels": self.mask_channels,
            "num_prompts": self.num_prompts,
            "max_side": self.max_side,
            "rotary_layout": self.rotary_layout,
            "prompt_encoding": self.prompt_encoding,
            "eve_width": self.eve_width,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
            "max_tokens": self.max_tokens,
        }


def _check_fields(fields: Mapping[str, Any]) -> None:
    """Check the types and ranges in an untrusted config.json, before a model is built from them."""
    check_sizes(fields)
    for name, high in _OWN_SIZES.items():
        check_integer_field(fields, name, low=0 if name in ("num_prompts", "num_upsample_blocks") else 1, high=high)
    token_ids = fields["token_ids"]
    if not isinstance(token_ids, Mapping) or not all(type(row) is int for row in token_ids.values()):
        raise ValueError(f"config.json has token_ids = {token_ids!r:.80}: give an object of tokens with their ids")
    for name in ("image_mean", "image_std"):
        values = fields.get(name)
        if values is not None and not (
            isinstance(values, list) and len(values) == 3 and all(isinstance(value, int | float) for value in values)
        ):
            raise ValueError(f"config.json has {name} = {values!r:.80}: give three numbers")
    theta = fields.get("rope_theta", 1.0)
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < 1e12:
        raise ValueError(f"config.json has rope_theta = {theta!r:.80}: it must be a number above 0")


def text_config(
    sizes: Mapping[str, Any], *, rope_theta: float = 1_000_000.0, rotary_layout: RotaryLayout = "split"
) -> Qwen2_5_VLTextConfig:
    """Return the configuration of the text model of Qwen2.5-VL with the rotary layout of Pixel-SAIL.

    Args:
        sizes: Sizes of a Qwen2.5 model by their names in its config.json.
        rope_theta: Base of the rotary frequencies.
        rotary_layout: See `PixelSailConfig`.

    Raises:
        ValueError: The layout is unknown, or transformers refuses a size.
    """
    from huggingface_hub.errors import StrictDataclassError

    if rotary_layout not in get_args(RotaryLayout):
        raise ValueError(f"rotary_layout must be one of {get_args(RotaryLayout)}, got {rotary_layout!r}")
    quarter = sizes["hidden_size"] // sizes["num_attention_heads"] // 4
    # The sections name, in turn, frequencies of the time, row and column axis; no frequency encodes the time.
    sections = [0, quarter, quarter] if rotary_layout == "split" else [0, 1, 1] * quarter
    try:
        return Qwen2_5_VLTextConfig(
            # False is the default of Qwen2.5, and a file may lack it.
            **{"tie_word_embeddings": False, **sizes},
            rope_parameters={"rope_type": "default", "rope_theta": float(rope_theta), "mrope_section": sections},
            use_sliding_window=False,
            bos_token_id=None,
            eos_token_id=None,
        )
    # What transformers raises for values of other types.
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, StrictDataclassError) as error:
        raise ValueError(
            f"config.json has a value that transformers refuses: {' '.join(str(error).split())}"
        ) from error
