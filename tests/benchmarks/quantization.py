"""Memory, speed and agreement of 8-bit and 4-bit weights, on the recorded cases and on layers of the 3B's shape.

    PYTHONPATH=.:tests python tests/benchmarks/quantization.py [--layers 2] [--new-tokens 16]

Prints two tables in Markdown. The recorded cases are those of tests/parity: masks of the published implementation in
float32. Layers of the 3B's shape have random weights; the time of a token is the median, without the first one.
"""

from __future__ import annotations

import argparse
import importlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from parity.run_case import Differences, compare
from parity.weights import tiny_model
from safetensors.torch import load_file
from torch import nn

from unipixel.checkpoints.quantization import quantize_language
from unipixel.model.generation import AnswerStream, GenerationSettings
from unipixel.model.inputs import ModelInputs
from unipixel.model.unipixel import UniPixel

_GOLDEN = Path(__file__).parents[1] / "parity" / "golden"
_CASES = ("case_point_box", "case_image_point", "case_generate_seg")
_KINDS = ("float32", "bfloat16", "int8", "int4")


def convert(model: UniPixel, kind: str) -> UniPixel:
    """Cast or quantise a model in float32 as the loader does."""
    if kind == "float32":
        return model
    model = model.to(torch.bfloat16)
    if kind in ("int8", "int4"):
        quantize_language(model, "8bit" if kind == "int8" else "4bit")
        # Weights are quantised on the move to a device.
        model.to("cpu")
    return model


def decoder_bytes(model: UniPixel) -> int:
    """Return the bytes of the matrices in the layers of the language model, with the scales of quantised ones."""
    total = 0
    for layer in model.model.language_model.layers.modules():
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, torch.Tensor) or not isinstance(layer, nn.Linear):
            continue
        total += weight.numel() * weight.element_size()
        for scales in (getattr(getattr(weight, "quant_state", None), "absmax", None), getattr(weight, "SCB", None)):
            total += 0 if scales is None else scales.numel() * scales.element_size()
    return total


def compare_case(case: str, kind: str) -> Differences:
    """Compute a recorded case with one kind of weights."""
    model = convert(tiny_model(), kind)
    is_generation = case == "case_generate_seg"
    inputs = load_file(_GOLDEN / ("case_point_box" if is_generation else case) / "inputs.safetensors")
    if is_generation:
        model.config = replace(model.config, seg_token_id=500)
    return compare(model, inputs, load_file(_GOLDEN / case / "outputs.safetensors"))


@torch.no_grad()
def measure_layers(kind: str, layers: int, new_tokens: int) -> tuple[float, float, float]:
    """Return megabytes of the layers, seconds of a prompt of 256 tokens, and milliseconds per token."""
    shape_3b = importlib.import_module("benchmarks.shape_3b")
    model = convert(shape_3b.random_model(shape_3b.config_3b(layers)), kind)
    inputs = ModelInputs(torch.arange(1000, 1256)[None])
    prompts, tokens = [], []
    for _ in range(3):
        begin = time.perf_counter()
        stream = AnswerStream(model, inputs, settings=GenerationSettings(max_new_tokens=new_tokens))
        next(stream)
        prompts.append(time.perf_counter() - begin)
        while True:
            begin = time.perf_counter()
            if next(stream, None) is None:
                break
            tokens.append(time.perf_counter() - begin)
    return decoder_bytes(model) / 1e6, float(np.min(prompts)), 1000 * float(np.median(tokens))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=16)
    arguments = parser.parse_args()
    print("| case | " + " | ".join(_KINDS) + " |\n|---|" + "---|" * len(_KINDS))
    print("| layers, kB | " + " | ".join(f"{decoder_bytes(convert(tiny_model(), k)) / 1e3:.1f}" for k in _KINDS) + " |")
    for case in _CASES:
        found = [compare_case(case, kind) for kind in _KINDS]
        cells = [_cell(differences) for differences in found]
        print(f"| `{case}` | " + " | ".join(cells) + " |", flush=True)
    print(f"\n| {arguments.layers} layers of the 3B | MB | prompt of 256 tokens, s | token, ms |\n|---|---|---|---|")
    for kind in _KINDS[1:]:
        megabytes, prompt, token = measure_layers(kind, arguments.layers, arguments.new_tokens)
        print(f"| {kind} | {megabytes:.1f} | {prompt:.2f} | {token:.1f} |", flush=True)


def _cell(differences: Differences) -> str:
    names = {"mask_iou_min": "lowest IoU", "generated_mask_iou_min": "lowest IoU", "generated_ids_equal": "equal ids"}
    return ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else (name if value else "other ids")
        for key, name in names.items()
        if (value := differences[key]) is not None
    )


if __name__ == "__main__":
    main()
