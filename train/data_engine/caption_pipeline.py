"""The steps about one region: descriptions, their check, questions, and the answers that verify them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from unipixel.memory.rle import encode_rle, mask_box
from unipixel.train.data_engine.engine_replies import (
    OPTION_LETTERS,
    MalformedReplyError,
    WrittenQuestion,
    caption_fault,
    parse_letter,
    parse_questions,
    parse_verdict,
    plain_text,
    question_text,
    without_reasoning,
)
from unipixel.train.data_engine.engine_requests import (
    PROMPT_VERSION,
    Message,
    answer_messages,
    caption_messages,
    check_messages,
    question_messages,
)
from unipixel.train.data_engine.region_views import cropped_picture, outline_colour, outlined_picture
from unipixel.train.data_engine.request_log import LoggedReply, RequestLog, current_date
from unipixel.train.data_engine.source_regions import RegionImage, SourceRegion
from unipixel.train.endpoints.chat_completions import EndpointError, EndpointSettings, complete_chat
from unipixel.train.endpoints.request_budget import BudgetSpentError, RequestBudget

MAX_COMPLETION_TOKENS = 800
"""Longest reply in tokens."""
# A malformed reply is asked for again, with another seed.
_MAX_REPLIES = 3
_CREATIVE, _CAREFUL = 0.7, 0.0
_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True)
class EngineSettings:
    """Which models write and check.

    Attributes:
        writers: Models that describe regions, each once.
        checker: Model that checks descriptions, and writes and answers questions.
        is_checker_blind: Whether the checker gets no pictures, as in the paper; it then compares descriptions alone.
        num_questions: Questions about each accepted description.
        seed: Seed of the requests and of the order of options.
    """

    writers: tuple[EndpointSettings, ...]
    checker: EndpointSettings
    is_checker_blind: bool = False
    num_questions: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.writers:
            raise ValueError("give at least one model that describes regions")
        names = [writer.model for writer in self.writers]
        if len(set(names)) < len(names):
            raise ValueError(f"the models {', '.join(names)} are not different: each describes a region once")
        if self.is_checker_blind and len(self.writers) < 2:
            raise ValueError("a checker without pictures compares descriptions: give at least two models that describe")
        if not 0 <= self.num_questions <= 5:
            raise ValueError(f"the questions about a region must be 0 to 5, got {self.num_questions}")

    def description(self) -> dict[str, Any]:
        """Return what must be equal for a run to be continued."""
        return {
            "models": [writer.model for writer in self.writers],
            "checker_model": self.checker.model,
            "checker_without_pictures": self.is_checker_blind,
            "questions": self.num_questions,
            "seed": self.seed,
            "prompt_version": PROMPT_VERSION,
        }


def region_name(image: RegionImage, region: SourceRegion) -> str:
    """Return the name of a region, which is unique in a source."""
    return f"{image.name}#{region.id}"


class CaptionPipeline:
    """Turns a region into a record; used by several threads at once."""

    def __init__(self, settings: EngineSettings, *, log: RequestLog, budget: RequestBudget) -> None:
        """Prepare to ask.

        Args:
            settings: The models.
            log: Stores requests, and has the replies of earlier runs.
            budget: Counts requests.
        """
        self._settings, self._log, self._budget = settings, log, budget

    def describe(self, image: RegionImage, region: SourceRegion) -> dict[str, Any]:
        """Return the record of a region, accepted or rejected.

        Raises:
            EndpointError: A model gave no usable reply.
            BudgetSpentError: The budget allows no further request.
        """
        return _RegionWork(self._settings, self._log, self._budget, image, region).record()


class _RejectedError(Exception):
    """A region or question is rejected; the message says why."""


@dataclass
class _RegionWork:
    """The work on one region.

    Attributes:
        settings: The models.
        log: The requests.
        budget: Counts requests.
        image: The image.
        region: The region.
        replies: All replies about the region.
    """

    settings: EngineSettings
    log: RequestLog
    budget: RequestBudget
    image: RegionImage
    region: SourceRegion
    replies: list[LoggedReply] = field(default_factory=list)

    @cached_property
    def colour(self) -> str:
        return outline_colour(self.image.pixels, self.region.mask)

    @cached_property
    def pictures(self) -> list[str]:
        outlined = outlined_picture(self.image.pixels, self.region.mask, colour=self.colour)
        return [outlined, cropped_picture(self.image.pixels, self.region.mask)]

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = {"captions": [], "verdict": None, "caption": None, "questions": []}
        reason = None
        try:
            self._write_captions(found["captions"])
            found["verdict"] = self._check([row["text"] for row in found["captions"]])
            if not found["verdict"]["is_consistent"]:
                raise _RejectedError(f"the checker: {found['verdict']['reason'] or 'the descriptions are wrong'}")
            self._require_caption(found["verdict"]["caption"])
            found["caption"] = found["verdict"]["caption"]
            if self.settings.num_questions:
                found["questions"] = self._write_questions(found["caption"])
        except _RejectedError as error:
            # A description without a usable question is kept.
            if found["caption"] is None:
                reason = str(error)
            else:
                found["questions"] = [{"status": "rejected", "reason": str(error)}]
        box = mask_box(self.region.mask)
        return {
            "region": region_name(self.image, self.region),
            "status": "accepted" if reason is None else "rejected",
            "reason": reason,
            "source_image": self.image.name,
            "num_image_regions": len(self.image.regions),
            "image": self.image.file_name,
            "image_sha256": self.image.sha256,
            "region_id": self.region.id,
            "category": self.region.category,
            "segmentation": encode_rle(self.region.mask),
            "box": None if box is None else list(box),
            **found,
            **{key: value for key, value in self.settings.description().items() if key != "questions"},
            "date": current_date(),
            "usage": {
                name: sum(getattr(reply, name) for reply in self.replies)
                for name in ("requests", "prompt_tokens", "completion_tokens")
            },
        }

    def _write_captions(self, captions: list[dict[str, str]]) -> None:
        """Add the description of each model to the list."""
        for writer in self.settings.writers:
            text = self._ask(
                f"caption/{writer.model}",
                lambda: caption_messages(self.pictures[0], self.pictures[1], colour=self.colour),
                plain_text,
                writer,
                temperature=_CREATIVE,
            )
            captions.append({"model": writer.model, "text": text})
            self._require_caption(text)

    def _require_caption(self, text: str) -> None:
        if fault := caption_fault(text):
            raise _RejectedError(fault)

    def _check(self, captions: Sequence[str]) -> dict[str, Any]:
        verdict = self._ask(
            "check",
            lambda: check_messages(
                captions,
                [] if self.settings.is_checker_blind else self.pictures,
                colour=self.colour,
                category=self.region.category,
            ),
            parse_verdict,
            self.settings.checker,
            temperature=_CAREFUL,
        )
        return {"model": self.settings.checker.model, **vars(verdict)}

    def _write_questions(self, caption: str) -> list[dict[str, Any]]:
        count = self.settings.num_questions
        written = self._ask(
            "question",
            lambda: question_messages(caption, count=count),
            lambda text: parse_questions(text, count=count),
            self.settings.checker,
            temperature=_CREATIVE,
        )
        return [self._verify(question, row, caption) for row, question in enumerate(written)]

    def _verify(self, written: WrittenQuestion, row: int, caption: str) -> dict[str, Any]:
        """Shuffle the options, and have the question answered from the description alone."""
        name = f"{self.settings.seed}/{region_name(self.image, self.region)}/{row}"
        options = list(written.options)
        random.Random(name).shuffle(options)
        right = options.index(written.options[0])
        text = question_text(written.question, options)
        question = {"question": text, "answer": f"{OPTION_LETTERS[right]}. {options[right]}"}
        try:
            letter = self._ask(
                f"answer/{row}",
                lambda: answer_messages(caption, text),
                parse_letter,
                self.settings.checker,
                temperature=_CAREFUL,
            )
        except _RejectedError as error:
            return {**question, "status": "rejected", "reason": str(error)}
        if letter != OPTION_LETTERS[right]:
            reason = f"from the description alone, the answer was {letter} instead of {OPTION_LETTERS[right]}"
            return {**question, "status": "rejected", "reason": reason}
        return {**question, "status": "accepted", "reason": None}

    def _ask(
        self,
        step: str,
        messages: Callable[[], Sequence[Message]],
        parse: Callable[[str], _Parsed],
        endpoint: EndpointSettings,
        *,
        temperature: float,
    ) -> _Parsed:
        """Return the parsed reply of a step, from an earlier run if it is there.

        Raises:
            _RejectedError: All replies were malformed.
        """
        fault = ""
        for attempt in range(_MAX_REPLIES):
            reply = self._reply(
                step, attempt, messages, endpoint, temperature=temperature if not attempt else _CREATIVE
            )
            self.replies.append(reply)
            try:
                if reply.is_cut:
                    raise MalformedReplyError(f"the reply was cut at {MAX_COMPLETION_TOKENS} tokens")
                return parse(without_reasoning(reply.text))
            except MalformedReplyError as error:
                fault = str(error)
        raise _RejectedError(f"{step}: {_MAX_REPLIES} malformed replies, the last: {fault}")

    def _reply(
        self,
        step: str,
        attempt: int,
        messages: Callable[[], Sequence[Message]],
        endpoint: EndpointSettings,
        *,
        temperature: float,
    ) -> LoggedReply:
        name = region_name(self.image, self.region)
        earlier = self.log.find(name, step, attempt)
        if earlier is not None:
            return earlier
        seed = self.settings.seed + attempt
        sampling: Mapping[str, Any] = {"temperature": temperature, "max_tokens": MAX_COMPLETION_TOKENS, "seed": seed}
        try:
            reply = complete_chat(messages(), endpoint=endpoint, sampling=sampling, budget=self.budget)
        except (EndpointError, BudgetSpentError) as error:
            if error.num_attempts:
                self.log.add_failure(name, step, attempt, model=endpoint.model, seed=seed, error=error)
            raise
        logged = self.log.add(name, step, attempt, model=endpoint.model, seed=seed, reply=reply)
        if self.budget.max_tokens is not None and reply.prompt_tokens is None:
            raise EndpointError(
                f"{endpoint.url} does not count tokens: give a budget of requests alone", status=None, num_attempts=0
            )
        return logged
