"""A user session: a video or image, the objects in it, and the conversation about them."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unipixel.demos.errors import (
    BusyError,
    DemoError,
    DownloadError,
    PromptError,
    QuestionError,
    StorageError,
    UploadError,
)
from unipixel.demos.export.archive import is_archive
from unipixel.demos.export.downloads import DownloadContent, DownloadRequest, make_download, write_playback
from unipixel.demos.frame_images import crop_object
from unipixel.demos.security.uploads import copy_upload, display_name
from unipixel.demos.sessions.background_work import EventStream, StopFlag, run_in_background, run_in_thread
from unipixel.demos.sessions.events import Answered, Event, Exported, Exporting, TextWritten, Tracked
from unipixel.demos.sessions.frame_sink import FrameSink
from unipixel.demos.sessions.lifecycle import SessionLifecycle
from unipixel.demos.sessions.loaded_session import LoadedSession, MediaInfo
from unipixel.demos.sessions.prompt_editing import PromptEditing, check_text
from unipixel.demos.sessions.restoring import open_archive
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.sessions.session_snapshot import ObjectInfo
from unipixel.demos.sessions.work_queue import WorkSlot
from unipixel.demos.storage.mask_journal import MaskJournal
from unipixel.demos.storage.saved_session import RESULTS_FOLDER, SavedTurn
from unipixel.output.overlay import PromptMark
from unipixel.output.result import Result
from unipixel.session.callbacks import Callbacks, Cancelled
from unipixel.session.conversation import check_question
from unipixel.session.range_tracking import FrameRange, track_range
from unipixel.session.session import Session

Notify = Callable[[Event], None]
# Special tokens of the tokenizer, which the model would not read as text.
_SPECIAL_TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>")
# Frames that are decoded together, from one keyframe.
_FRAMES_PER_READ = 16


class ReceivedFile(NamedTuple):
    """An uploaded file that is not loaded yet.

    Attributes:
        path: Where it is stored.
        name: Its name on the user's machine.
    """

    path: Path
    name: str


class UserSession:
    """The session of one user; every method may be called from any thread.

    One piece of work is done at a time (`ask`, `segment`, `track`, `load`). Meanwhile frames, masks and objects can be
    read, and what would change them raises `BusyError`. Every change is saved before it is acknowledged. A session that
    was offloaded to disk is reloaded when it is used.

    Attributes:
        key: The secret that identifies the session.
        lifecycle: Loads, offloads and closes the session.
        prompts: Edits its objects.
        received: An uploaded file that is not loaded yet.
    """

    def __init__(self, key: str, folder: Path, context: ServerContext, *, client: str = "") -> None:
        """Create a session; called by `SessionStore`.

        Args:
            key: The secret.
            folder: Folder of the session.
            context: What all sessions share.
            client: Hash of the client that opened it.
        """
        self.key = key
        self.lifecycle = SessionLifecycle(folder, context, client=client)
        self.prompts = PromptEditing(self.lifecycle)
        self.received: ReceivedFile | None = None
        self._playback_lock = threading.Lock()
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
        """Load a video, an image or an archive of a session; what was there before is removed.

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
        with self.lifecycle.working() as stop_flag, self._video_slot(stop_flag) as has_slot:
            if not has_slot:
                raise BusyError(f"the upload was stopped: {stop_flag.reason}")
            self._context.free_memory(self.lifecycle)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = copy_upload(Path(path), folder, limits=self._context.limits)
            try:
                if is_archive(file):
                    loaded = open_archive(file, folder, self._context)
                    file.unlink()
                else:
                    loaded = LoadedSession.open(file, name=name, is_trusted=is_trusted, context=self._context)
                self._replace(loaded)
            except BaseException as error:
                file.unlink(missing_ok=True)
                if isinstance(error, OSError) and not isinstance(error, DemoError):
                    raise StorageError from error
                raise
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

    def ask(self, question: str) -> EventStream:
        """Ask about the video; `[1]` in the question refers to object 1. Closing the iterator cancels the work.

        Raises:
            QuestionError: The question is empty, too long, or refers to an unknown object.
            BusyError: Work is in callbacks; or, with the first event, the queue is full.
        """
        return self._answer(question, Session.ask)

    def segment(self, query: str) -> EventStream:
        """Segment what a noun phrase, or a question about it, refers to. See `ask`."""
        return self._answer(query, Session.segment)

    def track(self, frames: FrameRange | None = None, *, object_ids: Sequence[int] | None = None) -> EventStream:
        """Track objects without a question; closing the iterator does not stop it, and a stop keeps finished frames.

        Args:
            frames: The range; by default the whole video, from the prompts on. See `track_range`.
            object_ids: Objects to track; None for all of the range.

        Raises:
            QuestionError: With the first event: the range is not in the video, or there is no object in it.
            BusyError: Work is in progress.
        """

        def work(loaded: LoadedSession, callbacks: Callbacks, notify: Notify) -> Event:
            tracking = track_range(loaded.session.objects, frames or FrameRange(), object_ids=object_ids)
            loaded.keep_prompt_masks()
            with self._journal(loaded) as journal:
                sink = FrameSink(loaded, notify, num_frames=tracking.num_frames, journal=journal)
                for tracked in tracking.frames:
                    sink(tracked)
                    callbacks.check()
            return Tracked(tracking.object_ids)

        with self.lifecycle.idle() as loaded:
            return self._run(loaded, work, stops_when_closed=False)

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

    def times(self) -> list[float]:
        """Return the times of all frames in the file of `playback_file`, in seconds.

        Raises:
            NoVideoError: There is no video yet.
        """
        loaded = self.lifecycle.loaded()
        return [loaded.info.start_seconds + time for time in loaded.session.objects.video.timestamps()]

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

    def download(self, request: DownloadRequest, *, on_progress: Callable[[int, int], None] | None = None) -> Path:
        """Write a file of results to the folder of the session, and return its path; see `make_download`.

        Args:
            request: What to write.
            on_progress: Called with the number of finished frames and of all frames.

        Raises:
            DownloadError: The kind does not exist, or the download was cancelled.
            BusyError: Another download is in progress.
            NoVideoError: There is no video yet.
            QuotaError: The client uses all of its disk space.
            ServerFullError: The server does.
            StorageError: The disk is full.
        """
        with self.lifecycle.exporting() as stop_flag, self._video_slot(stop_flag) as has_slot:
            if not has_slot:
                raise DownloadError(f"the download was stopped: {stop_flag.reason}")
            stop_flag.start_timer()
            self._context.check_disk(self.lifecycle.client)
            content = self._download_content(request.kind)

            def check(num_done: int, num_frames: int) -> None:
                stop_flag.check()
                self._context.interactive.give_way()
                if on_progress is not None:
                    on_progress(num_done, num_frames)

            try:
                return make_download(request, self.lifecycle.folder / RESULTS_FOLDER, content, check=check)
            except Cancelled as error:
                raise DownloadError(f"the download was stopped: {stop_flag.reason}") from error
            except OSError as error:
                if isinstance(error, UploadError):
                    raise
                raise StorageError from error

    def export(self, request: DownloadRequest) -> EventStream:
        """Do the same as `download` in the background, and return its events; closing them cancels it."""

        def work(notify: Notify) -> Event:
            path = self.download(request, on_progress=lambda done, total: notify(Exporting(done, total)))
            return Exported(path.name)

        return run_in_thread(work, threads=self._context.threads, on_close=self.lifecycle.cancel_export)

    def playback_file(self) -> tuple[Path, str]:
        """Return a file of the video that browsers play, and its media type; it is encoded if necessary.

        Raises:
            NoVideoError: There is no video yet.
            DownloadError: The session has an image.
            StorageError: The disk is full.
        """
        loaded, folder = self.lifecycle.loaded(), self.lifecycle.folder
        if loaded.info.is_image:
            raise DownloadError("the session has an image, not a video")
        if loaded.info.media_type is not None:
            return folder / loaded.file_name, loaded.info.media_type
        path = folder / RESULTS_FOLDER / f"playback-{loaded.media_id}.mp4"
        with self._playback_lock:
            if not path.is_file():
                self._context.check_disk(self.lifecycle.client)
                stop_flag = StopFlag(max_seconds=self._context.limits.max_work_seconds)
                with self._video_slot(stop_flag):
                    write_playback(path, loaded.session.objects.video, loaded.sound())
        return path, "video/mp4"

    def _video_slot(self, stop_flag: StopFlag) -> AbstractContextManager[WorkSlot]:
        return self._context.video_queue.slot(client=self.lifecycle.client, should_stop=stop_flag)

    def _replace(self, loaded: LoadedSession) -> None:
        try:
            self.lifecycle.replace(loaded)
        except OSError as error:
            loaded.close()
            raise StorageError from error

    def _journal(self, loaded: LoadedSession) -> MaskJournal:
        with self.lifecycle.lock:
            try:
                return loaded.open_journal()
            except OSError as error:
                raise StorageError from error

    def _download_content(self, kind: str) -> DownloadContent:
        """Return a copy of the session for a download, which later changes do not affect.

        Raises:
            BusyError: Work is in progress, and its result would be part of an archive.
        """
        with self.lifecycle.idle() if kind == "session" else self.lifecycle.lock:
            loaded = self.lifecycle.loaded()
            return DownloadContent(
                video=loaded.session.objects.video,
                sound=loaded.sound,
                name=loaded.info.name,
                snapshot=loaded.snapshot.copy(),
                names=dict(loaded.names),
                turns=tuple(loaded.turns),
                model_name=self._context.model_name,
                archive=loaded.archive_state() if kind == "session" else None,
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

    def _answer(self, text: str, method: Callable[..., Result]) -> EventStream:
        def work(loaded: LoadedSession, callbacks: Callbacks, notify: Notify) -> Event:
            # The length of the model's conversation is not limited otherwise.
            if loaded.num_turns >= self._context.limits.max_turns:
                loaded.session.restart()
                loaded.num_turns = 0
            loaded.num_turns += 1
            answer = method(
                loaded.session,
                text,
                on_text=callbacks.on_text,
                on_frame=FrameSink(loaded, notify, num_frames=loaded.info.num_frames),
                should_stop=callbacks.should_stop,
            )
            with self.lifecycle.lock:
                loaded.turns.append(SavedTurn(text, answer.text))
            named = tuple(dict.fromkeys(segment.object_id for segment in answer.parsed.objects))
            return Answered(text, answer.text, named, answer.new_ids)

        with self.lifecycle.idle() as loaded:
            self._check_question(text, loaded.session)
            return self._run(loaded, work)

    def _run(
        self,
        loaded: LoadedSession,
        work: Callable[[LoadedSession, Callbacks, Notify], Event],
        *,
        stops_when_closed: bool = True,
    ) -> EventStream:
        stop_flag = self.lifecycle.begin_work()
        return run_in_background(
            lambda notify: work(loaded, Callbacks(on_text=_text_sink(notify), should_stop=stop_flag), notify),
            stop_flag=stop_flag,
            context=self._context,
            client=self.lifecycle.client,
            on_end=self.lifecycle.end_work,
            stops_when_closed=stops_when_closed,
        )

    def _check_question(self, text: str, session: Session) -> None:
        limit = self._context.limits.max_question_chars
        check_text(text, what="question", limit=limit, error=QuestionError, field="question")
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
