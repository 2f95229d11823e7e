"""User sessions: isolated, bounded, offloaded, restored, removed."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.demo_sessions import make_store, open_session_with_clip, track
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH

from unipixel.demos.errors import QuotaError, ReadOnlyError, ServerFullError, UnknownSessionError
from unipixel.demos.export.downloads import DownloadRequest
from unipixel.demos.sessions import session_store
from unipixel.demos.sessions.events import Answered
from unipixel.demos.sessions.session_store import SessionStore, view_key
from unipixel.demos.sessions.user_session import UserSession
from unipixel.demos.storage.saved_session import SESSION_FILE

MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[8:24, 8:24] = True
OTHER = np.zeros((HEIGHT, WIDTH), dtype=bool)
OTHER[20:36, 30:50] = True


class TestIsolation:
    def test_keys_are_random_and_long(self) -> None:
        store = make_store(max_sessions_per_client=20)
        keys = {store.open().key for _ in range(20)}
        assert len(keys) == 20
        # 43 characters of 6 bits encode 256 random bits.
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", key) for key in keys)
        store.close_all()

    def test_two_sessions_share_nothing(self, tmp_path: Path) -> None:
        store = make_store()
        one, other = (open_session_with_clip(store, tmp_path) for _ in range(2))
        one.prompts.add_mask(1, MASK)
        one.prompts.rename(1, "mine")
        list(one.ask("What is [1]?"))
        assert other.objects() == []
        assert other.history == []
        assert other.masks_at(0) == {}
        assert one.lifecycle.folder != other.lifecycle.folder
        other.prompts.add_mask(1, OTHER)
        track(other)
        store.close(other.key)
        assert [item.name for item in one.objects()] == ["mine"]
        assert one.frame(0).any()
        store.close_all()

    @pytest.mark.parametrize(
        "key",
        ["", "x", "x" * 43, "../" * 14 + "a", "/etc/passwd", "%2e%2e%2f" * 4 + "abc", "a" * 10_000, "\0" * 43],
    )
    def test_wrong_key_opens_nothing(self, tmp_path: Path, key: str) -> None:
        store = make_store()
        open_session_with_clip(store, tmp_path)
        with pytest.raises(UnknownSessionError, match="is unknown or has expired"):
            store.get(key)
        store.close_all()

    def test_folders_do_not_contain_the_key(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        track_and_offload(store, user_session)
        written = [path.relative_to(tmp_path).as_posix() for path in (tmp_path / "store").rglob("*")]
        texts = [path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file()]
        assert not any(user_session.key in name for name in written)
        assert not any(user_session.key.encode() in text for text in texts)
        # Nor is the name of a folder a key.
        with pytest.raises(UnknownSessionError, match="unknown or has expired"):
            store.get(user_session.lifecycle.folder.name)

    def test_folders_are_readable_by_the_server_only(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        user_session.download(DownloadRequest("coco"))
        for folder in (store.folder, user_session.lifecycle.folder, user_session.lifecycle.folder / "results"):
            assert folder.stat().st_mode & 0o077 == 0

    def test_concurrent_sessions_are_answered_as_if_alone(self, tmp_path: Path) -> None:
        store = make_store(max_workers=2, max_waiting=8)
        alone = open_session_with_clip(store, tmp_path)
        outcomes: dict[int, tuple[str, bytes]] = {}

        def ask(number: int, user_session: UserSession) -> None:
            user_session.prompts.add_mask(1, MASK if number % 2 else OTHER)
            last = list(user_session.ask(f"What is [1]{'?' * (number % 2 + 1)}"))[-1]
            assert isinstance(last, Answered)
            outcomes[number] = (last.text, b"".join(_masks(user_session)))

        ask(0, alone)
        ask(1, open_session_with_clip(store, tmp_path))
        expected = dict(outcomes)
        user_sessions = {number: open_session_with_clip(store, tmp_path) for number in range(2, 8)}
        threads = [threading.Thread(target=ask, args=pair) for pair in user_sessions.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {number: outcomes[number] for number in user_sessions} == {
            number: expected[number % 2] for number in user_sessions
        }
        store.close_all()


class TestOffload:
    def test_least_recently_used_session_is_offloaded_and_restored(self, tmp_path: Path) -> None:
        store = make_store(max_sessions=1)
        first = open_session_with_clip(store, tmp_path)
        first.prompts.add_mask(1, MASK)
        first.prompts.rename(1, "cup")
        list(first.ask("What is [1]?"))
        first.prompts.add_box(2, (4, 4, 20, 20))
        masks, objects, history = _masks(first), first.objects(), first.history
        second = open_session_with_clip(store, tmp_path)
        assert (first.lifecycle.is_loaded, second.lifecycle.is_loaded, store.num_loaded) == (False, True, 1)
        assert first.lifecycle.num_bytes == 0
        again = store.get(first.key)
        assert (again.objects(), again.history, _masks(again)) == (objects, history, masks)
        assert (first.lifecycle.is_loaded, second.lifecycle.is_loaded) == (True, False)
        assert isinstance(list(again.ask("And [2]?"))[-1], Answered)
        store.close_all()

    def test_untrusted_video_is_restored_in_the_sandbox(self, tmp_path: Path) -> None:
        store = make_store(max_sessions=1)
        first = open_session_with_clip(store, tmp_path, is_trusted=False)
        frame = first.frame(3)
        open_session_with_clip(store, tmp_path, is_trusted=False)
        assert not first.lifecycle.is_loaded
        assert np.array_equal(first.frame(3), frame)
        store.close_all()

    def test_sessions_in_a_permanent_folder_outlive_the_server(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        masks = _masks(user_session)
        store.close_all()
        later = make_store(tmp_path / "store")
        assert _masks(later.get(user_session.key)) == masks
        later.close_all()

    def test_folder_of_a_running_server_is_refused(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        with pytest.raises(OSError, match="is used by another server"):
            make_store(tmp_path / "store")
        store.close_all()

    def test_closed_tab_frees_memory_and_the_link_stays_valid(self, tmp_path: Path) -> None:
        store = make_store()
        user_session = open_session_with_clip(store, tmp_path)
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        masks = _masks(user_session)
        store.offload(user_session.key)
        assert (user_session.lifecycle.is_loaded, user_session.lifecycle.num_bytes) == (False, 0)
        assert _masks(store.get(user_session.key)) == masks
        store.close_all()

    def test_tab_closed_during_work_frees_memory_after_the_work_stops(self, tmp_path: Path) -> None:
        store = make_store()
        user_session = open_session_with_clip(store, tmp_path)
        user_session.prompts.add_mask(1, MASK)
        with store._context.queue.slot():
            events = user_session.track()
            next(events)
            store.offload(user_session.key)
            list(events)
        assert not user_session.lifecycle.is_loaded
        assert user_session.objects()[0].has_pending_prompts
        store.close_all()

    def test_tab_closed_without_a_video_removes_the_session(self) -> None:
        store = make_store()
        store.offload(store.open().key)
        assert store.num_known == 0
        store.close_all()

    @pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": "unipixel-demo-session-2"}', "[" * 100_000])
    def test_damaged_session_is_refused(self, tmp_path: Path, content: str) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        store.offload(user_session.key)
        (user_session.lifecycle.folder / SESSION_FILE).write_text(content, encoding="utf-8")
        with pytest.raises(UnknownSessionError, match="open a new one"):
            user_session.frame(0)

    def test_session_of_another_version_is_refused_with_its_format(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        store.offload(user_session.key)
        (user_session.lifecycle.folder / SESSION_FILE).write_text('{"format": "unipixel-demo-session-1"}')
        with pytest.raises(UnknownSessionError, match="open a new one"):
            user_session.frame(0)
        assert "the format 'unipixel-demo-session-1' and was written by another version" in caplog.text

    @pytest.mark.parametrize("media", ["../../clip-6.mp4", "{folder}/clip-6.mp4", "..", "/etc/passwd"])
    def test_saved_session_cannot_refer_to_a_file_outside_its_folder(self, tmp_path: Path, media: str) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        store.offload(user_session.key)
        file = user_session.lifecycle.folder / SESSION_FILE
        own = next(user_session.lifecycle.folder.glob("upload-*")).name
        file.write_text(file.read_text(encoding="utf-8").replace(own, media.format(folder=tmp_path)), encoding="utf-8")
        with pytest.raises(UnknownSessionError, match="unknown or has expired"):
            user_session.frame(0)

    def test_session_that_cannot_be_saved_does_not_affect_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make_store(max_sessions=2)
        first = open_session_with_clip(store, tmp_path)
        second = open_session_with_clip(store, tmp_path)
        monkeypatch.setattr(first.lifecycle, "offload", _fail)
        third = open_session_with_clip(store, tmp_path)
        assert [user_session.lifecycle.is_loaded for user_session in (first, second, third)] == [True, False, True]
        store.close_all()


class TestLimits:
    def test_busy_sessions_are_not_offloaded_for_another(self, tmp_path: Path) -> None:
        store = make_store(max_sessions=1)
        first = open_session_with_clip(store, tmp_path)
        with store._context.queue.slot():
            events = first.ask("What?")
            next(events)
            with pytest.raises(ServerFullError, match="the server is full: 1 sessions are busy"):
                open_session_with_clip(store, tmp_path)
        list(events)
        store.close_all()

    def test_memory_limit_offloads_sessions(self, tmp_path: Path) -> None:
        store = make_store(max_memory_megabytes=0.05)
        first = open_session_with_clip(store, tmp_path)
        first.prompts.add_mask(1, MASK)
        list(first.ask("What is [1]?"))
        assert first.lifecycle.num_bytes > 0.05 * 2**20
        open_session_with_clip(store, tmp_path)
        assert not first.lifecycle.is_loaded
        store.close_all()

    def test_number_of_saved_sessions_is_bounded(self, tmp_path: Path) -> None:
        store = make_store(max_sessions=2, max_saved_sessions=3, min_idle_seconds=1e-6)
        user_sessions = [open_session_with_clip(store, tmp_path) for _ in range(5)]
        assert store.num_known == 3
        assert [user_session.lifecycle.is_closed for user_session in user_sessions] == [True, True, False, False, False]
        assert not user_sessions[0].lifecycle.folder.exists()
        with pytest.raises(UnknownSessionError, match="unknown or has expired"):
            store.get(user_sessions[0].key)
        store.close_all()

    def test_sessions_without_a_video_are_removed_first(self, tmp_path: Path) -> None:
        store = make_store(max_sessions=2, max_saved_sessions=3, min_idle_seconds=1e-6)
        worker = open_session_with_clip(store, tmp_path)
        for _ in range(10):
            store.open()
        assert not worker.lifecycle.is_closed
        assert store.num_known == 3
        store.close_all()

    def test_disk_limit_removes_the_least_recently_used_session(self, tmp_path: Path) -> None:
        store = make_store(max_disk_megabytes=0.004, min_idle_seconds=1e-6)
        first = open_session_with_clip(store, tmp_path)
        (first.lifecycle.folder / "padding").write_bytes(bytes(5000))
        store.open()
        assert first.lifecycle.is_closed
        store.close_all()

    def test_expired_session_is_removed(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store", max_age_seconds=100)
        user_session = open_session_with_clip(store, tmp_path)
        user_session.lifecycle.last_used -= 101
        with pytest.raises(UnknownSessionError, match="unknown or has expired"):
            store.get(user_session.key)
        store.sweep()
        assert not user_session.lifecycle.folder.exists()

    def test_expired_session_of_an_earlier_run_is_removed(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store", max_age_seconds=100)
        user_session = open_session_with_clip(store, tmp_path)
        store.close_all()
        old = time.time() - 101
        for path in (user_session.lifecycle.folder / SESSION_FILE, user_session.lifecycle.folder):
            os.utime(path, (old, old))
        (tmp_path / "store" / "unrelated").mkdir()
        later = make_store(tmp_path / "store", max_age_seconds=100)
        assert later.num_known == 1
        with pytest.raises(UnknownSessionError, match="unknown or has expired"):
            later.get(user_session.key)
        later.sweep()
        assert {path.name for path in (tmp_path / "store").iterdir()} == {"unrelated", ".lock"}

    def test_temporary_folder_is_removed_with_the_store(self, tmp_path: Path) -> None:
        store = make_store()
        user_session = open_session_with_clip(store, tmp_path)
        assert user_session.lifecycle.folder.is_relative_to(store.folder)
        store.close_all()
        assert not store.folder.exists()

    def test_twenty_sessions_leave_no_more_than_two(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store", max_sessions=1, max_saved_sessions=2, min_idle_seconds=1e-6)
        for _ in range(20):
            user_session = open_session_with_clip(store, tmp_path)
            user_session.prompts.add_mask(1, MASK)
            track(user_session)
            assert store.num_loaded <= 1
        assert store.num_known == 2
        assert len([path for path in (tmp_path / "store").iterdir() if path.is_dir()]) == 2

    def test_session_in_a_page_or_in_recent_use_is_never_removed_for_another(self, tmp_path: Path) -> None:
        store = make_store(max_sessions=2, max_saved_sessions=2, min_idle_seconds=1e-6)
        shown = open_session_with_clip(store, tmp_path)
        store.attach(shown)
        open_session_with_clip(store, tmp_path)
        open_session_with_clip(store, tmp_path)
        assert not shown.lifecycle.is_closed
        recent = make_store(max_sessions=1, max_saved_sessions=1)
        open_session_with_clip(recent, tmp_path)
        with pytest.raises(ServerFullError, match="its 1 sessions are in use"):
            recent.open()
        for each in (store, recent):
            each.close_all()

    def test_one_client_cannot_remove_the_sessions_of_others(self, tmp_path: Path) -> None:
        store = make_store(max_saved_sessions=8, max_sessions_per_client=2, min_idle_seconds=900)
        honest = store.open("honest")
        for _ in range(2):
            store.open("busy")
        with pytest.raises(QuotaError, match="2 sessions of yours are open"):
            store.open("busy")
        assert not honest.lifecycle.is_closed
        store.open("another")
        store.close_all()

    def test_disk_space_of_a_client_and_of_uploads_in_progress_is_bounded(self, tmp_path: Path) -> None:
        store = make_store(max_disk_megabytes=1, max_disk_megabytes_per_client=0.5)
        one, other = store.open("one"), store.open("other")
        with store.reserved(one, 400_000):
            with pytest.raises(QuotaError, match="all of your disk space"), store.reserved(one, 200_000):
                pass
            with store.reserved(other, 500_000):
                third = store.open("third")
                with pytest.raises(ServerFullError, match="disk space of the server"), store.reserved(third, 200_000):
                    pass
        with store.reserved(one, 500_000):
            pass
        store.close_all()

    def test_export_of_a_client_without_disk_space_is_refused(self, tmp_path: Path) -> None:
        store = make_store(max_disk_megabytes_per_client=0.1)
        user_session = open_session_with_clip(store, tmp_path)
        user_session.prompts.add_mask(1, MASK)
        assert user_session.download(DownloadRequest("coco")).is_file()
        (user_session.lifecycle.folder / "padding").write_bytes(bytes(200_000))
        with pytest.raises(QuotaError, match="all of your disk space"):
            user_session.download(DownloadRequest("masks"))
        store.close_all()

    def test_session_is_offloaded_some_time_after_its_last_page_was_closed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make_store()
        user_session = open_session_with_clip(store, tmp_path)
        for _ in range(2):
            store.attach(user_session)
        store.detach(user_session)
        monkeypatch.setattr(session_store, "_LEFT_SECONDS", -1.0)
        store.sweep()
        assert user_session.lifecycle.is_loaded
        store.detach(user_session)
        store.sweep()
        assert not user_session.lifecycle.is_loaded
        store.close_all()


class TestViewKey:
    def test_view_key_shows_the_session_and_changes_nothing(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        user_session = open_session_with_clip(store, tmp_path)
        key, shown = user_session.key, view_key(user_session.key)
        assert store.read(shown) == (user_session, True)
        assert store.read(key) == (user_session, False)
        with pytest.raises(ReadOnlyError, match="only shows the session"):
            store.get(shown)
        store.close_all()
        later = make_store(tmp_path / "store")
        by_view, is_read_only = later.read(shown)
        assert (by_view.key, is_read_only) == ("", True)
        assert later.get(key) is by_view
        assert by_view.key == key
        later.close_all()


def track_and_offload(store: SessionStore, user_session: UserSession) -> None:
    user_session.prompts.add_mask(1, MASK)
    track(user_session)
    store.offload(user_session.key)


def _fail() -> bool:
    raise OSError("no space left")


def _masks(user_session: UserSession) -> list[bytes]:
    return [mask.tobytes() for index in range(NUM_FRAMES) for mask in user_session.masks_at(index).values()]
