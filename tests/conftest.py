"""Fixtures that many tests share: tiny models with seeded weights, their processor and checkpoint, one clip.

Session-scoped fixtures are shared by all tests of a worker process: a test that changes one makes its own
from `helpers` or `parity.weights` instead.
"""

from __future__ import annotations

import os

# The models of the tests are tiny and one worker runs on each core: more threads only slow each other down.
# This has to be set before torch is first imported, and the workers inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest_plugins = ["helpers.browser_fixtures"]

# Imported where they are used: the process that starts the workers needs neither torch nor transformers.
if TYPE_CHECKING:
    import numpy as np

    from unipixel.model.unipixel import UniPixel
    from unipixel.processing.processor import Processor
    from unipixel.session.session import Session
    from unipixel.tracking.segmenter import Segmenter


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Seed torch's global generator, so that a test's random tensors do not depend on the tests before it."""
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def model() -> UniPixel:
    """A UniPixel of a few thousand parameters for the bundled tokenizer, on the CPU."""
    from helpers.byte_model import tiny_model_and_processor

    return tiny_model_and_processor()[0]


@pytest.fixture(scope="session")
def recorded_model() -> UniPixel:
    """The model of the recorded cases in tests/parity, whose vocabulary no tokenizer matches."""
    from parity.weights import tiny_model

    return tiny_model()


@pytest.fixture(scope="session")
def segmenter() -> Segmenter:
    """The segmenter of the recorded cases."""
    from helpers.tracker_reference import tiny_segmenter

    return tiny_segmenter()


@pytest.fixture(scope="session")
def processor() -> Processor:
    """The processor of `model`."""
    from helpers.byte_model import tiny_model_and_processor

    return tiny_model_and_processor()[1]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model` and `processor`."""
    from helpers.byte_model import save_checkpoint

    return save_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def training_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that the recipes of `helpers.tiny_training` start from, with clips of 4 frames."""
    from helpers.tiny_training import save_training_checkpoint

    return save_training_checkpoint(tmp_path_factory.mktemp("training_checkpoint"))


@pytest.fixture(scope="session")
def frames() -> list[np.ndarray]:
    """Six frames (40, 56, 3) uint8 of a bright square that moves right over a dark background."""
    from helpers.moving_square import clip_frames

    return clip_frames()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """`frames` as `clip.mp4` in the test's folder: H.264 at 10 frames per second."""
    from helpers.moving_square import write_clip

    return write_clip(tmp_path / "clip.mp4")


@pytest.fixture
def session(model: UniPixel, processor: Processor, frames: list[np.ndarray]) -> Session:
    """A new session over `frames` that answers in five tokens."""
    from unipixel.model.generation import GenerationSettings
    from unipixel.session.session import Session
    from unipixel.session.settings import SessionSettings

    settings = SessionSettings(num_frames=4, generation=GenerationSettings(max_new_tokens=5))
    return Session(model, processor, frames, settings=settings)


@pytest.fixture
def float32_memories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Store the memories of the sam2 package's predictor in float32, so that rounding hides no difference."""
    import torch

    class Float32Torch:
        bfloat16 = torch.float32

        def __getattr__(self, name: str) -> object:
            return getattr(torch, name)

    monkeypatch.setattr("sam2.sam2_video_predictor.torch", Float32Torch())
