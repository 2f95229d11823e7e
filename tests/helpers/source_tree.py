"""The package's folders and the syntax trees of its modules, for the tests of layout and packaging."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("memory", "tracking", "train", "demos")
LAYERS = {"memory": 1, "tracking": 1, "unipixel": 2, "train": 3, "demos": 3}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def package_folders() -> dict[str, Path]:
    """Return every folder with an `__init__.py` by its import name."""
    found = {}
    for top in ("unipixel", *LINKED):
        # os.walk does not follow links: each folder is listed once, under its real path.
        for folder, _, files in os.walk(ROOT / top):
            if "__init__.py" in files:
                parts = Path(folder).relative_to(ROOT).parts
                found[".".join(parts if top == "unipixel" else ("unipixel", *parts))] = Path(folder)
    return found


@cache
def sources() -> dict[str, ast.Module]:
    """Return the syntax tree of every module of the package by its path in the repository."""
    files = sorted(file for folder in package_folders().values() for file in folder.glob("*.py"))
    return {file.relative_to(ROOT).as_posix(): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def layer_of(path: str) -> int:
    """Return the layer, 1 to 3, of a module given by its path in the repository."""
    return LAYERS[path.split("/")[0]]


def module_name(path: str) -> str:
    """Return the import name of a module given by its path in the repository."""
    parts = Path(path).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[0] == "unipixel" else ("unipixel", *parts))


def imported_names(path: str, *, everywhere: bool) -> Iterator[tuple[str, int]]:
    """Yield the full names that a module imports, with their lines.

    Args:
        path: The module's path in the repository.
        everywhere: Include what only functions and type checkers import.
    """
    pending: list[ast.AST] = [sources()[path]]
    package = module_name(path) if path.endswith("__init__.py") else module_name(path).rpartition(".")[0]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.rsplit(".", node.level - 1)[0] if node.level else ""
            origin = ".".join(part for part in (base, node.module or "") if part)
            yield from ((f"{origin}.{alias.name}", node.lineno) for alias in node.names)
        elif everywhere or not (isinstance(node, Function) or _is_type_checking(node)):
            pending += ast.iter_child_nodes(node)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
