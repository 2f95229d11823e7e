"""Options that several commands share, and the objects that are built from them."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from unipixel.checkpoints.quantization import Quantization
    from unipixel.model.generation import GenerationSettings
    from unipixel.session.settings import SessionSettings
    from unipixel.tracking.segmenter import Segmenter

DEFAULT_MODEL = "unipixel-nano"
MAX_FRAMES = 108_000
"""Default maximum length of a video: an hour at 30 frames per second."""

PROMPT_FORMS = {
    "point": "ID:X,Y@FRAME",
    "not-point": "ID:X,Y@FRAME",
    "box": "ID:X1,Y1,X2,Y2@FRAME",
    "mask": "ID:FILE@FRAME",
}
_PROMPT_HELP = {
    "point": "a click on object ID, in pixels of frame FRAME (from 0)",
    "not-point": "a click outside object ID, which corrects its mask",
    "box": "a box around object ID",
    "mask": "a mask of object ID: an image of the frame's size that is non-zero on the object",
}

_QUANTIZATIONS: dict[str, Quantization] = {"int8": "8bit", "int4": "4bit"}

EXPORT_HELP = {
    "coco": "coco.json, COCO annotations with the fields of YouTube-VIS",
    "cvat": "cvat.xml, masks for CVAT (CVAT for images 1.1)",
    "label-studio": "pre-annotated tasks for Label Studio",
    "yolo": "yolo/, polygons of YOLO segmentation",
}


def describe_unknown(kind: str, name: str, known: Sequence[str]) -> str:
    """Return an error message for an unknown name, with the nearest known name and all of them."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    suggestion = f", did you mean {nearest[0]}?" if nearest else ";"
    return f"unknown {kind} {name}{suggestion} Known {kind}s are {', '.join(known)}"


def describe_error(error: BaseException) -> str:
    """Return an error as one line; an error of a file names the file first."""
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if isinstance(error, OSError) and error.errno is not None and error.strerror and error.filename is not None:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    # A file name with bytes that are not UTF-8 has lone surrogates, which not every stream can write.
    text = text.encode("utf-8", errors="backslashreplace").decode("utf-8")
    return " ".join(text.split()) or type(error).__name__


def add_prompt_options(parser: argparse.ArgumentParser) -> None:
    """Add `--point`, `--not-point`, `--box` and `--mask`, which can be repeated."""
    group = parser.add_argument_group("prompts")
    for name, form in PROMPT_FORMS.items():
        group.add_argument(f"--{name}", metavar=form, action="append", default=[], help=_PROMPT_HELP[name])


def add_model_options(parser: argparse.ArgumentParser, *, has_language: bool = True) -> None:
    """Add the options for the model and its device; the type is that of the language model."""
    group = parser.add_argument_group("model")
    also = "" if has_language else "; also SAM 2.1 alone, such as facebook/sam2.1-hiera-tiny, or its official file"
    group.add_argument("--model", default=DEFAULT_MODEL, help=f"bundled name, folder or hub id (%(default)s){also}")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    if has_language:
        group.add_argument(
            "--dtype",
            default="auto",
            choices=("auto", "float32", "bfloat16", "float16"),
            help="type of the language model; auto is that of the checkpoint (%(default)s)",
        )
        group.add_argument(
            "--quantize", choices=tuple(_QUANTIZATIONS), help="quantise the language model with bitsandbytes (off)"
        )
        group.add_argument(
            "--segmenter",
            metavar="SAM",
            help="SAM 2.1 that tracks and segments clicks, such as facebook/sam2.1-hiera-tiny: hub id, folder or "
            "official file (by default the model's own)",
        )
        group.add_argument(
            "--language-masks",
            default="model",
            choices=("model", "segmenter"),
            help="what decodes masks from language if --segmenter is given: the model's own SAM 2.1, which encodes the "
            "frames that it needs itself, or the segmenter (%(default)s)",
        )
    group.add_argument("--postprocess", action="store_true", help="apply SAM 2's post-processing to masks (off)")


