"""The part of a user session that is in memory, and how it is saved and restored."""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from unipixel.demos.errors import DemoError, UnknownObjectError, UnknownSessionError, UploadError
from unipixel.demos.export.archive import ArchiveState, read_archive
from unipixel.demos.limits import Limits
from unipixel.demos.security.media_streams import describe_streams, sound_blocks
from unipixel.demos.security.sandboxed_video import SandboxedVideo
from unipixel.demos.security.uploads import display_name
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.sessions.session_snapshot import SessionSnapshot
from unipixel.demos.storage.mask_journal import MaskJournal, replay_journal
from unipixel.demos.storage.saved_session import SavedSession, SavedTurn
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import MaskRecord
from unipixel.processing.clip_layout import recall_prompt, record_prompt
from unipixel.session.session import Session, open_session
from unipixel.session.video_objects import ObjectSnapshot
from unipixel.video.frame import Frame
from unipixel.video.open import Video, open_video

_LOG = logging.getLogger(__name__)
_MAX_UNDO = 16
_MAX_TURN_CHARS = 20_000


@dataclass(frozen=True)
class MediaInfo:
    """The video or image of a user session.

    Attributes:
        name: Display name.
        width: Width in pixels.
        height: Height in pixels.
        num_frames: Number of frames; 1 for an image.
        fps: Frames per second; None for an image.
        duration_seconds: Duration; 0 for an image.
        is_image: Whether it is a still image.
        media_type: Media type for browsers, which play the file as it is; None if they do not.
        has_sound: Whether it has sound.
        start_seconds: Time of the first frame in a browser's player.
    """

    name: str
    width: int
    height: int
    num_frames: int
    fps: float | None
    duration_seconds: float
    is_image: bool
    media_type: str | None = None
    has_sound: bool = False
    start_seconds: float = 0.0


@dataclass(frozen=True)
class ObjectVersion:
    """One object before or after a change, for undo and redo.

    Attributes:
        snapshot: Its prompts and masks.
        name: The name that the user gave.
        prompt_masks: Masks on the frames of its pending prompts, by frame.
    """

    snapshot: ObjectSnapshot
    name: str | None
    prompt_masks: dict[int, MaskRecord]


