"""The bundled model on drawn clips that are exported as VideoRefer-Bench: the figures of the synthetic evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.exported_questions import export_questions, samples_with_choices

from unipixel.cli import main
from unipixel.commands._options import DEFAULT_MODEL
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.train.evaluation import synthetic


@pytest.mark.parametrize(("kind", "count"), [("box", 2), pytest.param("point", 6, marks=pytest.mark.slow)])
def test_exported_questions_have_the_figures_of_the_synthetic_evaluation(
    kind: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = samples_with_choices(kind, count, render_size=96, num_frames=6)
    data = export_questions(samples, tmp_path / "data")
    arguments = ["--data", str(data), "--variant", kind, "--model", DEFAULT_MODEL, "--out", str(tmp_path / "out")]
    assert main(["eval", "pixelqa", *arguments, "--device", "cpu", "--wording", "session", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    drawn = iter(samples)
    monkeypatch.setattr(synthetic, "generate", lambda *_, **__: next(drawn))
    model = UniPixel.from_pretrained(DEFAULT_MODEL, device="cpu")
    report = synthetic.evaluate(model, Processor.from_pretrained(DEFAULT_MODEL), tasks=[f"pixelqa/{kind}"], limit=count)
    figures = report["pixelqa"][kind]
    assert result["failed"] == []
    assert figures["num"] == sum(len(sample.prompts) for sample in samples)
    for name in ("J", "F", "JF", "accuracy"):
        assert result["figures"][name] == pytest.approx(figures[name], abs=5e-5)
    assert result["figures"]["JF"] > 0.2
