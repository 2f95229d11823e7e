"""`--model` with SAM 2.1 alone, `--segmenter`, and what is refused before anything heavy is imported."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.transformers_reference import transformers_model, wider_segmenter

from unipixel import cli
from unipixel.checkpoints.segmenters import load_segmenter
from unipixel.memory.rle import decode_rle
from unipixel.processing.visual_prompts import PointPrompt
from unipixel.session.stream_objects import StreamObjects
from unipixel.session.video_objects import VideoObjects
from unipixel.video.open import open_video

POINT = ["--point", "1:20,16@0"]
# Each takes seconds to import.
HEAVY = ("torch", "transformers", "peft", "bitsandbytes", "gradio", "sam2", "accelerate", "scipy", "huggingface_hub")


@pytest.fixture(scope="module")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SAM 2.1 in the layout of transformers."""
    folder = tmp_path_factory.mktemp("sam2")
    transformers_model(wider_segmenter()).save_pretrained(folder)
    return folder


def _masks_of_sam2(sam2: Path, clip: Path) -> dict[int, np.ndarray]:
    objects = VideoObjects(load_segmenter(sam2), str(clip))
    objects.prompt(1, PointPrompt(20, 16, 0))
    objects.track()
    return {index: record.mask(objects.bank.frame_size) for index, record in objects.bank.mask_records(1)}


def _check_masks(frames: list[dict[str, Any]], expected: dict[int, np.ndarray]) -> None:
    assert [frame["frame_index"] for frame in frames] == list(expected)
    for frame in frames:
        if frame["rle"] is not None:
            assert np.array_equal(decode_rle(frame["rle"]), expected[frame["frame_index"]])


