"""What a function that asks a model about one sample receives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from unipixel.session.session import Session
from unipixel.session.settings import SessionSettings
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample


@dataclass(frozen=True, kw_only=True)
class SampleContext:
    """One sample and the model that is asked about it.

    Attributes:
        sample: The sample.
        variant: Variant of the benchmark.
        model: The model, UniPixel or Pixel-SAIL; only some ways of asking take both.
        processor: Prepares the inputs of the model.
        settings: Settings of sessions, with the frames and visual tokens of the benchmark.
        has_published_wording: Whether questions and the beginning of an answer are word for word those of the published
            evaluation; otherwise the model is asked as in a session, and begins its answers itself.
        session: Returns a session without objects and without conversation about the frames of the sample; frame
            index i is `sample.frames[i]`. The frames were decoded ahead.
        clip_session: Returns the same, but shares the encoded frames with earlier samples about the same frames; for
            samples without prompts.
    """

    sample: BenchmarkSample
    variant: str
    model: Any
    processor: Any
    settings: SessionSettings
    has_published_wording: bool = True
    session: Callable[[], Session]
    clip_session: Callable[[], Session]
