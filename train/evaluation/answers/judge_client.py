"""A judge of descriptions behind any endpoint with OpenAI's protocol of chat completions (VideoRefer-Bench-D).

Nothing is sent unless an endpoint is configured. Replies are stored with the predictions, so that figures can be
computed again without a judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unipixel.train.endpoints.chat_completions import EndpointError, EndpointSettings, complete_chat
from unipixel.train.evaluation.answers.choice_scores import sample_answer
from unipixel.train.evaluation.running.predictions import PredictionFile, rewrite_predictions

if TYPE_CHECKING:
    from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
    from unipixel.train.evaluation.running.predictions import Prediction

JUDGE_PROMPT = """\
You grade descriptions of one object in a video. You get the correct description, written by people, and a predicted
one. Give four grades, each an integer from 0 (entirely wrong or missing) to 5 (entirely right):

1. Subject Correspondence: whether the prediction is about the same object as the correct description.
2. Appearance Description: whether colour, shape, texture and other visible properties agree.
3. Temporal Description: whether motion, actions and changes over time agree.
4. Hallucination Detection: whether the prediction leaves out everything that the correct description contradicts or
that is made up; 5 means that nothing is made up.

Judge the meaning, not the wording. Answer in exactly this form, without other marks:
1. Subject Correspondence: GRADE
Explanation: ONE SENTENCE
2. Appearance Description: GRADE
Explanation: ONE SENTENCE
3. Temporal Description: GRADE
Explanation: ONE SENTENCE
4. Hallucination Detection: GRADE
Explanation: ONE SENTENCE
"""
"""Default instructions of the judge; the published ones can be given in their place."""

# Sampling settings of the published script.
_SAMPLING = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 800}
_NUM_THREADS = 8
# Replies that are stored together.
_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(EndpointSettings):
    """Where and how a judge is asked.

    Attributes:
        prompt: Instructions of the judge.
    """

    prompt: str = JUDGE_PROMPT


class JudgeError(OSError):
    """A judge gave no usable reply."""


def judge_predictions(samples: Sequence[BenchmarkSample], path: Path, settings: JudgeSettings) -> None:
    """Ask for the replies that predictions do not have yet, and store them in the predictions file.

    Answers that failed or are empty are not judged. After an interruption at most some replies are lost.

    Args:
        samples: Samples with the correct descriptions.
        path: Folder with `predictions.jsonl`, or that file.
        settings: The judge.

    Raises:
        OSError: A file cannot be read or written.
        JudgeError: The judge gave no usable reply; those before are stored, so that the command can be repeated.
        ValueError: A prediction or a sample has another form.
    """
    answers = {sample.name: sample_answer(sample)[1] for sample in samples}
    predictions = PredictionFile(path)
    pending: list[Prediction] = []
    for name in predictions.names:
        prediction = predictions.get(name)
        if prediction is not None and prediction.judge is None and prediction.text and name in answers:
            pending.append(prediction)
    with ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="unipixel-judge") as pool:
        for start in range(0, len(pending), _BATCH):
            batch = pending[start : start + _BATCH]
            futures = [
                pool.submit(ask_judge, answers[item.sample], item.text or "", settings=settings) for item in batch
            ]
            errors = [error for future in futures if (error := future.exception()) is not None]
            replies = {
                item.sample: future.result()
                for item, future in zip(batch, futures, strict=True)
                if future.exception() is None
            }
            rewrite_predictions(path, partial(_with_reply, replies=replies, model=settings.model))
            if errors:
                raise errors[0]


def _with_reply(prediction: Prediction, *, replies: Mapping[str, str], model: str) -> Prediction:
    if prediction.sample not in replies:
        return prediction
    return replace(prediction, judge=replies[prediction.sample], further={**prediction.further, "judge_model": model})


def ask_judge(correct: str, predicted: str, *, settings: JudgeSettings) -> str:
    """Return the judge's reply about one description; failed attempts are repeated up to four times.

    Raises:
        JudgeError: There was no usable reply.
    """
    content = f"##Correct answer: {correct}\n##Predicted answer: {predicted}\n"
    messages = [{"role": "system", "content": settings.prompt}, {"role": "user", "content": content}]
    try:
        return complete_chat(messages, endpoint=settings, sampling=_SAMPLING).text
    except EndpointError as error:
        raise JudgeError(f"the judge: {error}; replies so far are stored, repeat the command to continue") from error
