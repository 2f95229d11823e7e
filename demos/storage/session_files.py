"""The files of one user session in its folder: `session.json`, the object memory bank, and a journal of masks."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import replace
from pathlib import Path

from unipixel.demos.storage.mask_journal import MaskJournal, replay_journal
from unipixel.demos.storage.saved_session import SavedSession
from unipixel.memory.bank import ObjectMemoryBank


class SessionFiles:
    """Writes the files of a session; `session.json` names the others and changes last, in one step.

    Attributes:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        """Write nothing yet.

        Args:
            folder: See `SessionFiles.folder`.
        """
        self.folder = folder
        self._saved: SavedSession | None = None
        self._saved_bank: tuple[ObjectMemoryBank, int] | None = None

    @classmethod
    def read(cls, folder: Path) -> tuple[SessionFiles, SavedSession, ObjectMemoryBank]:
        """Read what was saved last, and the masks that were appended to its journal.

        Raises:
            OSError: A file cannot be read.
            ValueError: A file is damaged, too large, or of another version.
        """
        files, saved = cls(folder), SavedSession.read(folder)
        bank = ObjectMemoryBank.load(folder / saved.memory)
        if saved.journal is not None:
            replay_journal(folder / saved.journal, bank)
        files._saved, files._saved_bank = saved, (bank, bank.version)
        return files, saved, bank

    @property
    def has_journal(self) -> bool:
        """Whether a journal contains masks that the saved bank does not."""
        return self._saved is not None and self._saved.journal is not None

    def write(self, state: SavedSession, bank: ObjectMemoryBank, *, journal: str | None = None) -> None:
        """Save a session; the bank is written only if it was changed.

        Args:
            state: The session; the names of its memory and journal are replaced.
            bank: Its object memory bank.
            journal: Name of the file to which masks are appended from now on.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        before = self._saved
        if before is not None and not self.has_journal and self._saved_bank == (bank, bank.version):
            memory = before.memory
        else:
            memory = f"memory-{secrets.token_hex(8)}"
            bank.save(self.folder / memory)
        saved = replace(state, memory=memory, journal=journal)
        saved.write(self.folder)
        self._saved, self._saved_bank = saved, (bank, bank.version)
        if before is not None and before.memory != memory:
            shutil.rmtree(self.folder / before.memory, ignore_errors=True)
        if before is not None and before.journal not in (None, journal):
            (self.folder / str(before.journal)).unlink(missing_ok=True)

    def write_names(self, names: dict[int, str]) -> bool:
        """Save the names of objects only; return False, and write nothing, if nothing was saved before.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        if self._saved is None:
            return False
        self._saved = replace(self._saved, names=names)
        self._saved.write(self.folder)
        return True

    def open_journal(self, state: SavedSession, bank: ObjectMemoryBank) -> MaskJournal:
        """Save a session, and open a journal of the masks that follow; the next `write` removes it.

        Raises:
            OSError: The folder is not writable, or the disk is full.
        """
        name = f"masks-{secrets.token_hex(8)}.jsonl"
        journal = MaskJournal(self.folder / name)
        try:
            self.write(state, bank, journal=name)
        except BaseException:
            journal.close()
            raise
        return journal

    def remove_others(self) -> None:
        """Remove what an earlier video, or an interrupted writer, left in the folder."""
        if self._saved is not None:
            self._saved.remove_other_files(self.folder)
