"""A batch of 200 clips on a local Ray cluster of two workers, one of which is killed, has the rows of a plain run."""

from __future__ import annotations

import json
import os
import signal
from argparse import Namespace
from functools import partial
from pathlib import Path

import psutil
import pytest
from helpers.moving_square import write_clip

from unipixel.batch.ray_rows import answer_on_ray
from unipixel.cli import build_parser
from unipixel.commands._running.batch_run import build_answerer, read_question_sets

NUM_CLIPS = 200


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:70000"])
def test_address_without_a_cluster_is_refused(address: str) -> None:
    with pytest.raises(OSError, match=f"the Ray cluster '{address}' cannot be reached"):
        next(answer_on_ray({"a.mp4": []}, partial(build_answerer, Namespace()), address=address, cores=1, max_frames=9))


def workers_named(name: str) -> list[int]:
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if child.cmdline() and child.cmdline()[0].startswith(name)]


@pytest.mark.slow
def test_rows_with_a_killed_worker_equal_those_of_a_plain_run(checkpoint: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"id": "a", "question": "What is [1]?", "boxes": {"1": [4, 8, 20, 24, 0]}}) + "\n")
    clips = [str(write_clip(tmp_path / f"{number}.mp4", num_frames=2 + number % 4)) for number in range(NUM_CLIPS - 1)]
    clips.append(str(tmp_path / "missing.mp4"))
    options = ["--model", checkpoint, "--device", "cpu", "--max-new-tokens", 3, "--frames", 2]
    command = ["batch", *clips, "--questions", questions, "--out", tmp_path, *options]
    arguments = build_parser().parse_args([*map(str, command)])
    del arguments.run
    work = {clip: read_question_sets(questions) for clip in clips}
    expected = list(build_answerer(arguments).answer(work.items()))

    rows = []
    killed: list[int] = []
    build = partial(build_answerer, arguments)
    for row in answer_on_ray(work, build, address="", cores=1, max_frames=arguments.max_frames):
        rows.append(row)
        if len(rows) == 40:
            workers = workers_named("ray::ClipWorker")
            assert len(workers) >= 2
            # Those that decode are idle between two clips.
            killed = [workers[0], *workers_named("ray::decode_for_worker"), *workers_named("ray::IDLE")[:1]]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
    assert len(killed) >= 2
    assert len(rows) == NUM_CLIPS
    assert sorted(rows, key=lambda row: row["clip"]) == sorted(expected, key=lambda row: row["clip"])
