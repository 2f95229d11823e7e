"""`unipixel demo`: a web page with its API."""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.commands._options import add_model_options, check_model, load_chosen_segmenter, load_model

if TYPE_CHECKING:
    from unipixel.demos.app import Demo
    from unipixel.demos.limits import Limits


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="a web page: click an object, ask about it, view its masks",
        description="Serve the demo. By default it is reachable from this machine only.",
    )
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    group.add_argument("--port", type=int, default=7860, help="port to listen on (%(default)s)")
    group.add_argument(
        "--share", action="store_true", help="also serve it at a public address through Gradio's tunnel (off)"
    )
    group.add_argument("--auth", type=Path, metavar="FILE", help="lines NAME:PASSWORD; users must log in (none)")
    group.add_argument(
        "--public-without-auth",
        action="store_true",
        help="allow a public page, by --host or --share, without log-in (off)",
    )
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="host name under which a proxy calls the server; by default only this machine's own names",
    )
    group = parser.add_argument_group("sessions")
    group.add_argument(
        "--max-sessions", type=int, metavar="N", help="sessions in memory; others are offloaded to disk (8)"
    )
    group.add_argument("--max-seconds", type=float, metavar="N", help="longest video in seconds (60)")
    group.add_argument("--max-upload-mb", type=float, metavar="N", help="largest upload in MiB (64)")
    group.add_argument(
        "--sessions",
        type=Path,
        metavar="DIR",
        help="folder for sessions, which are kept when the server ends (a temporary one)",
    )
    group.add_argument(
        "--allow-source",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="stream that users may open, such as rtsp://HOST:PORT/PATH (none)",
    )
    group.add_argument(
        "--allow-private-sources", action="store_true", help="allow such streams in private networks (off)"
    )
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C.

    Raises:
        ValueError: An argument is out of range, or a public page has no log-in.
        OSError: The model, the port or a file cannot be used.
        ImportError: The extra `demo` is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("gradio is missing: pip install 'unipixel-agent[demo]'")
    users = read_users(arguments.auth) if arguments.auth is not None else []
    check_public(arguments.host, is_shared=arguments.share, has_users=bool(users) or arguments.public_without_auth)
    if not 0 < arguments.port < 65536:
        raise ValueError(f"--port must be 1 to 65535, got {arguments.port}")
    check_model(arguments)
    # Imports neither torch nor gradio, which take seconds: a page is there before.
    from unipixel.demos.limits import Limits
    from unipixel.demos.server import check_port, serve

    given = {
        "max_sessions": arguments.max_sessions,
        "max_seconds": arguments.max_seconds,
        "max_upload_megabytes": arguments.max_upload_mb,
    }
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    check_port(arguments.host, arguments.port)
    serve(
        lambda: _load_demo(arguments, users, limits),
        host=arguments.host,
        port=arguments.port,
        is_shared=arguments.share,
        announce=_announce,
    )
    return 0


def _load_demo(arguments: argparse.Namespace, users: list[tuple[str, str]], limits: Limits) -> Demo:
    """Load the model and build the demo.

    Raises:
        ValueError: The model is invalid.
        OSError: The model or a folder cannot be used.
    """
    from unipixel.demos.app import Demo, DemoSettings
    from unipixel.demos.requests.hosts import LOOPBACK_HOSTS
    from unipixel.session.settings import SessionSettings

    hosts = (*LOOPBACK_HOSTS, *arguments.allow_host) if is_loopback(arguments.host) or arguments.allow_host else None
    model, processor = load_model(arguments)
    session = SessionSettings(
        segmenter=load_chosen_segmenter(arguments),
        language_masks=arguments.language_masks,
        is_postprocessed=arguments.postprocess,
    )
    settings = DemoSettings(
        model_name=public_name(str(arguments.model)),
        segmenter_name=None if arguments.segmenter is None else public_name(arguments.segmenter),
        session=session,
        hosts=hosts,
        limits=limits,
        users=users,
        folder=arguments.sessions,
        sources=tuple(arguments.allow_source),
        allows_private_sources=arguments.allow_private_sources,
    )
    return Demo(model, processor, settings)


def public_name(model: str) -> str:
    """Return the name of a model for users and results: of a folder its last part, since paths here are private."""
    return Path(model).resolve().name if Path(model).exists() else model


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def read_users(file: Path) -> list[tuple[str, str]]:
    """Read a `NAME:PASSWORD` per line; empty lines and lines that start with # are ignored.

    Raises:
        ValueError: A line is malformed, or there are no users.
        OSError: The file cannot be read.
    """
    users = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, password = line.partition(":")
        if not (name.strip() and colon and password):
            # The line is not shown, since it may contain a password.
            raise ValueError(f"{file}, line {number}: a line must be NAME:PASSWORD")
        users.append((name.strip(), password))
    if not users:
        raise ValueError(f"{file} contains no user: give lines NAME:PASSWORD")
    return users


def check_public(host: str, *, is_shared: bool, has_users: bool) -> None:
    """Check that a public page requires a log-in, or is explicitly without one.

    Raises:
        ValueError: It has neither.
    """
    if not has_users and (is_shared or not is_loopback(host)):
        option = "--share" if is_shared else f"--host {host}"
        raise ValueError(
            f"{option} makes the page public: give --auth FILE with lines NAME:PASSWORD, or --public-without-auth"
        )


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
