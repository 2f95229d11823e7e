"""The `unipixel` command: finds its sub-commands, runs one, turns errors into one line."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from unipixel import commands

USER_ERROR = 2
INTERRUPTED = 130
# What bad input raises; anything else is our own mistake and shows its trace.
_USER_ERRORS = (ValueError, TypeError, OSError, LookupError, ImportError)


class _CommandParser(argparse.ArgumentParser):
    """Lets options stand between positional arguments, some of which may be left out.

    argparse takes the first run of positional arguments for all of them, so that in
    `ask clip.mp4 --out result "What moves?"` the question would be one too many.
    """

    _is_within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse options first, then what is left."""
        if self._is_within:
            return super().parse_known_args(args, namespace)
        self._is_within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_within = False


def build_parser() -> argparse.ArgumentParser:
    """Assemble the parser from the modules under `unipixel/commands/`."""
    parser = argparse.ArgumentParser(
        prog="unipixel", description="Ask about a video; get an answer, and the mask of each object it names."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_CommandParser)
    for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda module: module.name):
        if not module.name.startswith("_"):
            importlib.import_module(f"{commands.__name__}.{module.name}").add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C.

    Args:
        argv: Arguments after the program's name; those of the process where None.
    """
    arguments = build_parser().parse_args(argv)
    warnings.showwarning = _show_warning
    _quieten_libraries()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("unipixel: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left (`| head`); Python must not try to flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _USER_ERRORS as error:
        if os.environ.get("UNIPIXEL_TRACE"):
            raise
        print(f"unipixel: {_one_line(error)}", file=sys.stderr)
        return USER_ERROR


def _one_line(error: BaseException) -> str:
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or type(error).__name__


def _quieten_libraries() -> None:
    # Both tell of their own insides on stderr whenever a model is loaded.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):
        print(f"unipixel: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
