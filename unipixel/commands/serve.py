"""`unipixel serve`: an OpenAI-compatible server."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path
from typing import Any

from unipixel.commands._options import add_model_options, check_model, load_chosen_segmenter, load_model
from unipixel.commands.demo import is_loopback

_LIMITS = {
    "max_mb": ("max_upload_megabytes", float, "largest video or image in MiB (64)"),
    "max_pixels": ("max_pixels", int, "largest frame, width times height (2088960)"),
    "max_frames": ("max_frames", int, "longest video in frames (1800)"),
    "max_seconds": ("max_seconds", float, "longest video in seconds (60)"),
    "max_waiting": ("max_waiting", int, "requests that may wait for the model (16)"),
}


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel serve`."""
    parser = subparsers.add_parser(
        "serve",
        help="an OpenAI-compatible server: /v1/chat/completions with video and masks",
        description="Serve chat completions. Without --api-key it is reachable from this machine only.",
    )
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    group.add_argument("--port", type=int, default=8000, help="port to listen on (%(default)s)")
    group.add_argument("--api-key", type=Path, metavar="FILE", help="API keys, one a line (none)")
    group.add_argument(
        "--files",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of allowed file: addresses (none)",
    )
    group.add_argument("--hosts", action="append", default=[], metavar="HOST", help="host of allowed http(s) (none)")
    group = parser.add_argument_group("limits")
    for name, (_, kind, text) in _LIMITS.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="N", help=text)
    group.add_argument(
        "--max-tokens", type=int, default=512, metavar="N", help="longest answer in tokens (%(default)s)"
    )
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C.

    Raises:
        ValueError: An argument is out of range, or a public address has no API key.
        OSError: The model, the port or a file cannot be used.
        ImportError: The extra `serve` is not installed.
    """
    for module in ("fastapi", "uvicorn", "httpx"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(f"{module} is missing: pip install 'unipixel-agent[serve]'")
    keys = read_keys(arguments.api_key) if arguments.api_key is not None else []
    if not keys and not is_loopback(arguments.host):
        raise ValueError(f"--host {arguments.host} makes the server public: give --api-key FILE with one key a line")
    if not 0 < arguments.port < 65536:
        raise ValueError(f"--port must be 1 to 65535, got {arguments.port}")
    if arguments.max_tokens < 1:
        raise ValueError(f"--max-tokens must be at least 1, got {arguments.max_tokens}")
    check_model(arguments)
    from unipixel.demos.limits import Limits
    from unipixel.demos.server import TimedProtocol, check_port
    from unipixel.demos.serving.media_sources import MediaSources

    given = {field: getattr(arguments, name) for name, (field, _, _) in _LIMITS.items()}
    limits = Limits(**{field: value for field, value in given.items() if value is not None})
    sources = MediaSources(folders=arguments.files, hosts=arguments.hosts, limits=limits)
    check_port(arguments.host, arguments.port)
    import uvicorn

    from unipixel.demos.serving.chat_server import ChatServer
    from unipixel.model.generation import GenerationSettings
    from unipixel.session.settings import SessionSettings

    model, processor = load_model(arguments)
    settings = SessionSettings(
        segmenter=load_chosen_segmenter(arguments),
        language_masks=arguments.language_masks,
        is_postprocessed=arguments.postprocess,
        max_objects=limits.max_objects,
        generation=GenerationSettings(max_new_tokens=arguments.max_tokens),
    )
    name = str(arguments.model)
    server = ChatServer(model, processor, model_name=name, sources=sources, limits=limits, settings=settings, keys=keys)
    print(f"{name} is served at http://{arguments.host}:{arguments.port}/v1", file=sys.stderr, flush=True)
    uvicorn.run(
        server.application,
        host=arguments.host,
        port=arguments.port,
        http=TimedProtocol,
        # The application has nothing to start or end; at Ctrl-C the task of an unused lifespan is reported as an error.
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=2,
        access_log=False,
    )
    return 0


def read_keys(file: Path) -> list[str]:
    """Read one API key a line; empty lines and lines that start with # are ignored.

    Raises:
        ValueError: There is no key, or one is shorter than 16 characters.
        OSError: The file cannot be read.
    """
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys or min(map(len, keys)) < 16:
        raise ValueError(f"{file} must contain API keys of at least 16 characters, one a line")
    return keys