def test_track_takes_a_segmenter_of_transformers(sam2: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["track", str(clip), *POINT, "--model", str(sam2), "--device", "cpu", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["objects"]
    _check_masks(record["frames"], _masks_of_sam2(sam2, clip))


def test_stream_takes_a_segmenter_of_transformers(sam2: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stream", str(clip), *POINT, "--model", str(sam2), "--device", "cpu"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    objects = StreamObjects(load_segmenter(sam2))
    for line, frame in zip(lines, open_video(str(clip)), strict=True):
        objects.step(frame)
        if frame.index == 0:
            objects.prompt(1, PointPrompt(20, 16, 0))
        (record,) = line["objects"]
        if record["rle"] is not None:
            assert np.array_equal(decode_rle(record["rle"]), objects.masks[1].mask)


def test_ask_tracks_clicks_with_the_chosen_segmenter_and_says_so(
    checkpoint: Path, sam2: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(checkpoint), "--device", "cpu", "--max-new-tokens", "2", "--prefill", "tracker"]
    code = cli.main(["ask", str(clip), "What is [1]?", *POINT, *options, "--segmenter", str(sam2), "--json"])
    printed = capsys.readouterr()
    assert code == 0
    assert f"{sam2} tracks and segments clicks, at 128 pixels; the model's own SAM 2.1 decodes" in printed.err
    record = next(item for item in json.loads(printed.out)["objects"] if item["id"] == 1)
    assert record["source"] == "point"
    assert len(record["frames"]) == len(_masks_of_sam2(sam2, clip))


def test_segmenter_of_another_width_cannot_decode_language(
    checkpoint: Path, sam2: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["segment", str(clip), "it", "--model", str(checkpoint), "--segmenter", str(sam2)]
    assert cli.main([*argv, "--device", "cpu", "--language-masks", "segmenter"]) == 2
    assert "have 32 channels, the segmenter takes 128: use language_masks='model'" in capsys.readouterr().err


def test_quantisation_without_its_library_is_refused_at_once(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "bitsandbytes" else find_spec(name, *more)
    )
    assert cli.main(["ask", str(clip), "What is it?", "--quantize", "int4"]) == 2
    assert "needs bitsandbytes: pip install 'unipixel-agent[quantize]'" in capsys.readouterr().err


# Wrong input; CLIP and SAM stand for a clip, and for a SAM 2.1 without one of its tensors.
WRONG = (
    (["track", "nope.mp4", *POINT], "nope.mp4: No such file or directory"),
    (["track", "CLIP", "--point", "1:2,@0"], "is not of the form ID:X,Y@FRAME"),
    (["track", "CLIP", "--point", "1:900,1@0"], "the point (900, 1) is outside the frame"),
    (["track", "CLIP", "--point", "1:1,1@99"], "99"),
    (["track", "CLIP", *POINT, "--model", "nope"], "no checkpoint 'nope'"),
    (["track", "CLIP", *POINT, "--model", "SAM"], "1 missing: no_memory_embedding"),
    (["track", "CLIP", *POINT, "--device", "tpu"], "device 'tpu' is unknown"),
    (["ask", "nope.mp4", "What is it?"], "nope.mp4: No such file or directory"),
    (["ask", "CLIP", "What is [1]?", "--point", "1:900,1@0"], "is outside the frame"),
    (["ask", "CLIP", "What is it?", "--segmenter", "SAM"], "1 missing: no_memory_embedding"),
    (["segment", "nope.mp4", "it"], "nope.mp4: No such file or directory"),
    (["stream", "nope.mp4", "it"], "nope.mp4: No such file or directory"),
    (["stream", "CLIP", "it", "--model", "nope"], "no checkpoint 'nope'"),
    (["chat", "nope.mp4"], "nope.mp4: No such file or directory"),
    (["demo", "--model", "nope"], "no checkpoint 'nope'"),
    (["train", "nope"], "no recipe 'nope'"),
    (["eval", "synthetic", "--model", "nope"], "no checkpoint 'nope'"),
)


@pytest.fixture(scope="module")
def incomplete_sam2(sam2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("incomplete")
    tensors = load_file(sam2 / "model.safetensors")
    del tensors["no_memory_embedding"]
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_bytes((sam2 / "config.json").read_bytes())
    return folder


def test_wrong_input_is_refused_before_anything_heavy_is_imported(clip: Path, incomplete_sam2: Path) -> None:
    places = {"CLIP": str(clip), "SAM": str(incomplete_sam2)}
    commands = [[places.get(text, text) for text in argv] for argv, _ in WRONG]
    code = f"import sys\nfrom unipixel import cli\nfor argv in {commands!r}:\n    "
    code += f"print(cli.main(argv), *(name for name in {HEAVY!r} if name in sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines() == ["2"] * len(WRONG)
    errors = finished.stderr.splitlines()
    assert len(errors) == len(WRONG), "each error is one line"
    for error, (_, message) in zip(errors, WRONG, strict=True):
        assert message in error


def test_absent_gpu_is_refused_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from unipixel.checkpoints import devices

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(devices, "_CUDA_DRIVER", "libnone.so")
    monkeypatch.setattr(devices, "_ROCM_INTERFACE", "/dev/none")
    with pytest.raises(ValueError, match=r"'cuda:1' is not available, .* no driver .* use the device cpu"):
        devices.check_device("cuda:1")


LIBRARIES = ("transformers", "peft", "bitsandbytes", "gradio", "accelerate", "scipy")
COMPILER = "torch._dynamo"
TRACK = "import sys; from unipixel import cli; cli.main(['track', sys.argv[1], '--point', '1:20,16@0'])"
LOAD = "from unipixel import UniPixel; UniPixel.from_pretrained('unipixel-nano')"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("from unipixel import cli\nfrom unipixel.checkpoints import early_checks, quantization, segmenters", HEAVY),
        ("import unipixel.checkpoints.loading", LIBRARIES),
        (TRACK, (*LIBRARIES, COMPILER)),
        (LOAD, ("peft", "bitsandbytes", "gradio")),
    ],
    ids=["command", "loading", "track", "model"],
)
def test_modules_import_only_what_they_need(code: str, absent: tuple[str, ...], clip: Path) -> None:
    code += f"\nimport sys\nprint(*(name for name in {absent!r} if name in sys.modules))"
    run = [sys.executable, "-c", code, str(clip)]
    finished = subprocess.run(run, capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == ""
