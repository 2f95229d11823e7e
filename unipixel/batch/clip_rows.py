"""From a clip and the question sets about it to rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from unipixel.batch.clip_reading import CLIP_ERRORS, read_ahead
from unipixel.batch.row_file import Row
from unipixel.processing.prompt_checks import check_prompts
from unipixel.session.question_file import AskJob
from unipixel.session.session import open_session
from unipixel.video.open import Video

if TYPE_CHECKING:
    from unipixel.session.settings import SessionSettings


class ClipAnswerer:
    """Answers question sets about clips with one model."""

    def __init__(self, model: Any, processor: Any, *, settings: SessionSettings, name: str, max_frames: int) -> None:
        """Prepare without computing anything.

        Args:
            model: UniPixel or Pixel-SAIL.
            processor: Of the same checkpoint.
            settings: Of each session.
            name: Name of the model in the rows.
            max_frames: Longer clips get a row with an error.
        """
        self._model, self._processor, self._settings = model, processor, settings
        self._name, self._max_frames = name, max_frames

    def answer(self, work: Iterable[tuple[str, list[AskJob]]]) -> Iterator[Row]:
        """Yield a row for each clip and question set, one clip at a time.

        Args:
            work: Clips, each with its question sets.
        """
        sets = dict(work)
        for clip, video in read_ahead(sets, max_frames=self._max_frames):
            yield from self.answer_clip(clip, sets[clip], video)
            if isinstance(video, Video):
                video.close()
            # Its decoded frames are freed before the next clip is used.
            del video

    def answer_clip(self, clip: str, jobs: Iterable[AskJob], video: Video | BaseException) -> Iterator[Row]:
        """Yield a row for each question set about a clip.

        Args:
            clip: Its path.
            jobs: The question sets.
            video: The opened clip, or why it cannot be opened.
        """
        for job in jobs:
            yield self._answer_set(clip, job, video)

    def _answer_set(self, clip: str, job: AskJob, video: Video | BaseException) -> Row:
        row: Row = {"clip": clip, "id": job.name, "error": None, "questions": list(job.questions)}
        try:
            if isinstance(video, BaseException):
                raise video
            check_prompts(job.prompts, video.info)
            session = open_session(self._model, self._processor, video, settings=self._settings)
            for object_id, prompts in job.prompts.items():
                session.prompt(object_id, *prompts)
            answers = [session.ask(question).text for question in job.questions]
            document = session.result().to_dict()
        except CLIP_ERRORS as error:
            return row | {"error": f"{type(error).__name__}: {_describe(error)}"}
        return row | {
            "answers": answers,
            "model": self._name,
            "video": document["video"],
            "objects": document["objects"],
        }


def _describe(error: BaseException) -> str:
    """Return an error as one line; an error of a file names the file first."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(str(error).split()) or "no message"