def add_language_options(parser: argparse.ArgumentParser, *, is_live: bool = False) -> None:
    """Add the options for the language model; a live source has no choice of anchor frames."""
    group = parser.add_argument_group("language")
    group.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="frames that the language model receives (by default as many as its checkpoint specifies, else 16)",
    )
    if not is_live:
        group.add_argument(
            "--anchor",
            default="auto",
            choices=("auto", "prompt", "best", "first"),
            help="frame on which an object that the text describes is segmented first: frame 0, or the best frame if "
            "the object is absent or uncertain there (%(default)s)",
        )
        group.add_argument(
            "--prefill",
            default="model",
            choices=("model", "model-only", "tracker"),
            help="what segments the points and boxes that the question names: the language model unless its mask "
            "disagrees with the prompt (model), always the language model, as in the paper (model-only), or the "
            "tracker (tracker); by default %(default)s",
        )
    group.add_argument(
        "--max-new-tokens", type=int, default=512, metavar="N", help="longest answer in tokens (%(default)s)"
    )
    group.add_argument("--temperature", type=float, default=0.0, help="above 0 samples (%(default)s: greedy)")
    group.add_argument("--seed", type=int, default=None, help="seed of the sampling (by default a random one)")


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the output."""
    group = parser.add_argument_group("output")
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for result.json, overlay and masks (by default none is written)"
    )
    group.add_argument("--json", action="store_true", help="print result.json on stdout (off)")
    add_result_options(group)


def add_result_options(group: Any) -> None:
    """Add the options for the content of a result folder, to a parser or an argument group."""
    group.add_argument("--overwrite", action="store_true", help="replace the results of an existing folder (off)")
    group.add_argument("--no-overlay", action="store_true", help="write no overlay video (off)")
    group.add_argument("--davis", action="store_true", help="also write palette images in the DAVIS layout (off)")
    for name, text in EXPORT_HELP.items():
        group.add_argument(f"--{name}", action="store_true", help=f"also write {text} (off)")
    group.add_argument(
        "--max-frames", type=int, default=MAX_FRAMES, metavar="N", help="refuse longer videos (%(default)s)"
    )


def chosen_exports(arguments: argparse.Namespace) -> list[str]:
    """Return the names of the export formats that a command line asks for."""
    return [name for name in EXPORT_HELP if getattr(arguments, name.replace("-", "_"))]


def check_model(arguments: argparse.Namespace) -> None:
    """Check the device, the checkpoints and the libraries that a command line asks for, without importing torch.

    Raises:
        OSError: A checkpoint cannot be found, downloaded or read.
        ValueError: A checkpoint is of another architecture or does not fit, or the device is not available.
        ImportError: A library is missing.
    """
    from unipixel.checkpoints.devices import check_device
    from unipixel.checkpoints.early_checks import check_checkpoint
    from unipixel.checkpoints.quantization import check_quantization
    from unipixel.checkpoints.segmenters import find_segmenter

    if arguments.device != "auto":
        check_device(arguments.device)
    if arguments.quantize is not None:
        check_quantization(_QUANTIZATIONS[arguments.quantize])
    check_checkpoint(arguments.model)
    if arguments.segmenter is not None:
        find_segmenter(arguments.segmenter)


def load_chosen_segmenter(arguments: argparse.Namespace) -> Segmenter | None:
    """Load the segmenter of `--segmenter`, if it is given, and say what it does.

    Raises:
        OSError: It cannot be found, downloaded or read.
        ValueError: It is of another architecture or does not fit, or the device is not available.
    """
    if arguments.segmenter is None:
        return None
    from unipixel.checkpoints.architecture import is_sail_checkpoint
    from unipixel.checkpoints.segmenters import load_segmenter

    segmenter = load_segmenter(arguments.segmenter, device=choose_device(arguments.device))
    role = f"{arguments.segmenter} tracks and segments clicks, at {segmenter.config.image_size} pixels"
    own = "the model's own SAM 2.1 decodes masks from language and encodes the frames it needs itself"
    has_own = arguments.language_masks == "model" and not is_sail_checkpoint(arguments.model)
    print(f"unipixel: {role}{f'; {own}' if has_own else ''}", file=sys.stderr)
    return segmenter


def session_settings(arguments: argparse.Namespace) -> SessionSettings:
    """Return the settings of a session, with the loaded segmenter.

    Raises:
        OSError: The segmenter cannot be found, downloaded or read.
        ValueError: A setting is out of range, or the segmenter is of another architecture.
    """
    from unipixel.session.settings import SessionSettings

    return SessionSettings(
        segmenter=load_chosen_segmenter(arguments),
        language_masks=arguments.language_masks,
        num_frames=arguments.frames,
        anchor=arguments.anchor,
        prefill=arguments.prefill,
        is_postprocessed=arguments.postprocess,
        generation=generation_settings(arguments),
    )


def generation_settings(arguments: argparse.Namespace) -> GenerationSettings:
    """Return the settings of the text generation.

    Raises:
        ValueError: A setting is out of range.
    """
    from unipixel.model.generation import GenerationSettings

    return GenerationSettings(
        max_new_tokens=arguments.max_new_tokens, temperature=arguments.temperature, seed=arguments.seed
    )


def load_model(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Load the model and its processor; the configuration of the checkpoint decides which model it is.

    Raises:
        OSError: The model cannot be found, downloaded or read.
        ValueError: Its files are inconsistent, or the device is unknown.
    """
    import torch

    from unipixel.checkpoints.architecture import load_checkpoint

    dtype: Any = arguments.dtype if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    quantization = None if arguments.quantize is None else _QUANTIZATIONS[arguments.quantize]
    return load_checkpoint(
        arguments.model, dtype=dtype, device=choose_device(arguments.device), quantization=quantization
    )


def choose_device(name: str) -> torch.device:
    """Return the device of a name; `auto` is the first of CUDA, MPS and CPU that is available.

    Raises:
        ValueError: There is no such device.
    """
    import torch

    from unipixel.checkpoints.devices import available_device

    if name == "auto":
        has_mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    return available_device(name)
