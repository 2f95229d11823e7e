"""Packaging: folders are listed and linked, imports declared, definitions documented and typed, pickles avoided."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.source_tree import LINKED, ROOT, Function, imported_names, layer_of, package_folders, sources

import unipixel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# SAM 2's official .pt is read here, with weights_only=True.
READS_PICKLES = "unipixel/checkpoints/segmenters.py"
READS_PLAIN_PICKLES = "train/datasets/plain_pickle.py"
PICKLES = {"pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
# Names under which distributions are imported, where they differ from their project names.
IMPORT_NAMES = {
    "decord2": "decord",
    "huggingface-hub": "huggingface_hub",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "scikit-image": "skimage",
}


def settings() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def public_definitions(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Yield the public classes and functions of a module, and the public methods of those classes."""
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, Function) and not member.name.startswith("_"):
                        yield f"{node.name}.{member.name}", member


def test_every_package_folder_is_listed_in_pyproject() -> None:
    listed = settings()["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(package_folders())


def test_every_linked_package_is_mapped_to_its_folder() -> None:
    mapped = settings()["tool"]["setuptools"]["package-dir"]
    assert mapped == {"unipixel": "unipixel"} | {f"unipixel.{name}": name for name in LINKED}


@pytest.mark.parametrize("name", LINKED)
def test_link_points_at_the_folder_beside_the_package(name: str) -> None:
    link = ROOT / "unipixel" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..") / name
    assert (link / "__init__.py").is_file()


def test_every_file_in_a_package_is_installed_with_it() -> None:
    patterns = settings()["tool"]["setuptools"]["package-data"]
    installed = {
        file
        for package, folder in package_folders().items()
        for pattern in patterns.get(package, [])
        for file in folder.glob(pattern)
    }
    present = {
        Path(folder) / name
        for top in ("unipixel", *LINKED)
        for folder, _, names in os.walk(ROOT / top)
        if "__pycache__" not in folder
        for name in names
        if not name.endswith((".py", ".pyc"))
    }
    assert sorted(present - installed) == []


def test_every_public_name_resolves() -> None:
    assert all(getattr(unipixel, name) is not None for name in unipixel.__all__)
    assert sorted(unipixel.__all__) == unipixel.__all__ == dir(unipixel)


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unipixel.nothing


@pytest.mark.parametrize("statement", ["import unipixel", "from unipixel.cli import build_parser; build_parser()"])
def test_importing_loads_neither_torch_nor_transformers(statement: str) -> None:
    heavy = ("torch", "transformers", "sam2", "numpy", "av", "PIL")
    code = f"import sys; {statement}; print([name for name in {heavy} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    outcome = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert outcome.stdout.strip() == "[]"


def test_every_module_imports_under_the_package_name() -> None:
    bare = [
        f"{path}:{line} imports {name}"
        for path in sources()
        for name, line in imported_names(path, everywhere=True)
        if name.split(".")[0] in LINKED
    ]
    assert bare == []


def test_every_third_party_import_is_a_declared_dependency() -> None:
    project = settings()["project"]
    extras = project["optional-dependencies"]

    def modules(requirements: list[str]) -> set[str]:
        names = [re.split(r"[^\w.-]", requirement)[0].lower() for requirement in requirements]
        return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}

    # What only one extra brings may be imported where it is used, never at the top of a module.
    base = modules(project["dependencies"]) | set(sys.stdlib_module_names) | {"unipixel"}
    lazy = base | modules([requirement for extra in extras.values() for requirement in extra])
    undeclared = [
        f"{path}:{line} imports {name}"
        for path in sources()
        for is_lazy, allowed in ((False, base | (lazy if layer_of(path) == 3 else set())), (True, lazy))
        for name, line in imported_names(path, everywhere=is_lazy)
        if name.split(".")[0] not in allowed
    ]
    assert undeclared == []


def test_every_public_definition_has_a_docstring() -> None:
    bare = [path for path, tree in sources().items() if not ast.get_docstring(tree)]
    bare += [
        f"{path}:{node.lineno} {name}"
        for path, tree in sources().items()
        for name, node in public_definitions(tree)
        if not ast.get_docstring(node)
    ]
    assert bare == []


def test_every_function_is_fully_annotated() -> None:
    untyped = []
    for path, tree in sources().items():
        methods = {
            member
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for member in node.body
            if isinstance(member, Function)
            and not any(isinstance(mark, ast.Name) and mark.id == "staticmethod" for mark in member.decorator_list)
        }
        for node in ast.walk(tree):
            if not isinstance(node, Function):
                continue
            plain = [*node.args.posonlyargs, *node.args.args][node in methods :]
            given = [*plain, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            if node.returns is None or any(argument and not argument.annotation for argument in given):
                untyped.append(f"{path}:{node.lineno} {node.name}")
    assert untyped == []


def test_package_asserts_nothing() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_pickles_are_read_in_two_places_and_written_nowhere() -> None:
    found = []
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                if node.attr == "save" or (node.attr == "load" and path != READS_PICKLES):
                    found.append(f"{path}:{node.lineno} torch.{node.attr}")
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                found.append(f"{path}:{node.value.lineno} allow_pickle")
        for name, line in imported_names(path, everywhere=True):
            allowed = path == READS_PICKLES or (path, name) == (READS_PLAIN_PICKLES, "pickle")
            if name in ("torch.load", "torch.save") or (name.split(".")[0] in PICKLES and not allowed):
                found.append(f"{path}:{line} imports {name}")
    assert found == []


def test_the_one_reader_of_pickles_takes_weights_only() -> None:
    loads = [
        node
        for node in ast.walk(sources()[READS_PICKLES])
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert len(loads) == 1
    assert "weights_only=True" in ast.unparse(loads[0])


def test_package_never_trusts_remote_code() -> None:
    found = [
        f"{path}:{node.value.lineno}"
        for path, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword)
        and node.arg == "trust_remote_code"
        and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    ]
    assert found == []


def test_printing_is_left_to_commands_and_scripts() -> None:
    """A library that prints cannot be used in a pipe; `logging` and `warnings` are for the rest."""
    found = []
    for path, tree in sources().items():
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        if has_main or path.startswith("unipixel/commands/"):
            continue
        found += [
            f"{path}:{node.lineno}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        ]
    assert found == []


def test_every_public_name_can_be_imported_from_the_module_that_defines_it() -> None:
    for name in unipixel.__all__:
        module = getattr(unipixel, name).__module__
        assert hasattr(importlib.import_module(module), name)
