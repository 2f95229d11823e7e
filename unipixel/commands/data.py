"""`unipixel data`: the published training sets, whether they are complete on disk, and captions of regions."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipixel.commands._data.caption_run import OPTIONS, add_options, caption_regions

if TYPE_CHECKING:
    from unipixel.train.datasets.published.definitions import SetDefinition
    from unipixel.train.datasets.published.set_check import SetReport

_INCOMPLETE = 2
_MAX_SHOWN = 20


def add_parsers(subparsers: Any) -> None:
    """Describe the arguments of `unipixel data`."""
    parser = subparsers.add_parser(
        "data",
        help="list the published training sets, check one on disk, and write captions of regions",
        description="`list` shows the published training sets: where they come from, their licence and the layout that "
        "is expected. `check NAME --data DIR` names what is missing or broken, and exits with status 2 if anything is; "
        "with a recipe instead of a name it checks all sets of the recipe. `caption-regions SOURCE --out DIR --url URL "
        "--model NAME` has regions of images described, and questions about them written and checked, by models behind "
        "endpoints.",
    )
    parser.add_argument("action", choices=("list", "check", "caption-regions"))
    parser.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="a set, or a recipe such as 3b/stage3; `list` shows all sets without it. For `caption-regions` the "
        "source: a .jsonl file as for fine-tuning, a .json file of COCO annotations with --images, or a folder of SA-1B"
        " files",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of all data sets, as `data.root` in recipes (required by check)",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder of the indices of annotations (~/.cache/unipixel/annotations)"
    )
    parser.add_argument(
        "--decode", default="20", metavar="N", help="entries whose frames and masks are decoded, or all (%(default)s)"
    )
    parser.add_argument("--samples", action="store_true", help="with --json: also what was read of each entry (off)")
    parser.add_argument("--json", action="store_true", help="print one JSON object (off)")
    add_options(parser.add_argument_group("caption-regions"))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """List the sets; check some and return 2 if anything is missing or broken; or describe regions.

    Raises:
        ValueError: A set is unknown, or an option is missing or belongs to another action.
        OSError: Files cannot be read or written.
        ImportError: The extra `train` is not installed.
    """
    if arguments.action == "caption-regions":
        if arguments.name is None:
            raise ValueError(
                "`unipixel data caption-regions SOURCE --out DIR --url URL --model NAME` requires a source"
            )
        return caption_regions(arguments.name, arguments)
    if given := [name for name in OPTIONS if getattr(arguments, name) is not None]:
        shown = given[0].replace("_", "-")
        raise ValueError(f"--{shown} is not an option of `unipixel data {arguments.action}`, but of caption-regions")
    if arguments.action == "list":
        _print_list(_choose_sets(arguments.name), as_json=arguments.json)
        return 0
    if arguments.name is None or arguments.data is None:
        raise ValueError("`unipixel data check NAME --data DIR` requires a name and a folder")
    chosen = _choose_sets(arguments.name)
    reports = [_check(definition, arguments) for definition in chosen]
    if arguments.json:
        described = [_report_json(report, has_samples=arguments.samples) for report in reports]
        content = {"sets": described} if _is_recipe(arguments.name) else described[0]
        print(json.dumps(content, ensure_ascii=False))
    return _INCOMPLETE if any(report.problems for report in reports) else 0


def _is_recipe(name: str) -> bool:
    return "/" in name or name.endswith(".toml")


def _choose_sets(name: str | None) -> list[SetDefinition]:
    """Return all sets, the sets of a recipe, or the set of a name."""
    from unipixel.train.datasets.published.definitions import find_set, published_sets

    if name is None:
        return list(published_sets().values())
    if not _is_recipe(name):
        return [find_set(name)]
    from unipixel.train.recipe_files import load_recipe

    used = [one for one, weight in load_recipe(name).data.sets.items() if weight]
    if not used:
        raise ValueError(f"the recipe {name} has no published sets in [data.sets]")
    return [find_set(one) for one in used]


def _check(definition: SetDefinition, arguments: argparse.Namespace) -> SetReport:
    from tqdm import tqdm

    from unipixel.train.datasets.published.set_check import check_set

    num_decoded = _entry_count(arguments.decode)
    with tqdm(desc=definition.name, unit=" entries", file=sys.stderr, disable=None, leave=False) as progress:

        def follow(done: int, total: int) -> None:
            progress.total = total
            progress.update(done - progress.n)

        report = check_set(definition, arguments.data, cache=arguments.cache, num_decoded=num_decoded, follow=follow)
    if not arguments.json:
        _print_report(report)
    return report


def _entry_count(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal():
        raise ValueError(f"--decode must be a number of entries or all, got {text!r}")
    return int(text)


def _print_list(definitions: list[SetDefinition], *, as_json: bool) -> None:
    from unipixel.train.datasets.published.definitions import render_tree

    if as_json:
        print(json.dumps({"sets": [_definition_json(one) for one in definitions]}, ensure_ascii=False))
        return
    for definition in definitions:
        print(f"{definition.name}: {definition.title}")
        if definition.num_samples is not None:
            repeats = ", ".join(f"{stage} {times} times" for stage, times in definition.repeats.items())
            print(f"  samples: {definition.num_samples:,}; {repeats}")
        print(f"  mixture: {definition.mixture}")
        print(f"  licence: {definition.licence}")
        print(f"  source:  {definition.source}")
        if definition.note:
            print(f"  note:    {definition.note}")
        print("  expected in the data folder:")
        print("\n".join(f"    {line}" for line in render_tree(definition.layout)))
        print()


def _definition_json(definition: SetDefinition) -> dict[str, Any]:
    return {
        "name": definition.name,
        "title": definition.title,
        "format": definition.format,
        "mixture": definition.mixture,
        "num_samples": definition.num_samples,
        "repeats": dict(definition.repeats),
        "licence": definition.licence,
        "source": definition.source,
        "note": definition.note,
        "layout": list(definition.layout),
    }


def _report_json(report: SetReport, *, has_samples: bool) -> dict[str, Any]:
    from unipixel.train.datasets.published.entry_listing import list_entry

    described: dict[str, Any] = {
        "name": report.definition.name,
        "data": str(report.root),
        "num_samples": None if report.index is None else len(report.index),
        "expected": [{"path": path, "found": found} for path, found in report.layout()],
        "problems": [{"location": problem.location, "reason": problem.reason} for problem in report.problems],
    }
    if has_samples and report.index is not None:
        index, definition = report.index, report.definition
        described["samples"] = [list_entry(index[number], definition, report.root) for number in range(len(index))]
    return described


def _print_report(report: SetReport) -> None:
    from unipixel.train.datasets.published.definitions import render_tree

    name = report.definition.name
    if not report.problems and report.index is not None:
        count = len(report.index)
        print(f"{name}: {count:,} {'sample' if count == 1 else 'samples'}, complete")
        return
    for problem in report.problems[:_MAX_SHOWN]:
        print(f"{name}: {problem.location}: {problem.reason}")
    if len(report.problems) > _MAX_SHOWN:
        print(f"{name}: and {len(report.problems) - _MAX_SHOWN} more, which --json lists")
    print(f"expected in {report.root}:")
    print("\n".join(f"  {line}" for line in render_tree(report.definition.layout)))
    print("found:")
    for path, found in report.layout():
        print(f"  {'found  ' if found else 'missing'} {path}")
    if report.definition.note:
        print(f"note: {report.definition.note}")
