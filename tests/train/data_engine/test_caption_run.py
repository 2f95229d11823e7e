"""Runs of `unipixel data caption-regions` against a stub server, and what readers make of their files."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.chat_stub import CUT, StubEndpoint, completion
from helpers.sail_model import CHECKPOINT as SAIL_CHECKPOINT
from numpy.typing import NDArray
from PIL import Image

from unipixel.cli import main
from unipixel.memory.rle import decode_rle, encode_rle
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.data_engine import engine_run
from unipixel.train.datasets.published.published_sets import PublishedSets
from unipixel.train.evaluation.benchmarks.annotation_files import read_split
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.sail.published_images import to_sail_sample

SIZE = (40, 60)
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (30, 30, 220)}
TOKENS = (100, 20)


def box(left: int, top: int, right: int, bottom: int) -> NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


MASKS = {"1": box(4, 4, 20, 20), "2": box(30, 10, 50, 34)}


def draw_image(first: str, second: str) -> NDArray[np.uint8]:
    pixels = np.full((*SIZE, 3), 128, np.uint8)
    pixels[MASKS["1"]], pixels[MASKS["2"]] = COLOURS[first], COLOURS[second]
    return pixels


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return COCO annotations of three images with two boxes each, beside the folder `images`."""
    folder = tmp_path / "source"
    (folder / "images").mkdir(parents=True)
    names = list(COLOURS)
    for number in range(3):
        pixels = draw_image(names[number], names[(number + 1) % 3])
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
    annotations = [
        {
            "id": 10 * image + int(key),
            "image_id": image,
            "category_id": 1,
            "iscrowd": 0,
            "segmentation": encode_rle(mask),
        }
        for image in range(3)
        for key, mask in MASKS.items()
    ]
    crowd = {**annotations[0], "id": 99, "iscrowd": 1}
    content = {
        "images": [{"id": image, "file_name": f"{image}.png", "height": 40, "width": 60} for image in range(3)],
        "annotations": [*annotations, crowd],
        "categories": [{"id": 1, "name": "box"}],
    }
    (folder / "coco.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "coco.json"


class StubModels:
    """Answers each step of the engine as a good model does; tests replace single replies.

    Attributes:
        faults: By step, replies that are given first, one per request.
        steps: Steps that were asked for.
    """

    def __init__(self) -> None:
        self.faults: dict[str, list[tuple[int, Any]]] = {}
        self.steps: list[str] = []

    def __call__(self, body: dict[str, Any]) -> tuple[int, Any]:
        content = body["messages"][0]["content"]
        text = content if isinstance(content, str) else content[-1]["text"]
        step, reply = self._answer(text, content)
        self.steps.append(step)
        if faults := self.faults.get(step):
            return faults.pop(0)
        return 200, completion(reply, tokens=TOKENS)

    def _answer(self, text: str, content: Any) -> tuple[str, str]:
        if text.startswith("The first picture"):
            colour = seen_colour(content)
            return "caption", f"The object is a {colour} box on a grey ground beside another box."
        if text.startswith("You check"):
            caption = re.findall(r"Description 1: (.*)", text)[0]
            return "check", "Certainly:\n```json\n" + json.dumps(
                {"consistent": True, "reason": "", "caption": caption}
            ) + "\n```"
        colour = re.findall(r"is a (\w+) box", text)[0]
        if text.startswith("This is a verified"):
            others = [name for name in (*COLOURS, "white") if name != colour][:3]
            row = {"question": "Which colour does the object have?", "options": [colour, *others]}
            return "question", json.dumps({"questions": [row]})
        return "answer", re.findall(rf"([A-D])\. {colour}", text)[0]


def seen_colour(content: list[dict[str, Any]]) -> str:
    """Return the colour of the region, which the stub finds by the crop: its centre is that of the region."""
    crop = base64.b64decode(content[1]["image_url"]["url"].partition("base64,")[2])
    pixels = np.asarray(Image.open(io.BytesIO(crop))).astype(int)
    centre = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
    return min(COLOURS, key=lambda name: int(np.abs(centre - COLOURS[name]).sum()))


@pytest.fixture
def models() -> StubModels:
    return StubModels()


@pytest.fixture
def stub(models: StubModels, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubEndpoint]:
    monkeypatch.setattr("unipixel.train.endpoints.chat_completions._MAX_DELAY_SECONDS", 0.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    endpoint = StubEndpoint(models)
    yield endpoint
    endpoint.close()


@pytest.fixture
def run(
    source: Path, stub: StubEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Return a function that runs the command with further options, and returns its status and figures."""

    def call(*options: str, out: str = "out") -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        base = ["data", "caption-regions", str(source), "--images", str(source.parent / "images"), "--json"]
        status = main([*base, "--out", str(tmp_path / out), "--url", stub.url, "--model", "seer", *options])
        output = capsys.readouterr()
        return status, json.loads(output.out) if output.out else {"error": output.err}

    return call


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()]


def test_regions_get_checked_captions_and_questions_with_provenance(
    run: Callable[..., Any], tmp_path: Path, models: StubModels, stub: StubEndpoint
) -> None:
    status, figures = run("--checker-model", "judge")
    assert status == 0
    assert (figures["accepted"], figures["rejected"], figures["questions"]) == (6, 0, 6)
    assert Counter(models.steps) == {"caption": 6, "check": 6, "question": 6, "answer": 6}
    assert figures["requests"] == len(stub.requests) == 24
    assert figures["tokens"] == 24 * sum(TOKENS)
    found = {record["region"]: record for record in records(tmp_path / "out")}
    assert set(found) == {f"{image}.png#{10 * image + row}" for image in range(3) for row in (1, 2)}
    record = found["1.png#12"]
    assert record["caption"] == "The object is a blue box on a grey ground beside another box."
    assert np.array_equal(decode_rle(record["segmentation"]), MASKS["2"])
    assert record["box"] == [30, 10, 50, 34]
    assert (record["models"], record["checker_model"], record["prompt_version"]) == (["seer"], "judge", "1")
    assert (record["category"], record["region_id"], record["seed"]) == ("box", "12", 0)
    assert record["verdict"]["is_consistent"] is True
    assert record["usage"] == {"requests": 4, "prompt_tokens": 400, "completion_tokens": 80}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["date"])
    (question,) = record["questions"]
    letter, _, text = question["answer"].partition(". ")
    assert text == "blue"
    assert f" {letter}. blue" in question["question"]
    copy = tmp_path / "out" / "images" / record["image"]
    assert copy.read_bytes() == (tmp_path / "source/images/1.png").read_bytes()


def test_files_are_read_by_the_evaluation_of_perbench(run: Callable[..., Any], tmp_path: Path) -> None:
    assert run()[0] == 0
    benchmark = BENCHMARKS["perbench"]
    captions = read_split(benchmark, tmp_path / "out", split="captions", variant="")
    questions = read_split(benchmark, tmp_path / "out", split="mcq", variant="")
    assert len(captions) == len(questions) == 6
    assert all(sample.media.paths[0].is_file() for sample in (*captions, *questions))
    truths = {sample.truth().answer for sample in captions if sample.truth is not None}
    assert truths == {f"The object is a {colour} box on a grey ground beside another box." for colour in COLOURS}
    for sample in questions:
        assert sample.truth is not None
        letter, _, colour = str(sample.truth().answer).partition(". ")
        assert sample.options["ABCD".index(letter)] == colour


@pytest.mark.parametrize("name", ["generated_captions", "generated_questions"])
def test_files_are_read_by_training(run: Callable[..., Any], tmp_path: Path, name: str) -> None:
    assert run(out="data/generated_regions")[0] == 0
    sets = PublishedSets.open([name], tmp_path / "data", cache=tmp_path / "cache", max_turns=5)
    processor = SailProcessor.from_pretrained(SAIL_CHECKPOINT)
    texts = set()
    for number in range(3):
        sample = sets.draw(name, number)
        assert np.array_equal(sample.clip.masks[:, 0], list(MASKS.values()))
        converted = to_sail_sample(sample, processor, generator=random.Random(0), missing_prompt_rate=0.0)
        for turn, given in zip(converted.turns, sample.turns, strict=True):
            texts.add(re.sub(r"<Prompt\d+>", "P", turn.answer or ""))
            assert re.findall(r"\[\d\]", given.question)
            assert re.findall(r"<Prompt\d+>", turn.question)
    if name == "generated_captions":
        assert texts == {f"P: The object is a {colour} box on a grey ground beside another box." for colour in COLOURS}
    else:
        assert {text.partition(". ")[2] for text in texts} == set(COLOURS)
    assert main(["data", "check", name, "--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache")]) == 0


def test_errors_and_malformed_replies_are_asked_for_again(run: Callable[..., Any], models: StubModels) -> None:
    models.faults = {
        "caption": [(429, {}), (500, {}), (200, CUT), (200, b"no json")],
        "check": [(200, completion("I agree.", tokens=TOKENS)), (200, completion('{"consistent": 1}', tokens=TOKENS))],
        "question": [(200, completion("{}", tokens=TOKENS, finish_reason="length"))],
        "answer": [(200, completion("A or B", tokens=TOKENS))],
    }
    status, figures = run("--concurrency", "1")
    assert status == 0
    assert (figures["accepted"], figures["questions"]) == (6, 6)
    assert figures["requests"] == 24 + 4 + 2 + 1 + 1
    # Failed requests have no tokens.
    assert figures["tokens"] == (24 + 2 + 1 + 1) * sum(TOKENS)


def test_rejected_captions_are_kept_with_their_reason(
    run: Callable[..., Any], models: StubModels, tmp_path: Path
) -> None:
    verdict = {"consistent": False, "reason": "The box is not red.", "caption": ""}
    models.faults = {
        "caption": [
            (200, completion("A box that is outlined in cyan on a grey ground.", tokens=TOKENS)),
            (200, completion("Too short.", tokens=TOKENS)),
            (200, completion("A box <|seg|> on a grey ground beside it.", tokens=TOKENS)),
        ],
        "check": [(200, completion(json.dumps(verdict), tokens=TOKENS))] + [(200, completion("?", tokens=TOKENS))] * 3,
    }
    status, figures = run("--concurrency", "1")
    assert status == 0
    assert (figures["accepted"], figures["rejected"]) == (1, 5)
    rejected = [record for record in records(tmp_path / "out") if record["status"] == "rejected"]
    reasons = [record["reason"] for record in rejected]
    assert "mentions the marking: 'outlined'" in reasons[0]
    assert "has 2 words" in reasons[1]
    assert "token of the models: '<|seg|>'" in reasons[2]
    assert reasons[3] == "the checker: The box is not red."
    assert "3 malformed replies" in reasons[4]
    assert all(record["captions"][0]["text"] for record in rejected)
    assert len(json.loads((tmp_path / "out/STBench_Detailed_Caption.json").read_text())) == 1


def test_question_that_does_not_follow_from_the_caption_is_rejected(
    run: Callable[..., Any], models: StubModels, tmp_path: Path
) -> None:
    models.faults = {"answer": [(200, completion("X", tokens=TOKENS))]}
    assert run("--concurrency", "1")[1]["questions"] == 5
    asked = [record["questions"][0] for record in records(tmp_path / "out")]
    assert [question["status"] for question in asked].count("rejected") == 1
    assert asked[0]["reason"].startswith("from the description alone, the answer was X instead of ")


def test_budget_of_requests_stops_and_a_larger_one_continues_without_repeating(
    run: Callable[..., Any], models: StubModels, tmp_path: Path, stub: StubEndpoint
) -> None:
    status, figures = run("--budget", "requests=10")
    assert status == 1
    assert figures["stop_reason"] == "the budget of 10 requests is spent"
    assert len(stub.requests) == 10
    first = records(tmp_path / "out")
    status, figures = run("--budget", "requests=24")
    assert (status, figures["stop_reason"], figures["accepted"]) == (0, None, 6)
    assert len(stub.requests) == figures["requests"] == 24
    assert records(tmp_path / "out")[: len(first)] == first
    status, figures = run()
    assert (status, figures["accepted"], len(stub.requests)) == (0, 6, 24)


def test_budget_of_tokens_is_never_exceeded(run: Callable[..., Any]) -> None:
    status, figures = run("--budget", "tokens=2000", "--concurrency", "1")
    assert status == 1
    assert figures["stop_reason"].startswith("the budget of 2000 tokens is spent")
    assert 2000 - 800 < figures["tokens"] <= 2000


def test_budget_of_tokens_needs_an_endpoint_that_counts_them(run: Callable[..., Any], stub: StubEndpoint) -> None:
    stub.answer = lambda body: (200, completion("A box on a grey ground."))
    status, figures = run("--budget", "tokens=100000", "--concurrency", "1")
    assert status == 2
    assert "does not count tokens: give a budget of requests alone" in figures["error"]


def test_several_models_are_compared_by_a_checker_without_pictures(
    run: Callable[..., Any], stub: StubEndpoint, tmp_path: Path
) -> None:
    options = ("--model", "second", "--checker-model", "judge", "--checker-without-pictures", "--limit", "1")
    assert run(*options, "--questions", "0")[0] == 0
    bodies = [body for _, _, body in stub.requests]
    assert [body["model"] for body in bodies] == ["seer", "second", "judge"]
    assert isinstance(bodies[2]["messages"][0]["content"], str)
    assert "Description 2: The object is a" in bodies[2]["messages"][0]["content"]
    (record,) = records(tmp_path / "out")
    assert [row["model"] for row in record["captions"]] == ["seer", "second"]
    assert record["questions"] == []


def test_endpoint_that_refuses_the_key_stops_at_once(run: Callable[..., Any], stub: StubEndpoint) -> None:
    stub.answer = lambda body: (401, {})
    status, figures = run("--concurrency", "1")
    assert status == 2
    assert "status 401" in figures["error"]
    assert len(stub.requests) <= 2


def test_regions_that_failed_are_asked_about_by_the_next_run(
    run: Callable[..., Any], models: StubModels, tmp_path: Path
) -> None:
    models.faults = {"caption": [(400, {})]}
    status, figures = run("--concurrency", "1")
    assert (status, figures["accepted"]) == (1, 5)
    assert next(iter(figures["failed"].values())).endswith("status 400 (Bad Request)")
    status, figures = run()
    assert (status, figures["accepted"], figures["failed"]) == (0, 6, {})
    names = [record["region"] for record in records(tmp_path / "out")]
    assert len(names) == len(set(names)) == 6


def test_run_continues_after_every_kill(
    source: Path, stub: StubEndpoint, models: StubModels, tmp_path: Path, run: Callable[..., Any]
) -> None:
    """Kill the process after some replies, again and again: no request is repeated that was answered and stored."""
    answered = 0

    def slowly(body: dict[str, Any]) -> tuple[int, Any]:
        nonlocal answered
        answered += 1
        time.sleep(0.05)
        return models(body)

    stub.answer = slowly
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "unipixel.cli", "data", "caption-regions", str(source), "--images",
        str(source.parent / "images"), "--out", str(out), "--url", stub.url, "--model", "seer", "--concurrency", "2",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    before = answered
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while answered < before + 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stored = len((out / "requests.jsonl").read_bytes().splitlines())
    with (out / "records.jsonl").open("ab") as file:
        file.write(b'{"region": "incompl')
    stub.answer = models
    status, figures = run()
    assert (status, figures["accepted"]) == (0, 6)
    names = [record["region"] for record in records(out)]
    assert len(names) == len(set(names)) == 6
    # Only requests whose replies were not stored yet are sent again: at most one per thread.
    assert 24 <= len(stub.requests) <= 24 + 2
    assert stored >= 5
    rows = [json.loads(line) for line in (out / "requests.jsonl").read_text().splitlines()]
    assert len({(row["region"], row["step"], row["attempt"]) for row in rows}) == len(rows) == 24


def test_interrupt_stores_what_is_running(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = engine_run._EngineRun._finish

    def interrupted(self: Any, running: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        original(self, running)

    monkeypatch.setattr(engine_run._EngineRun, "_finish", interrupted)
    assert run("--concurrency", "1")[0] == 130
    done = len(records(tmp_path / "out"))
    assert 1 <= done < 6
    captions = json.loads((tmp_path / "out/STBench_Detailed_Caption.json").read_text())
    assert sum(len(row["object_annotations"]) for row in captions) == done


def test_lines_of_our_own_format_are_a_source(run: Callable[..., Any], stub: StubEndpoint, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    (folder / "clip").mkdir(parents=True)
    for frame, pixels in enumerate((draw_image("red", "blue"), draw_image("green", "red"))):
        Image.fromarray(pixels).save(folder / "clip" / f"{frame}.png")
    Image.fromarray(draw_image("blue", "green")).save(folder / "photo.png")
    one, two = (encode_rle(MASKS[key]) for key in ("1", "2"))
    lines = [
        {"id": "still", "clip": "photo.png", "objects": {"7": {"rle": [one]}}},
        {"id": "moving", "clip": "clip", "objects": {"1": {"rle": [one, one]}, "2": {"rle": [None, two]}}},
        {"id": "broken", "clip": "missing.png", "objects": {"1": {"rle": [one]}}},
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    arguments = ["data", "caption-regions", str(folder / "data.jsonl"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--url", stub.url, "--model", "seer"]) == 1
    found = {record["region"]: record for record in records(tmp_path / "out")}
    colours = {name: record["caption"].split()[4] for name, record in found.items()}
    # The second frame of the clip shows both objects.
    assert colours == {"still#7": "blue", "moving#1": "green", "moving#2": "red"}
    frame = tmp_path / "out/images" / found["moving#1"]["image"]
    assert np.array_equal(np.asarray(Image.open(frame)), draw_image("green", "red"))


def test_image_that_does_not_fit_its_annotation_is_named_and_left_out(
    run: Callable[..., Any], source: Path, tmp_path: Path
) -> None:
    content = json.loads(source.read_text())
    content["images"][0]["height"] = 41
    content["images"][1]["file_name"] = "../secret.png"
    source.write_text(json.dumps(content), encoding="utf-8")
    status, figures = run()
    assert (status, figures["accepted"]) == (1, 2)
    assert figures["skipped"]["0.png"].endswith("0.png has (H, W) = (40, 60), its annotation (41, 60)")
    assert "which is not below" in figures["skipped"]["../secret.png"]


def test_folder_of_images_with_json_files_is_a_source(
    stub: StubEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "sa"
    folder.mkdir()
    Image.fromarray(draw_image("red", "green")).save(folder / "sa_1.png")
    rows = [{"id": 5, "segmentation": encode_rle(MASKS["1"])}, {"id": 6, "segmentation": encode_rle(box(0, 0, 1, 1))}]
    content = {"image": {"image_id": 1, "file_name": "sa_1.png"}, "annotations": rows}
    (folder / "sa_1.json").write_text(json.dumps(content), encoding="utf-8")
    arguments = ["data", "caption-regions", str(folder), "--out", str(tmp_path / "out"), "--url", stub.url]
    assert main([*arguments, "--model", "seer"]) == 0
    # One pixel of 2400 is below the smallest area.
    assert "1 descriptions accepted, 0 rejected, 1 questions; 4 requests, 480 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "seer"), "are not different"),
        (("--url", "http://127.0.0.1:1/v1"), "--url is given 2 times, --model 1 times"),
        (("--checker-without-pictures",), "give at least two models that describe"),
        (("--budget", "requests=0"), "max_requests must be at least 1"),
        (("--budget", "dollars=5"), "--budget must be such as requests=1000"),
        (("--questions", "9"), "must be 0 to 5"),
        (("--per-image", "0"), "must be at least 1"),
        (("--min-area", "1"), "must be in \\[0, 1\\)"),
        (("--concurrency", "0"), "must be 1 to 256"),
        (("--timeout", "0"), "--timeout must be above 0"),
        (("--api-key-file", "KEY"), "must contain a key"),
        (("--checker-url", "gopher://x"), "must start with http:// or https://"),
    ],
)
def test_bad_option_is_one_line(
    run: Callable[..., Any], tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "key").write_text("two words\n")
    status, figures = run(*(str(tmp_path / "key") if option == "KEY" else option for option in options))
    assert status == 2
    assert re.search(message, figures["error"]), figures["error"]
    assert figures["error"].count("\n") == 1


def test_folder_of_another_run_is_refused(run: Callable[..., Any]) -> None:
    assert run("--limit", "1")[0] == 0
    status, figures = run("--seed", "1")
    assert status == 2
    assert "belongs to another run: seed is 0, now 1" in figures["error"]


def test_key_is_sent_to_its_endpoint_alone(
    run: Callable[..., Any], stub: StubEndpoint, models: StubModels, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("secret\n")
    checker = StubEndpoint(models)
    try:
        options = ("--api-key-file", str(tmp_path / "key"), "--checker-url", checker.url, "--limit", "1")
        assert run(*options)[0] == 0
    finally:
        checker.close()
    assert [headers.get("Authorization") for _, headers, _ in stub.requests] == ["Bearer secret"]
    assert [headers.get("Authorization") for _, headers, _ in checker.requests] == [None] * 3
    assert all("secret" not in file.read_text() for file in (tmp_path / "out").glob("*.json*"))


def test_option_of_another_action_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--budget", "requests=1"]) == 2
    assert "--budget is not an option of `unipixel data list`, but of caption-regions" in capsys.readouterr().err
