"""One visitor: a clip or image, the objects in it, and the conversation about them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unipixel.demos.security.uploads import shown_name, take_upload
from unipixel.demos.sessions.background_work import run_work
from unipixel.demos.sessions.downloads import Subject, make_download
from unipixel.demos.sessions.errors import (
    BusyError,
    DownloadError,
    PromptError,
    QuestionError,
    UploadError,
)
from unipixel.demos.sessions.events import Answered, Event, FrameMasked, TextWritten, Tracked
from unipixel.demos.sessions.lifecycle import MediaInfo
from unipixel.demos.sessions.prompt_editing import PromptEditing
from unipixel.demos.sessions.saved_session import MEMORY_FOLDER, RESULTS_FOLDER, SavedTurn
from unipixel.demos.sessions.session_snapshot import ObjectInfo
from unipixel.demos.web.crops import crop_object
from unipixel.memory.storage import BANK_FILE
from unipixel.output.overlay import PromptMark
from unipixel.session.callbacks import Cancelled, Progress
from unipixel.session.conversation import check_question
from unipixel.session.session import Answer, Session
from unipixel.session.video_tracker import TrackedVideoFrame

__all__ = ["MediaInfo", "ObjectInfo", "SavedTurn", "UserSession"]

Tell = Callable[[Event], None]
# What the model writes and reads as one token; in a question it would stand for what is not there.
_TOKEN = re.compile(r"<\|[^<>|\s]{1,40}\|>")

# Frames that are decoded at once, on the way from a keyframe, and held.
_READ_AT_ONCE = 16
# Frames that are still at hand when a page comes to ask for the newest.
_NUM_FRESH = 4


class UserSession(PromptEditing):
    """One visitor's state; every method may be called from any thread.

    One piece of work is done at a time (`ask`, `segment`, `track`, `load`, `download`); meanwhile frames,
    masks and objects can be read, and what would change them raises `BusyError`. A session that was put
    away on disk comes back by itself.
    """

    @property
    def info(self) -> MediaInfo | None:
        """The clip; None before the first one."""
        return self._awake()[1] if self.has_clip else None

    @property
    def history(self) -> list[SavedTurn]:
        """The conversation so far."""
        with self._lock:
            if self.has_clip:
                self._awake()
            return list(self._turns)

    def load(self, path: str | Path, *, name: str | None = None, is_trusted: bool = False) -> MediaInfo:
        """Take a video or an image; objects and conversation of the one before are forgotten.

        Args:
            path: The file; it is copied.
            name: What the visitor calls it.
            is_trusted: Whether it is an example of our own, which needs no process to itself.

        Raises:
            UploadError: It is no video or image, or above a ceiling; what was there stays.
            BusyError: Other work is under way.
        """
        shown = shown_name(name or Path(path).name)
        with self._alone() as flag, self._context.readers.slot(should_stop=flag) as has_slot:
            if not has_slot:
                raise BusyError(flag.reason)
            self._context.make_room(self)
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            media = take_upload(Path(path), self._folder, limits=self._context.limits)
            try:
                session = self._open(media, shown, is_trusted=is_trusted)
            except BaseException:
                media.unlink(missing_ok=True)
                raise
            with self._lock:
                self._replace(session, shown, media, is_trusted=is_trusted)
        return self._awake()[1]

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Return a frame, uint8 (H, W, 3).

        Raises:
            PromptError: There is no such frame.
            NoVideoError: There is no video yet.
            UploadError: The video is damaged there.
        """
        _, info = self._awake()
        for fresh in self._fresh:
            if fresh.index == index:
                return fresh.image
        if not 0 <= index < info.num_frames:
            raise PromptError(f"there is no frame {index}: frames are numbered 0 to {info.num_frames - 1}")
        return self._read([index])[0]

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Return all frames in their order, a few at a time; see `frame`."""
        _, info = self._awake()
        for start in range(0, info.num_frames, _READ_AT_ONCE):
            yield from self._read(range(start, min(start + _READ_AT_ONCE, info.num_frames)))

    def _read(self, indices: Sequence[int]) -> list[NDArray[np.uint8]]:
        session = self._awake()[0]
        try:
            return [frame.image for frame in session.scene.video.read(indices)]
        except UploadError:
            later = self._awake()[0]
            if later is session:
                raise
            return [frame.image for frame in later.scene.video.read(indices)]  # it was put away meanwhile

    def ask(self, question: str) -> Iterator[Event]:
        """Ask about the clip; `[1]` in the question names an object. Closing the iterator stops the work.

        Raises:
            QuestionError: The question is empty, too long, or names an unknown object.
            BusyError: Work is under way, or the line is full; the latter comes with the first event.
        """
        return self._talk(question, lambda session: session.ask)

    def segment(self, query: str) -> Iterator[Event]:
        """Segment what words mean: a noun phrase, or a question about it. See `ask`."""
        return self._talk(query, lambda session: session.segment)

    def track(self) -> Iterator[Event]:
        """Follow what was clicked and not followed yet, without a question. See `ask`."""
        with self._idle() as session:
            waiting = tuple(sorted(session.scene.waiting))
            flag = self._begin()

        def work(notify: Tell) -> Event:
            session.scene.track(Progress(on_frame=self._frame_sink(session, notify), should_stop=flag))
            return Tracked(waiting)

        return run_work(work, flag=flag, line=self._context.line, at_end=self._end)

    def objects(self) -> list[ObjectInfo]:
        """Return the objects, in the order of their ids."""
        with self._lock:
            if self.has_clip:
                self._awake()
            return self._snapshot.objects(dict(self._names))

    def masks_at(self, frame_index: int) -> dict[int, NDArray[np.bool_]]:
        """Return the masks (H, W) of the objects that are seen on a frame, as far as they are followed."""
        self._awake()
        return self._snapshot.masks_at(frame_index)

    def prompts_at(self, frame_index: int) -> list[PromptMark]:
        """Return the clicks and boxes on a frame, for `draw_overlay`."""
        self._awake()
        return self._snapshot.prompts_at(frame_index)

    def timeline(self) -> dict[int, list[int]]:
        """Return the frames on which each object is seen, rising."""
        self._awake()
        return self._snapshot.timeline()

    def thumbnail(self, object_id: int, *, size: int = 96) -> NDArray[np.uint8] | None:
        """Return a picture of an object, uint8 (size, size, 3); None where it was not seen yet.

        Raises:
            UnknownObjectError: There is no such object.
        """
        self._awake()
        self._check_known(object_id)
        found = self._snapshot.best_look(object_id)
        return None if found is None else crop_object(self.frame(found[0]), found[1], size=size)

    def download(self, kind: str) -> Path:
        """Make a file of what there is, in the visitor's own folder, and return where it lies.

        Args:
            kind: One of `unipixel.demos.sessions.downloads.KINDS`.

        Raises:
            DownloadError: There is no such kind, or it was stopped.
            BusyError: Work is under way.
            NoVideoError: There is no video yet.
        """
        with self._alone() as flag, self._context.readers.slot(should_stop=flag) as has_slot:
            if not has_slot:
                raise DownloadError(f"the download was stopped: {flag.reason}")
            flag.begin()
            subject = self._subject()
            try:
                return make_download(kind, self._folder / RESULTS_FOLDER, subject, check=flag.check)
            except Cancelled as error:
                raise DownloadError(f"the download was stopped: {flag.reason}") from error

    def _subject(self) -> Subject:
        """What a download shows; saved first, since it is part of the whole session."""
        with self._lock:
            session, info = self._awake()
            self._save(session)
            media = (self._media or ("", False))[0]
            return Subject(
                video=session.scene.video,
                bank=session.bank,
                name=info.name,
                snapshot=self._snapshot,
                names=dict(self._names),
                turns=tuple(self._turns),
                model_name=self._context.model_name,
                files={info.name: self._folder / media, BANK_FILE: self._folder / MEMORY_FOLDER / BANK_FILE},
            )

    def _frame_sink(self, session: Session, notify: Tell) -> Callable[[TrackedVideoFrame], None]:
        """Show each frame on the board, and tell of it."""
        num_frames = session.scene.video.info.num_frames or 0
        done: set[int] = set()

        def take(followed: TrackedVideoFrame) -> None:
            index = followed.frame.index
            if index in done:
                done.clear()  # another pass, of other objects
            done.add(index)
            self._snapshot.show_frame(session.scene, index)
            self._fresh = (*self._fresh[1 - _NUM_FRESH :], followed.frame)
            notify(FrameMasked(index, tuple(sorted(followed.objects)), len(done), num_frames))

        return take

    def _replace(self, session: Session, name: str, media: Path, *, is_trusted: bool) -> None:
        """Put a clip in the place of the one before, whose files go."""
        if self._session is not None:
            self._session.scene.video.close()
        for entry in self._folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry != media:
                entry.unlink(missing_ok=True)
        self._install(session, name, media.name, is_trusted=is_trusted)
        self._save(session)

    def _talk(self, text: str, method: Callable[[Session], Callable[..., Answer]]) -> Iterator[Event]:
        with self._idle() as session:
            self._check_question(text, session)
            flag = self._begin()

        def work(notify: Tell) -> Event:
            if self._num_said >= self._context.limits.max_turns:
                session.restart()
                self._num_said = 0
            self._num_said += 1
            answer = method(session)(
                text, on_text=_text_sink(notify), on_frame=self._frame_sink(session, notify), should_stop=flag
            )
            with self._lock:
                self._turns.append(SavedTurn(text, answer.text))
            named = tuple(dict.fromkeys(segment.object_id for segment in answer.parsed.objects))
            return Answered(text, answer.text, named, answer.new_ids)

        return run_work(work, flag=flag, line=self._context.line, at_end=self._end)

    def _check_question(self, text: str, session: Session) -> None:
        limit = self._context.limits.max_question_chars
        if len(text) > limit:
            raise QuestionError(f"the question has {len(text)} characters, at most {limit} are allowed: shorten it")
        if found := _TOKEN.search(text):
            raise QuestionError(f"{found[0]} has a meaning of its own to the model: leave it out")
        try:
            check_question(text, known_ids=session.scene.known_ids)
        except ValueError as error:
            raise QuestionError(str(error)) from error


def _text_sink(notify: Tell) -> Callable[[str], None]:
    written: list[str] = []

    def take(piece: str) -> None:
        if piece:
            written.append(piece)
            notify(TextWritten(piece, "".join(written)))

    return take
