"""Reader of VideoRefer-Bench: questions (Q) and descriptions (D) of objects with masks, and PixelQA.

Every entry has a video, one dictionary of masks by frame for each object, and the frame `frame_idx` of the prompt. At
most 16 of the annotated frames are sampled, always with `frame_idx`. PixelQA are the questions of Q with points or
boxes in place of the masks (UniPixel, section 4.2).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from unipixel.memory.injection import memory_heading, memory_line
from unipixel.processing.frame_sampling import select_frames
from unipixel.processing.prompt_templates import CHOICE_REQUEST, caption_question, mark_references, prefill_question
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.train.datasets.synthetic.visual_prompt_sampling import sample_prompt
from unipixel.train.evaluation.benchmarks.annotation_files import field_of, read_json
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleMedia, SampleTruth
from unipixel.train.evaluation.readers.segmentations import decode_run_lengths, mask_area, plain_run_lengths

MAX_FRAMES = 16
Task = Literal["questions", "descriptions", "pixelqa"]

_FILES = {"descriptions": "VideoRefer-Bench-D.json"}
_DEFAULT_FILE = "VideoRefer-Bench-Q.json"
_VIDEO_FOLDERS = ("videos", "videos/Panda-70M-part")
_IMAGES = (".jpg", ".jpeg", ".png")
_MENTION = re.compile(r"<object(\d{1,4})>(?:<region>)?")
# The first mention of an object with a mask.
_REGION = re.compile(r"<object(\d{1,4})><region>")
_OPTION = re.compile(r"\(([A-Z])\)\s*")


@dataclass(frozen=True, kw_only=True)
class RegionSample:
    """The objects of one entry on its sampled frames.

    Attributes:
        object_ids: Ids in the order of the annotation.
        frames: Indices of the sampled frames in the video.
        run_lengths: Run lengths of each object by position in `frames`; a frame without entry is not annotated.
        prompted: `frame_idx`, the frame of the prompt in the video.
        location: File and entry, for error messages.
    """

    object_ids: tuple[int, ...]
    frames: tuple[int, ...]
    run_lengths: tuple[Mapping[int, Mapping[str, Any]], ...]
    prompted: int
    location: str

    def visible(self, row: int) -> list[int]:
        """Return the positions of the frames on which an object has a pixel."""
        return sorted(position for position, mask in self.run_lengths[row].items() if mask_area(mask))

    def prompt_position(self, row: int) -> int:
        """Return the position of the prompted frame, or of the nearest one where the object has a pixel.

        Raises:
            ValueError: It has none on any sampled frame.
        """
        visible = self.visible(row)
        if not visible:
            raise ValueError(f"{self.location}: object {self.object_ids[row]} is empty on all sampled frames")
        return min(visible, key=lambda position: (abs(self.frames[position] - self.prompted), position))

    def masks(self, row: int) -> NDArray[np.bool_]:
        """Decode the masks (T, H, W) of an object, empty where it is not annotated.

        Raises:
            ValueError: The masks differ in size.
        """
        sizes = {tuple(mask["size"]) for masks in self.run_lengths for mask in masks.values()}
        if len(sizes) != 1:
            raise ValueError(f"{self.location}: masks must have one size, got {sorted(sizes) or 'none'}")
        size = next(iter(sizes))
        decoded = np.zeros((len(self.frames), *size), bool)
        for position, mask in self.run_lengths[row].items():
            decoded[position] = decode_run_lengths(mask, size=None, location=self.location)
        return decoded


def read_videorefer(data_dir: Path, *, split: str, variant: str, task: Task) -> Sequence[BenchmarkSample]:
    """Read the entries of a task.

    Args:
        data_dir: Folder with VideoRefer-Bench-Q.json, VideoRefer-Bench-D.json and videos/.
        split: Not used; there is one.
        variant: `multi` (all annotated frames) or `single` (`frame_idx` alone) for masks; `point`, `box` or `mixed`
            for PixelQA.
        task: The task.

    Raises:
        OSError: The annotation file is missing.
        ValueError: An annotation has another form.
    """
    del split
    path = data_dir / _FILES.get(task, _DEFAULT_FILE)
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected a list of entries, got {type(entries).__name__}")
    media = _VideoFiles(data_dir)
    return [
        _make_sample(entry, number, task=task, variant=variant, media=media, location=f"{path}, entry {number}")
        for number, entry in enumerate(entries)
    ]


def shown_positions(regions: RegionSample, row: int, *, is_single: bool) -> list[int]:
    """Return the positions of the frames whose mask of an object is shown; none if it is empty on all."""
    visible = regions.visible(row)
    return [regions.prompt_position(row)] if is_single and visible else visible


def region_prefix(regions: RegionSample, *, is_single: bool) -> str:
    """Return the published text that precedes a question about masks: where each object is seen."""
    num_frames = len(regions.frames)
    lines = []
    for row, object_id in enumerate(regions.object_ids):
        tags = sorted({2 * (position // 2) + 1 for position in shown_positions(regions, row, is_single=is_single)})
        if tags:
            lines.append(memory_line(object_id, tags, num_frames=num_frames))
    return memory_heading(num_frames) + "".join(lines)


def _make_sample(
    entry: Any, number: int, *, task: Task, variant: str, media: _VideoFiles, location: str
) -> BenchmarkSample:
    text = caption_question("[0]", num_frames=2)
    if task != "descriptions":
        text = field_of(entry, "Question", str, location=location)
    regions = _read_regions(entry, text, task=task, location=location)
    video = field_of(entry, "video", str, location=location)
    query, options, fields = _MENTION.sub(r"[\1]", text), [], {"video": video}
    if task != "descriptions":
        options = field_of(entry, "options", list, location=location)
        query = "\n".join([query, "Options:", *map(str, options)])
        fields["type"] = field_of(entry, "type", str, location=location)
    if task == "pixelqa":
        marked, _ = mark_references(query, regions.object_ids)
        question, prompts = prefill_question(marked), partial(_spatial_prompts, regions, variant, number)
    else:
        query += f"\n{CHOICE_REQUEST}" if options else ""
        question = region_prefix(regions, is_single=variant == "single") + query
        prompts = partial(_mask_prompts, regions, variant)
    return BenchmarkSample(
        name=str(number),
        question=question,
        frames=tuple(f"{index:05d}" for index in regions.frames),
        language_frames=tuple(range(len(regions.frames))),
        media=media.find(video, regions.frames, location=location),
        prompts=prompts,
        truth=partial(_truth, entry, regions, task=task, location=location),
        options=tuple(_OPTION.sub("", str(option), count=1) for option in options),
        fields={**fields, "query": query},
    )


def _read_regions(entry: Any, question: str, *, task: Task, location: str) -> RegionSample:
    annotations = field_of(entry, "annotation", list, location=location)
    by_frame = [
        _frames_of(annotation, location=f"{location}, object {row}") for row, annotation in enumerate(annotations)
    ]
    object_ids = tuple(dict.fromkeys(int(key) for key in _REGION.findall(question)))
    if task == "descriptions":
        object_ids = (0,)
    if len(object_ids) != len(annotations):
        raise ValueError(f"{location}: the text names the objects {list(object_ids)}, annotated are {len(annotations)}")
    annotated = sorted(set().union(*by_frame))
    if not annotated:
        raise ValueError(f"{location}: no object is annotated on any frame")
    given = str(field_of(entry, "frame_idx", (str, int), location=location))
    if not given.isdecimal():
        raise ValueError(f"{location}: `frame_idx` must be a frame number, got {given!r:.80}")
    prompted = int(given)
    kept = [annotated.index(prompted)] if prompted in annotated else []
    frames = tuple(annotated[index] for index in select_frames(len(annotated), MAX_FRAMES, kept=kept))
    positions = {frame: position for position, frame in enumerate(frames)}
    return RegionSample(
        object_ids=object_ids,
        frames=frames,
        run_lengths=tuple(
            {positions[frame]: mask for frame, mask in masks.items() if frame in positions} for masks in by_frame
        ),
        prompted=prompted,
        location=location,
    )


def _frames_of(annotation: Any, *, location: str) -> dict[int, dict[str, Any]]:
    if not isinstance(annotation, Mapping) or not all(str(key).isdecimal() for key in annotation):
        raise ValueError(f"{location}: expected masks by frame number, got {annotation!r:.80}")
    return {
        int(frame): plain_run_lengths(
            field_of(item, "segmentation", dict, location=f"{location}, frame {frame}"),
            location=f"{location}, frame {frame}",
        )
        for frame, item in annotation.items()
    }


def _mask_prompts(regions: RegionSample, variant: str) -> Mapping[int, tuple[VisualPrompt, ...]]:
    """Return the given masks of every object, without objects that are empty on all sampled frames."""
    prompts: dict[int, tuple[VisualPrompt, ...]] = {}
    for row, object_id in enumerate(regions.object_ids):
        positions = shown_positions(regions, row, is_single=variant == "single")
        if positions:
            masks = regions.masks(row)
            prompts[object_id] = tuple(MaskPrompt(masks[position], position) for position in positions)
    return prompts


def _spatial_prompts(regions: RegionSample, variant: str, number: int) -> Mapping[int, tuple[VisualPrompt, ...]]:
    """Return a point or box for every object: the pixel farthest from the outline, or the tight box.

    With `mixed`, half of the objects get points; of an odd number, and of a single object, the last is drawn.
    """
    rng = np.random.default_rng([number, len(regions.object_ids)])
    count = len(regions.object_ids)
    kinds = [variant] * count
    if variant == "mixed":
        num_points = count // 2 + int(count % 2 and rng.random() < 0.5)
        kinds = [str(kind) for kind in rng.permutation(["point"] * num_points + ["box"] * (count - num_points))]
    prompts: dict[int, tuple[VisualPrompt, ...]] = {}
    for row, (object_id, kind) in enumerate(zip(regions.object_ids, kinds, strict=True)):
        position = regions.prompt_position(row)
        drawn = sample_prompt(rng, regions.masks(row), kind=kind, is_fixed=True, frame=position)
        prompt: VisualPrompt
        if drawn.point is not None:
            prompt = PointPrompt(*drawn.point, frame_index=position)
        elif drawn.box_xyxy is not None:
            prompt = BoxPrompt(drawn.box_xyxy, frame_index=position)
        prompts[object_id] = (prompt,)
    return prompts


def _truth(entry: Mapping[str, Any], regions: RegionSample, *, task: Task, location: str) -> SampleTruth:
    if task == "descriptions":
        return SampleTruth(answer=field_of(entry, "caption", str, location=location))
    options = [_OPTION.match(str(option)) for option in entry["options"]]
    letters = "".join(match[1] if match else chr(ord("A") + index) for index, match in enumerate(options))
    answer = _OPTION.match(field_of(entry, "Answer", str, location=location))
    if answer is None:
        raise ValueError(f"{location}: `Answer` starts with the letter of an option, (A), got {entry['Answer']!r:.80}")
    masks = None
    if task == "pixelqa":
        masks = np.stack([regions.masks(row) for row in range(len(regions.object_ids))])
    return SampleTruth(masks=masks, answer=answer[1], fields={"letters": letters})


class _VideoFiles:
    """Finds the frames of videos; folders are listed once."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._listed: dict[Path, tuple[Path, ...]] = {}

    def find(self, video: str, frames: Sequence[int], *, location: str) -> SampleMedia:
        """Return the media of some frames of a video; a file that is missing is named when it is opened.

        Raises:
            ValueError: The path leads out of the data folder.
        """
        if PurePosixPath(video).is_absolute() or ".." in PurePosixPath(video).parts:
            raise ValueError(f"{location}: `video` must be a path below the data folder, got {video!r:.80}")
        candidates = [self._data_dir / folder / video for folder in _VIDEO_FOLDERS]
        path = next((path for path in candidates if path.exists()), candidates[0])
        if not path.is_dir():
            return SampleMedia(paths=(path,), indices=tuple(frames))
        if path not in self._listed:
            self._listed[path] = tuple(sorted(file for file in path.iterdir() if file.suffix.lower() in _IMAGES))
        files = self._listed[path]
        return SampleMedia(
            paths=tuple(files[index] if index < len(files) else path / f"{index:05d}.jpg" for index in frames)
        )
