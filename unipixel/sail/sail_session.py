"""A session with Pixel-SAIL: one image, or one frame of a video whose objects a segmenter tracks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from torch import Tensor

from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.injection import MemoryInjection
from unipixel.processing.answer_parser import parse_answer
from unipixel.processing.chat_template import Turn
from unipixel.processing.prompt_templates import SegmentationForm
from unipixel.processing.visual_prompts import VisualPrompt
from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.pixel_sail import PixelSail
from unipixel.sail.sail_conversation import SailConversation, SailConversationState, SailReply
from unipixel.sail.sail_processor import FORCED_ANSWER, SailProcessor, to_prompt_tokens
from unipixel.sail.still_tracker import StillTracker
from unipixel.session.base_session import Answer, PrefillSummary
from unipixel.session.callbacks import Callbacks
from unipixel.session.conversation import Reply
from unipixel.session.session import Session
from unipixel.session.settings import SessionSettings
from unipixel.session.video_objects import VideoObjects
from unipixel.session.video_tracker import VideoTracker
from unipixel.video.open import Video, open_video


class SailSession(Session):
    """Questions to Pixel-SAIL about an image and its objects, with the interface of every session.

    The model reads one frame: the first one that was prompted before the first question, else frame 0. Objects that
    were prompted, and objects that a question names, are drawn into it. In a video a segmenter tracks all objects.

    Attributes:
        objects: The image or video and its object memory.
        settings: The settings; those of anchor frames, pre-filling and numbers of frames are for other models.
    """

    def __init__(
        self,
        model: PixelSail,
        processor: SailProcessor,
        video: Video | Any,
        *,
        settings: SessionSettings | None = None,
        bank: ObjectMemoryBank | None = None,
    ) -> None:
        """Open a session without computing anything.

        Args:
            model: The model.
            processor: Prepares the inputs of the model.
            video: An image, a finite video, or any source that `open_video` accepts.
            settings: The settings; a video needs their `segmenter`, with an image it turns points and boxes into masks.
            bank: Object memory that an earlier session saved.

        Raises:
            OSError: The image or video cannot be read.
            ValueError: The source is a stream, a video without a segmenter, or the memory belongs to another one.
        """
        self.settings = settings or SessionSettings()
        super(Session, self).__init__(self.settings.generation)
        self._sail, self._sail_processor = model, processor
        self._sail_conversation: SailConversation | None = None
        self._read_frame = 0
        opened = video if isinstance(video, Video) else open_video(video)
        num_frames = opened.info.num_frames
        if self.settings.segmenter is None and (opened.is_stream or num_frames != 1):
            raise ValueError(
                f"{opened.info.path} is a video{f' of {num_frames} frames' if num_frames else ''}, which Pixel-SAIL "
                "cannot track alone: give a segmenter (--segmenter, SessionSettings.segmenter), or a single image"
            )
        self.objects = VideoObjects(
            self.settings.segmenter,
            opened,
            memory_dtype=self.settings.memory_dtype or model.dtype,
            max_objects=self.settings.max_objects,
            is_postprocessed=self.settings.is_postprocessed,
            max_feature_bytes=self.settings.max_feature_bytes,
            make_tracker=self._make_still_tracker,
        )
        if bank is not None:
            self.objects.restore_bank(bank)

    @property
    def num_bytes(self) -> int:
        """Bytes of the encoded frames and the conversation, without the model."""
        return self.objects.tracker.num_cache_bytes + (
            self._sail_conversation.num_bytes if self._sail_conversation else 0
        )

    def prompt(self, object_id: int, *prompts: VisualPrompt) -> None:
        """Prompt a new object, or correct a known one; its mask is drawn into the image.

        Args:
            object_id: New or known id, from 0 to 14.
            prompts: Points, a box or a mask, in pixels of the original frames.

        Raises:
            ValueError: The id is out of range, a prompt is outside the image, or there are too many.
        """
        limit = self._sail.config.num_prompts
        if not 0 <= object_id < limit:
            raise ValueError(f"object id {object_id} is out of range: Pixel-SAIL has prompt ids 0 to {limit - 1}")
        prompted = {*self._prompted_ids(), *self.objects.pending_prompts, object_id}
        if len(prompted) > limit:
            raise ValueError(f"{len(prompted)} prompted objects are more than the {limit} that Pixel-SAIL can read")
        super().prompt(object_id, *prompts)

    def restart(self) -> None:
        """Start a new conversation about the same image."""
        if self._sail_conversation is not None:
            self._sail_conversation.restore(SailConversationState())

    def _segment(self, query: str, *, form: SegmentationForm | None, callbacks: Callbacks) -> Answer:
        """Segment what a text describes; an answer without a mask is replaced by the forced one.

        As in the published evaluation of prompted segmentation: first a free answer, then "It is [SEG].".
        """
        before = self._sail_state()
        answer = super()._segment(query, form=form, callbacks=callbacks)
        if self._sail_state().num_masks:
            return answer
        self._open_sail_conversation().restore(before)
        forced = self._answer(
            answer.question, expression=query.strip(), callbacks=callbacks, answer_prefix=FORCED_ANSWER
        )
        return replace(forced, new_ids=(*answer.new_ids, *forced.new_ids))

    def _num_read_frames(self) -> int:
        return 1

    def _reply(self, turn: Turn, callbacks: Callbacks) -> SailReply:
        num_prompts = self._sail.config.num_prompts
        named = {segment.object_id for segment in parse_answer(turn.question).objects}
        sail_turn = Turn(to_prompt_tokens(turn.question, num_prompts=num_prompts), answer_prefix=turn.answer_prefix)
        return self._open_sail_conversation().ask(sail_turn, self._regions(named), on_text=callbacks.text_callback)

    def _reply_each(self, turns: Sequence[Turn], callbacks: Callbacks) -> list[Reply]:
        """Answer one turn after another from the same state."""
        before, replies = self._sail_state(), list[Reply]()
        for turn in turns:
            try:
                replies.append(self._reply(turn, Callbacks(should_stop=callbacks.should_stop)))
            finally:
                self._open_sail_conversation().restore(before)
        return replies

    def _injection(self) -> MemoryInjection | None:
        """Return None: prompts are drawn into the image instead of being injected into the text."""
        return None

    def _track_prompted(self, question: str, callbacks: Callbacks) -> PrefillSummary:
        """Segment or fill the prompts of objects, and track them in a video."""
        # The frame is chosen by the prompts, which are no longer pending afterwards.
        self._open_sail_conversation()
        with self._timed("track"):
            self.objects.track(callbacks)
        return PrefillSummary()

    def _add_objects(self, tokens: Mapping[int, Tensor], *, expression: str, callbacks: Callbacks) -> None:
        masks = {object_id: (logits > 0).numpy() for object_id, logits in tokens.items()}
        self.objects.add_masks(masks, frame_index=self._read_frame, expression=expression, callbacks=callbacks)
        for object_id, logits in tokens.items():
            # Confidence as in Mask2Former: the mean probability of the pixels of a mask.
            score = float(logits[logits > 0].sigmoid().mean())
            self.bank.update(object_id, self._read_frame, masks[object_id], score=score)

    def _regions(self, named: set[int]) -> list[RegionPrompt]:
        """Return the objects to draw into the image: the prompted ones, and those that the question names.

        Raises:
            ValueError: A named object is not visible on the frame that the model reads.
        """
        regions = []
        for object_id in sorted({*self._prompted_ids(), *(named & set(self.bank.ids))}):
            record = self.bank.mask_record(object_id, self._read_frame)
            if record is not None and record.is_visible:
                regions.append(RegionPrompt(object_id, record.mask(self.bank.frame_size)))
            elif object_id in named:
                raise ValueError(
                    f"object [{object_id}] is not visible on frame {self._read_frame}, the one that the model reads: "
                    "prompt it there, or start a session with a prompt on another frame"
                )
        return regions

    def _prompted_ids(self) -> list[int]:
        """Return the ids of objects in the memory that the user prompted and that have a prompt token."""
        limit = self._sail.config.num_prompts
        return [key for key in self.bank.ids if self.bank[key].source != "language" and key < limit]

    def _sail_state(self) -> SailConversationState:
        return self._sail_conversation.snapshot() if self._sail_conversation else SailConversationState()

    def _open_sail_conversation(self) -> SailConversation:
        """Return the conversation; its frame is read on first use."""
        if self._sail_conversation is None:
            pending = [prompt for prompts in self.objects.pending_prompts.values() for prompt in prompts]
            prompted = [self.bank[object_id].anchor_frame for object_id in self.bank.ids]
            self._read_frame = min([*prompted, *(prompt.frame_index for prompt in pending)], default=0)
            with self._timed("read_video"):
                (frame,) = self.objects.video.read([self._read_frame])
            self._sail_conversation = SailConversation(
                self._sail,
                self._sail_processor,
                frame.image,
                settings=self._generation,
                max_upsampled_bytes=self.settings.max_upsampled_bytes,
            )
        return self._sail_conversation

    def _make_still_tracker(self, video: Video) -> VideoTracker:
        tracker = StillTracker(video, fit_size=self._sail_processor.fit_size, patch_size=self._sail.config.patch_size)
        # It has the methods that an image needs; there is no frame to search or to propagate to.
        return cast("VideoTracker", tracker)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Restore the conversation if the block raises."""
        before = self._sail_state()
        try:
            yield
        except BaseException:
            if self._sail_conversation is not None:
                self._sail_conversation.restore(before)
            raise
