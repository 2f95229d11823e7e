"""Data sets in JSON lines: one clip per line, with masks as run lengths or folders of PNG files.

One line is an object with the fields

- `id`: name of the sample, for reports; optional.
- `clip`: video file, or folder of frames, relative to the JSONL file.
- `turns`: list of `{"question": str, "answer": str, "targets": [id, ...]}`; the answer has one `<|seg|>` per
  target, in the same order; objects are written `[id]`.
- `objects`: mask of each object by id: `{"rle": [RLE or null per frame]}` (COCO run lengths), or
  `{"folder": path}` with one PNG per frame, in the order of their names, non-zero where the object is.
- `prompts`: by id `{"frame": int, "point": [x, y]}` or `{"frame": int, "box": [left, top, right, bottom]}` for
  objects that are prompted, or `{"frame": int, "mask": true}` for objects given by their mask; optional.
- `task`: task that the sample belongs to; optional.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unipixel.memory.rle import decode_rle, encode_rle
from unipixel.processing.frame_sampling import keep_frames, random_indices
from unipixel.processing.special_tokens import SEG
from unipixel.session.question_file import read_text
from unipixel.train.datasets.samples import Clip, PromptAnnotation, QuestionAnswer, Sample
from unipixel.video.images import read_mask
from unipixel.video.open import open_video

ALL_TASKS = "all"
_FIELDS = {"id", "clip", "turns", "objects", "prompts", "task"}


@dataclass(frozen=True)
class DataProblem:
    """A problem of one sample.

    Attributes:
        name: Id of the sample.
        reason: What is wrong, and what is expected.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class StillImage:
    """One frame of a clip with its objects.

    Attributes:
        path: File or folder of the clip.
        frame_index: Number of the frame.
        image: (H, W, 3) uint8 RGB.
        masks: (H, W) bool by object id.
    """

    path: Path
    frame_index: int
    image: NDArray[np.uint8]
    masks: Mapping[int, NDArray[np.bool_]]


