"""The judge of descriptions against a stub server with the protocol of chat completions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.chat_stub import CUT, StubEndpoint, completion, listed_replies
from helpers.golden_evaluation import expected_of, golden_case

from unipixel.train.evaluation.answers.description_scores import score_descriptions
from unipixel.train.evaluation.answers.judge_client import JudgeError, JudgeSettings, ask_judge, judge_predictions
from unipixel.train.evaluation.answers.judge_marks import parse_marks, parse_marks_strictly
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.running.predictions import PredictionFile

ROW = BENCHMARKS["videorefer-bench-d"]
REPLY = (
    "1. Subject Correspondence: 4\n2. Appearance Description: 3\n3. Temporal Description: 2\n"
    "4. Hallucination Detection: 5"
)


@pytest.fixture
def stub(request: pytest.FixtureRequest) -> Iterator[StubEndpoint]:
    judge = StubEndpoint(listed_replies(request.param))
    yield judge
    judge.close()


def settings_of(stub: StubEndpoint, **changes: Any) -> JudgeSettings:
    return JudgeSettings(**{"url": stub.url, "model": "stub", "first_delay_seconds": 0.0, **changes})


def unjudged(folder: Path) -> Path:
    """Write the golden predictions without their replies, one of them failed and one empty."""
    lines = (golden_case("videorefer") / "predictions" / "d" / "predictions.jsonl").read_text().splitlines()
    rows = [{key: value for key, value in json.loads(line).items() if key != "judge"} for line in lines]
    rows[2] = {"sample": "2", "error": "stopped"}
    rows[3]["text"] = ""
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def read_samples() -> Any:
    return ROW.read(golden_case("videorefer") / "data", split="test", variant="multi")


@pytest.mark.parametrize("stub", [[(200, completion(REPLY))]], indirect=True)
def test_replies_are_stored_and_scored_without_a_judge(stub: StubEndpoint, tmp_path: Path) -> None:
    folder = unjudged(tmp_path)
    judge_predictions(read_samples(), folder, settings_of(stub, key="secret"))
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row.get("judge") for row in rows] == [REPLY, REPLY, None, None]
    assert rows[0]["judge_model"] == "stub"
    scores = score_descriptions(read_samples(), PredictionFile(folder), protocol="honest")
    assert scores.figures["Subject Correspondence"] == 2
    assert scores.figures["average"] == pytest.approx((4 + 3 + 2 + 5) / 4 / 2)
    assert dict(scores.failed) == {"2": "error: stopped", "3": "the answer is empty"}
    path, headers, body = stub.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    caption = "The red triangle drifts slowly – très lentement."
    assert body["messages"][1]["content"] == (
        f"##Correct answer: {caption}\n##Predicted answer: A red triangle is moving.\n"
    )
    assert (body["model"], body["temperature"], body["top_p"], body["max_tokens"]) == ("stub", 0.7, 0.95, 800)
    judge_predictions(read_samples(), folder, settings_of(stub))
    assert len(stub.requests) == 2


@pytest.mark.parametrize(
    "stub",
    [[(500, {}), (429, {}), (200, CUT), (200, completion("")), (200, completion(REPLY))]],
    indirect=True,
)
def test_failed_attempts_are_repeated(stub: StubEndpoint) -> None:
    assert ask_judge("a", "b", settings=settings_of(stub)) == REPLY
    assert len(stub.requests) == 5


@pytest.mark.parametrize(
    ("stub", "reason", "attempts"),
    [
        ([(401, {})], "status 401", 1),
        ([(302, {})], "status 302", 1),
        ([(503, {})], "status 503", 5),
        ([(200, {"choices": []})], "no chat completion", 5),
        ([(200, b"<html>")], "no chat completion", 5),
        ([(200, b"x" * (2**20 + 1))], "at most", 5),
    ],
    indirect=["stub"],
)
def test_a_judge_without_a_usable_reply_is_an_error(stub: StubEndpoint, reason: str, attempts: int) -> None:
    with pytest.raises(JudgeError, match=reason):
        ask_judge("a", "b", settings=settings_of(stub))
    assert len(stub.requests) == attempts


@pytest.mark.parametrize("stub", [[(200, completion(REPLY)), (401, {})]], indirect=True)
def test_replies_before_an_error_are_stored(stub: StubEndpoint, tmp_path: Path) -> None:
    folder = unjudged(tmp_path)
    with pytest.raises(JudgeError, match="repeat the command"):
        judge_predictions(read_samples(), folder, settings_of(stub))
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert sum("judge" in row for row in rows) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "ftp://host"}, "must start with http"),
        ({"url": "http://example.org/v1", "key": "k"}, "unencrypted"),
        ({"url": "https://example.org/v1", "model": ""}, "give the model of the endpoint"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JudgeSettings(**{"model": "m", **changes})


def test_key_is_not_shown() -> None:
    assert "secret" not in repr(JudgeSettings(url="https://example.org/v1", model="m", key="secret"))


def test_published_rule_loses_marks_that_the_strict_one_reads() -> None:
    reply = (
        "1. **Subject Correspondence**: 2\n2. Appearance Description: 2/5\n3. Temporal Description - 2\n"
        "4. Hallucination Detection: 9"
    )
    assert parse_marks(reply) == {"Appearance Description": 2, "Hallucination Detection": 9}
    assert parse_marks_strictly(reply) == {
        "Subject Correspondence": 2,
        "Appearance Description": 2,
        "Temporal Description": 2,
    }


@pytest.mark.parametrize(
    ("reply", "marks"),
    [
        ("1. Subject Correspondence: 4.\n2. Appearance Description: 2/5", [4, 2]),
        ("1.Subject Correspondence: 4\n2. Appearance Description:3", []),
        ("1. Subject Correspondence: 4\n2. Appearance Description: 4.5.", []),
        ("1. Subject Correspondence:\n5\n1. Subject Correspondence: 3", [3]),
    ],
)
def test_published_rule_reads_marks_to_the_letter(reply: str, marks: list[float]) -> None:
    assert list(parse_marks(reply).values()) == marks


def test_marks_by_the_published_rule_have_the_recorded_counts() -> None:
    scores = ROW.score(
        read_samples(), PredictionFile(golden_case("videorefer") / "predictions" / "d"), protocol="paper"
    )
    assert scores.others["counts"] == expected_of("videorefer", "expected-d.json")["paper"]["counts"]
    assert list(scores.failed) == ["3"]


def test_predictions_without_a_reply_count_zero(tmp_path: Path) -> None:
    scores = ROW.score(read_samples(), PredictionFile(unjudged(tmp_path)), protocol="paper")
    assert set(scores.figures.values()) == {0.0}
    assert "--judge-url" in scores.failed["0"]
