"""`unipixel batch`: rows equal to `Session.ask`, errors, continuation after a kill, lists of clips."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.moving_square import NUM_FRAMES, write_clip, write_mask
from pyarrow import Table, parquet

from unipixel import cli
from unipixel.batch.clip_list import list_clips
from unipixel.batch.clip_reading import decode_clip
from unipixel.batch.row_file import RowFile
from unipixel.checkpoints.architecture import load_checkpoint
from unipixel.commands._running.batch_run import read_question_sets
from unipixel.model.generation import GenerationSettings
from unipixel.processing.visual_prompts import MaskPrompt, PointPrompt
from unipixel.session.session import open_session
from unipixel.session.settings import SessionSettings
from unipixel.video.images import read_mask
from unipixel.video.open import open_video

Command = Callable[..., tuple[int, str]]

QUESTIONS: list[dict[str, Any]] = [
    {
        "id": "point",
        "question": ["What is [1]?", "Where is [1]?"],
        "points": {"1": [[10, 12, 0]]},
        "masks": {"2": ["mask.png", 1]},
    },
    {"id": "plain", "question": "What moves?"},
]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    file = tmp_path / "questions.jsonl"
    write_mask(tmp_path / "mask.png")
    file.write_text("".join(json.dumps(line) + "\n" for line in QUESTIONS))
    return file


@pytest.fixture
def batch(checkpoint: Path, questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*argv: Any) -> tuple[int, str]:
        options = ["--questions", questions, "--out", tmp_path / "out", *_model_options(checkpoint)]
        code = cli.main(["batch", *map(str, [*argv, *options])])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder with clips of 6, 5 and 4 frames."""
    folder = tmp_path / "clips"
    folder.mkdir()
    for number, num_frames in enumerate((NUM_FRAMES, 5, 4)):
        write_clip(folder / f"{number}.mp4", num_frames=num_frames)
    return folder


def _model_options(checkpoint: Path) -> list[Any]:
    return ["--model", checkpoint, "--device", "cpu", "--max-new-tokens", 3, "--frames", 4]


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_rows_equal_the_results_of_sessions(batch: Command, clips: Path, tmp_path: Path, checkpoint: Path) -> None:
    code, printed = batch(clips)
    assert code == 0
    assert "6 rows, 0 with an error" in printed
    rows = _rows(tmp_path / "out")
    names = [(clip, item["id"]) for clip in sorted(map(str, clips.iterdir())) for item in QUESTIONS]
    assert [(row["clip"], row["id"]) for row in rows] == names
    model, processor = load_checkpoint(checkpoint, device="cpu")
    settings = SessionSettings(num_frames=4, generation=GenerationSettings(max_new_tokens=3))
    for row in rows:
        session = open_session(model, processor, row["clip"], settings=settings)
        if row["id"] == "point":
            session.prompt(1, PointPrompt(10, 12, 0))
            session.prompt(2, MaskPrompt(read_mask(tmp_path / "mask.png"), 1))
        answers = [session.ask(question).text for question in row["questions"]]
        document = json.loads(session.result().to_json())
        assert row["error"] is None
        assert row["answers"] == answers
        assert (row["objects"], row["video"]) == (document["objects"], document["video"])
    assert [len(row["objects"]) for row in rows] == [2, 0] * 3
    assert all(row["objects"][1]["frames"][1]["rle"] for row in rows[::2])


def test_table_has_the_rows(batch: Command, clips: Path, tmp_path: Path) -> None:
    (clips / "1.mp4").write_bytes(b"no video")
    batch(clips)
    optional = dict.fromkeys(("answers", "model", "video", "objects"))
    expected = [optional | row for row in _rows(tmp_path / "out")]
    assert parquet.read_table(tmp_path / "out/results.parquet").to_pylist() == expected


def test_clip_that_cannot_be_read_has_a_row_with_its_error(batch: Command, clips: Path, tmp_path: Path) -> None:
    (clips / "1.mp4").write_bytes(b"no video")
    code, printed = batch(clips, tmp_path / "missing.mp4")
    assert code == 0
    assert "8 rows, 4 with an error" in printed
    rows = _rows(tmp_path / "out")
    failed = {Path(row["clip"]).name: row["error"] for row in rows if row["error"]}
    assert set(failed) == {"1.mp4", "missing.mp4"}
    assert "No such file" in failed["missing.mp4"]
    assert all(str(tmp_path) in text and text in printed for text in failed.values())
    assert [row["error"] for row in rows if row["clip"].endswith(("0.mp4", "2.mp4"))] == [None] * 4


def test_strict_stops_at_the_first_error(batch: Command, clips: Path, tmp_path: Path) -> None:
    code, printed = batch(tmp_path / "missing.mp4", clips, "--strict")
    assert code == 2
    assert "No such file or directory; stopped because of --strict, 1 rows are in" in printed
    assert len(_rows(tmp_path / "out")) == 1


