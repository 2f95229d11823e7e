"""Options that the commands about videos share, and what is built from them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from unipixel.model.generation import GenerationSettings
    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.session.settings import SessionSettings

DEFAULT_MODEL = "unipixel-nano"
MAX_FRAMES = 108_000
"""Frames of the longest video that is taken by default: an hour at 30 per second."""


PROMPT_FORMS = {
    "point": "ID:X,Y@FRAME",
    "not-point": "ID:X,Y@FRAME",
    "box": "ID:X1,Y1,X2,Y2@FRAME",
    "mask": "ID:FILE@FRAME",
}
_PROMPT_HELP = {
    "point": "a click on object ID, in pixels of frame FRAME (from 0)",
    "not-point": "a click beside object ID, which corrects its mask",
    "box": "a box around object ID",
    "mask": "a mask of object ID: an image of the frame's size, non-zero on the object",
}


def add_question_parser(subparsers: Any, name: str, *, summary: str, description: str, metavar: str) -> Any:
    """Describe the arguments of a command that puts questions about videos, and return its parser."""
    parser = subparsers.add_parser(name, help=summary, description=description)
    parser.add_argument("video", metavar="VIDEO", nargs="?", help="file, image, folder of frames, or folder of clips")
    parser.add_argument("question", metavar=metavar, nargs="?")
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="JSONL: id, clip, question, points, boxes, masks"
    )
    add_prompt_options(parser)
    add_language_options(parser)
    add_model_options(parser)
    add_output_options(parser)
    return parser


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Add `--point`, `--not-point`, `--box` and `--mask`, which may be repeated."""
    group = parser.add_argument_group("prompts")
    for name, form in PROMPT_FORMS.items():
        group.add_argument(f"--{name}", metavar=form, action="append", default=[], help=_PROMPT_HELP[name])


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a model and of where it runs."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", default=DEFAULT_MODEL, help="bundled name, folder or hub id (%(default)s)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    group.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    group.add_argument("--postprocess", action="store_true", help="SAM 2's own post-processing of masks")


def add_language_options(parser: argparse.ArgumentParser, *, is_live: bool = False) -> None:
    """Add what decides how the language model is used; a live source leaves no choice of frames to start from."""
    group = parser.add_argument_group("language")
    group.add_argument(
        "--frames", type=int, metavar="N", help="frames the language model sees (what its checkpoint says, else 16)"
    )
    if not is_live:
        group.add_argument(
            "--anchor",
            default="auto",
            choices=("auto", "prompt", "best", "first"),
            help="where what words found is segmented first: frame 0 or, if absent or doubted there, the best (auto)",
        )
        group.add_argument(
            "--prefill",
            default="model",
            choices=("model", "model-only", "tracker"),
            help="who segments points and boxes that the question names: the language model unless its mask misses "
            "them (model), it alone as in the paper (model-only), or the tracker from the prompt itself (tracker)",
        )
    group.add_argument("--max-new-tokens", type=int, default=512, metavar="N")
    group.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    group.add_argument("--seed", type=int, default=None, help="seed of the sampling")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add where results go and in which forms."""
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, metavar="DIR", help="folder for result.json, overlay and masks")
    group.add_argument("--json", action="store_true", help="print result.json on stdout")
    add_result_options(group)


def add_result_options(group: Any) -> None:
    """Add, to a parser or a group of one, what a folder of results holds."""
    group.add_argument("--overwrite", action="store_true", help="replace the results of an existing folder")
    group.add_argument("--no-overlay", action="store_true", help="write no overlay video")
    group.add_argument("--davis", action="store_true", help="also write palette images in the DAVIS layout")
    group.add_argument("--max-frames", type=int, default=MAX_FRAMES, metavar="N", help="refuse longer videos")


def session_settings(arguments: argparse.Namespace) -> SessionSettings:
    """Return the settings of a session.

    Raises:
        ValueError: One is out of range.
    """
    from unipixel.session.settings import SessionSettings

    return SessionSettings(
        num_frames=arguments.frames,
        anchor=arguments.anchor,
        prefill=arguments.prefill,
        is_postprocessed=arguments.postprocess,
        generation=generation_settings(arguments),
    )


def generation_settings(arguments: argparse.Namespace) -> GenerationSettings:
    """Return how answers are written.

    Raises:
        ValueError: A setting is out of range.
    """
    from unipixel.model.generation import GenerationSettings

    return GenerationSettings(
        max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature, seed=arguments.seed
    )


def load_model(arguments: argparse.Namespace) -> tuple[UniPixel, Processor]:
    """Load the model and what prepares its inputs.

    Raises:
        OSError: The model cannot be found, fetched or read.
        ValueError: Its files do not fit together, or the device is unknown.
    """
    import torch

    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor

    dtype: Any = arguments.dtype if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    model = UniPixel.from_pretrained(arguments.model, dtype=dtype, device=choose_device(arguments.device))
    return model, Processor.from_pretrained(arguments.model)


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is the first of CUDA, MPS and the CPU that is there.

    Raises:
        ValueError: There is no such device.
    """
    import torch

    from unipixel.checkpoints.loading import available_device

    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    return available_device(name)
