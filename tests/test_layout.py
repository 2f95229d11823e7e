"""The rules of CONTRIBUTING.md that a test can check: layers, folders, unique names, words."""

from __future__ import annotations

import ast
import graphlib
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from helpers.source_tree import ROOT, Function, imported_names, layer_of, module_name, package_folders, sources

MAX_MODULES_PER_FOLDER = 14

# Figures of speech that stand neither in code nor in prose; only whole words count.
NEVER_WRITTEN = set(
    re.findall(
        r"\w+",
        """
        asleep awake blueprint blueprints eyes glimpse glimpses house houses narration newcomer newcomers reception
        rouse rummage sight sights stranger strangers tale tales told vaguely visitor visitors workshop
        """,
    )
)
PHRASES_NEVER_WRITTEN = ("drawn world", "of its own", "on the way", "put away", "what is where")
# Its questions and answers are training data, not descriptions of the code.
GENERATED_LANGUAGE = "train/datasets/synthetic/language/"
# Words with an ordinary meaning in prose; as names and in headings the field has standard terms for them.
NEVER_A_NAME = NEVER_WRITTEN | set(
    re.findall(
        r"\w+",
        """
        adopt agent agents board boards claim claims course courses dialogue encounter encounters enter entered eye
        fact facts floor floors follower followers gate gates holds home homes look looks lore paint painted painting
        paints place placed places remember remembered room rooms said say sleep sought talk tell tells visit visits
        wander world
        """,
    )
)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("unipixel/assets/**/*.md")])
# It lists what was renamed.
CHANGELOG = ROOT / "CHANGELOG.md"


def words_of(name: str) -> set[str]:
    """Split a snake_case or CamelCase name into its words, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def definitions(path: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the names that a module defines, with their lines: its own, classes, functions, arguments, attributes."""
    yield from ((part, 1) for part in Path(path).with_suffix("").parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | Function):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        if isinstance(node, ast.ClassDef | ast.Module):
            assigned = [item for item in node.body if isinstance(item, ast.Assign | ast.AnnAssign)]
            targets = [target for item in assigned for target in ast.walk(item) if isinstance(target, ast.Name)]
            yield from ((target.id, target.lineno) for target in targets if isinstance(target.ctx, ast.Store))


def repeated(named: dict[tuple[int, str], list[str]]) -> list[str]:
    return [f"{name} on layer {layer}: {places}" for (layer, name), places in named.items() if len(places) > 1]


def module_graph() -> dict[str, set[str]]:
    """Return which modules of the package each module imports when it is imported itself."""
    names = {module_name(path) for path in sources()}
    graph: dict[str, set[str]] = defaultdict(set)
    for path in sources():
        for imported, _ in imported_names(path, everywhere=False):
            target = imported if imported in names else imported.rpartition(".")[0]
            if target in names - {module_name(path)}:
                graph[module_name(path)].add(target)
    return graph


def test_no_module_name_is_used_twice_on_a_layer() -> None:
    named = defaultdict(list)
    for path in sources():
        if Path(path).stem not in ("__init__", "__main__"):
            named[layer_of(path), Path(path).stem.lstrip("_")].append(path)
    assert repeated(named) == []


def test_no_class_name_is_used_twice() -> None:
    named = defaultdict(list)
    for path, tree in sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                named[node.name.lstrip("_")].append(f"{path}:{node.lineno}")
    assert {name: places for name, places in named.items() if len(places) > 1} == {}


def test_folders_have_at_most_fourteen_modules() -> None:
    counts = {
        name: sum(file.stem != "__init__" for file in folder.glob("*.py")) for name, folder in package_folders().items()
    }
    assert {name: count for name, count in counts.items() if count > MAX_MODULES_PER_FOLDER} == {}


def test_no_layer_imports_upwards() -> None:
    layers = {module_name(path): layer_of(path) for path in sources()}
    upwards = [
        f"{path}:{line} imports {name}"
        for path in sources()
        # A command may import layer 3 where it runs.
        for name, line in imported_names(path, everywhere=not path.startswith("unipixel/commands/"))
        if layers.get(name, layers.get(name.rpartition(".")[0], 0)) > layer_of(path)
    ]
    assert upwards == []


def test_imports_have_no_cycle() -> None:
    # Raises CycleError, which names the modules of a cycle.
    graphlib.TopologicalSorter(module_graph()).prepare()


def test_no_definition_uses_a_figure_of_speech() -> None:
    found = sorted(
        f"{path}:{line} {name}"
        for path, tree in sources().items()
        for name, line in set(definitions(path, tree))
        if words_of(name) & NEVER_A_NAME and not name.startswith("__")
    )
    assert found == []


def test_no_heading_uses_a_figure_of_speech() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {line}"
        for path in DOCUMENTS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.startswith("#") and words_of(line) & NEVER_A_NAME
    ]
    assert found == []


def test_no_text_uses_a_figure_of_speech() -> None:
    modules = [ROOT / path for path in sources() if not path.startswith(GENERATED_LANGUAGE)]
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    documents = [path for path in DOCUMENTS if path != CHANGELOG]
    others = [
        ROOT / "pyproject.toml",
        *(ROOT / "train/recipes").rglob("*.toml"),
        *(ROOT / "demos/web").rglob("*.[cj]s*"),
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in (*modules, *tests, *documents, *others, ROOT / ".ci/run", ROOT / ".ci/check_wheel.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if words_of(line) & NEVER_WRITTEN or any(phrase in line.lower() for phrase in PHRASES_NEVER_WRITTEN)
    ]
    assert found == []
