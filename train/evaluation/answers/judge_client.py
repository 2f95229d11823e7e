"""A judge of descriptions behind any endpoint with OpenAI's protocol of chat completions (VideoRefer-Bench-D).

Nothing is sent unless an endpoint is configured. Replies are stored with the predictions, so that figures can be
computed again without a judge.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from email.message import Message
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

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

KEY_VARIABLE = "OPENAI_API_KEY"
"""Environment variable with the key of the endpoint."""

# Sampling settings of the published script.
_SAMPLING = {"temperature": 0.7, "top_p": 0.95, "max_tokens": 800}
_MAX_ATTEMPTS = 5
_MAX_REPLY_BYTES = 2**20
_TIMEOUT_SECONDS = 120.0
_NUM_THREADS = 8
# Replies that are stored together.
_BATCH = 16
_RETRIED_STATUS = (408, 409, 429)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """Where and how a judge is asked.

    Attributes:
        url: Base address of the endpoint, such as `https://api.openai.com/v1`.
        model: Name of the model there.
        key: Key of the endpoint; empty for none.
        prompt: Instructions of the judge.
        first_delay_seconds: Delay before the second attempt, doubled before each further one.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    prompt: str = JUDGE_PROMPT
    first_delay_seconds: float = 1.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the judge's address must start with http:// or https://, got {self.url!r}")
        if self.key and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError(f"the key would be sent unencrypted to {self.url}: use https, or unset {KEY_VARIABLE}")
        if not self.model:
            raise ValueError("give the judge's model, such as gpt-4o-mini")


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
    body = json.dumps({"model": settings.model, "messages": messages, **_SAMPLING}).encode("utf-8")
    reason = ""
    for delay in _delays(settings.first_delay_seconds):
        time.sleep(delay)
        try:
            return _reply_of(_post(body, settings))
        except urllib.error.HTTPError as error:
            reason = f"status {error.code} ({error.reason})"
            if error.code not in _RETRIED_STATUS and error.code < 500:
                break
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error))
        except ValueError as error:
            reason = str(error)
    raise JudgeError(
        f"the judge {settings.model} at {settings.url} gave no usable reply: {reason}; replies so far are stored, "
        "repeat the command to continue"
    )


def _delays(first: float) -> Iterator[float]:
    yield 0.0
    yield from (first * 2**attempt for attempt in range(_MAX_ATTEMPTS - 1))


def _post(body: bytes, settings: JudgeSettings) -> bytes:
    headers = {"Content-Type": "application/json"}
    if settings.key:
        headers["Authorization"] = f"Bearer {settings.key}"
    address = settings.url.rstrip("/") + "/chat/completions"
    request = urllib.request.Request(address, data=body, headers=headers, method="POST")
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=_TIMEOUT_SECONDS) as response:
        content = bytes(response.read(_MAX_REPLY_BYTES + 1))
    if len(content) > _MAX_REPLY_BYTES:
        raise ValueError(f"a reply has at most {_MAX_REPLY_BYTES} bytes")
    return content


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, which would send the key to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        """Refuse the redirect; the caller gets its status as an error."""
        del req, fp, code, msg, headers, newurl


def _reply_of(content: bytes) -> str:
    """Return the text of a chat completion.

    Raises:
        ValueError: It has another form or is empty.
    """
    try:
        fields: Any = json.loads(content)
        text = fields["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"the reply is no chat completion: {content[:80]!r}") from error
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the reply is empty")
    return text
