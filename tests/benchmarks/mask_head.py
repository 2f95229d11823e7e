"""Time and memory of the mask head of Pixel-SAIL 0.5B, against channels per pixel as in the published code.

    python tests/benchmarks/mask_head.py [--side 1024] [--masks 1] [--turns 1] [--dtype float32] [--device cpu]
        [--repeats 3] [--json]

Each method runs in its own process with the same random weights, so that the peak memory is that of the method. The
published way applies the modules one after another to whole maps and stores the features of all channels; it computes
them again for every turn, as the published inference does.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from unipixel.sail.upsampler import MaskHead, UpsampleBlock

_WIDTH, _CHANNELS, _BLOCKS, _PATCH = 896, 512, 3, 16
METHODS = ("published", "folded")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--masks", type=int, default=1)
    parser.add_argument("--turns", type=int, default=1, help="questions about the same image, each with its masks")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--logits", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.method:
        print(json.dumps(measure(arguments)))
        return
    figures = compare(arguments)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:.6g}" if isinstance(value, float) else f"{name:32} {value}")


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run each method in a process and compare times, logits and memory."""
    figures: dict[str, Any] = {}
    logits = []
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            file = Path(folder) / f"{method}.pt"
            options = [
                f"--{name}={getattr(arguments, name)}"
                for name in ("side", "masks", "turns", "dtype", "device", "repeats")
            ]
            command = [sys.executable, __file__, *options, f"--method={method}", f"--logits={file}"]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            figures |= {f"{method}_{name}": value for name, value in json.loads(output).items()}
            logits.append(torch.load(file, weights_only=True))
    figures["speedup"] = figures["published_seconds"] / figures["folded_seconds"]
    # Of all cores together: other processes on a shared machine change it less.
    figures["speedup_in_processor_seconds"] = (
        figures["published_processor_seconds"] / figures["folded_processor_seconds"]
    )
    figures["max_abs_diff_of_logits"] = float((logits[0] - logits[1]).abs().max())
    figures["max_abs_logit"] = float(logits[0].abs().max())
    return figures


@torch.no_grad()
def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of one method, the fastest of some repeats, and its peak memory."""
    torch.manual_seed(0)
    dtype = getattr(torch, arguments.dtype)
    head = MaskHead(_WIDTH, mask_channels=_CHANNELS, num_blocks=_BLOCKS).to(arguments.device, dtype)
    cells = arguments.side // _PATCH
    states = torch.randn(cells, cells, _WIDTH).to(arguments.device, dtype)
    queries = [head.queries(torch.randn(arguments.masks, _WIDTH).to(states)) for _ in range(arguments.turns)]
    before = _memory(arguments.device)
    compute: Callable[[], list[Tensor]] = {
        "published": lambda: [published_logits(head, states, own) for own in queries],
        "folded": lambda: list(head.mask_logits(states, torch.cat(queries)).split(arguments.masks)),
    }[arguments.method]
    seconds, processor_seconds = [], []
    for _ in range(arguments.repeats):
        started, started_processor = time.perf_counter(), time.process_time()
        logits = torch.cat(compute())
        if states.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        processor_seconds.append(time.process_time() - started_processor)
    torch.save(logits.cpu(), arguments.logits)
    return {
        "seconds": min(seconds),
        "processor_seconds": min(processor_seconds),
        "peak_memory_gb": _memory(arguments.device) - before,
    }


def published_logits(head: MaskHead, states: Tensor, queries: Tensor) -> Tensor:
    """Compute logits (K, rows, columns) as in the published code: whole maps, channels first, features per pixel."""
    pixels = states.permute(2, 0, 1)[None]
    for module in head.upsample_blocks:
        block = cast("UpsampleBlock", module)
        pixels = block[1](block[0](pixels))
        pixels = block.separable.pointwise(block.separable.depthwise(pixels))
        pixels = block.norm(pixels.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    features = head.image_feature_projector(pixels.permute(0, 2, 3, 1))
    return torch.einsum("bhwc,kc->khw", features, queries).float()


def _memory(device: str) -> float:
    """Return the peak memory of the process, or of the GPU, in GB."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
