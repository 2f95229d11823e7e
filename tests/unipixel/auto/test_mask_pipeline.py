"""The pipeline `video-mask-generation` of transformers."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.python_program import run_python
from helpers.sail_model import recorded_sail
from transformers import pipeline

import unipixel
from unipixel import Processor, UniPixel
from unipixel.assets import sample_path
from unipixel.auto.mask_pipeline import VideoMaskGenerationPipeline
from unipixel.checkpoints.files import BUNDLED


def test_pipeline_answers_as_ask_does() -> None:
    pipe = pipeline("video-mask-generation", model=str(BUNDLED / "unipixel-nano"), device="cpu")
    assert isinstance(pipe, VideoMaskGenerationPipeline)
    with unipixel.open_video(sample_path()) as video:
        clip = [frame.image for frame in itertools.islice(video, 4)]
    found = pipe(clip, "What colour is [1]?", points={1: (65, 85)})
    expected = unipixel.ask(clip, "What colour is [1]?", points={1: (65, 85)})
    assert found.text == expected.text == "It is red."
    assert np.array_equal(found.objects[1].masks[0], expected.objects[1].masks[0])


def test_pipeline_takes_a_loaded_model_and_frames(
    model: UniPixel, processor: Processor, frames: list[np.ndarray]
) -> None:
    pipe = pipeline("video-mask-generation", model=model, processor=processor, device="cpu")
    assert "UniPixel" in repr(pipe)
    assert pipe(frames, "What?", points={1: (10, 20)}, num_frames=4).objects[1].masks[5].shape == (40, 56)


def test_pipeline_of_pixel_sail_takes_an_image(tmp_path: Path) -> None:
    for part in recorded_sail():
        part.save_pretrained(tmp_path)
    pipe = pipeline("video-mask-generation", model=str(tmp_path), device="cpu")
    image = np.zeros((1, 75, 110, 3), np.uint8)
    assert type(pipe.model).__name__ == "PixelSail"
    assert isinstance(pipe(image, "What is it?").text, str)


def test_pipeline_without_a_question_is_refused(model: UniPixel, processor: Processor) -> None:
    pipe = pipeline("video-mask-generation", model=model, processor=processor, device="cpu")
    with pytest.raises(ValueError, match="needs a question"):
        pipe("clip.mp4")


def test_import_of_the_package_imports_no_pipelines() -> None:
    program = "import sys, unipixel; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert run_python(program) == "[]\n"


def test_module_of_the_pipeline_can_be_the_first_one_to_be_imported() -> None:
    code = "import unipixel.auto.mask_pipeline; from transformers.pipelines import PIPELINE_REGISTRY as registry\n"
    code += "print('video-mask-generation' in registry.supported_tasks)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["True"]
