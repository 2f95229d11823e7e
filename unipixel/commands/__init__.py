"""The sub-commands of `unipixel`.

A module without a leading underscore defines `add_parsers(subparsers)`, which describes the arguments of its
commands without importing anything heavy, and for each command a function `run(arguments) -> int`, which imports
what it needs and returns the exit code. Bad input is raised as ValueError, TypeError, OSError, LookupError or
ImportError.
"""
