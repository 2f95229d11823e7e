"""What is on disk: every acknowledged change, at any moment; nothing of servers that were killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.demo_sessions import make_store, open_session_with_clip, track
from helpers.moving_square import HEIGHT, WIDTH

from unipixel.demos.errors import StorageError
from unipixel.demos.sessions.events import FrameMasked
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.storage.mask_journal import MaskJournal, replay_journal
from unipixel.demos.storage.server_folder import LockedFolder, make_temporary_folder, remove_abandoned_folders
from unipixel.memory.bank import ObjectMemoryBank
from unipixel.memory.records import MaskRecord

MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[8:24, 8:24] = True


def content(user_session: UserSession) -> tuple[object, ...]:
    """Everything that a user sees."""
    snapshot = user_session.lifecycle.loaded().snapshot
    masks = {key: snapshot.records_of(key) for key in snapshot.object_ids}
    return user_session.objects(), masks, user_session.history, user_session.info


def after_a_crash(store: SessionStore, user_session: UserSession, tmp_path: Path) -> tuple[object, ...]:
    """Copy the folder as it is on disk now, as if the server were killed, and read the copy with another server."""
    folder = tmp_path / f"crash-{len(list(tmp_path.iterdir()))}"
    while True:
        try:
            shutil.copytree(store.folder, folder)
            break
        except shutil.Error:  # a file was replaced during the copy, which takes no time in a crash
            shutil.rmtree(folder)
    later = make_store(folder)
    restored = content(later.get(user_session.key))
    later.close_all()
    return restored


class TestCrash:
    def test_every_change_is_on_disk_when_it_returns(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        prompts = user_session.prompts
        changes = [
            lambda: prompts.add_point(1, 12, 16, 2),
            lambda: prompts.add_point(1, 14, 16, 2),
            lambda: prompts.add_mask(2, MASK),
            lambda: track(user_session),
            lambda: prompts.rename(1, "cup"),
            lambda: prompts.add_point(1, 30, 20, 4),
            lambda: list(user_session.ask("What is [2]?")),
            lambda: prompts.forget(2),
            lambda: prompts.undo(),
        ]
        for number, change in enumerate(changes):
            change()
            assert after_a_crash(store, user_session, tmp_path) == content(user_session), number
        store.close_all()

    def test_every_acknowledged_frame_is_on_disk_while_objects_are_tracked(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path, num_frames=12)
        user_session.prompts.add_mask(1, MASK)
        for event in user_session.track():
            if isinstance(event, FrameMasked) and event.num_done in (1, 6, 12):
                if event.num_done == 6:
                    user_session.prompts.rename(1, "cup")
                objects, masks, _, _ = after_a_crash(store, user_session, tmp_path)
                assert masks[1][event.frame_index].counts == event.counts[1]  # type: ignore[index]
                assert len(masks[1]) >= event.num_done  # type: ignore[index]
                assert not objects[0].has_pending_prompts  # type: ignore[index]
        assert not list(user_session.lifecycle.folder.glob("masks-*"))
        store.close_all()

    def test_files_of_an_interrupted_writer_are_removed(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        folder = user_session.lifecycle.folder
        expected = content(user_session)
        names = {path.name for path in folder.iterdir()}
        store.close_all()
        (folder / ".session.json.0123").write_text("{", encoding="utf-8")
        (folder / "memory-0123").mkdir()
        (folder / "received-0123").write_bytes(b"half")
        (folder / "results" / ".partial-x").mkdir(parents=True)
        empty = folder.with_name("0" * 64)
        empty.mkdir()
        (empty / "received-0123").write_bytes(b"half")
        later = make_store(tmp_path / "store")
        assert content(later.get(user_session.key)) == expected
        assert {path.name for path in folder.iterdir()} == names | {"results"}
        assert not list((folder / "results").iterdir())
        assert not empty.exists()
        later.close_all()

    @pytest.mark.parametrize(
        "change",
        [
            lambda session: session.prompts.add_mask(2, MASK),
            lambda session: session.prompts.forget(1),
            lambda session: session.prompts.undo(),
            lambda session: session.prompts.rename(1, "cup"),
            lambda session: list(session.ask("What is [1]?")),
            lambda session: list(session.track()),
        ],
        ids=["add", "forget", "undo", "rename", "ask", "track"],
    )
    def test_change_that_a_full_disk_refuses_is_not_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[UserSession], object]
    ) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        user_session.prompts.add_mask(1, MASK)
        user_session.prompts.rename(1, "glass")
        before = content(user_session)
        with monkeypatch.context() as patch:
            patch.setattr(json, "dump", raise_full_disk)
            with pytest.raises(StorageError, match=r"its disk may be full: try again later$"):
                change(user_session)
            assert content(user_session) == before
        assert after_a_crash(store, user_session, tmp_path) == before
        user_session.prompts.rename(1, "cup")
        assert [item.name for item in user_session.objects()] == ["cup"]
        store.close_all()

    def test_frames_before_the_disk_was_full_stay(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path, num_frames=12)
        user_session.prompts.add_mask(1, MASK)
        events = user_session.track()
        acknowledged = [next(masked_frames(events)) for _ in range(3)]
        with monkeypatch.context() as patch:
            patch.setattr(json, "dump", raise_full_disk)
            patch.setattr(MaskJournal, "append", raise_full_disk)
            with pytest.raises(StorageError, match="its disk may be full"):
                acknowledged.extend(masked_frames(events))
            assert set(acknowledged) <= set(user_session.objects()[0].known_frames)
        user_session.prompts.rename(1, "cup")
        assert set(acknowledged) <= set(user_session.objects()[0].known_frames)
        store.close_all()


def masked_frames(events: Iterable[object]) -> Iterator[int]:
    return (event.frame_index for event in events if isinstance(event, FrameMasked))


def raise_full_disk(*_: object, **__: object) -> None:
    raise OSError("no space left on device: /secret/path")


class TestJournal:
    def test_masks_are_replayed_up_to_an_incomplete_line(self, tmp_path: Path) -> None:
        bank = ObjectMemoryBank((HEIGHT, WIDTH))
        bank.add(1, source="mask")
        seen, absent = MaskRecord.of(MASK, score=0.5), MaskRecord.of(None, score=0.25)
        with MaskJournal(tmp_path / "journal") as journal:
            journal.append(0, {1: seen, 9: seen})
            journal.append(1, {1: absent})
            journal.append(2, {1: seen})
        text = (tmp_path / "journal").read_text()
        (tmp_path / "journal").write_text(text[:-2])
        replay_journal(tmp_path / "journal", bank)
        assert dict(bank.mask_records(1)) == {0: seen, 1: absent}

    @pytest.mark.parametrize("line", ['[0, [[1, "x", 0.5]]]', "[0, 5]", "{}", "[-1, []]", "[0, [[1, 5, 0.5]]]"])
    def test_damaged_line_is_refused(self, tmp_path: Path, line: str) -> None:
        bank = ObjectMemoryBank((HEIGHT, WIDTH))
        bank.add(1, source="mask")
        (tmp_path / "journal").write_text(line + "\n")
        with pytest.raises(ValueError, match=r"."):
            replay_journal(tmp_path / "journal", bank)


class TestServerFolder:
    def test_folders_of_killed_servers_are_removed_and_others_stay(self, tmp_path: Path) -> None:
        running = LockedFolder(tmp_path / "unipixel-demo-running")
        killed = LockedFolder(tmp_path / "unipixel-demo-killed")
        (killed.path / "upload").write_bytes(b"private")
        killed.close()
        (tmp_path / "unipixel-demo-starting").mkdir()
        (tmp_path / "other").mkdir()
        (tmp_path / "unipixel-demo-link").symlink_to(tmp_path / "other")
        assert remove_abandoned_folders(tmp_path) == [killed.path]
        assert {path.name for path in tmp_path.iterdir()} == {
            "unipixel-demo-running", "unipixel-demo-starting", "unipixel-demo-link", "other",
        }  # fmt: skip
        running.close(removes_files=True)
        assert not running.path.exists()

    def test_temporary_folder_is_private(self) -> None:
        folder = make_temporary_folder()
        assert folder.path.stat().st_mode & 0o077 == 0
        folder.close(removes_files=True)