def test_a_later_run_answers_only_what_is_missing(batch: Command, clips: Path, tmp_path: Path) -> None:
    batch(clips)
    file = tmp_path / "out/results.jsonl"
    complete = file.read_text()
    lines = complete.splitlines(keepends=True)
    # A killed run leaves whole rows and an incomplete one; the mark shows that the first row is not written again.
    first = json.dumps(json.loads(lines[0]) | {"answers": ["kept"]}) + "\n"
    file.write_text(first + lines[1] + lines[2][:40])
    _, printed = batch(clips)
    assert "2 of 6 rows are there already" in printed
    assert _rows(tmp_path / "out")[0]["answers"] == ["kept"]
    assert file.read_text().splitlines()[1:] == complete.splitlines()[1:]


def test_other_options_are_refused_in_the_same_folder(batch: Command, clips: Path) -> None:
    batch(clips / "0.mp4")
    code, printed = batch(clips / "0.mp4", "--max-frames", 9)
    assert code == 2
    assert "has results with other options (max_frames): give another --out" in printed


def test_a_killed_process_continues_with_each_row_once(
    checkpoint: Path, questions: Path, clips: Path, tmp_path: Path, batch: Command
) -> None:
    for number in range(3, 40):
        shutil.copy(clips / "0.mp4", clips / f"{number}.mp4")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "unipixel", "batch", clips, "--questions", questions, "--out", out]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [*map(str, [*command, *_model_options(checkpoint)])], env=environment, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None and len((out / "results.jsonl").read_bytes() if out.exists() else b"") < 1:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for clip in sorted(clips.iterdir())[6:]:
        clip.unlink()
    num_before = (out / "results.jsonl").read_bytes().count(b"\n")
    batch(clips)
    names = [(row["clip"], row["id"]) for row in _rows(out)]
    assert num_before > 0
    assert len(set(names)) == len(names)
    assert {(str(clip), item["id"]) for clip in clips.iterdir() for item in QUESTIONS} <= set(names)


def test_two_runs_cannot_write_one_folder(tmp_path: Path) -> None:
    with RowFile(tmp_path, {}), pytest.raises(OSError, match="another process is writing it"):
        RowFile(tmp_path, {})


def test_file_that_is_not_of_this_command_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(ValueError, match="exists and is not of this command"):
        RowFile(tmp_path, {})
    assert (tmp_path / "results.jsonl").read_text() == '{"id": "a"}\n'


def test_a_row_is_written_once(tmp_path: Path) -> None:
    row = {"clip": "a.mp4", "id": "x", "error": None}
    with RowFile(tmp_path, {}) as rows:
        assert [rows.append(row), rows.append(row)] == [True, False]
    assert _rows(tmp_path) == [row]


def test_lists_name_each_clip_once(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sorted(map(str, clips.iterdir()))
    (clips / "list.jsonl").write_text('"0.mp4"\n\n{"clip": "1.mp4", "other": 1}\n')
    parquet.write_table(Table.from_pylist([{"clip": "2.mp4"}, {"clip": "0.mp4"}]), clips / "list.parquet")
    monkeypatch.chdir(clips)
    assert list_clips(["list.jsonl", "list.parquet"]) == expected
    assert list_clips([str(clips), "0.mp4"]) == expected
    assert list_clips(["*.mp4"]) == expected
    assert list_clips(["missing.mp4", "https://host/a.mp4"]) == [str(clips / "missing.mp4"), "https://host/a.mp4"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"3\n", "line 1: a clip is a path or an object"),
        ("a.jsonl", b"{}\n", "line 1: a clip is a path or an object"),
        ("a.jsonl", b"{\n", "line 1: it is not valid JSON"),
        ("a.parquet", b"no table at all", "is not a Parquet file"),
        (" ", None, "an INPUT is empty"),
        ("nothing*.mp4", None, "no file matches this pattern"),
    ],
)
def test_bad_lists_are_refused(
    name: str, content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list_clips([name])


@pytest.mark.parametrize("option", ["--cores", "--max-frames"])
def test_counts_below_one_are_refused_before_work(option: str, batch: Command, clips: Path, tmp_path: Path) -> None:
    code, printed = batch(clips, option, 0)
    assert (code, printed) == (2, f"unipixel: {option} must be 1 or more, not 0\n")
    assert not (tmp_path / "out").exists()


def test_question_set_names_no_clip(batch: Command, clips: Path, questions: Path, tmp_path: Path) -> None:
    questions.write_text('{"clip": "a.mp4", "question": "What?"}\n')
    code, printed = batch(clips)
    assert code == 2
    assert "questions.jsonl, line 1: unknown fields ['clip']" in printed
    assert not (tmp_path / "out").exists()


def test_decoded_clip_equals_the_video(clip: Path) -> None:
    decoded, video = decode_clip(str(clip), max_frames=10), open_video(clip)
    assert (decoded.info, decoded.timestamps()) == (video.info, video.timestamps())
    for one, other in zip(decoded, video, strict=True):
        assert (one.index, one.timestamp_seconds) == (other.index, other.timestamp_seconds)
        assert (one.image == other.image).all()


def test_question_sets_of_the_documentation_are_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs/batch.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "questions.jsonl").write_text(block)
    sets = read_question_sets(tmp_path / "questions.jsonl")
    assert [(one.name, len(one.questions), len(one.prompts)) for one in sets] == [("count", 1, 0), ("first", 2, 1)]