@dataclass(frozen=True)
class JsonlDataset:
    """A data set in the format of this module.

    Attributes:
        folder: Folder to which paths in the lines are relative.
        lines: The decoded lines.
        num_frames: Most frames of a clip, chosen at random.
        seed: Seed of the order and of the frames.
    """

    folder: Path
    lines: tuple[Mapping[str, Any], ...]
    num_frames: int = 8
    seed: int = 0

    @classmethod
    def read(cls, path: str | Path, *, num_frames: int = 8, seed: int = 0) -> JsonlDataset:
        """Read a JSONL file; media are opened when a sample is loaded.

        Args:
            path: The file.
            num_frames: Most frames of a clip.
            seed: Seed of the order and of the frames.

        Raises:
            OSError: The file cannot be read, or is not UTF-8.
            ValueError: It contains no sample, or a line is not a JSON object.
        """
        file = Path(path)
        lines = []
        for number, text in enumerate(read_text(file).splitlines(), start=1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (json.JSONDecodeError, RecursionError) as error:
                raise ValueError(f"{file}, line {number} is not valid JSON: {error}") from error
            if not isinstance(line, dict):
                raise ValueError(f"{file}, line {number} must be an object, got {type(line).__name__}")
            lines.append({"id": f"line {number}", **line})
        if not lines:
            raise ValueError(f"{file} contains no sample")
        return cls(file.parent, tuple(lines), num_frames, seed)

    def draw(self, task: str, number: int) -> Sample:
        """Return sample `number` of a task; each epoch has a different order.

        Args:
            task: `all`, or a `task` of the lines.
            number: From 0 and unlimited.

        Raises:
            ValueError: No line has the task, or the sample is inconsistent.
            OSError: Its media cannot be read.
        """
        members = [line for line in self.lines if task in (ALL_TASKS, line.get("task"))]
        if not members:
            raise ValueError(f"no line of the data has the task {task!r}; {ALL_TASKS!r} selects every line")
        epoch, index = divmod(number, len(members))
        order = list(range(len(members)))
        random.Random(f"{self.seed}/{task}/{epoch}").shuffle(order)
        return self.load(members[order[index]], generator=random.Random(f"{self.seed}/{task}/{number}"))

    def load(self, line: Mapping[str, Any], *, generator: random.Random) -> Sample:
        """Read the media of one line.

        Args:
            line: One of `lines`.
            generator: Chooses the frames.

        Raises:
            ValueError: The line is inconsistent, lacks a field, or does not match its media.
            OSError: Its media cannot be read.
        """
        try:
            return self._load(line, generator)
        except KeyError as error:
            raise ValueError(f"the field {error} is missing") from error
        # The fields of a line are not trusted.
        except (TypeError, AttributeError, IndexError, OverflowError) as error:
            raise ValueError(f"a field has another type: {error}") from error

    def _load(self, line: Mapping[str, Any], generator: random.Random) -> Sample:
        if unknown := sorted(set(line) - _FIELDS):
            raise ValueError(f"unknown fields {unknown}: allowed are {sorted(_FIELDS)}")
        turns = _turns(line)
        prompts = {int(name): prompt for name, prompt in (line.get("prompts") or {}).items()}
        with open_video(self.folder / str(line["clip"])) as video:
            count = video.info.num_frames
            if not count:
                raise ValueError(f"{line['clip']}: the number of frames is unknown")
            chosen = random_indices(count, self.num_frames, generator=generator)
            chosen = keep_frames(chosen, [int(prompt["frame"]) for prompt in prompts.values()], num_frames=count)
            images = [frame.image for frame in video.read(chosen)]
        frames = np.stack(images)
        objects = {int(name): given for name, given in (line.get("objects") or {}).items()}
        masks = {name: self._masks(given, chosen, count, frames.shape[1:3]) for name, given in objects.items()}
        _check_objects(turns, prompts, masks)
        clip = Clip(
            frames=frames,
            masks=np.stack(list(masks.values())) if masks else np.zeros((0, *frames.shape[:3]), bool),
            object_ids=tuple(masks),
            frame_indices=tuple(chosen),
            timestamps_seconds=tuple(float(index) for index in chosen),
            num_source_frames=count,
            fps=1.0,
        )
        annotations = {name: _prompt(prompt, chosen, masks[name]) for name, prompt in prompts.items()}
        kinds = {prompt.kind for prompt in annotations.values()}
        task = "pixelqa/mixed" if kinds & {"point", "box"} else "conversation"
        return Sample(clip, task, str(line["id"]), turns, annotations, split="train")

    def load_still(self, line: Mapping[str, Any]) -> StillImage:
        """Read one frame of a line with its objects: the first that shows the most of them.

        Args:
            line: One of `lines`; turns and prompts are not read.

        Raises:
            ValueError: The line is inconsistent, lacks a field, or does not match its media.
            OSError: Its media cannot be read.
        """
        try:
            path = self.folder / str(line["clip"])
            objects = {int(name): given for name, given in (line.get("objects") or {}).items()}
            with open_video(path) as video:
                count = video.info.num_frames
                if not count:
                    raise ValueError(f"{line['clip']}: the number of frames is unknown")
                shown = np.zeros(count, np.int64)
                for given in objects.values():
                    # Masks in folders are not read for this.
                    present = [mask is not None for mask in given.get("rle", [True] * count)]
                    shown += np.asarray(present[:count] + [False] * (count - len(present)))
                index = int(shown.argmax())
                (frame,) = video.read([index])
            masks = {
                name: self._masks(given, (index,), count, frame.image.shape[:2])[0] for name, given in objects.items()
            }
        except KeyError as error:
            raise ValueError(f"the field {error} is missing") from error
        # The fields of a line are not trusted.
        except (TypeError, AttributeError, IndexError, OverflowError) as error:
            raise ValueError(f"a field has another type: {error}") from error
        return StillImage(path, index, frame.image, masks)

    def problems(self) -> Iterator[DataProblem]:
        """Load every sample and yield the problem of each invalid one."""
        for line in self.lines:
            reason = self._reason(line)
            if reason is not None:
                yield DataProblem(str(line["id"]), reason)

    def _reason(self, line: Mapping[str, Any]) -> str | None:
        try:
            self.load(line, generator=random.Random(0))
        except (ValueError, OSError) as error:
            return f"{type(error).__name__}: {error}"
        return None

    def _masks(
        self, given: Mapping[str, Any], chosen: tuple[int, ...], count: int, size: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        """Load the masks (N, H, W) of an object on the chosen frames."""
        if set(given) == {"rle"}:
            if len(given["rle"]) != count:
                raise ValueError(
                    f"{len(given['rle'])} masks were given for {count} frames: give null for an empty mask"
                )
            found = [None if given["rle"][index] is None else decode_rle(given["rle"][index]) for index in chosen]
        elif set(given) == {"folder"}:
            files = sorted((self.folder / given["folder"]).glob("*.png"))
            if len(files) != count:
                raise ValueError(f"{given['folder']} contains {len(files)} PNG files for {count} frames")
            found = [read_mask(files[index]) for index in chosen]
        else:
            raise ValueError(f"an object must have either `rle` or `folder`, got {sorted(given)}")
        masks = np.zeros((len(chosen), *size), bool)
        for index, mask in enumerate(found):
            if mask is not None and mask.shape != tuple(size):
                raise ValueError(f"a mask has the shape {mask.shape}, its frame {tuple(size)}")
            if mask is not None:
                masks[index] = mask != 0
        return masks


def write_samples(samples: Sequence[Sample], folder: Path) -> Path:
    """Write samples in the format of this module: frames as PNG folders, masks as run lengths.

    Args:
        samples: Samples with at least one turn.
        folder: Created where it is missing; gets `data.jsonl` and a folder of frames per sample.

    Returns:
        The JSONL file.

    Raises:
        ValueError: A sample has no turn.
        OSError: The folder cannot be written.
    """
    lines = []
    for number, sample in enumerate(samples):
        if not sample.turns:
            raise ValueError(f"sample {number} ({sample.task}) has no question: choose a task with turns")
        clip, name = sample.clip, f"clip-{number:04}"
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index, frame in enumerate(clip.frames):
            Image.fromarray(frame).save(folder / name / f"{index:05}.png")
        line = {
            "id": name,
            "clip": name,
            "turns": [
                {"question": turn.question, "answer": turn.answer, "targets": list(turn.target_ids)}
                for turn in sample.turns
            ],
            "objects": {
                str(object_id): {"rle": [encode_rle(mask) if mask.any() else None for mask in masks]}
                for object_id, masks in zip(clip.object_ids, clip.masks, strict=True)
            },
            "prompts": {str(object_id): _prompt_fields(prompt) for object_id, prompt in sample.prompts.items()},
        }
        lines.append(json.dumps(line))
    file = folder / "data.jsonl"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _prompt_fields(prompt: PromptAnnotation) -> dict[str, Any]:
    if prompt.point is not None:
        return {"frame": prompt.frame, "point": list(prompt.point)}
    if prompt.box_xyxy is not None:
        return {"frame": prompt.frame, "box": list(prompt.box_xyxy)}
    return {"frame": prompt.frame, "mask": True}


def _turns(line: Mapping[str, Any]) -> tuple[QuestionAnswer, ...]:
    turns = []
    for turn in line["turns"]:
        targets = tuple(int(name) for name in turn.get("targets", ()))
        answer = str(turn["answer"])
        if answer.count(SEG) != len(targets):
            raise ValueError(f"the answer {answer!r} has {answer.count(SEG)} {SEG}, targets are {list(targets)}")
        turns.append(QuestionAnswer(str(turn["question"]), answer, targets))
    if not turns:
        raise ValueError("a sample needs at least one turn")
    return tuple(turns)


def _check_objects(turns: tuple[QuestionAnswer, ...], prompts: Mapping[int, Any], masks: Mapping[int, Any]) -> None:
    named = {name for turn in turns for name in turn.target_ids} | set(prompts)
    if missing := sorted(named - set(masks)):
        raise ValueError(f"objects {missing} are targets or have prompts, but no masks: known are {sorted(masks)}")


def _prompt(prompt: Mapping[str, Any], chosen: tuple[int, ...], masks: NDArray[np.bool_]) -> PromptAnnotation:
    frame = chosen.index(int(prompt["frame"]))
    if "point" in prompt:
        x, y = map(float, prompt["point"])
        return PromptAnnotation("point", frame, point=(x, y))
    if "box" in prompt:
        left, top, right, bottom = map(float, prompt["box"])
        return PromptAnnotation("box", frame, box_xyxy=(left, top, right, bottom))
    if prompt.get("mask") is True:
        return PromptAnnotation("mask", frame, mask=masks[frame])
    raise ValueError(f"a prompt must have `point`, `box` or `mask`, got {sorted(prompt)}")
