"""The `unipixel` command: finds its sub-commands, runs one, and prints errors on one line."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from unipixel import __version__, commands
from unipixel.commands._options import describe_error, describe_unknown

USER_ERROR = 2
INTERRUPTED = 130
# Exceptions for bad input; all others are defects of this package and show their traceback.
_USER_ERRORS = (ValueError, TypeError, OSError, LookupError, ImportError)


class _Parser(argparse.ArgumentParser):
    """Reports errors on one line, with the known names and the nearest one for an unknown name."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Check the names of options before argparse parses the arguments."""
        args = sys.argv[1:] if args is None else list(args)
        self._check_names(args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print an error and exit with status 2."""
        self.exit(USER_ERROR, f"{self.prog}: {message}; see {self.prog} --help\n")

    def _check_names(self, args: Sequence[str]) -> None:
        for text in args:
            if text == "--":
                return
            # argparse takes text with a space for a value, and accepts unambiguous prefixes of options.
            name = text.partition("=")[0]
            if not text.startswith("--") or " " in text:
                continue
            options = list(self._option_string_actions)
            if not any(option.startswith(name) for option in options):
                self.error(describe_unknown("option", name, [option for option in options if option[:2] == "--"]))


class _MainParser(_Parser):
    """The parser of `unipixel`, whose first argument is a sub-command."""

    def _check_names(self, args: Sequence[str]) -> None:
        (subparsers,) = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        if args and not args[0].startswith("-") and args[0] not in subparsers.choices:
            self.error(describe_unknown("command", args[0], list(subparsers.choices)))
        if args and args[0].startswith("-"):
            super()._check_names(args[:1])


class _CommandParser(_Parser):
    """Allows options between positional arguments, some of which are optional.

    argparse assigns the first group of positional arguments to all of them, so that in
    `ask clip.mp4 --out result "What moves?"` the question would be rejected.
    """

    _is_nested = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse options first, then the remaining arguments."""
        if self._is_nested:
            return super().parse_known_args(args, namespace)
        self._is_nested = True
        try:
            parsed, extra = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_nested = False
        if extra:
            self.error(f"unexpected argument {extra[0]!r}")
        return parsed, extra


def build_parser() -> argparse.ArgumentParser:
    """Build the parser from the modules in `unipixel/commands/`."""
    parser = _MainParser(
        prog="unipixel", description="Ask about a video; get an answer, and the mask of each object it names."
    )
    parser.add_argument("--version", action="version", version=f"unipixel {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_CommandParser)
    for module in sorted(pkgutil.iter_modules(commands.__path__), key=lambda module: module.name):
        if not module.name.startswith("_"):
            importlib.import_module(f"{commands.__name__}.{module.name}").add_parsers(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C.

    Args:
        argv: Arguments without the program's name; None takes those of the process.
    """
    arguments = build_parser().parse_args(argv)
    warnings.showwarning = _show_warning
    _silence_libraries()
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("unipixel: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the output has closed the pipe (`| head`); Python must not flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except _USER_ERRORS as error:
        if os.environ.get("UNIPIXEL_TRACE"):
            raise
        print(f"unipixel: {describe_error(error)}", file=sys.stderr)
        return USER_ERROR


def _silence_libraries() -> None:
    # Both print internal details on stderr whenever a model is loaded.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):
        print(f"unipixel: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
