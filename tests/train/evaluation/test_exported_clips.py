"""The bundled model on drawn clips that are exported as benchmarks: the figures of the synthetic evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.exported_clips import export_clips, samples_with_expressions

from unipixel.cli import main
from unipixel.commands._options import DEFAULT_MODEL
from unipixel.model.unipixel import UniPixel
from unipixel.processing.processor import Processor
from unipixel.train.evaluation import synthetic

NUM_CLIPS = 3


@pytest.mark.parametrize("benchmark", ["mevis", pytest.param("revos", marks=pytest.mark.slow)])
def test_exported_clips_have_the_figures_of_the_synthetic_evaluation(
    benchmark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = samples_with_expressions(benchmark, NUM_CLIPS, render_size=96, num_frames=6)
    export_clips(benchmark, samples, tmp_path / "data")
    arguments = ["--data", str(tmp_path / "data"), "--model", DEFAULT_MODEL, "--out", str(tmp_path / "out")]
    assert main(["eval", benchmark, *arguments, "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    drawn = iter(samples)
    monkeypatch.setattr(synthetic, "generate", lambda *_, **__: next(drawn))
    model = UniPixel.from_pretrained(DEFAULT_MODEL, device="cpu")
    report = synthetic.evaluate(
        model, Processor.from_pretrained(DEFAULT_MODEL), tasks=["segment/attribute"], limit=NUM_CLIPS
    )
    figures = report["segment"]["attribute"]
    assert result["failed"] == []
    assert figures["num"] == NUM_CLIPS
    for name in ("J", "F", "JF"):
        found = result["figures"][name if benchmark == "mevis" else f"referring_{name}"]
        assert found == pytest.approx(figures[name], abs=5e-5)
    assert result["figures"]["JF"] > 0.2
