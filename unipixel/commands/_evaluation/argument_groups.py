"""Options of `unipixel eval`, and which of them each of its actions takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from unipixel.commands._options import DEFAULT_MODEL

# Options by action; `benchmark` stands for the names of benchmarks.
_ALLOWED = {
    "list": {"json"},
    "check": {"benchmark", "split", "data", "json"},
    "report": {"html", "json"},
    "synthetic": {
        "model", "device", "split", "seed", "limit", "tasks", "frames", "render_size", "anchor", "prefill",
        "no_memory", "pooling", "json",
    },
    "benchmark": {
        "split", "variant", "data", "predictions", "protocol", "strict", "json", "list", "submission", "gallery",
        "limit",
        "processes", "model", "out", "device", "dtype", "decoder", "language_frames", "anchor", "prefill",
        "postprocess", "max_new_tokens", "wording", "retry_failed", "judge_url", "judge_model", "judge_prompt",
    },
}  # fmt: skip
ACTIONS = tuple(name for name in _ALLOWED if name != "benchmark")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Describe all options; each default is None, so that it shows which were given."""
    parser.add_argument(
        "action",
        metavar="BENCHMARK",
        help="a benchmark, several joined by commas (NAME or NAME:SPLIT), or one of: list (all benchmarks), check "
        "(an archive for a server), report (a table of finished runs), synthetic (clips, or images for "
        "Pixel-SAIL, that are generated during the evaluation)",
    )
    parser.add_argument(
        "path", nargs="?", type=Path, metavar="PATH", help="the archive of `check`, or the folder of `report`"
    )
    parser.add_argument("--json", action="store_true", default=None, help="print one JSON object (off)")
    _add_data_options(parser.add_argument_group("data and scores"))
    _add_run_options(parser.add_argument_group("running a model"))
    _add_judge_options(parser.add_argument_group("judging descriptions (only where a benchmark needs it)"))
    _add_synthetic_options(parser.add_argument_group("synthetic clips"))


def _add_data_options(group: Any) -> None:
    group.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the data; of several benchmarks, DIR/NAME (required)"
    )
    group.add_argument("--split", metavar="NAME", help="split (by default the first that `eval list` shows)")
    group.add_argument(
        "--variant",
        metavar="NAME",
        help="way to pose the samples, where a benchmark has several (by default its first)",
    )
    group.add_argument(
        "--predictions",
        type=Path,
        metavar="DIR",
        help="score the predictions.jsonl of this folder (instead of a model)",
    )
    group.add_argument("--protocol", choices=("honest", "paper"), help="honest (default), or as the published code")
    group.add_argument("--strict", action="store_true", default=None, help="stop at the first sample that failed (off)")
    group.add_argument("--list", action="store_true", default=None, help="list the samples instead of scoring (off)")
    group.add_argument("--submission", type=Path, metavar="ZIP", help="write the archive that the server takes (off)")
    group.add_argument(
        "--gallery",
        type=int,
        metavar="N",
        help="write gallery.html beside the predictions: the N worst, N best and N random samples in pictures (off)",
    )
    group.add_argument("--html", type=Path, metavar="FILE", help="also write the table of `report` as a page (off)")
    group.add_argument(
        "--processes", type=int, metavar="N", help="processes that score (by default the cores, 16 at most)"
    )
    group.add_argument("--benchmark", metavar="NAME", help="the benchmark of the archive (required by check)")


def _add_run_options(group: Any) -> None:
    group.add_argument("--model", help=f"bundled name, folder or hub id (synthetic: {DEFAULT_MODEL} by default)")
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the run; of several benchmarks, DIR/NAME (required with --model)",
    )
    group.add_argument("--device", help="auto (default), cpu, cuda, cuda:1, mps; synthetic: cpu by default")
    group.add_argument("--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="auto by default")
    group.add_argument(
        "--limit", type=int, metavar="M", help="only the first M samples (all); synthetic: 90 by default"
    )
    group.add_argument(
        "--retry-failed", action="store_true", default=None, help="ask again about samples that failed earlier (off)"
    )
    group.add_argument("--decoder", choices=("auto", "av", "decord"), help="decoder of video files (auto)")
    group.add_argument(
        "--language-frames", type=int, metavar="N", help="frames of the language model (those of the benchmark)"
    )
    group.add_argument("--anchor", choices=("auto", "prompt", "best", "first"), help="as in `unipixel ask` (auto)")
    group.add_argument("--prefill", choices=("model", "model-only", "tracker"), help="as in `unipixel ask` (model)")
    group.add_argument("--postprocess", action="store_true", default=None, help="apply SAM 2's post-processing (off)")
    group.add_argument(
        "--wording",
        choices=("published", "session"),
        help="questions about options and points word for word as published, with the published beginning of the "
        "answer (default), or as in a session",
    )
    group.add_argument("--max-new-tokens", type=int, metavar="N", help="longest answer in tokens (512)")


def _add_judge_options(group: Any) -> None:
    group.add_argument(
        "--judge-url",
        metavar="URL",
        help="base address of an endpoint with OpenAI's chat completions; its key is OPENAI_API_KEY. Answers are sent "
        "there, and the replies are stored in predictions.jsonl (off)",
    )
    group.add_argument(
        "--judge-model", metavar="NAME", help="model of the endpoint, such as gpt-4o-mini (required with --judge-url)"
    )
    group.add_argument(
        "--judge-prompt", type=Path, metavar="FILE", help="instructions of the judge (those of unipixel)"
    )


def _add_synthetic_options(group: Any) -> None:
    group.add_argument("--seed", type=int, help="seed of the clips (0)")
    group.add_argument("--tasks", metavar="NAMES", help="comma-separated tasks, such as track,segment/motion (all)")
    group.add_argument(
        "--frames", type=int, metavar="N", help="length of the clips in frames, 0 for the full length (0)"
    )
    group.add_argument("--render-size", type=int, metavar="PX", help="shorter side, 0 for a random size (0)")
    group.add_argument(
        "--no-memory",
        action="store_true",
        default=None,
        help="track objects, but do not inject their memory: the answers without memory injection (off)",
    )
    group.add_argument(
        "--pooling",
        choices=("raster", "window"),
        help="order of memory pooling; by default that of the checkpoint",
    )


def check_options(arguments: argparse.Namespace) -> None:
    """Check that each given option belongs to the action.

    Raises:
        ValueError: One does not; the message names the actions that take it.
    """
    action = arguments.action if arguments.action in ACTIONS else "benchmark"
    given = {
        name for name, value in vars(arguments).items() if value is not None and name in set().union(*_ALLOWED.values())
    }
    for name in sorted(given - _ALLOWED[action]):
        owners = [
            "a benchmark" if owner == "benchmark" else owner for owner, names in _ALLOWED.items() if name in names
        ]
        shown = name.replace("_", "-")
        raise ValueError(
            f"--{shown} is not an option of `unipixel eval {arguments.action}`, but of {' and '.join(owners)}"
        )
    if arguments.path is not None and action not in ("check", "report"):
        raise ValueError(f"unexpected argument {str(arguments.path)!r}: give the data folder as --data")
