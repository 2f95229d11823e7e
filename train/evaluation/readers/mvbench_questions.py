"""Reader of MVBench (arXiv:2311.17005): twenty files of multiple-choice questions about videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from unipixel.processing.frame_sampling import uniform_indices
from unipixel.processing.prompt_templates import choice_question
from unipixel.train.evaluation.answers.choices import option_letters
from unipixel.train.evaluation.benchmarks.annotation_files import field_of, read_json
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia, SampleTruth

WHOLE, BOUNDED = "whole", "bounded"

# Of a video file, 4 to 16 frames at 2 per second; of a folder of frames, which has 3 per second, 32.
_MIN_FRAMES, _MAX_FRAMES, _FRAMES_PER_SECOND = 4, 16, 2.0
_MAX_FOLDER_FRAMES, _FOLDER_FPS = 32, 3.0


@dataclass(frozen=True)
class MvbenchTask:
    """One task.

    Attributes:
        name: Name of its annotation file, without suffix.
        title: Its name in results.
        folder: Folder of its videos below video/.
        is_frames: Whether a video is a folder of frames.
    """

    name: str
    title: str
    folder: str
    is_frames: bool = False


TASKS = (
    MvbenchTask("episodic_reasoning", "Episodic Reasoning", "tvqa/frames_fps3_hq", is_frames=True),
    MvbenchTask("action_sequence", "Action Sequence", "star/Charades_v1_480"),
    MvbenchTask("action_prediction", "Action Prediction", "star/Charades_v1_480"),
    MvbenchTask("action_antonym", "Action Antonym", "ssv2_video"),
    MvbenchTask("fine_grained_action", "Fine-grained Action", "Moments_in_Time_Raw/videos"),
    MvbenchTask("unexpected_action", "Unexpected Action", "FunQA_test/test"),
    MvbenchTask("object_existence", "Object Existence", "clevrer/video_validation"),
    MvbenchTask("object_interaction", "Object Interaction", "star/Charades_v1_480"),
    MvbenchTask("object_shuffle", "Object Shuffle", "perception/videos"),
    MvbenchTask("moving_direction", "Moving Direction", "clevrer/video_validation"),
    MvbenchTask("action_localization", "Action Localization", "sta/sta_video"),
    MvbenchTask("scene_transition", "Scene Transition", "scene_qa/video"),
    MvbenchTask("action_count", "Action Count", "perception/videos"),
    MvbenchTask("moving_count", "Moving Count", "clevrer/video_validation"),
    MvbenchTask("moving_attribute", "Moving Attribute", "clevrer/video_validation"),
    MvbenchTask("state_change", "State Change", "perception/videos"),
    MvbenchTask("fine_grained_pose", "Fine-grained Pose", "nturgbd"),
    MvbenchTask("character_order", "Character Order", "perception/videos"),
    MvbenchTask("egocentric_navigation", "Egocentric Navigation", "vlnqa"),
    MvbenchTask("counterfactual_inference", "Counterfactual Inference", "clevrer/video_validation"),
)


def read_mvbench(data_dir: Path, *, split: str, variant: str) -> Sequence[BenchmarkSample]:
    """Read the questions of all tasks.

    Args:
        data_dir: Folder with json/ and video/.
        split: Not used; there is one.
        variant: `whole` for the whole video, as in the published evaluation of UniPixel, `bounded` for the part from
            `start` to `end`, as MVBench annotates five tasks.

    Raises:
        OSError: A file is missing.
        ValueError: An annotation has another form.
    """
    del split
    listed: dict[Path, tuple[Path, ...]] = {}
    samples = []
    for task in TASKS:
        path = data_dir / "json" / f"{task.name}.json"
        entries = read_json(path)
        if not isinstance(entries, list):
            raise ValueError(f"{path}: expected a list of questions, got {type(entries).__name__}")
        for number, entry in enumerate(entries):
            location = f"{path}, entry {number}"
            bounds = _bounds(entry, location=location) if variant == BOUNDED else None
            media, fields = _find_media(data_dir / "video", task, entry, bounds, listed, location=location)
            samples.append(_make_sample(task, entry, number, media=media, fields=fields, location=location))
    return samples


def _make_sample(
    task: MvbenchTask,
    entry: Any,
    number: int,
    *,
    media: SampleMedia,
    fields: Mapping[str, Any],
    location: str,
) -> BenchmarkSample:
    question = " ".join(field_of(entry, "question", str, location=location).split())
    options = [str(option) for option in field_of(entry, "candidates", list, location=location)]
    answer = str(field_of(entry, "answer", (str, int, float), location=location))
    if answer not in options:
        raise ValueError(f"{location}: `answer` must be one of the candidates {options}, got {answer!r:.80}")
    letters = option_letters(len(options))
    prompt = choice_question(question, [option[:1].upper() + option[1:] for option in options])
    letter = letters[options.index(answer)]
    names = tuple(path.stem for path in media.paths) if task.is_frames else ()
    return BenchmarkSample(
        name=f"{task.name}/{number}",
        question=prompt,
        frames=names,
        language_frames=tuple(range(len(names))),
        media=media,
        truth=partial(SampleTruth, answer=letter, fields={"letters": letters}),
        options=tuple(options),
        fields={"task": task.title, "question": question, "answer": letter, "prompt": prompt, **fields},
    )


def _bounds(entry: Any, *, location: str) -> tuple[float, float] | None:
    if not isinstance(entry, Mapping) or "start" not in entry or "end" not in entry:
        return None
    start, end = (float(field_of(entry, name, (int, float), location=location)) for name in ("start", "end"))
    if not 0 <= start < end:
        raise ValueError(f"{location}: `start` must be before `end`, got {start:g} and {end:g} seconds")
    return start, end


def _find_media(
    folder: Path,
    task: MvbenchTask,
    entry: Any,
    bounds: tuple[float, float] | None,
    listed: dict[Path, tuple[Path, ...]],
    *,
    location: str,
) -> tuple[SampleMedia, dict[str, Any]]:
    """Return the media of a question and how `--list` shows them; a missing file is named when it is opened."""
    video = PurePosixPath(field_of(entry, "video", str, location=location))
    if video.is_absolute() or ".." in video.parts:
        raise ValueError(f"{location}: `video` must be a path below {folder}, got {str(video)!r:.80}")
    path = folder / task.folder / video
    if not task.is_frames:
        return SampleMedia(paths=(path,), select=partial(sample_video, bounds=bounds)), {
            "video": f"{task.folder}/{video}"
        }
    if path not in listed:
        listed[path] = tuple(sorted(path.glob("*.jpg")))
    chosen = tuple(listed[path][index] for index in sample_folder(len(listed[path]), bounds=bounds))
    # A folder that is missing or empty is opened as a file, so that the message names it.
    media = SampleMedia(paths=chosen or (path,), fps=_FOLDER_FPS)
    return media, {"video": [image.name for image in chosen]}


def sample_video(num_frames: int, fps: float, *, bounds: tuple[float, float] | None = None) -> tuple[int, ...]:
    """Sample an even number of frames of a video, 4 to 16, evenly spaced at 2 per second; all of a shorter one.

    Args:
        num_frames: Number of frames of the video.
        fps: Its frame rate.
        bounds: Start and end in seconds; None for the whole video.
    """
    first, last = _frame_bounds(num_frames, fps, bounds)
    count = last - first + 1
    wanted = count / fps * _FRAMES_PER_SECOND if fps > 0 else _MAX_FRAMES
    number = int(min(max(wanted, _MIN_FRAMES), _MAX_FRAMES, count))
    return tuple(first + index for index in uniform_indices(count, max(number - number % 2, 1)))


def sample_folder(num_frames: int, *, bounds: tuple[float, float] | None = None) -> tuple[int, ...]:
    """Sample at most 32 frames of a folder of frames.

    The whole folder is sampled with the published step, `n // 31` (1 below 62 frames), so that the end of a long folder
    may be left out; a part evenly.

    Args:
        num_frames: Number of frames of the folder.
        bounds: Start and end in seconds; None for the whole folder.
    """
    if num_frames == 0:
        return ()
    if bounds is None:
        return tuple(range(0, num_frames, max(num_frames // (_MAX_FOLDER_FRAMES - 1), 1)))[:_MAX_FOLDER_FRAMES]
    first, last = _frame_bounds(num_frames, _FOLDER_FPS, bounds)
    return tuple(first + index for index in uniform_indices(last - first + 1, _MAX_FOLDER_FRAMES))


def _frame_bounds(num_frames: int, fps: float, bounds: tuple[float, float] | None) -> tuple[int, int]:
    """Return the first and last frame of a part of a video, within the video."""
    if bounds is None or fps <= 0:
        return 0, num_frames - 1
    first = min(int(bounds[0] * fps), num_frames - 1)
    return first, max(first, min(int(bounds[1] * fps), num_frames - 1))
