"""Opens saved sessions: from the folder of a user session, or from an archive."""

from __future__ import annotations

import contextlib
import logging
import secrets
import tempfile
from dataclasses import replace
from pathlib import Path

from unipixel.demos.errors import DemoError, UnknownSessionError, UploadError
from unipixel.demos.export.archive import read_archive
from unipixel.demos.limits import Limits
from unipixel.demos.security.uploads import display_name
from unipixel.demos.sessions.loaded_session import LoadedSession
from unipixel.demos.sessions.server_context import ServerContext
from unipixel.demos.storage.saved_session import SavedSession
from unipixel.demos.storage.session_files import SessionFiles
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.processing.clip_layout import recall_prompt

_LOG = logging.getLogger(__name__)
_MAX_TURN_CHARS = 20_000


def restore_session(folder: Path, context: ServerContext) -> LoadedSession:
    """Restore what `LoadedSession.save` wrote, and what was appended to its journal.

    Args:
        folder: Folder of the user session.
        context: What all sessions share.

    Raises:
        UnknownSessionError: It is damaged.
    """
    try:
        files, saved, bank = SessionFiles.read(folder)
        loaded = _open_saved(saved, bank, folder / saved.media, context)
    except (OSError, ValueError, DemoError) as error:
        _LOG.warning("cannot restore a saved session: %s", error)
        raise UnknownSessionError from error
    loaded.files = files
    if files.has_journal:
        # On a full disk, the journal is kept until there is space.
        with contextlib.suppress(OSError):
            loaded.save()
    files.remove_others()
    return loaded


def open_archive(archive: Path, folder: Path, context: ServerContext) -> LoadedSession:
    """Open an archive of a session; see `read_archive`.

    Args:
        archive: The file.
        folder: Folder of the user session, which receives the video.
        context: What all sessions share.

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
            return _open_saved(saved, bank, file, context)
        except ValueError as error:
            file.unlink(missing_ok=True)
            if isinstance(error, UploadError):
                raise
            raise UploadError(f"the archive is not a session that this server can open: {error}") from error


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


def _open_saved(saved: SavedSession, bank: ObjectMemoryBank, file: Path, context: ServerContext) -> LoadedSession:
    """Open the video of a saved session, with its objects and conversation."""
    loaded = LoadedSession.open(file, name=saved.name, is_trusted=saved.is_trusted, context=context, bank=bank)
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
