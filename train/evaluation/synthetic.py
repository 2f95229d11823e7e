"""Evaluation on synthetic clips through `Session`, as in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.model.generation import AnswerStream, GenerationSettings
from unipixel.model.unipixel import UniPixel
from unipixel.output.result import Result
from unipixel.processing.chat_template import Turn
from unipixel.processing.processor import Processor
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.session.session import Session
from unipixel.session.settings import Anchor, Prefill, SessionSettings
from unipixel.train.datasets.samples import PromptAnnotation, QuestionAnswer
from unipixel.train.datasets.synthetic import Sample, generate
from unipixel.train.datasets.synthetic.attributes import Split
from unipixel.train.datasets.synthetic.visual_prompt_sampling import PROMPT_KINDS, sample_prompt
from unipixel.train.evaluation.answer_accuracy import is_correct, is_same_answer, region_lines
from unipixel.train.evaluation.memory_ablation import NoMemorySession, exchange_masks
from unipixel.train.evaluation.metrics import MetricAccumulator, score_masks

TASKS = (
    "track", "segment/attribute", "segment/relation", "segment/motion", "segment/reasoning",
    "pixelqa/point", "pixelqa/box", "pixelqa/mixed", "conversation",
)  # fmt: skip
OPTIONAL_TASKS = ("pixelqa/mask", "pairs", "regions")
"""Tasks about masks in memory, which are evaluated on request."""
# Smaller objects are reported separately (a fraction of the frame's shorter side).
SMALL_EXTENT = 0.1
_MAX_NEW_TOKENS = 96
_SEED_STEP = 1_000_000


def evaluate(
    model: UniPixel,
    processor: Processor,
    *,
    split: Split = "test",
    seed: int = 0,
    limit: int = 90,
    tasks: Sequence[str] = TASKS,
    num_frames: int | None = None,
    render_size: int | None = None,
    anchor: Anchor = "auto",
    prefill: Prefill = "model",
    has_memory: bool = True,
) -> dict[str, Any]:
    """Evaluate a model on synthetic clips.

    Args:
        model: The model, in evaluation mode.
        processor: Processor of the model.
        split: `test` or `val`; both show combinations that training holds out, and have fixed wordings.
        seed: First seed of the clips.
        limit: Samples over all tasks, which alternate.
        tasks: Some of `TASKS` and `OPTIONAL_TASKS`.
        num_frames: Frames of a clip; None for its full length.
        render_size: Shorter side in pixels; None for random sizes.
        anchor: See `SessionSettings`.
        prefill: See `SessionSettings`.
        has_memory: Whether questions start with the memory of the objects; see `NoMemorySession`.

    Returns:
        The metrics by task and kind, as `unipixel eval synthetic --json` prints them.

    Raises:
        ValueError: A number is too small, or a task is unknown or none is given.
    """
    for name, value, low in (("limit", limit, 1), ("frames", num_frames, 1), ("render size", render_size, 16)):
        if value is not None and value < low:
            raise ValueError(f"{name} must be at least {low}, got {value}")
    allowed = (*TASKS, *OPTIONAL_TASKS)
    if not tasks or not set(tasks) <= set(allowed):
        raise ValueError(f"tasks must be some of {', '.join(allowed)}, got {', '.join(tasks) or 'none'}")
    metrics = MetricAccumulator()
    settings = SessionSettings(
        anchor=anchor, prefill=prefill, generation=GenerationSettings(max_new_tokens=_MAX_NEW_TOKENS)
    )
    evaluator = _Evaluator(model, processor, metrics, settings=settings, has_memory=has_memory)
    for number in tqdm(range(limit), desc="samples", unit="sample", leave=False, disable=None):
        task = tasks[number % len(tasks)]
        sample = generate(
            seed * _SEED_STEP + number, split=split, task=task, render_size=render_size, num_frames=num_frames
        )
        evaluator.evaluate(
            sample, kind=PROMPT_KINDS[number // len(tasks) % 3], rng=np.random.default_rng([seed, number])
        )
    choices = {
        "anchor": anchor, "prefill": prefill, "memory": has_memory, "pooling": model.config.memory_pool_order,
    }  # fmt: skip
    return {**metrics.report(), "num_samples": limit, "split": split, "seed": seed, "settings": choices}


def summary_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics of a report that a training log shows."""
    summary = {f"track/{kind}": values["JF"] for kind, values in report["track"].items()}
    summary |= {f"segment/{kind}": values["JF"] for kind, values in report["segment"].items()}
    summary |= {f"pixelqa/{kind}": values["accuracy"] for kind, values in report["pixelqa"].items()}
    return {name: float(value) for name, value in summary.items() if value is not None}


