"""`unipixel data caption-regions`: descriptions of regions, and questions about them, written and checked by models."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipixel.train.data_engine.caption_pipeline import EngineSettings
    from unipixel.train.data_engine.engine_run import EngineLimits, EngineProgress
    from unipixel.train.data_engine.source_regions import RegionChoice

_INCOMPLETE = 1
_MAX_KEY_BYTES = 4096
_MAX_SHOWN = 5
_BUDGET_NAMES = ("requests", "tokens")
OPTIONS = (
    "out", "images", "url", "model", "checker_model", "checker_url", "checker_without_pictures", "api_key_file",
    "checker_api_key_file", "budget", "limit", "per_image", "min_area", "questions", "seed", "concurrency", "timeout",
)  # fmt: skip
"""Names of the options, whose default is None."""


def add_options(group: Any) -> None:
    """Describe the options."""
    group.add_argument("--out", type=Path, metavar="DIR", help="folder of the results; a run that ended is continued")
    group.add_argument("--images", type=Path, metavar="DIR", help="folder of the images of COCO annotations")
    group.add_argument(
        "--url",
        action="append",
        metavar="URL",
        help="base address of an endpoint with OpenAI's chat completions; one for all, or one for each --model",
    )
    group.add_argument(
        "--model", action="append", metavar="NAME", help="model that describes regions; repeat it for several models"
    )
    group.add_argument(
        "--checker-model",
        metavar="NAME",
        help="model that checks descriptions and writes questions (by default the first --model)",
    )
    group.add_argument("--checker-url", metavar="URL", help="its endpoint (by default the first --url)")
    group.add_argument(
        "--checker-without-pictures",
        action="store_true",
        default=None,
        help="send the checker no pictures, as in the paper: it compares the descriptions of at least two models",
    )
    group.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="file with the key of every --url (by default the environment variable OPENAI_API_KEY)",
    )
    group.add_argument("--checker-api-key-file", type=Path, metavar="FILE", help="file with the key of --checker-url")
    group.add_argument(
        "--budget",
        metavar="LIMITS",
        help="most requests and tokens of all runs in the folder, such as requests=1000,tokens=2000000",
    )
    group.add_argument("--limit", type=int, metavar="N", help="most regions with a result (all of the source)")
    group.add_argument("--per-image", type=int, metavar="N", help="most regions of an image, drawn at random (10)")
    group.add_argument("--min-area", type=float, metavar="X", help="smallest region as a fraction of the image (0.001)")
    group.add_argument("--questions", type=int, metavar="N", help="multiple-choice questions about each region (1)")
    group.add_argument("--seed", type=int, help="seed of the requests and of the draws (0)")
    group.add_argument("--concurrency", type=int, metavar="N", help="regions that are worked on at once (8)")
    group.add_argument("--timeout", type=float, metavar="S", help="longest time without a byte of a reply (120)")


def caption_regions(source: str, arguments: argparse.Namespace) -> int:
    """Describe the regions of a source and print what was done; the status is 1 if regions are left.

    Raises:
        ValueError: An option is missing or out of range, or source or folder have another form.
        OSError: A file cannot be read or written, or an endpoint refuses all requests.
        ImportError: The extra `train` is not installed.
    """
    for name in ("out", "url", "model"):
        if getattr(arguments, name) is None:
            raise ValueError(f"`unipixel data caption-regions` requires --{name}")
    settings, limits, choice = _settings(arguments), _limits(arguments), _choice(arguments)
    from unipixel.train.data_engine.engine_run import RUN_FILE, run_engine
    from unipixel.train.data_engine.source_regions import describe_source, open_source
    from unipixel.train.evaluation.running.run_description import keep_description

    description = {**describe_source(Path(source)), **settings.description(), **vars(choice)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    keep_description(arguments.out / RUN_FILE, description)
    images = open_source(Path(source), images=arguments.images, choice=choice)
    with _display() as report:
        progress = run_engine(images, arguments.out, settings, limits=limits, report=report)
    _print(progress, arguments.out, as_json=arguments.json)
    return _INCOMPLETE if progress.stop_reason or progress.failed or progress.skipped else 0


def _settings(arguments: argparse.Namespace) -> EngineSettings:
    import os

    from unipixel.train.data_engine.caption_pipeline import EngineSettings
    from unipixel.train.endpoints.chat_completions import KEY_VARIABLE, EndpointSettings

    urls, models = arguments.url, arguments.model
    if len(urls) not in (1, len(models)):
        raise ValueError(f"--url is given {len(urls)} times, --model {len(models)} times: give one URL for each model")
    timeout = 120.0 if arguments.timeout is None else arguments.timeout
    if not 0 < timeout < float("inf"):
        raise ValueError(f"--timeout must be above 0 seconds, got {timeout}")
    key = _read_key(arguments.api_key_file) if arguments.api_key_file else os.environ.get(KEY_VARIABLE, "")
    writers = tuple(
        EndpointSettings(url=url, model=model, key=key, timeout_seconds=timeout)
        for url, model in zip(urls * (len(models) // len(urls)), models, strict=True)
    )
    checker_url = arguments.checker_url or urls[0]
    if arguments.checker_api_key_file:
        checker_key = _read_key(arguments.checker_api_key_file)
    else:
        # A key is sent to no other host than those that it was given for.
        checker_key = key if checker_url in urls else ""
    checker = EndpointSettings(
        url=checker_url, model=arguments.checker_model or models[0], key=checker_key, timeout_seconds=timeout
    )
    return EngineSettings(
        writers,
        checker,
        is_checker_blind=bool(arguments.checker_without_pictures),
        num_questions=1 if arguments.questions is None else arguments.questions,
        seed=arguments.seed or 0,
    )


def _limits(arguments: argparse.Namespace) -> EngineLimits:
    from unipixel.train.data_engine.engine_run import EngineLimits

    budget = _parse_budget(arguments.budget) if arguments.budget else {}
    return EngineLimits(
        max_regions=arguments.limit,
        max_requests=budget.get("requests"),
        max_tokens=budget.get("tokens"),
        num_threads=8 if arguments.concurrency is None else arguments.concurrency,
    )


def _choice(arguments: argparse.Namespace) -> RegionChoice:
    from unipixel.train.data_engine.source_regions import RegionChoice

    return RegionChoice(
        max_per_image=10 if arguments.per_image is None else arguments.per_image,
        min_area=0.001 if arguments.min_area is None else arguments.min_area,
        seed=arguments.seed or 0,
    )


def _parse_budget(text: str) -> dict[str, int]:
    found = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        if name not in _BUDGET_NAMES or not number.isdecimal() or name in found:
            raise ValueError(f"--budget must be such as requests=1000,tokens=2000000, got {text!r}")
        found[name] = int(number)
    return found


def _read_key(path: Path) -> str:
    """Read a key from a file, whose content is never shown."""
    with path.open("rb") as file:
        content = file.read(_MAX_KEY_BYTES + 1)
    try:
        key = content.decode("ascii").strip()
    except UnicodeDecodeError:
        key = ""
    if not key or len(content) > _MAX_KEY_BYTES or any(character.isspace() for character in key):
        raise ValueError(f"{path} must contain a key: one line of ASCII text, at most {_MAX_KEY_BYTES} bytes")
    return key


@contextmanager
def _display() -> Iterator[Callable[[EngineProgress], None]]:
    from tqdm import tqdm

    with tqdm(desc="regions", unit="region", file=sys.stderr, disable=None, leave=False) as bar:

        def show(progress: EngineProgress) -> None:
            bar.set_postfix(progress.statuses, refresh=False)
            bar.update(progress.num_finished - bar.n)

        yield show


def _print(progress: EngineProgress, folder: Path, *, as_json: bool) -> None:
    content = {
        "accepted": progress.statuses["accepted"],
        "rejected": progress.statuses["rejected"],
        "questions": progress.questions,
        "failed": progress.failed,
        "skipped": progress.skipped,
        "requests": progress.budget.requests,
        "tokens": progress.budget.tokens,
        "stop_reason": progress.stop_reason,
    }
    if as_json:
        print(json.dumps(content, ensure_ascii=False))
        return
    print(
        f"{folder}: {content['accepted']} descriptions accepted, {content['rejected']} rejected, "
        f"{content['questions']} questions; {content['requests']} requests, {content['tokens']} tokens"
    )
    for kind, reasons in (("region", progress.failed), ("image", progress.skipped)):
        for name, reason in list(reasons.items())[:_MAX_SHOWN]:
            print(f"{kind} {name}: {reason}")
        if len(reasons) > _MAX_SHOWN:
            print(f"and {len(reasons) - _MAX_SHOWN} more {kind}s, which --json lists")
    if progress.stop_reason:
        print(f"stopped: {progress.stop_reason}; repeat the command with a larger --budget to continue")
    elif progress.failed:
        print("repeat the command to ask about the failed regions again")
