"""How a model does in the drawn world, through the same session that users have."""

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
from unipixel.processing.chat_template import Turn
from unipixel.processing.processor import Processor
from unipixel.processing.visual_prompts import BoxPrompt, MaskPrompt, PointPrompt, VisualPrompt
from unipixel.session.base_session import Answer
from unipixel.session.session import Session
from unipixel.session.settings import Anchor, Prefill, SessionSettings
from unipixel.train.datasets.samples import PromptAnnotation, QuestionAnswer
from unipixel.train.datasets.synthetic import Sample, generate
from unipixel.train.datasets.synthetic.attributes import Split
from unipixel.train.datasets.synthetic.visual_prompt_sampling import PROMPT_KINDS, sample_prompt
from unipixel.train.evaluation.answer_accuracy import is_right, say_the_same
from unipixel.train.evaluation.memory_ablation import NoMemorySession, exchange_masks
from unipixel.train.evaluation.metrics import MetricAccumulator, score_masks

TASKS = (
    "track", "segment/attribute", "segment/relation", "segment/motion", "segment/reasoning",
    "pixelqa/point", "pixelqa/box", "pixelqa/mixed", "conversation",
)  # fmt: skip
# Smaller objects are reported, not asked for (a share of the frame's shorter side).
SMALL_EXTENT = 0.1
_MAX_NEW_TOKENS = 64
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
    """Measure a model on drawn clips.

    Args:
        model: The model, in evaluation mode.
        processor: That of the model.
        split: `test` or `val`; they hold out combinations and have their own wordings.
        seed: First seed of the clips.
        limit: Samples over all tasks, which take turns.
        tasks: Some of `TASKS`.
        num_frames: Frames of a clip; None for its full length.
        render_size: Shorter side in pixels; None for any size that the vocabulary allows.
        anchor: See `SessionSettings`.
        prefill: See `SessionSettings`.
        has_memory: Whether questions open with the memory of the objects; see `NoMemorySession`.

    Returns:
        The figures, by task and kind, as `unipixel eval world --json` prints them.

    Raises:
        ValueError: The limit is below 1, or a task is unknown or none is given.
    """
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if not tasks or not set(tasks) <= set(TASKS):
        raise ValueError(f"tasks must be some of {', '.join(TASKS)}, got {', '.join(tasks) or 'none'}")
    tally = MetricAccumulator()
    settings = SessionSettings(
        anchor=anchor, prefill=prefill, generation=GenerationSettings(max_new_tokens=_MAX_NEW_TOKENS)
    )
    examiner = _Evaluator(model, processor, tally, settings=settings, has_memory=has_memory)
    for number in tqdm(range(limit), desc="samples", unit="sample", leave=False, disable=None):
        task = tasks[number % len(tasks)]
        sample = generate(
            seed * _SEED_STEP + number, split=split, task=task, render_size=render_size, num_frames=num_frames
        )
        examiner.examine(sample, kind=PROMPT_KINDS[number // len(tasks) % 3], rng=np.random.default_rng([seed, number]))
    choices = {
        "anchor": anchor, "prefill": prefill, "memory": has_memory, "pooling": model.config.memory_pool_order,
    }  # fmt: skip
    return {**tally.report(), "num_samples": limit, "split": split, "seed": seed, "settings": choices}


def headline(report: Mapping[str, Any]) -> dict[str, float]:
    """Return the few figures of a report that a training log shows."""
    figures = {f"track/{kind}": values["JF"] for kind, values in report["track"].items()}
    figures |= {f"segment/{kind}": values["JF"] for kind, values in report["segment"].items()}
    figures |= {f"pixelqa/{kind}": values["accuracy"] for kind, values in report["pixelqa"].items()}
    return {name: float(value) for name, value in figures.items() if value is not None}


class _Evaluator:
    """Puts samples to a model and notes the outcome."""

    def __init__(
        self,
        model: UniPixel,
        processor: Processor,
        tally: MetricAccumulator,
        *,
        settings: SessionSettings,
        has_memory: bool,
    ) -> None:
        self._model, self._processor, self._tally = model, processor, tally
        self._kind_of_session = Session if has_memory else NoMemorySession
        self._settings = settings

    def examine(self, sample: Sample, *, kind: str, rng: np.random.Generator) -> None:
        task, _, what = sample.task.partition("/")
        session = self._open(sample)
        if task == "track":
            self._track(session, sample, kind, rng)
        elif task == "segment":
            self._segment(session, sample, what, rng)
        elif task == "pixelqa":
            self._pixelqa(session, sample, what)
        else:
            self._converse(session, sample)

    def _open(self, sample: Sample, *, bank: ObjectMemoryBank | None = None) -> Session:
        frames = list(sample.clip.frames)
        return self._kind_of_session(self._model, self._processor, frames, settings=self._settings, bank=bank)

    def _track(self, session: Session, sample: Sample, kind: str, rng: np.random.Generator) -> None:
        clip = sample.clip
        for object_id in clip.object_ids:
            drawn = sample_prompt(rng, clip.masks_of(object_id), kind=kind, is_fixed=True)
            session.prompt(object_id, to_prompt(drawn))
        session.objects.track()
        predicted = _remembered(session, clip.object_ids, len(clip.frames))
        objects = sample.scene.objects if sample.scene is not None else ()
        for row, object_id in enumerate(clip.object_ids):
            is_small = bool(objects) and objects[row].extent < SMALL_EXTENT
            scores = score_masks(predicted[:, row], clip.masks_of(object_id))
            self._tally.masks(("track", f"{kind}_small" if is_small else kind), scores)

    def _segment(self, session: Session, sample: Sample, kind: str, rng: np.random.Generator) -> None:
        turn, clip = sample.turns[0], sample.clip
        answer = session.ask(turn.question)
        has_mask = bool(answer.parsed.masks)
        if not turn.target_ids:
            self._tally.hit("answered_without_mask", not has_mask)
            return
        self._tally.hit("answered_with_mask", has_mask)
        truth = np.asarray(np.stack([clip.masks_of(object_id) for object_id in turn.target_ids]).any(axis=0))
        found = np.asarray(_remembered(session, answer.new_ids, len(clip.frames)).any(axis=1))
        self._tally.masks(("segment", kind), score_masks(found, truth))
        guess = clip.masks_of(int(rng.choice(clip.object_ids)))
        self._tally.masks(("random_object", kind), score_masks(guess, truth))

    def _pixelqa(self, session: Session, sample: Sample, kind: str) -> None:
        turn, clip = sample.turns[0], sample.clip
        for object_id, drawn in sample.prompts.items():
            session.prompt(object_id, to_prompt(drawn))
        answer = session.ask(turn.question)
        options = len(turn.options)
        self._tally.hit(("pixelqa", kind), is_right(answer.text, turn.answer, options=options))
        if options:
            self._tally.share(("guessing", kind), 1 / options)
        for object_id in answer.prefilled_ids:
            self._tally.hit("unforced", object_id in answer.generated_ids)
            self._tally.hit("fitting", object_id in answer.accepted_ids)
        self._exchange(session, sample, turn, answer)
        alone = self._without_video(turn.question)
        self._tally.hit(("text_only", kind), is_right(alone, turn.answer, options=options))
        ids = [object_id for object_id in sample.prompts if object_id in session.bank]
        predicted = _remembered(session, ids, len(clip.frames))
        for row, object_id in enumerate(ids):
            self._tally.masks(("pixelqa", kind), score_masks(predicted[:, row], clip.masks_of(object_id)))

    def _exchange(self, session: Session, sample: Sample, turn: QuestionAnswer, answer: Answer) -> None:
        """Ask again where the two objects have each other's masks in the memory, and the truth differs then."""
        if turn.exchanged_answer is None or len(turn.mentioned_ids) != 2:
            return
        other = self._open(sample, bank=exchange_masks(session.bank, *turn.mentioned_ids)).ask(turn.question)
        is_same = say_the_same(other.text, answer.text, options=len(turn.options))
        self._tally.hit("exchange", not is_same)

    def _converse(self, session: Session, sample: Sample) -> None:
        for number, turn in enumerate(sample.turns):
            is_asked = number > 0 and not turn.target_ids
            if is_asked and any(name not in session.objects.known_ids for name in turn.mentioned_ids):
                # The object that the question names was never found.
                self._tally.hit("follow_up", False)
                continue
            answer = session.ask(turn.question)
            if is_asked:
                self._tally.hit("follow_up", is_right(answer.text, turn.answer, options=len(turn.options)))

    @torch.no_grad()
    def _without_video(self, question: str) -> str:
        """What the model answers to the words alone."""
        inputs = self._processor.encode([Turn(question)]).inputs
        stream = AnswerStream(self._model, inputs, settings=GenerationSettings(max_new_tokens=_MAX_NEW_TOKENS))
        return str(self._processor.tokenizer.decode(stream.finish()[0].token_ids, skip_special_tokens=True))


def to_prompt(prompt: PromptAnnotation) -> VisualPrompt:
    """Turn a drawn prompt into one that a session takes; its frames are those of the clip.

    Raises:
        ValueError: The prompt holds nothing.
    """
    if prompt.point is not None:
        return PointPrompt(prompt.point[0], prompt.point[1], frame_index=prompt.frame)
    if prompt.box_xyxy is not None:
        return BoxPrompt(prompt.box_xyxy, frame_index=prompt.frame)
    if prompt.mask is not None:
        return MaskPrompt(prompt.mask, frame_index=prompt.frame)
    raise ValueError(f"the {prompt.kind} prompt on frame {prompt.frame} holds no value")


def _remembered(session: Session, ids: Any, num_frames: int) -> NDArray[np.bool_]:
    """Masks (N, O, H, W) of remembered objects."""
    return session.bank.masks_on(range(num_frames), object_ids=tuple(ids))