@dataclass
class LoadedSession:
    """Video, objects and conversation of a user session; replaced as a whole by another video.

    Attributes:
        session: The session with the model.
        info: The video or image.
        file_name: Name of its file in the folder of the user session.
        is_trusted: Whether it is one of the demo's own examples, which are decoded without a sandbox.
        turns: The conversation, bounded.
        names: Names that the user gave, by object id.
        prompt_masks: Masks on the frames of pending prompts, by object id and frame.
        snapshot: Copy of the objects for other threads.
        undo: States of objects before the latest changes, oldest first.
        redo: States of objects before the changes were undone, oldest first.
        recent_frames: Frames that were just tracked, so that the page need not decode them again.
        num_turns: Turns since the model's conversation started.
        revision: Increases with every change that a page shows; unique over restarts of the server.
        media_id: Identifies the loaded video or image.
        client: Hash of the client that opened the session.
        source: The video in its sandbox; None for a trusted one.
    """

    session: Session
    info: MediaInfo
    file_name: str
    is_trusted: bool
    turns: deque[SavedTurn]
    names: dict[int, str] = field(default_factory=dict)
    prompt_masks: dict[int, dict[int, MaskRecord]] = field(default_factory=dict)
    snapshot: SessionSnapshot = field(default_factory=SessionSnapshot)
    undo: deque[ObjectVersion] = field(default_factory=lambda: deque(maxlen=_MAX_UNDO))
    redo: deque[ObjectVersion] = field(default_factory=lambda: deque(maxlen=_MAX_UNDO))
    recent_frames: tuple[Frame, ...] = ()
    num_turns: int = 0
    revision: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    media_id: str = field(default_factory=lambda: secrets.token_hex(8))
    client: str = ""
    source: SandboxedVideo | None = None
    _saved: SavedSession | None = None
    _saved_bank: tuple[ObjectMemoryBank, int] | None = None

    @classmethod
    def open(
        cls, file: Path, *, name: str, is_trusted: bool, context: ServerContext, bank: ObjectMemoryBank | None = None
    ) -> LoadedSession:
        """Open a video or image of the user session's folder.

        Args:
            file: The file.
            name: Display name.
            is_trusted: See `LoadedSession.is_trusted`.
            context: What all sessions share.
            bank: Objects of a saved session.

        Raises:
            UploadError: It is neither a video nor an image, or above a limit.
            OSError: A trusted file cannot be read.
            ValueError: The bank does not fit the video.
        """
        source = None if is_trusted else SandboxedVideo(file, name=name, limits=context.limits)
        video = open_video(file) if source is None else Video(source)
        streams = describe_streams(file) if source is None else source.streams
        try:
            session = open_session(context.model, context.processor, video, settings=context.settings, bank=bank)
        except BaseException:
            video.close()
            raise
        info = MediaInfo(
            name=name,
            width=video.info.width,
            height=video.info.height,
            num_frames=video.info.num_frames or 0,
            fps=video.info.fps,
            duration_seconds=video.info.duration_seconds or 0.0,
            is_image=video.info.is_image,
            media_type=None if video.info.is_image else streams.media_type,
            has_sound=streams.has_sound and not video.info.is_image,
            start_seconds=streams.start_seconds,
        )
        turns: deque[SavedTurn] = deque(maxlen=context.limits.max_turns)
        loaded = cls(session, info, file.name, is_trusted, turns, source=source)
        loaded.update_snapshot()
        return loaded

    @classmethod
    def restore(cls, folder: Path, context: ServerContext) -> LoadedSession:
        """Restore what `save` wrote, and what was appended to its journal.

        Raises:
            UnknownSessionError: It is damaged.
        """
        try:
            saved = SavedSession.read(folder)
            bank = ObjectMemoryBank.load(folder / saved.memory)
            if saved.journal is not None:
                replay_journal(folder / saved.journal, bank)
            loaded = cls._from_saved(saved, bank, folder / saved.media, context)
        except (OSError, ValueError, DemoError) as error:
            _LOG.warning("cannot restore a saved session: %s", error)
            raise UnknownSessionError from error
        loaded._saved, loaded._saved_bank = saved, (bank, bank.version)
        if saved.journal is not None:
            loaded.save(folder)
        loaded.remove_other_files(folder)
        return loaded

    @classmethod
    def open_archive(cls, archive: Path, folder: Path, context: ServerContext) -> LoadedSession:
        """Open an archive of a session; see `read_archive`.

        Raises:
            UploadError: It is damaged, of another version, or above a limit.
            OSError: The folder is not writable.
        """
        limits, file = context.limits, folder / f"upload-{secrets.token_hex(16)}"
        with tempfile.TemporaryDirectory(dir=folder, prefix=".archive-") as scratch:
            media, name = read_archive(archive, Path(scratch), limits=limits)
            try:
                saved = replace(SavedSession.read(Path(scratch)), is_trusted=False, name=display_name(name))
                check_limits(saved, limits)
                bank = ObjectMemoryBank.load(Path(scratch) / saved.memory)
                if any(len(bank[object_id].prompts) > limits.max_prompts for object_id in bank.ids):
                    raise ValueError(f"an object has more than {limits.max_prompts} prompts")
                media.rename(file)
                return cls._from_saved(saved, bank, file, context)
            except ValueError as error:
                file.unlink(missing_ok=True)
                if isinstance(error, UploadError):
                    raise
                raise UploadError(f"the archive is not a session that this server can open: {error}") from error

    @classmethod
    def _from_saved(
        cls, saved: SavedSession, bank: ObjectMemoryBank, file: Path, context: ServerContext
    ) -> LoadedSession:
        loaded = cls.open(file, name=saved.name, is_trusted=saved.is_trusted, context=context, bank=bank)
        try:
            for object_id, records in saved.pending_prompts.items():
                prompts = [recall_prompt(record, frame_size=saved.frame_size) for record in records]
                loaded.session.prompt(object_id, *prompts)
        except BaseException:
            loaded.close()
            raise
        loaded.names |= saved.names
        loaded.turns.extend(saved.turns)
        loaded.client = saved.client
        loaded.prompt_masks = {key: saved.prompt_masks.get(key, {}) for key in saved.pending_prompts}
        loaded.update_snapshot()
        return loaded

    def save(self, folder: Path, *, journal: str | None = None) -> None:
        """Save the session to its folder; the file `session.json` changes last, in one step.

        Args:
            folder: Folder of the session.
            journal: Name of the file to which masks are appended from now on.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        bank, before = self.session.bank, self._saved
        if before is not None and before.journal is None and self._saved_bank == (bank, bank.version):
            memory = before.memory
        else:
            memory = f"memory-{secrets.token_hex(8)}"
            bank.save(folder / memory)
        saved = self._saved_session(memory=memory, journal=journal)
        saved.write(folder)
        self._saved, self._saved_bank = saved, (bank, bank.version)
        if before is not None and before.memory != memory:
            shutil.rmtree(folder / before.memory, ignore_errors=True)
        if before is not None and before.journal not in (None, journal):
            (folder / str(before.journal)).unlink(missing_ok=True)

    def save_names(self, folder: Path) -> None:
        """Save the names only, while the objects are being tracked.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        if self._saved is None:
            self.save(folder)
            return
        self._saved = replace(self._saved, names=dict(self.names))
        self._saved.write(folder)

    def open_journal(self, folder: Path) -> MaskJournal:
        """Save the session, and open a journal of the masks that follow; the next `save` removes it.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        name = f"masks-{secrets.token_hex(8)}.jsonl"
        journal = MaskJournal(folder / name)
        try:
            self.save(folder, journal=name)
        except BaseException:
            journal.close()
            raise
        return journal

    def remove_other_files(self, folder: Path) -> None:
        """Remove what an earlier video left in the folder."""
        if self._saved is not None:
            self._saved.remove_other_files(folder)

    def archive_state(self, folder: Path) -> ArchiveState:
        """Return the content of an archive of the session."""
        saved = self._saved_session(memory="", journal=None)
        return ArchiveState(saved, self.session.bank.state(), folder / self.file_name)

    def sound(self, folder: Path) -> Iterator[bytes]:
        """Yield the sound of the video, see `sound_blocks`."""
        if self.source is not None:
            return self.source.sound()
        return sound_blocks(folder / self.file_name, seconds=self.info.duration_seconds)

    def _saved_session(self, *, memory: str, journal: str | None) -> SavedSession:
        pending = self.session.objects.pending_prompts.items()
        return SavedSession(
            name=self.info.name,
            media=self.file_name,
            is_trusted=self.is_trusted,
            frame_size=self.session.bank.frame_size,
            names=dict(self.names),
            turns=tuple(self.turns),
            pending_prompts={key: tuple(record_prompt(prompt) for prompt in prompts) for key, prompts in pending},
            prompt_masks={key: dict(masks) for key, masks in self.prompt_masks.items()},
            memory=memory,
            journal=journal,
            client=self.client,
        )

    @property
    def num_bytes(self) -> int:
        """Approximate memory, without the model."""
        return self.session.num_bytes + self.snapshot.num_bytes

    def update_snapshot(self) -> None:
        """Copy all objects to the snapshot, without masks of prompts that are no longer pending."""
        pending = self.session.objects.pending_prompts
        for object_id in list(self.prompt_masks):
            frames = {prompt.frame_index for prompt in pending.get(object_id, ())}
            kept = {index: mask for index, mask in self.prompt_masks[object_id].items() if index in frames}
            self.prompt_masks[object_id] = kept
            if not kept:
                del self.prompt_masks[object_id]
        self.snapshot.update(self.session.objects, self.prompt_masks)
        self.revision += 1

    def keep_prompt_masks(self) -> None:
        """Store the masks of prompts that are no longer pending in the object memory, before tracking replaces them."""
        bank, pending = self.session.bank, self.session.objects.pending_prompts
        for object_id, masks in self.prompt_masks.items():
            open_frames = {prompt.frame_index for prompt in pending.get(object_id, ())}
            for frame_index, mask in masks.items():
                if object_id in bank and frame_index not in open_frames:
                    pixels = mask.mask(bank.frame_size) if mask.is_visible else None
                    bank.update(object_id, frame_index, pixels, score=mask.score)
        self.update_snapshot()

    def update_object(self, object_id: int) -> None:
        """Copy one changed object to the snapshot."""
        self.snapshot.update_object(self.session.objects, self.prompt_masks, object_id)
        self.revision += 1

    def object_state(self, object_id: int) -> ObjectVersion:
        """Return the state of an object, known or not, for `restore_object`."""
        return ObjectVersion(
            self.session.objects.snapshot_object(object_id),
            self.names.get(object_id),
            dict(self.prompt_masks.get(object_id, {})),
        )

    def restore_object(self, state: ObjectVersion) -> None:
        """Go back to an earlier state of one object."""
        object_id = state.snapshot.object_id
        self.session.objects.restore_object(state.snapshot)
        self.names.pop(object_id, None)
        if state.name is not None:
            self.names[object_id] = state.name
        self.prompt_masks.pop(object_id, None)
        if state.prompt_masks:
            self.prompt_masks[object_id] = dict(state.prompt_masks)

    def check_object(self, object_id: int) -> None:
        """Check that an object exists.

        Raises:
            UnknownObjectError: It does not.
        """
        if object_id not in self.snapshot.object_ids:
            known = ", ".join(f"[{key}]" for key in self.snapshot.object_ids) or "none"
            raise UnknownObjectError(f"there is no object [{object_id}]; known objects: {known}")

    def close(self) -> None:
        """Close the video."""
        self.session.objects.video.close()


def check_limits(saved: SavedSession, limits: Limits) -> None:
    """Check a session from an archive against the limits of the server.

    Raises:
        ValueError: It exceeds one.
    """
    counts = [len(records) for records in saved.pending_prompts.values()]
    longest_name = max(map(len, saved.names.values()), default=0)
    texts = [len(text) for turn in saved.turns for text in (turn.question, turn.answer)]
    if max(counts, default=0) > limits.max_prompts or longest_name > limits.max_name_chars:
        raise ValueError(f"an object has more than {limits.max_prompts} prompts, or too long a name")
    if max(texts, default=0) > _MAX_TURN_CHARS:
        raise ValueError(f"a turn of the conversation has more than {_MAX_TURN_CHARS} characters")
