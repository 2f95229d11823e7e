"""A user session: a video or image, the objects in it, and the conversation about them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unipixel.demos.errors import BusyError, DownloadError, PromptError, QuestionError, UploadError
from unipixel.demos.frame_images import crop_object
from unipixel.demos.security.uploads import copy_upload, display_name
from unipixel.demos.sessions.background_work import run_in_background
from unipixel.demos.sessions.downloads import DownloadContent, make_download
from unipixel.demos.sessions.events import Answered, Event, FrameMasked, TextWritten, Tracked
from unipixel.demos.sessions.lifecycle import SessionLifecycle
from unipixel.demos.sessions.loaded_session import LoadedSession, MediaInfo
from unipixel.demos.sessions.prompt_editing import PromptEditing
from unipixel.demos.sessions.saved_session import MEMORY_FOLDER, RESULTS_FOLDER, SavedTurn
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.sessions.session_snapshot import ObjectInfo
from unipixel.memory.storage import BANK_FILE
from unipixel.output.overlay import PromptMark
from unipixel.session.base_session import Answer
from unipixel.session.callbacks import Callbacks, Cancelled
from unipixel.session.conversation import check_question
from unipixel.session.session import Session
from unipixel.session.video_tracker import TrackedVideoFrame

Notify = Callable[[Event], None]
# Special tokens of the tokenizer, which the model would not read as text.
_SPECIAL_TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>")
# Frames that are decoded together, from one keyframe.
_FRAMES_PER_READ = 16
_NUM_RECENT_FRAMES = 4


class UserSession:
    """The session of one user; every method may be called from any thread.

    One piece of work is done at a time (`ask`, `segment`, `track`, `load`, `download`). Meanwhile frames, masks
    and objects can be read, and what would change them raises `BusyError`. A session that was offloaded to disk
    is reloaded when it is used.

    Attributes:
        key: The secret that identifies the session.
        lifecycle: Loads, offloads and closes the session.
        prompts: Edits its objects.
    """

    def __init__(self, key: str, folder: Path, context: ServerContext) -> None:
        """Create a session; called by `SessionStore`.

        Args:
            key: The secret.
            folder: Folder of the session.
            context: What all sessions share.
        """
        self.key = key
        self.lifecycle = SessionLifecycle(folder, context)
        self.prompts = PromptEditing(self.lifecycle)
        self._context = context

    @property
    def info(self) -> MediaInfo | None:
        """The video or image; None before the first one."""
        return self.lifecycle.loaded().info if self.lifecycle.has_video else None

    @property
    def history(self) -> list[SavedTurn]:
        """The conversation so far."""
        with self.lifecycle.lock:
            return list(self.lifecycle.loaded().turns) if self.lifecycle.has_video else []

    def load(self, path: str | Path, *, name: str | None = None, is_trusted: bool = False) -> MediaInfo:
        """Load a video or an image; the previous one is removed with its objects and conversation.

        Args:
            path: The file, which is copied.
            name: Display name; None for the name of the file.
            is_trusted: Whether it is one of the demo's own examples, which are decoded without a sandbox.

        Raises:
            UploadError: It is neither a video nor an image, or above a limit; the session is unchanged.
            BusyError: Other work is in callbacks.
        """
        name = display_name(name or Path(path).name)
        folder = self.lifecycle.folder
        with self.lifecycle.working() as stop_flag, self._context.video_queue.slot(should_stop=stop_flag) as has_slot:
            if not has_slot:
                raise BusyError(f"the upload was stopped: {stop_flag.reason}")
            self._context.free_memory(self.lifecycle)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = copy_upload(Path(path), folder, limits=self._context.limits)
            try:
                loaded = LoadedSession.open(file, name=name, is_trusted=is_trusted, context=self._context)
            except BaseException:
                file.unlink(missing_ok=True)
                raise
            self.lifecycle.replace(loaded)
        return self.lifecycle.loaded().info

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Return a frame, uint8 (H, W, 3).

        Raises:
            PromptError: The frame does not exist.
            NoVideoError: There is no video yet.
            UploadError: The video is damaged at this frame.
        """
        loaded = self.lifecycle.loaded()
        for recent in loaded.recent_frames:
            if recent.index == index:
                return recent.image
        if not 0 <= index < loaded.info.num_frames:
            raise PromptError(f"frame indices range from 0 to {loaded.info.num_frames - 1}, got {index}")
        return self._read([index])[0]

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield all frames in order; see `frame`."""
        num_frames = self.lifecycle.loaded().info.num_frames
        for start in range(0, num_frames, _FRAMES_PER_READ):
            yield from self._read(range(start, min(start + _FRAMES_PER_READ, num_frames)))

    def ask(self, question: str) -> Iterator[Event]:
        """Ask about the video; `[1]` in the question refers to object 1. Closing the iterator cancels the work.

        Raises:
            QuestionError: The question is empty, too long, or refers to an unknown object.
            BusyError: Work is in callbacks; or, with the first event, the queue is full.
        """
        return self._answer(question, Session.ask)

    def segment(self, query: str) -> Iterator[Event]:
        """Segment what a noun phrase, or a question about it, refers to. See `ask`."""
        return self._answer(query, Session.segment)

    def track(self) -> Iterator[Event]:
        """Track the objects with new prompts, without a question. See `ask`."""

        def work(loaded: LoadedSession, callbacks: Callbacks) -> Event:
            object_ids = tuple(sorted(loaded.session.objects.pending_prompts))
            loaded.session.objects.track(callbacks)
            return Tracked(object_ids)

        with self.lifecycle.idle() as loaded:
            return self._run(loaded, work)

    def objects(self) -> list[ObjectInfo]:
        """Return the objects, ordered by id."""
        with self.lifecycle.lock:
            if not self.lifecycle.has_video:
                return []
            loaded = self.lifecycle.loaded()
            return loaded.snapshot.objects(dict(loaded.names))

    def masks_at(self, frame_index: int) -> dict[int, NDArray[np.bool_]]:
        """Return the known masks (H, W) of the objects that are visible on a frame, by object id."""
        return self.lifecycle.loaded().snapshot.masks_at(frame_index)

    def prompts_at(self, frame_index: int) -> list[PromptMark]:
        """Return the clicks and boxes on a frame, for `draw_overlay`."""
        return self.lifecycle.loaded().snapshot.prompts_at(frame_index)

    def thumbnail(self, object_id: int, *, size: int = 96) -> NDArray[np.uint8] | None:
        """Return a square image of an object, uint8 (size, size, 3); None if it has no visible mask.

        Raises:
            UnknownObjectError: The object does not exist.
        """
        loaded = self.lifecycle.loaded()
        loaded.check_object(object_id)
        found = loaded.snapshot.thumbnail_mask(object_id)
        return None if found is None else crop_object(self.frame(found[0]), found[1], size=size)

    def download(self, kind: str) -> Path:
        """Write a file of results to the folder of the session, and return its path.

        Args:
            kind: One of `unipixel.demos.sessions.downloads.KINDS`.

        Raises:
            DownloadError: The kind does not exist, or the download was cancelled.
            BusyError: Work is in callbacks.
            NoVideoError: There is no video yet.
        """
        with self.lifecycle.working() as stop_flag, self._context.video_queue.slot(should_stop=stop_flag) as has_slot:
            if not has_slot:
                raise DownloadError(f"the download was stopped: {stop_flag.reason}")
            stop_flag.start_timer()
            content = self._download_content()
            try:
                return make_download(kind, self.lifecycle.folder / RESULTS_FOLDER, content, check=stop_flag.check)
            except Cancelled as error:
                raise DownloadError(f"the download was stopped: {stop_flag.reason}") from error

    def _download_content(self) -> DownloadContent:
        """Save the session, since its object memory is part of a download, and return its content."""
        folder = self.lifecycle.folder
        with self.lifecycle.lock:
            loaded = self.lifecycle.loaded()
            loaded.save(folder)
            return DownloadContent(
                video=loaded.session.objects.video,
                bank=loaded.session.bank,
                name=loaded.info.name,
                snapshot=loaded.snapshot,
                names=dict(loaded.names),
                turns=tuple(loaded.turns),
                model_name=self._context.model_name,
                upload_file=folder / loaded.file_name,
                bank_file=folder / MEMORY_FOLDER / BANK_FILE,
            )

    def _read(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        loaded = self.lifecycle.loaded()
        try:
            return [frame.image for frame in loaded.session.objects.video.read(indices)]
        except UploadError:
            reloaded = self.lifecycle.loaded()
            if reloaded is loaded:
                raise
            # The session was offloaded, and its video closed, during the read.
            return [frame.image for frame in reloaded.session.objects.video.read(indices)]

    def _answer(self, text: str, method: Callable[..., Answer]) -> Iterator[Event]:
        def work(loaded: LoadedSession, callbacks: Callbacks) -> Event:
            # The length of the model's conversation is not limited otherwise.
            if loaded.num_turns >= self._context.limits.max_turns:
                loaded.session.restart()
                loaded.num_turns = 0
            loaded.num_turns += 1
            answer = method(
                loaded.session,
                text,
                on_text=callbacks.on_text,
                on_frame=callbacks.on_frame,
                should_stop=callbacks.should_stop,
            )
            with self.lifecycle.lock:
                loaded.turns.append(SavedTurn(text, answer.text))
            named = tuple(dict.fromkeys(segment.object_id for segment in answer.parsed.objects))
            return Answered(text, answer.text, named, answer.new_ids)

        with self.lifecycle.idle() as loaded:
            self._check_question(text, loaded.session)
            return self._run(loaded, work)

    def _run(self, loaded: LoadedSession, work: Callable[[LoadedSession, Callbacks], Event]) -> Iterator[Event]:
        stop_flag = self.lifecycle.begin_work()

        def run(notify: Notify) -> Event:
            on_text, on_frame = _text_sink(notify), _frame_sink(loaded, notify)
            return work(loaded, Callbacks(on_text=on_text, on_frame=on_frame, should_stop=stop_flag))

        return run_in_background(
            run, stop_flag=stop_flag, work_queue=self._context.queue, on_end=self.lifecycle.end_work
        )

    def _check_question(self, text: str, session: Session) -> None:
        limit = self._context.limits.max_question_chars
        if len(text) > limit:
            raise QuestionError(f"the question has {len(text)} characters, the maximum is {limit}: shorten it")
        if found := _SPECIAL_TOKEN.search(text):
            raise QuestionError(f"the question contains {found[0]}, a special token of the model: remove it")
        try:
            check_question(text, known_ids=session.objects.known_ids)
        except ValueError as error:
            raise QuestionError(str(error)) from error


def _text_sink(notify: Notify) -> Callable[[str], None]:
    pieces: list[str] = []

    def on_text(piece: str) -> None:
        if piece:
            pieces.append(piece)
            notify(TextWritten(piece, "".join(pieces)))

    return on_text


def _frame_sink(loaded: LoadedSession, notify: Notify) -> Callable[[TrackedVideoFrame], None]:
    """Return a function that copies each tracked frame to the snapshot and emits an event."""
    done: set[int] = set()

    def on_frame(tracked: TrackedVideoFrame) -> None:
        index = tracked.frame.index
        if index in done:
            done.clear()  # another pass, for other objects
        done.add(index)
        loaded.snapshot.update_frame(loaded.session.objects, index)
        loaded.recent_frames = (*loaded.recent_frames[1 - _NUM_RECENT_FRAMES :], tracked.frame)
        notify(FrameMasked(index, tuple(sorted(tracked.objects)), len(done), loaded.info.num_frames))

    return on_frame
