"""A session: one video, the objects in it, and the conversation about them (UniPixel, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.model.unipixel import UniPixel
from unipixel.output.result import Result
from unipixel.processing.chat_template import Turn
from unipixel.processing.clip_layout import ClipInput
from unipixel.processing.frame_sampling import select_frames
from unipixel.processing.processor import Processor
from unipixel.processing.prompt_templates import SegmentationForm, mark_references
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.session.base_session import Answer, BaseSession, PrefillSummary
from unipixel.session.callbacks import Callbacks, FrameCallback, TextCallback
from unipixel.session.conversation import ConversationSnapshot, check_question
from unipixel.session.prefilling import accepted_ids, prefill_prompts
from unipixel.session.settings import SessionSettings, choose_segmenters
from unipixel.session.video_objects import VideoObjects
from unipixel.video.open import Video

if TYPE_CHECKING:
    from unipixel.sail.pixel_sail import PixelSail
    from unipixel.sail.sail_processor import SailProcessor

# With `anchor="auto"`, confidence of a mask on frame 0 below which another frame is searched; chosen for the
# bundled model on clips of the split `val`.
_MIN_FIRST_FRAME_CONFIDENCE = 0.3


def open_session(
    model: UniPixel | PixelSail,
    processor: Processor | SailProcessor,
    video: Video | Any,
    *,
    settings: SessionSettings | None = None,
    bank: ObjectMemoryBank | None = None,
) -> Session:
    """Open the session that fits a model: `Session` for UniPixel, `SailSession`, with the same methods, for Pixel-SAIL.

    Args:
        model: The model.
        processor: Of the same checkpoint.
        video: See `Session`.
        settings: See `Session`.
        bank: See `Session`.

    Raises:
        OSError: See `Session`.
        ValueError: See `Session` and `SailSession`.
    """
    if isinstance(model, UniPixel):
        return Session(model, cast("Processor", processor), video, settings=settings, bank=bank)
    from unipixel.sail.sail_session import SailSession

    return SailSession(model, cast("SailProcessor", processor), video, settings=settings, bank=bank)


class Session(BaseSession):
    """One video, its object memory, and the conversation about it.

    Several sessions may share a model, also from several threads, because the model is stateless. A session
    itself must be used by one thread at a time.

    Attributes:
        objects: The video, its tracker and its object memory.
        settings: The settings.
    """

    def __init__(
        self,
        model: UniPixel,
        processor: Processor,
        video: Video | Any,
        *,
        settings: SessionSettings | None = None,
        bank: ObjectMemoryBank | None = None,
    ) -> None:
        """Open a session without computing anything.

        Args:
            model: The model.
            processor: Prepares the inputs of the model.
            video: A finite video, or any source that `open_video` accepts.
            settings: The settings.
            bank: Object memory that an earlier session about the video saved; the first turn injects it again.

        Raises:
            OSError: The video cannot be read.
            ValueError: The source is a stream, or the memory belongs to another video.
        """
        self.settings = settings or SessionSettings()
        super().__init__(self.settings.generation)
        self._model, self._processor = model, processor
        segmenter, language_segmenter = choose_segmenters(
            model.sam2, self.settings.segmenter, self.settings.language_masks
        )
        self.objects = VideoObjects(
            segmenter,
            video,
            memory_dtype=self.settings.memory_dtype or model.dtype,
            max_objects=self.settings.max_objects,
            is_postprocessed=self.settings.is_postprocessed,
            max_feature_bytes=self.settings.max_feature_bytes,
            language_segmenter=language_segmenter,
        )
        if bank is not None:
            self.objects.restore_bank(bank)

    @property
    def bank(self) -> ObjectMemoryBank:
        """The object memory."""
        return self.objects.bank

    @property
    def num_encoded_frames(self) -> int:
        """Number of frames that SAM 2.1's image encoder has processed."""
        return self.objects.tracker.num_encoded_frames

    @property
    def num_bytes(self) -> int:
        """Bytes of the encoded frames and the conversation, without the model."""
        return self.objects.tracker.num_cache_bytes + (self._conversation.num_bytes if self._conversation else 0)

    def prompt(self, object_id: int, *prompts: VisualPrompt) -> None:
        """Prompt a new object, or correct a known one; it is tracked when it is next needed.

        Args:
            object_id: New or known id, from 0.
            prompts: Points, a box or a mask, in pixels of the original frames.

        Raises:
            ValueError: A prompt is outside the video, or there are too many objects.
        """
        self.objects.prompt(object_id, *prompts)

    def ask(
        self,
        question: str,
        *,
        answer_prefix: str = "",
        on_text: TextCallback | None = None,
        on_frame: FrameCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Result:
        """Ask about the video and its objects; `[id]` in the question names an object.

        Args:
            question: The question.
            answer_prefix: Beginning of the answer, which the model continues, such as `The best option is (`.
            on_text: Receives the answer piece by piece as it is generated, see `Callbacks`.
            on_frame: Receives each frame with the objects that were tracked on it; a frame is passed again
                when other objects are tracked later.
            should_stop: Called before each token and each frame; True ends the work with `Cancelled`.

        Raises:
            ValueError: The question is empty or names an object that is neither prompted nor known.
            Cancelled: The work was cancelled. The conversation and the objects are as before the call.
        """
        return self._result(self._ask(question, Callbacks(on_text, on_frame, should_stop), answer_prefix=answer_prefix))

    def ask_each(
        self,
        questions: Sequence[str],
        *,
        batch_size: int = 8,
        on_frame: FrameCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[Result]:
        """Ask independent questions in batches: each is answered as `ask` would answer it next, without the others.

        The conversation is not changed, and objects of an answer are in its own result only. Pixel-SAIL answers the
        questions one after another, because prompts are drawn into its image.

        Args:
            questions: The questions.
            batch_size: Questions that are answered at the same time; each needs its own keys and values of the clip
                and the conversation.
            on_frame: See `ask`.
            should_stop: See `ask`.

        Raises:
            TypeError: `questions` is one text.
            ValueError: See `ask`, or the batch size is less than 1.
            Cancelled: See `ask`.
        """
        if isinstance(questions, str):
            raise TypeError("questions must be a list of texts, got one text: give a list, or use ask")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        callbacks = Callbacks(None, on_frame, should_stop)
        return [self._result(answer) for answer in self._answer_each(list(questions), callbacks, batch_size)]

    def segment(
        self,
        query: str,
        *,
        form: SegmentationForm | None = None,
        on_text: TextCallback | None = None,
        on_frame: FrameCallback | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> Result:
        """Segment what a text describes.

        Args:
            query: A noun phrase, or a question.
            form: Wording of the question; by default `sentence` for a query that ends with `?`, else `query`.
            on_text: See `ask`.
            on_frame: See `ask`.
            should_stop: See `ask`.

        Raises:
            ValueError: The query is empty.
            Cancelled: See `ask`.
        """
        return self._result(self._segment(query, form=form, callbacks=Callbacks(on_text, on_frame, should_stop)))

    def result(self) -> Result:
        """Return the present objects with their masks, without asking anything."""
        info = self.objects.video.info
        return Result.of_bank(
            self.bank, info, timestamps_seconds=self.objects.timestamps_seconds, source=self.objects.video
        )

    def restart(self) -> None:
        """Start a new conversation about the same clip; the first turn injects the object memory again."""
        if self._conversation is not None:
            self._conversation.restore(ConversationSnapshot())
        self._injected_version = 0

    def forget(self, object_id: int) -> None:
        """Remove an object from the memory; earlier turns of the conversation are not changed.

        Raises:
            KeyError: The object is neither prompted nor known.
        """
        self.objects.forget(object_id)

    def _describe_source(self) -> str:
        info = self.objects.video.info
        return f"{info.path}, {info.num_frames} frames of {info.width} x {info.height}"

    def _result(self, turn: Answer) -> Result:
        return replace(
            self.result(), question=turn.question, answer=turn.text, timings_seconds=turn.timings_seconds, turn=turn
        )

    def _answer_each(self, questions: list[str], callbacks: Callbacks, batch_size: int) -> Iterator[Answer]:
        """Yield the answers; the objects that an answer adds exist until the next one is requested."""
        for question in questions:
            check_question(question, known_ids=self._known_ids)
        self.timings = {}
        prefills = [self._track_prompted(question, callbacks) for question in questions]
        injected_version = self._injected_version
        try:
            memory = self._injection()
            for start in range(0, len(questions), batch_size):
                chunk = questions[start : start + batch_size]
                with self._timed("answer"):
                    replies = self._reply_each([Turn(question, memory=memory) for question in chunk], callbacks)
                for question, reply, prefill in zip(chunk, replies, prefills[start:], strict=False):
                    ids_before = set(self.bank.ids)
                    answer = self._complete(
                        question, reply, expression=question, prefill=prefill, ids_before=ids_before,
                        callbacks=callbacks,
                    )  # fmt: skip
                    yield answer
                    for object_id in answer.new_ids:
                        self.forget(object_id)
        finally:
            self._injected_version = injected_version

    @property
    def _known_ids(self) -> Collection[int]:
        return self.objects.known_ids

    def _read_clip(self) -> ClipInput:
        """Read frames for the language model, first of all those on which objects were prompted."""
        pending = {prompt.frame_index for prompts in self.objects.pending_prompts.values() for prompt in prompts}
        # Objects that were tracked before the first question are injected by their masks on the sampled frames.
        prompted = sorted(pending | {self.bank[object_id].anchor_frame for object_id in self.bank.ids})
        count = self.settings.num_frames or self._processor.budget.num_frames
        num_frames = self.objects.video.info.num_frames or 0
        indices = select_frames(num_frames, count, kept=prompted[:count])
        try:
            images = [frame.image for frame in self.objects.video.read(indices)]
        except OSError:
            # Reading has corrected the length of a damaged video: the frames before the damage remain.
            if not 0 < (self.objects.video.info.num_frames or 0) < num_frames:
                raise
            return self._read_clip()
        return self._processor.clip(images, frame_indices=indices, num_video_frames=num_frames)

    def _track_prompted(self, question: str, callbacks: Callbacks) -> PrefillSummary:
        """Track the pending objects; the language model segments those that the question names.

        Masks of the language model that disagree with the prompts are replaced by masks from the prompts.
        """
        summary, tokens, anchors = self._prefill(question, callbacks)
        with self._timed("track"):
            self.objects.track(callbacks, tokens=tokens, anchors=anchors)
        return summary

    def _prefill(self, question: str, callbacks: Callbacks) -> tuple[PrefillSummary, dict[int, Tensor], dict[int, int]]:
        """Pre-fill the objects that the question names; return accepted tokens and anchor frames by id."""
        if self.settings.prefill == "tracker" or not self.objects.pending_prompts:
            return PrefillSummary(), {}, {}
        prompts = prefill_prompts(self.objects, self._open_conversation().layout.frame_indices)
        _, order = mark_references(question, list(prompts))
        if not order:
            return PrefillSummary(), {}, {}
        with self._timed("prefill"):
            named = {object_id: prompts[object_id] for object_id in order}
            prefilled = self._open_conversation().prefill(question, named, on_text=callbacks.stop_callback)
            is_checked = self.settings.prefill == "model"
            accepted = accepted_ids(self.objects.tracker, prefilled.tokens, named) if is_checked else tuple(order)
            tokens = {object_id: prefilled.tokens[object_id] for object_id in accepted}
            anchors = self._anchors(tokens, {object_id: named[object_id].frame_index for object_id in accepted})
        return PrefillSummary(tuple(order), prefilled.generated_ids, accepted), tokens, anchors

    def _add_objects(self, tokens: Mapping[int, Tensor], *, expression: str, callbacks: Callbacks) -> None:
        self.objects.add_tokens(tokens, self._anchors(tokens, {}), expression=expression, callbacks=callbacks)

    def _anchors(self, tokens: Mapping[int, Tensor], prompted: Mapping[int, int]) -> dict[int, int]:
        """Choose the anchor frame of each object; `prompted` has the prompted frame of some of them."""
        choice = self.settings.anchor
        if choice == "first":
            return dict.fromkeys(tokens, 0)
        if choice == "best" and tokens:
            return self.objects.tracker.select_anchor_frames(tokens)
        anchors = {object_id: prompted.get(object_id, 0) for object_id in tokens}
        unprompted = {object_id: rows for object_id, rows in tokens.items() if object_id not in prompted}
        if choice == "auto" and unprompted:
            first = self.objects.tracker.segment_frame(unprompted, 0)
            is_found = (first.is_present & (first.confidence >= _MIN_FIRST_FRAME_CONFIDENCE)).tolist()
            missed = {key: rows for (key, rows), found in zip(unprompted.items(), is_found, strict=True) if not found}
            anchors |= self.objects.tracker.select_anchor_frames(missed) if missed else {}
        return anchors
