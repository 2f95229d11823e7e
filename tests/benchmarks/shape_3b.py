"""Time and memory of a model with the sizes of the 3B and random weights, for a first and a second question.

    python tests/benchmarks/shape_3b.py [--layers N] [--frames 16] [--side 256] [--new-tokens 8] [--json]

The model is in bfloat16 on the CPU and has the bundled tokenizer. `--layers` limits the layers of both transformers,
which preserves the ratio between a first and a second question.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from unipixel import GenerationSettings, UniPixel, UniPixelConfig, prefill
from unipixel.model.generation import PrefillOutput
from unipixel.processing.chat_template import Turn, load_tokenizer, special_ids
from unipixel.processing.processor import Processor

_TINY = Path(__file__).parent.parent / "parity" / "golden" / "config.json"


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=36)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = run(arguments.layers, arguments.frames, arguments.side, arguments.new_tokens)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:.3f}" if isinstance(value, float) else f"{name:32} {value}")


@torch.no_grad()
def run(layers: int, frames: int, side: int, new_tokens: int) -> dict[str, float | int]:
    """Ask two questions about a clip of noise and return times and memory."""
    config = config_3b(layers)
    model = random_model(config)
    processor = Processor(config, load_tokenizer())
    noise = np.random.default_rng(0).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)
    started = time.perf_counter()
    clip = processor.clip(list(noise))
    first = processor.encode([Turn("What is in this video?")], clip=clip).inputs
    prepared = time.perf_counter()
    features = model.encode_videos(first.videos)
    encoded = time.perf_counter()
    # With encoded videos, so that the language model alone is compared.
    first = replace(first, videos=features)
    output, first_seconds = _fastest(lambda: prefill(model, first))
    started_answer = time.perf_counter()
    answer = model.generate(first, settings=GenerationSettings(max_new_tokens=new_tokens))[0]
    answer_seconds = time.perf_counter() - started_answer
    later = processor.encode_later_turn(Turn("And what else?"), layout=clip.layout).inputs
    second, second_seconds = _fastest(lambda: prefill(model, later, prompt_cache=answer.prompt_cache))
    return {
        "layers": layers,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "video_tokens": sum(len(video.tokens) for video in features),
        "first_question_tokens": output.lengths[0],
        "second_question_tokens": second.lengths[0],
        "prepare_seconds": prepared - started,
        "encode_video_seconds": encoded - prepared,
        "first_prefill_seconds": first_seconds,
        "answer_seconds": answer_seconds,
        "second_prefill_seconds": second_seconds,
        "first_over_second_prefill": first_seconds / second_seconds,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _fastest(compute: Callable[[], PrefillOutput]) -> tuple[PrefillOutput, float]:
    """Compute three times, and return the result and the smallest number of seconds."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        result = compute()
        seconds.append(time.perf_counter() - started)
    return result, min(seconds)


def config_3b(layers: int) -> UniPixelConfig:
    """Return the configuration of the published 3B with a given number of layers."""
    fields = json.loads(_TINY.read_text(encoding="utf-8"))
    ref, seg, mem = special_ids(load_tokenizer())
    fields["text_config"] |= {
        "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": layers, "num_attention_heads": 16,
        "num_key_value_heads": 2, "vocab_size": 151936, "layer_types": ["full_attention"] * layers,
        "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"},
    }  # fmt: skip
    # config.json repeats the sizes at its top level.
    fields |= {
        name: value for name, value in fields["text_config"].items() if isinstance(value, int) and name in fields
    }
    depth = min(32, layers)
    fields["vision_config"] |= {
        "depth": depth, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
        "fullatt_block_indexes": [block for block in (7, 15, 23, 31) if block < depth] or [depth - 1],
    }  # fmt: skip
    tokenizer = load_tokenizer()
    fields |= {
        "tie_word_embeddings": True, "sam2_config": "configs/sam2.1_hiera_b+", "sam2_image_size": 768,
        "ref_token_id": ref, "seg_token_id": seg, "mem_token_id": mem,
        "video_token_id": tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        "image_token_id": tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    }  # fmt: skip
    return UniPixelConfig.from_dict(fields)


def random_model(config: UniPixelConfig, *, device: torch.device | str = "cpu") -> UniPixel:
    """Return a model with random weights in bfloat16, except tensors that stay in float32."""
    from unipixel.checkpoints.tensor_layout import float32_names

    model = UniPixel.build_empty(config)
    kept = float32_names(model)
    state = {}
    for name, tensor in model.state_dict().items():
        dtype = torch.float32 if name in kept else torch.bfloat16
        state[name] = torch.empty(tensor.shape, dtype=dtype, device=device).normal_(std=0.02)
    state["lm_head.weight"] = state["model.language_model.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    return model.to(device).eval()


if __name__ == "__main__":
    main()
