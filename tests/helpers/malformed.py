"""Malformed command lines and values, made from a seed."""

from __future__ import annotations

import argparse
import io
import random
from pathlib import Path
from typing import Any

from helpers.golden_evaluation import golden_case
from unipixel import cli

NUMBERS = ("-1", "0", "nan", "inf", "-inf", "1e999", "x", "", " ", "1.5", "0x10", "9" * 40, "-" + "9" * 40, "\u0663")
# Large values of these are allowed, and would take the time that they ask for.
_UNBOUNDED = {"--max-new-tokens", "--show", "--limit", "--num-validation-samples", "--gallery", "--max-tokens"}
# They start other processes or use the network.
_EXTERNAL = {"--ray", "--processes", "--judge-url", "--url", "--upload-url"}
TEXTS = (
    "",
    " ",
    "\x00",
    "[1]",
    "[999999999999]",
    "<|seg|>",
    "<|im_end|>",
    "\ud800",
    "[",
    "a" * 5000,
    "\u202e\u0301",
    "-x",
)
PROMPTS = (
    "", ":", "1", "1:", "1:@", "1:1,2", "1:1,2@-1", "1:1,2@999", "1:nan,2@0", "1:1e999,2@0", "-1:1,2@0", "x:1,2@0",
    "1:1,2,3@0", "9" * 30 + ":1,2@0", "1:1,2@" + "9" * 30, "1:-5,2@0", "1:9999,2@0", "1:5,5,1,1@0", "1:1,1,9999,9999@0",
    "1:missing.png@0", "1:.@0", "0:1,2@0", "1:\x00@0", "1:1;2@0", "\u0661:1,2@0",
)  # fmt: skip
# The demo is tested in tests/demos; training takes minutes where its values are valid.
LEFT_OUT = {"demo", "train"}
_EVALUATIONS = ("revos", "refcoco", "mvbench:test", "revos,refcoco", "list", "check", "report", "synthetic", "x", "")


def write_files(folder: Path, clip: Path) -> dict[str, Path]:
    """Write files of the wrong kind, and return all paths by name."""
    files = {
        "clip": clip,
        "empty": folder / "empty.mp4",
        "text": folder / "text.mp4",
        "json": folder / "broken.jsonl",
        "latin": folder / "latin.jsonl",
        "folder": folder / "folder",
        "missing": folder / "missing.mp4",
        "below": clip / "below",
        "masks": folder / "masks",
        "questions": folder / "questions.jsonl",
        "data": golden_case("revos") / "data",
    }
    files["questions"].write_text('{"id": "a", "question": "What?"}\n')
    files["empty"].write_bytes(b"")
    files["text"].write_text("not a video")
    files["json"].write_text('{"clip": 5}\n[]\n{"clip": "clip.mp4", "question": "q", "points": [1]}\n{')
    files["latin"].write_bytes(b"\xff\xfe{}")
    files["folder"].mkdir()
    (files["masks"] / "dog").mkdir(parents=True)
    (files["masks"] / "dog/00000.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return files


def malformed_argv(seed: int, files: dict[str, Path], checkpoint: Path, out: Path) -> list[str]:
    """Return a command line with one to three malformed values."""
    choose = random.Random(seed)
    subparsers = next(
        action for action in cli.build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    command = choose.choice(sorted(set(subparsers.choices) - LEFT_OUT))
    actions = [action for action in subparsers.choices[command]._actions if action.dest != "help"]
    options = [action for action in actions if action.option_strings and _EXTERNAL.isdisjoint(action.option_strings)]
    positional = [_positional(choose, action, command, files) for action in actions if not action.option_strings]
    argv: list[str] = []
    known = {option for action in options for option in action.option_strings}
    given = [("--model", checkpoint), ("--device", "cpu"), ("--max-new-tokens", 2), ("--out", out)]
    given += [("--questions", files["questions"])] if command == "batch" else []
    given += [("--data", files["data"]), ("--limit", 1)] if command in ("eval", "data") else []
    for name, value in given:
        if name in known and (command != "eval" or choose.random() < 0.7 or name == "--limit"):
            argv += [name, str(value)]
    if "--point" in known and choose.random() < 0.8:
        argv += ["--point", "1:10,12@0"]
    for _ in range(choose.randint(1, 3)):
        if positional and choose.random() < 0.3:
            place = choose.randrange(len(positional))
            positional[place] = choose.choice([*TEXTS, *map(str, files.values())])
            continue
        action = choose.choice(options)
        name = action.option_strings[-1]
        argv += [name] if action.nargs == 0 else [f"{name}={_value(choose, action, files)}"]
    if choose.random() < 0.1 and positional:
        positional.pop()
    return [command, *argv, "--", *positional]


def _positional(choose: random.Random, action: argparse.Action, command: str, files: dict[str, Path]) -> str:
    if action.dest in ("video", "source", "inputs"):
        return str(files["clip"])
    if command == "eval":
        return choose.choice(_EVALUATIONS) if action.dest == "action" else str(files["folder"])
    return str(choose.choice(list(action.choices))) if action.choices else "dog"


def _value(choose: random.Random, action: argparse.Action, files: dict[str, Path]) -> str:
    name = action.option_strings[-1]
    if name in ("--point", "--not-point", "--box", "--mask"):
        return choose.choice(PROMPTS)
    if action.type in (int, float):
        large = [value for value in NUMBERS if not (name in _UNBOUNDED and value.startswith("9"))]
        return choose.choice(large)
    if action.type is Path or name in ("--model", "--segmenter"):
        return choose.choice([*map(str, files.values()), "", "\x00", "owner/name", "a" * 300])
    if action.choices:
        return choose.choice([*map(str, action.choices), "x", ""])
    return choose.choice(TEXTS)


class Stdin(io.TextIOWrapper):
    """Standard input with some malformed lines."""

    def __init__(self, seed: int) -> None:
        choose = random.Random(seed)
        lines = [
            choose.choice(["/point ", "/box ", "/mask ", "/not-point "]) + choose.choice(PROMPTS) for _ in range(3)
        ]
        lines += [choose.choice(["/forget x", "/forget 9", "/save ", "/nothing", "/", "[7]?", "<|seg|>", "\x00"])]
        super().__init__(io.BytesIO("\n".join(lines).encode("utf-8", "replace") + b"\n\xff\xfe\n"), encoding="utf-8")


def describe(value: Any) -> str:
    """Return a value for the message of a failed test."""
    return repr(value)[:300]
