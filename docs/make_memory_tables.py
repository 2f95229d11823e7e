"""Writes the tables of `docs/distributed-training.md` about memory: `python docs/make_memory_tables.py`.

Parameters are counted on models without memory (the meta device) at the published sizes. Bytes that the backward pass
needs are counted on one layer of the published width: `python docs/make_memory_tables.py --measure` counts them again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from accelerate import init_empty_weights
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig

from unipixel.model.config import UniPixelConfig
from unipixel.model.inputs import VideoInput
from unipixel.model.qwen import QwenVL
from unipixel.model.unipixel import UniPixel
from unipixel.tracking.config import SegmenterConfig
from unipixel.tracking.segmenter import Segmenter
from unipixel.train.parameter_groups import select_parts
from unipixel.train.recipe_files import load_recipe

PAGE = Path(__file__).with_name("distributed-training.md")
BEGIN, END = "<!-- begin of the generated section -->", "<!-- end of the generated section -->"
LANGUAGE = {
    "3B": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
           "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
           "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False},
}  # fmt: skip
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
IMAGE_SIZE = 768
# 16 frames: eight pairs of 256 tokens, each of four patches, and the text.
NUM_PATCHES, NUM_TOKENS, NUM_MASK_FRAMES = 8192, 2200, 4
# Bytes that the backward pass needs, as `--measure` counts them: of one token in one decoder layer, of one patch in one
# block of the vision transformer, and of one frame in the image encoder of SAM 2.1 Base+ at 768 pixels.
TOKEN_BYTES, PATCH_BYTES, FRAME_BYTES = {"3B": 142_408, "7B": 246_392}, 63_411, 3_480_701_440
FLOAT = 4


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters.

    Attributes:
        layers: In the decoder layers.
        root: In everything else.
        trained_layers: Trained ones in the decoder layers.
        trained_root: Trained ones in everything else.
        vision: In the vision transformer.
        num_layers: Number of decoder layers.
    """

    layers: int
    root: int
    trained_layers: int
    trained_root: int
    vision: int
    num_layers: int

    @property
    def whole(self) -> int:
        """All parameters."""
        return self.layers + self.root

    @property
    def trained(self) -> int:
        """All trained parameters."""
        return self.trained_layers + self.trained_root

    def ddp_bytes(self) -> int:
        """Weights, gradients, the gradients' second copy in the buckets of DDP, and the two moments of Adam."""
        return FLOAT * (self.whole + 4 * self.trained)

    def fsdp_bytes(self, num_processes: int) -> int:
        """The share of all these, the gathered root with its gradients, and two gathered layers."""
        share = FLOAT * (self.whole + 3 * self.trained) // num_processes
        return share + FLOAT * (self.root + self.trained_root + 2 * self.layers // self.num_layers)


def configured(size: str) -> UniPixelConfig:
    """Return the configuration of a published size."""
    rope = {"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]}}
    is_tied = LANGUAGE[size]["tie_word_embeddings"]
    qwen = Qwen2_5_VLConfig(
        text_config={**LANGUAGE[size], **rope},
        vision_config={**VISION, "out_hidden_size": LANGUAGE[size]["hidden_size"]},
        tie_word_embeddings=is_tied,
    )
    segmenter = SegmenterConfig.preset("base_plus", image_size=IMAGE_SIZE)
    return UniPixelConfig(qwen=qwen, segmenter=segmenter, ref_token_id=151665, seg_token_id=151666, mem_token_id=151667)


@cache
def count(size: str, trained: str) -> Counts:
    """Count the parameters of a size.

    Args:
        size: `3B` or `7B`.
        trained: A stage, or `all`.
    """
    model = UniPixel.build_empty(configured(size))
    model.tie_weights()
    if trained == "all":
        model.requires_grad_(True)
    else:
        select_parts(model, trained, load_recipe(f"{size.lower()}/{trained}").lora)
    numbers = {(is_layer, is_trained): 0 for is_layer in (False, True) for is_trained in (False, True)}
    for name, parameter in model.named_parameters():
        numbers[name.startswith("model.language_model.layers."), parameter.requires_grad] += parameter.numel()
    return Counts(
        layers=numbers[True, False] + numbers[True, True],
        root=numbers[False, False] + numbers[False, True],
        trained_layers=numbers[True, True],
        trained_root=numbers[False, True],
        vision=sum(parameter.numel() for parameter in model.model.visual.parameters()),
        num_layers=int(LANGUAGE[size]["num_hidden_layers"]),
    )


def activation_rows(size: str) -> list[tuple[str, float, float]]:
    """Return what needs memory in the backward pass: name, bytes without and with gradient checkpointing."""
    num_layers, width = int(LANGUAGE[size]["num_hidden_layers"]), int(LANGUAGE[size]["hidden_size"])
    tokens, patches = TOKEN_BYTES[size] * NUM_TOKENS, PATCH_BYTES * NUM_PATCHES
    counts = count(size, "finetune")
    frames = float(FRAME_BYTES * NUM_MASK_FRAMES)
    depth = VISION["depth"]
    return [
        ("decoder layers", tokens * num_layers, tokens + FLOAT * NUM_TOKENS * width * num_layers),
        ("vision transformer", patches * depth, patches + FLOAT * NUM_PATCHES * VISION["hidden_size"] * depth),
        ("weights cast to bfloat16", 2.0 * (counts.layers + counts.vision), 2.0 * counts.layers / num_layers),
        ("image encoder of SAM 2.1", frames, frames),
    ]


def section() -> str:
    """Return both tables as Markdown."""
    lines = [
        "| model | trained | parameters (million) | of them trained | DDP | FSDP2 on 8 | FSDP2 on 64 |",
        "|---|---|---|---|---|---|---|",
    ]
    for size in LANGUAGE:
        for trained in ("finetune", "stage3", "all"):
            counts = count(size, trained)
            memory = [counts.ddp_bytes(), counts.fsdp_bytes(8), counts.fsdp_bytes(64)]
            columns = [f"{counts.whole / 1e6:,.0f}", f"{counts.trained / 1e6:,.0f}", *map(_gigabytes, memory)]
            lines.append(f"| {size} | {trained} | {' | '.join(columns)} |")
    lines += ["", "| model | needed by the backward pass | without checkpointing | with it |", "|---|---|---|---|"]
    for size in LANGUAGE:
        rows = activation_rows(size)
        rows.append(("together", sum(row[1] for row in rows), sum(row[2] for row in rows)))
        lines += [f"| {size} | {name} | {_gigabytes(whole)} | {_gigabytes(kept)} |" for name, whole, kept in rows]
    return "\n".join(lines)


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB"


def page_with_section(page: str) -> str:
    """Return the page with its generated section replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{section()}\n\n{END}{after}"


def measure_language(size: str) -> float:
    """Count the bytes per token that the backward pass of one decoder layer with low-rank updates needs."""
    model = _one_layer(size)
    width = int(LANGUAGE[size]["hidden_size"])

    def run(length: int) -> Callable[[], Tensor]:
        embeds = torch.randn(1, length, width, requires_grad=True)
        return lambda: model(embeds, torch.arange(length).expand(3, 1, -1))

    return (_saved_bytes(run(128), model) - _saved_bytes(run(64), model)) / 64


def measure_vision() -> float:
    """Count the bytes per patch and block that the backward pass of the vision transformer needs."""
    model = _one_layer("3B")

    def run(columns: int) -> Callable[[], object]:
        video = VideoInput(torch.randn(16 * columns, 1176), (1, 16, columns), 1.0)
        return lambda: model.encode_videos([video])

    return (_saved_bytes(run(32), model) - _saved_bytes(run(16), model)) / (16 * 16 * len(model.visual.blocks))


def measure_segmenter() -> float:
    """Count the bytes per frame that the backward pass of the image encoder of SAM 2.1 needs, in float32."""
    with init_empty_weights():
        segmenter = Segmenter(SegmenterConfig.preset("base_plus", image_size=IMAGE_SIZE))
    segmenter.to("meta")
    frames = torch.empty(1, 3, IMAGE_SIZE, IMAGE_SIZE, device="meta")
    return _saved_bytes(lambda: segmenter.encode(frames), segmenter)


def _one_layer(size: str) -> QwenVL:
    config = configured(size).qwen
    config.text_config.num_hidden_layers, config.text_config.vocab_size = 1, 8
    config.text_config.layer_types = config.text_config.layer_types[:1]
    config.text_config.pad_token_id = None
    config.vision_config.depth, config.vision_config.fullatt_block_indexes = 2, [1]
    model = QwenVL(config, pooling_order="window")
    lora = load_recipe("3b/finetune").lora
    if lora is None:
        raise ValueError("the recipe 3b/finetune has no low-rank updates")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "qkv", "proj"]
    model.requires_grad_(False)
    updates = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=targets)
    inject_adapter_in_model(updates, model)
    return model.train()


def _saved_bytes(run: Callable[[], object], model: nn.Module) -> int:
    """Return the bytes of the tensors that autograd keeps for the backward pass, without the model's parameters."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    is_meta = next(model.parameters()).device.type == "meta"
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=not is_meta),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        result = run()
        total = sum(tensor.untyped_storage().nbytes() for key, tensor in kept.items() if key not in own)
    del result
    return total


if __name__ == "__main__":
    if sys.argv[1:] == ["--measure"]:
        figures = {size: measure_language(size) for size in LANGUAGE}
        print(f"{figures = } {measure_vision() = } {measure_segmenter() = }")
    else:
        PAGE.write_text(page_with_section(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
