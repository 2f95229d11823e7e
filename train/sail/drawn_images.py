"""Drawn images with conversations in the formats of Pixel-SAIL (arXiv:2504.10465), the same in every process.

An image is one frame of a synthetic clip. Several turns are asked about it: referring segmentation with and without a
target, instance mode, regions that are described, questions about one or two regions, segmentation that refers to a
region ("visual-text"), and regions that are not in the image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from unipixel.processing.chat_template import Turn
from unipixel.sail.patch_grid import RegionPrompt, mask_to_cells
from unipixel.sail.sail_config import MAX_PROMPTS, SEG_TOKEN
from unipixel.sail.sail_processor import SailProcessor, to_prompt_tokens
from unipixel.train.datasets.samples import QuestionAnswer, resolve_ids
from unipixel.train.datasets.synthetic.attributes import SPLITS, Split, held_out_pairs
from unipixel.train.datasets.synthetic.labels import TRUE, UNKNOWN, SceneLabels
from unipixel.train.datasets.synthetic.language.answers import describe
from unipixel.train.datasets.synthetic.language.phrases import pick, plural_noun
from unipixel.train.datasets.synthetic.language.questions import pixelqa_turn
from unipixel.train.datasets.synthetic.language.referring import segmentation_turn
from unipixel.train.datasets.synthetic.rasterization import RasterizedScene
from unipixel.train.datasets.synthetic.visual_prompt_sampling import sample_prompt
from unipixel.train.sail.sail_samples import SailExample, SailSample, encode_sail

SAIL_TASKS = (
    "attribute", "relation", "reasoning", "no_target", "instances", "visual_text", "region", "question", "pair",
    "missing_prompt",
)  # fmt: skip
REFERRING_ANSWERS = (
    f"It is {SEG_TOKEN}.",
    f"Sure, {SEG_TOKEN}.",
    f"Sure, it is {SEG_TOKEN}.",
    f"Sure, the segmentation result is {SEG_TOKEN}.",
    f"{SEG_TOKEN}.",
)
NO_TARGET_ANSWER = f"No target {SEG_TOKEN}."
_DESCRIPTIONS = (
    "Can you provide me with a detailed description of the region in the picture marked by {}?",
    "What can you tell me about the region marked by {}?",
    "Describe the region {} in the image.",
    "What is {}? Please describe it.",
    "Please give me a short description of {}.",
)
_SEGMENT = ("Please segment {} in this image.", "Segment {}.", "Can you segment {} in this image?")
_PROMPT_KINDS = {"mask": 0.6, "box": 0.25, "point": 0.15}
_MAX_SCENES, _MAX_TRIES = 200, 6
_INSTANCE_MODE = "Segmentation in the instance mode."


@dataclass(frozen=True)
class DrawnImageSettings:
    """Settings of drawn images.

    Attributes:
        sizes: (height, width) in pixels that are drawn, equally often.
        max_turns: Turns about one image.
        tasks: Weight of each of `SAIL_TASKS` among the turns.
        split: Split of the drawn clips.
    """

    sizes: tuple[tuple[int, int], ...]
    max_turns: int
    tasks: Mapping[str, float]
    split: Split = "train"

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.tasks) - set(SAIL_TASKS)):
            raise ValueError(f"unknown tasks {unknown}: allowed are {SAIL_TASKS}")


class DrawnImages(Dataset):
    """The drawn images of a run, encoded for a model."""

    def __init__(
        self, processor: SailProcessor, settings: DrawnImageSettings, *, num_samples: int, seed: int, max_tokens: int
    ) -> None:
        """Describe a run.

        Args:
            processor: That of the model.
            settings: What is drawn.
            num_samples: Images of the run.
            seed: Seed of the run.
            max_tokens: Longest sequence.
        """
        self._processor, self._settings = processor, settings
        self._num_samples, self._seed, self._max_tokens = num_samples, seed, max_tokens

    def __len__(self) -> int:
        """Images of the run."""
        return self._num_samples

    def __getitem__(self, index: int) -> SailExample:
        """Draw and encode image `index`.

        Raises:
            IndexError: The run has no such image.
        """
        if not 0 <= index < self._num_samples:
            raise IndexError(f"image {index} of a run of {self._num_samples}")
        sample = draw_sail_sample([self._seed, index], self._settings, processor=self._processor)
        return encode_sail(sample, self._processor, max_tokens=self._max_tokens)


def draw_sail_sample(
    seed: list[int], settings: DrawnImageSettings, *, processor: SailProcessor | None = None
) -> SailSample:
    """Draw one image with its turns; the same arguments give the same sample in every process.

    Args:
        seed: Seed and number of the image.
        settings: What is drawn.
        processor: Of a model: regions that have no cell of its grid for themselves are not prompted.

    Raises:
        ValueError: No image with a valid turn was found.
    """
    rng = np.random.default_rng([SPLITS.index(settings.split), *seed, 31])
    for _ in range(_MAX_SCENES):
        size = settings.sizes[int(rng.integers(len(settings.sizes)))]
        scene = RasterizedScene.sample(
            rng, split=settings.split, render_size=size, num_frames=1, interaction_rate=0.3, event_rate=0.0
        )
        if scene is None:
            continue
        prompts = _draw_prompts(rng, scene, split=settings.split, processor=processor)
        drawn = _draw_turns(rng, scene, prompts, settings)
        if drawn.turns:
            image = scene.render(rng, split=settings.split)[0]
            return SailSample(image, tuple(drawn.turns), tuple(drawn.masks), tuple(prompts.values()))
    raise ValueError(f"no image with a turn of {dict(settings.tasks)} in {_MAX_SCENES} attempts")


@dataclass(frozen=True)
class _DrawnTurns:
    turns: list[Turn]
    masks: list[NDArray[np.bool_]]


@dataclass(frozen=True)
class _TurnRequest:
    """What the drafting of one turn needs.

    Attributes:
        labels: Ground truth of the image.
        masks: (O, H, W) visible part of each object.
        prompts: Region of each prompted row.
        split: Split of the image.
    """

    labels: SceneLabels
    masks: NDArray[np.bool_]
    prompts: Mapping[int, RegionPrompt]
    split: Split

    @property
    def is_fixed(self) -> bool:
        """Whether questions have the wordings of the evaluation."""
        return self.split != "train"

    def tag(self, row: int) -> str:
        """Return the prompt token of a row."""
        return f"<Prompt{self.prompts[row].prompt_id}>"

    def union(self, rows: tuple[int, ...]) -> NDArray[np.bool_]:
        """Return the union (H, W) of masks."""
        united: NDArray[np.bool_] = self.masks[list(rows)].any(axis=0)
        return united


_Drafted = tuple[str, str, tuple[NDArray[np.bool_], ...]]


def _draw_turns(
    rng: np.random.Generator,
    scene: RasterizedScene,
    prompts: Mapping[int, RegionPrompt],
    settings: DrawnImageSettings,
) -> _DrawnTurns:
    request = _TurnRequest(scene.labels, scene.view.masks[:, 0], prompts, settings.split)
    names = list(settings.tasks)
    shares = np.array([settings.tasks[name] for name in names], float)
    drawn = _DrawnTurns([], [])
    for _ in range(settings.max_turns):
        task = names[int(rng.choice(len(names), p=shares / shares.sum()))]
        for _ in range(_MAX_TRIES):
            drafted = _DRAFTERS[task](rng, request)
            if drafted is not None and drafted[0] not in (turn.question for turn in drawn.turns):
                question, answer, masks = drafted
                drawn.turns.append(Turn(question, answer))
                drawn.masks.extend(masks)
                break
    return drawn


def _draw_prompts(
    rng: np.random.Generator, scene: RasterizedScene, *, split: Split, processor: SailProcessor | None
) -> dict[int, RegionPrompt]:
    """Choose which objects are marked, by a mask, a box or a point, with random ids."""
    masks = scene.view.masks[:, 0]
    rows = [int(row) for row in rng.permutation(len(masks)) if masks[row].any()]
    rows = rows[: int(rng.integers(1, len(rows) + 1))]
    ids = rng.permutation(MAX_PROMPTS)[: len(rows)]
    regions = {}
    for row, prompt_id in zip(rows, ids, strict=True):
        kind = str(rng.choice(list(_PROMPT_KINDS), p=list(_PROMPT_KINDS.values())))
        regions[row] = RegionPrompt(int(prompt_id), _region(rng, masks[row], kind, split=split, processor=processor))
    return regions if processor is None else _with_own_cells(regions, masks.shape[1:], processor)


def _region(
    rng: np.random.Generator, mask: NDArray[np.bool_], kind: str, *, split: Split, processor: SailProcessor | None
) -> NDArray[np.bool_]:
    """Return the region (H, W) that a prompt marks: a filled box, or the patch around a point."""
    prompt = sample_prompt(rng, mask[None], kind=kind, is_fixed=split != "train", frame=0)
    if prompt.mask is not None:
        return mask
    region = np.zeros_like(mask)
    if prompt.box_xyxy is not None:
        left, top, right, bottom = (round(value) for value in prompt.box_xyxy)
        region[top : max(bottom, top + 1), left : max(right, left + 1)] = True
        return region
    x, y = (int(value) for value in prompt.point or (0, 0))
    half = 1 if processor is None else processor.config.patch_size // 2
    region[max(0, y - half) : y + half, max(0, x - half) : x + half] = True
    return region


def _with_own_cells(
    regions: dict[int, RegionPrompt], image_size: tuple[int, ...], processor: SailProcessor
) -> dict[int, RegionPrompt]:
    """Drop regions of which smaller ones leave no cell, as the processor refuses them."""
    height, width = image_size
    size = processor.fit_size(height, width)
    taken = None
    kept = {}
    for row, region in sorted(regions.items(), key=lambda item: int(np.asarray(item[1].mask).sum())):
        cells = mask_to_cells(np.asarray(region.mask, dtype=np.bool_), size, patch=processor.config.patch_size)
        taken = np.zeros_like(cells) if taken is None else taken
        if (cells & ~taken).any():
            kept[row] = region
            taken = taken | cells
    return kept


def _referring(kind: str, counts: tuple[float, float, float]) -> Callable[..., _Drafted | None]:
    def draft(rng: np.random.Generator, request: _TurnRequest) -> _Drafted | None:
        turn = segmentation_turn(
            rng,
            request.labels,
            kind=kind,
            forbidden=held_out_pairs(request.split),
            num_frames=1,
            is_fixed=request.is_fixed,
            counts=counts,
        )
        if turn is None:
            return None
        if not turn.target_ids:
            return turn.question, NO_TARGET_ANSWER, (np.zeros(request.masks.shape[1:], np.bool_),)
        return turn.question, pick(rng, REFERRING_ANSWERS), (request.union(turn.target_ids),)

    return draft


def _draft_instances(rng: np.random.Generator, request: _TurnRequest) -> _Drafted | None:
    """Ask for all objects of a shape, one mask each, from left to right."""
    shapes = [obj.shape for obj in request.labels.objects]
    shape = pick(rng, sorted(set(shapes)))
    rows = [row for row, other in enumerate(shapes) if other == shape and request.masks[row].any()]
    if not rows:
        return None
    rows.sort(key=lambda row: int(request.masks[row].any(axis=0).argmax()))
    question = f"{pick(rng, _SEGMENT).format(f'all the {plural_noun(shape)}')} {_INSTANCE_MODE}"
    answer = " ".join(f"{shape}-{number} {SEG_TOKEN}" for number in range(1, len(rows) + 1))
    return question, f"{answer}.", tuple(request.masks[row] for row in rows)


def _draft_visual_text(rng: np.random.Generator, request: _TurnRequest) -> _Drafted | None:
    """Ask for the objects that have a relation to a marked one, or for the marked one itself."""
    if not request.prompts:
        return None
    row = pick(rng, sorted(request.prompts))
    tag, objects = request.tag(row), request.labels.objects
    kind = pick(rng, ("self", "colour", "shape", "left_of", "right_of", "above", "below"))
    if kind == "self":
        return pick(rng, _SEGMENT).format(tag), pick(rng, REFERRING_ANSWERS), (request.masks[row],)
    if kind in ("colour", "shape"):
        own = getattr(objects[row], kind)
        rows = tuple(other for other, obj in enumerate(objects) if other != row and getattr(obj, kind) == own)
        phrase = f"the objects with the same {kind} as {tag}"
    else:
        truth = request.labels.directions_at["start"][kind][:, row]
        others = np.delete(truth, row)
        if (others == UNKNOWN).any():
            return None
        rows = tuple(int(other) for other in np.flatnonzero(truth == TRUE) if other != row)
        phrase = f"the objects {kind.replace('_', ' ').replace('left', 'to the left').replace('right', 'to the right')}"
        phrase = f"{phrase} {tag}"
    if not rows:
        return None
    return pick(rng, _SEGMENT).format(phrase), pick(rng, REFERRING_ANSWERS), (request.union(rows),)


def _draft_region(rng: np.random.Generator, request: _TurnRequest) -> _Drafted | None:
    if not request.prompts:
        return None
    row = pick(rng, sorted(request.prompts))
    question = (_DESCRIPTIONS[0] if request.is_fixed else pick(rng, _DESCRIPTIONS)).format(request.tag(row))
    return question, f"{request.tag(row)}: {describe(rng, request.labels, row)}.", ()


def _questions(count: int) -> Callable[..., _Drafted | None]:
    def draft(rng: np.random.Generator, request: _TurnRequest) -> _Drafted | None:
        found = draw_region_question(rng, request.labels, request.prompts, split=request.split, count=count)
        return None if found is None else (found.question, found.answer, ())

    return draft


def draw_region_question(
    rng: np.random.Generator,
    labels: SceneLabels,
    prompts: Mapping[int, RegionPrompt],
    *,
    split: Split,
    count: int,
) -> QuestionAnswer | None:
    """Draft a question about marked regions, which question and answer name as `<PromptK>`.

    Args:
        rng: Source of randomness.
        labels: Ground truth of the image.
        prompts: Region of each marked row.
        split: Split of the image.
        count: 1 or 2 regions.

    Returns:
        The turn, or None if no question was found.
    """
    if len(prompts) < count:
        return None
    found = pixelqa_turn(
        rng,
        labels,
        pool=tuple(sorted(prompts)),
        count=count,
        is_choice=bool(rng.random() < 0.5),
        forbidden=held_out_pairs(split),
    )
    if found is None:
        return None
    turn = resolve_ids(found[0], {row: prompt.prompt_id for row, prompt in prompts.items()})
    return _with_prompt_tokens(turn)


def _with_prompt_tokens(turn: QuestionAnswer) -> QuestionAnswer:
    def renamed(text: str) -> str:
        return to_prompt_tokens(text, num_prompts=MAX_PROMPTS)

    return replace(
        turn,
        question=renamed(turn.question),
        answer=renamed(turn.answer),
        options=tuple(renamed(option) for option in turn.options),
    )


def _draft_missing_prompt(rng: np.random.Generator, request: _TurnRequest) -> _Drafted | None:
    used = {prompt.prompt_id for prompt in request.prompts.values()}
    tag = f"<Prompt{pick(rng, [number for number in range(MAX_PROMPTS) if number not in used])}>"
    return pick(rng, _DESCRIPTIONS).format(tag), f"{tag} is not in the image.", ()


_DRAFTERS: dict[str, Callable[[np.random.Generator, _TurnRequest], _Drafted | None]] = {
    "attribute": _referring("attribute", (0.0, 0.75, 0.25)),
    "relation": _referring("relation", (0.0, 0.8, 0.2)),
    "reasoning": _referring("reasoning", (0.0, 0.75, 0.25)),
    "no_target": _referring("attribute", (1.0, 0.0, 0.0)),
    "instances": _draft_instances,
    "visual_text": _draft_visual_text,
    "region": _draft_region,
    "question": _questions(1),
    "pair": _questions(2),
    "missing_prompt": _draft_missing_prompt,
}
