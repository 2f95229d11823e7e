"""`unipixel eval check`: whether an archive is what a server takes."""

from __future__ import annotations

import argparse
import json

from unipixel.commands._evaluation.evaluation_targets import find


def check_archive(arguments: argparse.Namespace) -> int:
    """Print what is wrong with an archive; the status is 1 if anything is.

    Raises:
        ValueError: The benchmark is unknown, or has no server.
        OSError: The archive or the data cannot be read.
    """
    from unipixel.train.evaluation.benchmarks.annotation_files import read_split
    from unipixel.train.evaluation.benchmarks.table import BENCHMARKS

    with_server = [benchmark.name for benchmark in BENCHMARKS.values() if benchmark.check is not None]
    if arguments.path is None or arguments.benchmark is None:
        raise ValueError(f"give the archive and --benchmark, one of {', '.join(with_server)}")
    benchmark = find(arguments.benchmark)
    if benchmark.check is None:
        raise ValueError(f"{benchmark.name} has no server: allowed are {', '.join(with_server)}")
    samples = None
    if arguments.data is not None:
        name = arguments.split or next(split.name for split in benchmark.splits if not split.has_truth)
        split = benchmark.split(name)
        samples = read_split(benchmark, arguments.data, split=split.name, variant=benchmark.variants[0])
    problems = benchmark.check(arguments.path, samples)
    if arguments.json:
        print(json.dumps({"archive": str(arguments.path), "problems": problems}, ensure_ascii=False))
    else:
        what = "layout" if samples is None else "layout, frames and sizes"
        print("\n".join(problems) or f"{arguments.path}: correct ({what})")
        if samples is None:
            print("give --data to check that no frame is missing")
    return 1 if problems else 0
