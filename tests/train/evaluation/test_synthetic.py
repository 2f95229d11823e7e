"""Evaluation on synthetic clips: the report, its means, and which answers count as correct."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unipixel.cli import main
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import PromptRecord
from unipixel.model.generation import GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.processing.answer_parser import parse_answer
from unipixel.processing.chat_template import Turn
from unipixel.processing.processor import Processor
from unipixel.processing.visual_prompts import MaskPrompt
from unipixel.session.base_session import Answer
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.session import Session
from unipixel.session.settings import SessionSettings
from unipixel.train.datasets.synthetic import Sample
from unipixel.train.evaluation import synthetic
from unipixel.train.evaluation.answer_accuracy import chosen_option, is_correct, is_same_answer
from unipixel.train.evaluation.memory_ablation import NoMemorySession, exchange_masks
from unipixel.train.evaluation.metrics import MetricAccumulator, score_masks

CLIPS = ["--frames", "4", "--render-size", "48", "--json"]


def test_eval_synthetic_reports_all_metrics(training_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(training_checkpoint), "--limit", "9", "--seed", "3", *CLIPS]
    assert main(["eval", "synthetic", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"track", "segment", "pixelqa", "no_target", "follow_up", "baselines", "num_samples"} <= set(report)
    assert report["num_samples"] == 9
    assert set(report["pixelqa"]) == {"point", "box", "mixed"}
    assert set(report["prefill"]) == {"generated", "accepted"}
    assert all(0 <= share <= 1 for share in report["prefill"].values())
    assert report["exchange"] is None or 0 <= report["exchange"] <= 1
    assert report["settings"] == {"anchor": "auto", "prefill": "model", "memory": True, "pooling": "raster"}
    for figures in (*report["segment"].values(), *report["track"].values()):
        assert {"J", "F", "JF"} <= set(figures)


def test_eval_synthetic_reports_its_settings(training_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", str(training_checkpoint), "--limit", "6", *CLIPS]
    choices = ["--anchor", "best", "--prefill", "tracker", "--no-memory", "--pooling", "window"]
    assert main(["eval", "synthetic", *options, *choices]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["settings"] == {"anchor": "best", "prefill": "tracker", "memory": False, "pooling": "window"}


def test_eval_synthetic_tasks_are_selected_and_unknown_ones_refused(
    training_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(training_checkpoint), "--limit", "3", *CLIPS]
    assert main(["eval", "synthetic", *options, "--tasks", "track"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {kind.removesuffix("_small") for kind in report["track"]} == {"point", "box", "mask"}
    assert not report["segment"]
    assert main(["eval", "synthetic", *options, "--tasks", "track,segment"]) == 2
    assert "got track, segment" in capsys.readouterr().err


class _OracleSession:
    """Replaces a session: its masks are exact, and `answer` computes its answers from them."""

    sample: Sample
    answer: Any

    def __init__(self, *_: Any, bank: ObjectMemoryBank | None = None, **__: Any) -> None:
        self.is_asked_again = bank is not None
        clip = self.sample.clip
        self.bank = bank or ObjectMemoryBank(clip.frames.shape[1:3])
        for object_id in () if bank else sorted(self.sample.prompts):
            self.bank.add(object_id, source="point")
            for index, mask in enumerate(clip.masks_of(object_id)):
                self.bank.update(object_id, index, mask)

    def prompt(self, object_id: int, *prompts: Any) -> None:
        pass

    def ask(self, question: str) -> Answer:
        text = type(self).answer(self)
        ids = () if self.is_asked_again else tuple(sorted(self.sample.prompts))
        return Answer(question, text, parse_answer(text), ids, ids, ids[:1], ids[1:], 0, {})

    @property
    def is_first_larger(self) -> bool:
        first, second = self.bank.masks_on(range(len(self.sample.clip.frames))).sum(axis=(0, 2, 3))
        return bool(first > second)


def _evaluate_pixelqa(monkeypatch: pytest.MonkeyPatch, answer: Any) -> tuple[dict[str, Any], list[Sample]]:
    """Evaluate `_OracleSession` on questions about boxes; also return the samples."""
    samples: list[Sample] = []

    def generate(seed: int, **options: Any) -> Sample:
        samples.append(original(seed, **options))
        _OracleSession.sample = samples[-1]
        return samples[-1]

    original = synthetic.generate
    monkeypatch.setattr(_OracleSession, "answer", answer, raising=False)
    monkeypatch.setattr(synthetic, "generate", generate)
    monkeypatch.setattr(synthetic, "Session", _OracleSession)
    monkeypatch.setattr(synthetic._Evaluator, "_without_video", lambda *_: "")
    processor: Any = type("_Processor", (), {"budget": type("_Budget", (), {"num_frames": 4})})
    model: Any = type("_Model", (), {"config": type("_Config", (), {"memory_pool_order": "raster"})})
    return synthetic.evaluate(model, processor, limit=12, tasks=("pixelqa/box",), num_frames=4, render_size=48), samples


def _is_exchangeable(sample: Sample) -> bool:
    return sample.turns[0].exchanged_answer is not None


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        (lambda session: "(A)" if len(session.bank) < 2 or session.is_first_larger else "(B)", 1.0),
        (lambda session: "(A) Whatever you like.", 0.0),
    ],
)
def test_exchange_is_the_share_of_answers_that_follow_the_masks(
    monkeypatch: pytest.MonkeyPatch, answer: Any, share: float
) -> None:
    report, samples = _evaluate_pixelqa(monkeypatch, answer)
    assert any(_is_exchangeable(sample) for sample in samples)
    assert report["exchange"] == share


def test_prefill_counts_generated_ids_and_accepted_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    report, samples = _evaluate_pixelqa(monkeypatch, lambda session: "(A)")
    num_prompted = sum(len(sample.prompts) for sample in samples)
    # The session generates the first id and accepts the masks of the others; asked again, it pre-fills none.
    generated, accepted = report["prefill"]["generated"], report["prefill"]["accepted"]
    assert generated == round(len(samples) / num_prompted, 4)
    assert accepted == round(1 - len(samples) / num_prompted, 4)
    assert num_prompted > len(samples)


def test_exchange_masks_swaps_two_objects_and_drops_others() -> None:
    bank = ObjectMemoryBank((4, 6))
    masks = {object_id: np.zeros((4, 6), bool) for object_id in (5, 2, 9)}
    for column, (object_id, mask) in enumerate(masks.items()):
        mask[:, column] = True
        point = PromptRecord("point", frame_index=column, coords=(1.0, 1.0))
        bank.add(object_id, source="point", prompts=[point], anchor_frame=3)
        bank.update(object_id, column, mask)
    other = exchange_masks(bank, 2, 5)
    assert other.ids == (5, 2)
    assert np.array_equal(other.masks_on([1], object_ids=[5])[0, 0], masks[2])
    assert np.array_equal(other.masks_on([0], object_ids=[2])[0, 0], masks[5])
    assert (other[5].anchor_frame, other[2].anchor_frame) == (0, 1)
    assert np.array_equal(bank.masks_on([0], object_ids=[5])[0, 0], masks[5])
    with pytest.raises(KeyError, match="object 7 is not in the memory"):
        exchange_masks(bank, 2, 7)


@pytest.mark.parametrize(("kind", "has_memory"), [(Session, True), (NoMemorySession, False)])
def test_session_without_memory_tracks_objects_and_injects_nothing(
    model: UniPixel, processor: Processor, monkeypatch: pytest.MonkeyPatch, kind: type[Session], has_memory: bool
) -> None:
    turns: list[Turn] = []
    ask = Conversation.ask

    def recorded(conversation: Conversation, turn: Turn, **options: Any) -> Reply:
        turns.append(turn)
        return ask(conversation, turn, **options)

    monkeypatch.setattr(Conversation, "ask", recorded)
    settings = SessionSettings(generation=GenerationSettings(max_new_tokens=2))
    session = kind(model, processor, [np.zeros((40, 40, 3), "u1")], settings=settings)
    session.prompt(1, MaskPrompt(np.ones((40, 40), dtype=bool), frame_index=0))
    session.ask("What is [1]?")
    assert session.bank.masks_on([0], object_ids=[1]).any()
    assert (turns[0].memory is not None) is has_memory


@pytest.mark.parametrize(
    ("given", "other", "options", "is_expected"),
    [
        ("(A) Left.", "The best option is (A).", 2, True),
        ("(A) Left.", "(B) Left.", 2, False),
        ("(A)", "none of them", 2, False),
        ("It is red.", "Red", 0, True),
        ("Red", "Blue", 0, False),
    ],
)
def test_is_same_answer(given: str, other: str, options: int, is_expected: bool) -> None:
    assert is_same_answer(given, other, options=options) is is_expected


@pytest.mark.parametrize(
    ("given", "expected", "options", "is_expected"),
    [
        ("The best option is (B) Left.", "The best option is (B) Left.", 4, True),
        ("(B)", "The best option is (B) Left.", 4, True),
        ("B", "The best option is (B) Left.", 4, True),
        ("The best option is (A) Left.", "The best option is (B) Left.", 4, False),
        ("Left.", "The best option is (B) Left.", 4, False),
        ("It is red.", "Red.", 0, True),
        ("It is a dark red.", "Red.", 0, False),
        ("", "Yes.", 0, False),
    ],
)
def test_is_correct(given: str, expected: str, options: int, is_expected: bool) -> None:
    assert is_correct(given, expected, options=options) is is_expected


def test_chosen_option_of_an_answer_without_letter_is_none() -> None:
    assert chosen_option("nothing fits") is None


def test_score_masks_perfect_and_empty_prediction() -> None:
    truth = np.zeros((2, 20, 20), bool)
    truth[:, 5:15, 5:15] = True
    assert score_masks(truth, truth) == (1.0, 1.0)
    assert score_masks(np.zeros_like(truth), truth) == (0.0, 0.0)


def test_report_has_means_and_none_without_measurements() -> None:
    metrics = MetricAccumulator()
    metrics.add_masks(("segment", "motion"), (0.4, 0.6))
    metrics.add_masks(("segment", "motion"), (0.6, 0.8))
    metrics.add_answer(("pixelqa", "box"), True)
    metrics.add_answer(("pixelqa", "box"), False)
    report = metrics.report()
    assert report["segment"] == {"motion": {"J": 0.5, "F": 0.7, "JF": 0.6, "num": 2}}
    assert report["pixelqa"]["box"]["accuracy"] == 0.5
    assert report["follow_up"]["accuracy"] is None