class _Evaluator:
    """Runs a model on samples and collects metrics."""

    def __init__(
        self,
        model: UniPixel,
        processor: Processor,
        metrics: MetricAccumulator,
        *,
        settings: SessionSettings,
        has_memory: bool,
    ) -> None:
        self._model, self._processor, self._metrics = model, processor, metrics
        self._session_class = Session if has_memory else NoMemorySession
        self._settings = settings

    def evaluate(self, sample: Sample, *, kind: str, rng: np.random.Generator) -> None:
        task, _, what = sample.task.partition("/")
        session = self._open(sample)
        if task == "track":
            self._track(session, sample, kind, rng)
        elif task == "segment":
            self._segment(session, sample, what, rng)
        elif task in ("pixelqa", "pairs"):
            self._pixelqa(session, sample, what or task)
        elif task == "regions":
            self._regions(session, sample)
        else:
            self._conversation(session, sample)

    def _open(self, sample: Sample, *, bank: ObjectMemoryBank | None = None) -> Session:
        frames = list(sample.clip.frames)
        return self._session_class(self._model, self._processor, frames, settings=self._settings, bank=bank)

    def _track(self, session: Session, sample: Sample, kind: str, rng: np.random.Generator) -> None:
        clip = sample.clip
        for object_id in clip.object_ids:
            annotation = sample_prompt(rng, clip.masks_of(object_id), kind=kind, is_fixed=True)
            session.prompt(object_id, to_prompt(annotation))
        session.objects.track()
        predicted = _predicted_masks(session, clip.object_ids, len(clip.frames))
        objects = sample.scene.objects if sample.scene is not None else ()
        for row, object_id in enumerate(clip.object_ids):
            is_small = bool(objects) and objects[row].extent < SMALL_EXTENT
            scores = score_masks(predicted[:, row], clip.masks_of(object_id))
            self._metrics.add_masks(("track", f"{kind}_small" if is_small else kind), scores)

    def _segment(self, session: Session, sample: Sample, kind: str, rng: np.random.Generator) -> None:
        turn, clip = sample.turns[0], sample.clip
        answer = session.ask(turn.question)
        has_mask = bool(answer.parsed.masks)
        if not turn.target_ids:
            self._metrics.add_answer("answered_without_mask", not has_mask)
            return
        self._metrics.add_answer("answered_with_mask", has_mask)
        truth = np.asarray(np.stack([clip.masks_of(object_id) for object_id in turn.target_ids]).any(axis=0))
        predicted = np.asarray(_predicted_masks(session, answer.new_ids, len(clip.frames)).any(axis=1))
        self._metrics.add_masks(("segment", kind), score_masks(predicted, truth))
        guess = clip.masks_of(int(rng.choice(clip.object_ids)))
        self._metrics.add_masks(("random_object", kind), score_masks(guess, truth))

    def _pixelqa(self, session: Session, sample: Sample, kind: str) -> None:
        turn, clip = sample.turns[0], sample.clip
        for object_id, annotation in sample.prompts.items():
            session.prompt(object_id, to_prompt(annotation))
        answer = session.ask(turn.question)
        options = len(turn.options)
        self._metrics.add_answer(("pixelqa", kind), is_correct(answer.text, turn.answer, options=options))
        if options:
            self._metrics.add_probability(("guessing", kind), 1 / options)
        for object_id in answer.prefilled_ids:
            self._metrics.add_answer("generated", object_id in answer.generated_ids)
            self._metrics.add_answer("accepted", object_id in answer.accepted_ids)
        self._exchange(session, sample, turn, answer)
        text_answer = self._without_video(turn.question)
        self._metrics.add_answer(("text_only", kind), is_correct(text_answer, turn.answer, options=options))
        ids = [object_id for object_id in sample.prompts if object_id in session.bank]
        predicted = _predicted_masks(session, ids, len(clip.frames))
        for row, object_id in enumerate(ids):
            self._metrics.add_masks(("pixelqa", kind), score_masks(predicted[:, row], clip.masks_of(object_id)))

    def _regions(self, session: Session, sample: Sample) -> None:
        """Compare the answer line by line: each is about one object."""
        turn = sample.turns[0]
        for object_id, annotation in sample.prompts.items():
            session.prompt(object_id, to_prompt(annotation))
        answers = region_lines(session.ask(turn.question).text)
        for object_id, expected in region_lines(turn.answer).items():
            self._metrics.add_answer(("regions", turn.kind), is_correct(answers.get(object_id, ""), expected))

    def _exchange(self, session: Session, sample: Sample, turn: QuestionAnswer, answer: Result) -> None:
        """Ask again with exchanged masks of the two objects in the memory, where this changes the correct answer."""
        if turn.exchanged_answer is None or len(turn.mentioned_ids) != 2:
            return
        other = self._open(sample, bank=exchange_masks(session.bank, *turn.mentioned_ids)).ask(turn.question)
        is_same = is_same_answer(other.text, answer.text, options=len(turn.options))
        self._metrics.add_answer("exchange", not is_same)

    def _conversation(self, session: Session, sample: Sample) -> None:
        for number, turn in enumerate(sample.turns):
            is_asked = number > 0 and not turn.target_ids
            if is_asked and any(name not in session.objects.known_ids for name in turn.mentioned_ids):
                # An object in the question was not segmented before.
                self._metrics.add_answer("follow_up", False)
                continue
            answer = session.ask(turn.question)
            if is_asked:
                self._metrics.add_answer("follow_up", is_correct(answer.text, turn.answer, options=len(turn.options)))

    @torch.no_grad()
    def _without_video(self, question: str) -> str:
        """Return the model's answer to the text alone."""
        inputs = self._processor.encode([Turn(question)]).inputs
        stream = AnswerStream(self._model, inputs, settings=GenerationSettings(max_new_tokens=_MAX_NEW_TOKENS))
        return str(self._processor.tokenizer.decode(stream.finish()[0].token_ids, skip_special_tokens=True))


def to_prompt(prompt: PromptAnnotation) -> VisualPrompt:
    """Convert a prompt of a sample into one for a session.

    Raises:
        ValueError: The prompt has neither point, box nor mask.
    """
    if prompt.point is not None:
        return PointPrompt(prompt.point[0], prompt.point[1], frame_index=prompt.frame)
    if prompt.box_xyxy is not None:
        return BoxPrompt(prompt.box_xyxy, frame_index=prompt.frame)
    if prompt.mask is not None:
        return MaskPrompt(prompt.mask, frame_index=prompt.frame)
    raise ValueError(f"the {prompt.kind} prompt on frame {prompt.frame} has neither point, box nor mask")


def _predicted_masks(session: Session, ids: Any, num_frames: int) -> NDArray[np.bool_]:
    """Return the masks (N, O, H, W) of objects in the memory."""
    return session.bank.masks_on(range(num_frames), object_ids=tuple(ids))
