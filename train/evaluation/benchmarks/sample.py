"""One sample of a benchmark: what the model is asked, its frames, and the truth.

Shape letters: O objects, T frames, H, W frame size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unipixel.processing.visual_prompts import VisualPrompt


def _no_prompts() -> Mapping[int, tuple[VisualPrompt, ...]]:
    return {}


@dataclass(frozen=True, kw_only=True)
class SampleMedia:
    """Where the frames of a sample are stored; nothing is opened before it is needed.

    Attributes:
        paths: Image files in order, or a single video file.
        indices: Frames of the video file that make up the sample; None for all. Not for image files.
        select: Chooses these frames from the number of frames and the frame rate of the opened video file, where they
            depend on its length; the sample then has no frame names.
        fps: Frame rate of image files; None where it is unknown.
    """

    paths: tuple[Path, ...]
    indices: tuple[int, ...] | None = None
    select: Callable[[int, float], Sequence[int]] | None = None
    fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class SampleTruth:
    """The correct answer to a sample, decoded when it is needed.

    Attributes:
        masks: (O, T, H, W) bool, a row for each object that is asked for; None if the answer is text alone.
        ignored: (T, H, W) bool, pixels that count neither as right nor as wrong; None if there are none.
        foreground: (T, H, W) bool, all annotated objects of the clip, where a metric needs them.
        answer: Letter of the right option, or the reference text.
        box_xyxy: Annotated box of an image sample, in pixels.
        fields: What a metric needs beyond these.
    """

    masks: NDArray[np.bool_] | None = None
    ignored: NDArray[np.bool_] | None = None
    foreground: NDArray[np.bool_] | None = None
    answer: str | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class BenchmarkSample:
    """One question of a benchmark.

    Attributes:
        name: Its name in the predictions file; unique within the split.
        question: The text of the user's turn, word for word.
        frames: Names of the frames that a prediction must have, in the order of the media.
        language_frames: Positions in `frames` that the language model of the published code sees.
        media: The frames.
        prompts: Returns points, boxes or masks by object id, in pixels of the frames; the frame index of a prompt is a
            position in the media.
        truth: Returns the truth; None where only a server has it. It may raise OSError or ValueError.
        options: The options of a multiple choice question, in order.
        fields: Further fields of `unipixel eval NAME --list`, such as `type` and `query`.
        problem: Why the sample cannot be asked, such as a folder that is missing; it then counts 0 and is listed.
    """

    name: str
    question: str
    frames: tuple[str, ...]
    language_frames: tuple[int, ...]
    media: SampleMedia
    prompts: Callable[[], Mapping[int, tuple[VisualPrompt, ...]]] = _no_prompts
    truth: Callable[[], SampleTruth] | None = None
    options: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def listing(self) -> dict[str, Any]:
        """Return the sample as `unipixel eval NAME --list --json` shows it."""
        return {
            "sample": self.name,
            "question": self.question,
            "frames": list(self.frames),
            "frames_for_the_language_model": [self.frames[position] for position in self.language_frames],
            **({"options": list(self.options)} if self.options else {}),
            **self.fields,
        }
