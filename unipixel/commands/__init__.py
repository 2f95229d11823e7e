"""The sub-commands of `unipixel`, one module each.

A module `NAME.py` is the sub-command NAME. It offers `add_parser(subparsers)`, which describes its
arguments and imports nothing heavy, and `run(arguments) -> int`, which imports what it needs,
works, and returns the exit code. Bad input leaves `run` as ValueError, TypeError, OSError,
LookupError or ImportError.
"""
