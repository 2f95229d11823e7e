"""The figures of the drawn world: their shape, their sums, and what counts as a right answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_training import save_training_checkpoint

from unipixel.cli import main
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import PromptRecord
from unipixel.model.unipixel import UniPixel
from unipixel.processing.answer_parser import parse_answer
from unipixel.processing.chat_template import Turn
from unipixel.processing.processor import Processor
from unipixel.processing.visual_prompts import MaskPrompt
from unipixel.session.base_session import Answer
from unipixel.session.conversation import Conversation, Reply
from unipixel.session.session import Session
from unipixel.train.datasets.synthetic import Sample
from unipixel.train.evaluation import synthetic as world
from unipixel.train.evaluation.answer_accuracy import chosen_option, is_right, say_the_same
from unipixel.train.evaluation.memory_ablation import NoMemorySession, exchange_masks
from unipixel.train.evaluation.metrics import MetricAccumulator, score_masks


def test_eval_world_prints_the_agreed_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_training_checkpoint(tmp_path / "tiny")
    arguments = ["--limit", "9", "--frames", "4", "--render-size", "48", "--seed", "3", "--json"]
    assert main(["eval", "world", "--model", str(checkpoint), *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {"track", "segment", "pixelqa", "no_target", "follow_up", "baselines", "num_samples"} <= set(report)
    assert report["num_samples"] == 9
    assert set(report["pixelqa"]) == {"point", "box", "mixed"}
    assert set(report["prefill"]) == {"unforced", "fitting"}
    assert all(0 <= share <= 1 for share in report["prefill"].values())
    assert report["exchange"] is None or 0 <= report["exchange"] <= 1
    assert report["settings"] == {"anchor": "auto", "prefill": "model", "memory": True, "pooling": "raster"}
    for figures in (*report["segment"].values(), *report["track"].values()):
        assert {"J", "F", "JF"} <= set(figures)


def test_eval_world_says_what_was_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_training_checkpoint(tmp_path / "tiny")
    arguments = ["--limit", "6", "--frames", "4", "--render-size", "48", "--json"]
    choices = ["--anchor", "best", "--prefill", "tracker", "--no-memory", "--pooling", "window"]
    assert main(["eval", "world", "--model", str(checkpoint), *arguments, *choices]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["settings"] == {"anchor": "best", "prefill": "tracker", "memory": False, "pooling": "window"}


def test_eval_world_takes_some_tasks_and_names_unknown_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_training_checkpoint(tmp_path / "tiny")
    arguments = ["--model", str(checkpoint), "--limit", "3", "--frames", "4", "--render-size", "48", "--json"]
    assert main(["eval", "world", *arguments, "--tasks", "track"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {kind.removesuffix("_small") for kind in report["track"]} == {"point", "box", "mask"}
    assert not report["segment"]
    assert main(["eval", "world", *arguments, "--tasks", "track,segment"]) == 2
    assert "got track, segment" in capsys.readouterr().err


class _KnowingSession:
    """Stands in for a session: its masks are true, and `says` makes its answers of them."""

    sample: Sample
    says: Any

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
        text = type(self).says(self)
        ids = () if self.is_asked_again else tuple(sorted(self.sample.prompts))
        return Answer(question, text, parse_answer(text), ids, ids, ids[:1], ids[1:], 0, {})

    @property
    def is_first_larger(self) -> bool:
        first, second = self.bank.masks_on(range(len(self.sample.clip.frames))).sum(axis=(0, 2, 3))
        return bool(first > second)


def _evaluate_pixelqa(monkeypatch: pytest.MonkeyPatch, says: Any) -> tuple[dict[str, Any], list[Sample]]:
    """Evaluate a session that knows the truth on questions about boxes; also return the samples."""
    samples: list[Sample] = []

    def generate(seed: int, **options: Any) -> Sample:
        samples.append(_draw(seed, **options))
        _KnowingSession.sample = samples[-1]
        return samples[-1]

    _draw = world.generate
    monkeypatch.setattr(_KnowingSession, "says", says, raising=False)
    monkeypatch.setattr(world, "generate", generate)
    monkeypatch.setattr(world, "Session", _KnowingSession)
    monkeypatch.setattr(world._Evaluator, "_without_video", lambda *_: "")
    processor: Any = type("_Processor", (), {"budget": type("_Budget", (), {"num_frames": 4})})
    model: Any = type("_Model", (), {"config": type("_Config", (), {"memory_pool_order": "raster"})})
    return world.evaluate(model, processor, limit=12, tasks=("pixelqa/box",), num_frames=4, render_size=48), samples


def _is_exchangeable(sample: Sample) -> bool:
    return sample.turns[0].exchanged_answer is not None


@pytest.mark.parametrize(
    ("says", "share"),
    [
        (lambda session: "(A)" if len(session.bank) < 2 or session.is_first_larger else "(B)", 1.0),
        (lambda session: "(A) Whatever you like.", 0.0),
    ],
)
def test_exchange_is_the_share_of_answers_that_follow_the_masks(
    monkeypatch: pytest.MonkeyPatch, says: Any, share: float
) -> None:
    report, samples = _evaluate_pixelqa(monkeypatch, says)
    assert any(_is_exchangeable(sample) for sample in samples)
    assert report["exchange"] == share


def test_prefill_is_the_share_of_ids_written_unforced_and_of_masks_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    report, samples = _evaluate_pixelqa(monkeypatch, lambda session: "(A)")
    num_prompted = sum(len(sample.prompts) for sample in samples)
    # The session above writes the first id by itself and shows the others; asked again, it has nothing to pre-fill.
    unforced, fitting = report["prefill"]["unforced"], report["prefill"]["fitting"]
    assert unforced == round(len(samples) / num_prompted, 4)
    assert fitting == round(1 - len(samples) / num_prompted, 4)
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


@pytest.mark.parametrize(("kind", "is_told"), [(Session, True), (NoMemorySession, False)])
def test_untold_session_follows_objects_but_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Session], is_told: bool
) -> None:
    turns: list[Turn] = []
    ask = Conversation.ask

    def noted(dialogue: Conversation, turn: Turn, **options: Any) -> Reply:
        turns.append(turn)
        return ask(dialogue, turn, **options)

    monkeypatch.setattr(Conversation, "ask", noted)
    folder = save_training_checkpoint(tmp_path / "tiny")
    session = kind(UniPixel.from_pretrained(folder), Processor.from_pretrained(folder), [np.zeros((40, 40, 3), "u1")])
    session.prompt(1, MaskPrompt(np.ones((40, 40), dtype=bool), frame_index=0))
    session.ask("What is [1]?")
    assert session.bank.masks_on([0], object_ids=[1]).any()
    assert (turns[0].memory is not None) is is_told


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
def test_say_the_same(given: str, other: str, options: int, is_expected: bool) -> None:
    assert say_the_same(given, other, options=options) is is_expected


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
def test_is_right(given: str, expected: str, options: int, is_expected: bool) -> None:
    assert is_right(given, expected, options=options) is is_expected


def test_chosen_option_of_an_answer_without_letter_is_none() -> None:
    assert chosen_option("nothing fits") is None


def test_score_masks_perfect_and_empty_prediction() -> None:
    truth = np.zeros((2, 20, 20), bool)
    truth[:, 5:15, 5:15] = True
    assert score_masks(truth, truth) == (1.0, 1.0)
    assert score_masks(np.zeros_like(truth), truth) == (0.0, 0.0)


def test_tally_reports_means_and_none_where_nothing_was_measured() -> None:
    tally = MetricAccumulator()
    tally.masks(("segment", "motion"), (0.4, 0.6))
    tally.masks(("segment", "motion"), (0.6, 0.8))
    tally.hit(("pixelqa", "box"), True)
    tally.hit(("pixelqa", "box"), False)
    report = tally.report()
    assert report["segment"] == {"motion": {"J": 0.5, "F": 0.7, "JF": 0.6, "num": 2}}
    assert report["pixelqa"]["box"]["accuracy"] == 0.5
    assert report["follow_up"]["accuracy"] is None
