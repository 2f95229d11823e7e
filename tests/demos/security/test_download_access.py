"""Downloads: their content, and that no other file is served."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import numpy as np
import pytest
from helpers.demo_sessions import make_store, open_session_with_clip, track
from helpers.moving_square import HEIGHT, NUM_FRAMES, WIDTH, probe_video
from PIL import Image
from pycocotools.coco import COCO

from unipixel.demos.errors import DownloadError, UnknownSessionError
from unipixel.demos.export.downloads import FILE_NAMES, KINDS, DownloadRequest
from unipixel.demos.security.download_access import MEDIA_TYPES, open_download
from unipixel.demos.sessions.session_store import SessionStore
from unipixel.demos.sessions.user_session import UserSession

MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[8:24, 8:24] = True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SessionStore]:
    opened = make_store(tmp_path / "store")
    yield opened
    opened.close_all()


@pytest.fixture
def user_session(store: SessionStore, tmp_path: Path) -> UserSession:
    user_session = open_session_with_clip(store, tmp_path)
    user_session.prompts.add_mask(1, MASK)
    list(user_session.ask("What is [1]?"))
    user_session.prompts.rename(1, "cup")
    return user_session


class TestContent:
    def test_masks_equal_those_of_the_session(self, user_session: UserSession) -> None:
        with zipfile.ZipFile(user_session.download(DownloadRequest("masks"))) as archive:
            assert archive.namelist() == [f"1/{index:05d}.png" for index in range(NUM_FRAMES)]
            for index in range(NUM_FRAMES):
                pixels = np.asarray(Image.open(io.BytesIO(archive.read(f"1/{index:05d}.png"))))
                shown = user_session.masks_at(index).get(1, np.zeros((HEIGHT, WIDTH), dtype=bool))
                assert np.array_equal(pixels == 255, shown)

    def test_coco_is_read_by_pycocotools(self, user_session: UserSession) -> None:
        document = COCO(str(user_session.download(DownloadRequest("coco"))))
        shown = user_session.objects()[0].visible_frames
        assert [item["frame_index"] for item in document.loadImgs(document.getImgIds())] == list(range(NUM_FRAMES))
        assert sorted(item["image_id"] - 1 for item in document.loadAnns(document.getAnnIds())) == list(shown)
        assert [item["name"] for item in document.loadCats(document.getCatIds())] == ["cup"]

    def test_overlay_has_every_frame(self, user_session: UserSession) -> None:
        assert probe_video(user_session.download(DownloadRequest("overlay"))) == (NUM_FRAMES, (WIDTH, HEIGHT))

    def test_overlay_of_an_image_is_an_image(self, store: SessionStore, tmp_path: Path) -> None:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "still.png")
        user_session = store.open()
        user_session.load(tmp_path / "still.png", is_trusted=True)
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        path = user_session.download(DownloadRequest("overlay"))
        assert path.name == "overlay.png"
        assert Image.open(path).size == (WIDTH, HEIGHT)

    def test_timeline_contains_the_visible_frames(self, user_session: UserSession) -> None:
        document = json.loads(user_session.download(DownloadRequest("timeline")).read_text(encoding="utf-8"))
        assert document["num_frames"] == NUM_FRAMES
        (entry,) = document["objects"]
        assert (entry["id"], entry["name"]) == (1, "cup")
        assert entry["visible_frames"] == list(user_session.objects()[0].visible_frames)

    def test_complete_session_contains_the_upload_and_the_conversation(
        self, user_session: UserSession, tmp_path: Path
    ) -> None:
        with zipfile.ZipFile(user_session.download(DownloadRequest("session"))) as archive:
            names = set(archive.namelist())
            conversation = json.loads(archive.read("conversation.json"))
            upload = archive.read("upload/clip-6.mp4")
        assert {"result.json", "coco.json", "timeline.json", "session.json", "memory/bank.json"} <= names
        assert conversation["turns"][0]["question"] == "What is [1]?"
        assert upload == (tmp_path / "clip-6.mp4").read_bytes()

    def test_complete_session_can_be_downloaded_before_tracking(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = open_session_with_clip(store, tmp_path)
        with zipfile.ZipFile(user_session.download(DownloadRequest("session"))) as archive:
            assert "upload/clip-6.mp4" in archive.namelist()
        with pytest.raises(DownloadError, match="no object has a mask yet"):
            user_session.download(DownloadRequest("masks"))

    def test_upload_named_like_another_file_replaces_none(self, store: SessionStore, tmp_path: Path) -> None:
        user_session = open_session_with_clip(store, tmp_path)
        user_session.load(tmp_path / "clip-6.mp4", name="../../bank.json", is_trusted=True)
        with zipfile.ZipFile(user_session.download(DownloadRequest("session"))) as archive:
            assert not any(name.startswith(("/", "..")) or ".." in name.split("/") for name in archive.namelist())
            assert json.loads(archive.read("memory/bank.json"))["format"]

    def test_files_contain_neither_server_paths_nor_the_key(self, user_session: UserSession, tmp_path: Path) -> None:
        secrets = [str(tmp_path).encode(), user_session.key.encode(), user_session.lifecycle.folder.name.encode()]
        for kind in KINDS:
            path = user_session.download(DownloadRequest(kind))
            contents = [path.read_bytes()]
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    contents += [archive.read(name) for name in archive.namelist()]
            assert not any(secret in content for secret in secrets for content in contents), kind

    def test_unknown_kind_is_refused(self, user_session: UserSession) -> None:
        with pytest.raises(DownloadError, match="choose masks, coco, overlay, effects, timeline, session"):
            user_session.download(DownloadRequest("../session.json"))

    def test_cancelled_download_leaves_no_files(
        self, user_session: UserSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        convert = av.VideoFrame.from_ndarray

        def cancel_and_convert(*arguments: Any, **options: Any) -> av.VideoFrame:
            user_session.lifecycle.cancel()
            return convert(*arguments, **options)

        monkeypatch.setattr(av.VideoFrame, "from_ndarray", cancel_and_convert)
        with pytest.raises(DownloadError, match="cancel"):
            user_session.download(DownloadRequest("overlay"))
        assert list((user_session.lifecycle.folder / "results").iterdir()) == []
        assert not user_session.lifecycle.is_busy


class TestAccess:
    def test_every_kind_is_served_to_its_session(self, store: SessionStore, user_session: UserSession) -> None:
        for kind in KINDS:
            path = user_session.download(DownloadRequest(kind))
            assert path.name in FILE_NAMES
            assert path.suffix in MEDIA_TYPES
            with open_download(store, user_session.key, path.name) as file:
                assert file.read() == path.read_bytes()

    def test_files_of_another_session_are_not_served(
        self, store: SessionStore, user_session: UserSession, tmp_path: Path
    ) -> None:
        user_session.download(DownloadRequest("coco"))
        other = open_session_with_clip(store, tmp_path)
        with pytest.raises(DownloadError, match="does not exist yet"):
            open_download(store, other.key, "coco.json")
        with pytest.raises(UnknownSessionError, match="unknown or has expired"):
            open_download(store, user_session.lifecycle.folder.name, "coco.json")
        with pytest.raises(UnknownSessionError, match="unknown or has expired"):
            open_download(store, "x" * 43, "coco.json")

    @pytest.mark.parametrize("encode", [str, quote, lambda name: quote(quote(name)), lambda name: quote(name, safe="")])
    @pytest.mark.parametrize(
        "name",
        [
            "../session.json",
            "../memory/bank.json",
            "../../{other}/results/coco.json",
            "../results/coco.json",
            "./coco.json",
            "results/coco.json",
            "{folder}/session.json",
            "{folder}/results/coco.json",
            "/etc/passwd",
            "....//....//etc/passwd",
            "..\\session.json",
            "coco.json/",
            "coco.json/../../session.json",
            "coco.json\0.png",
            "coco.json ",
            "COCO.JSON",
            "\uff0e\uff0e/session.json",
            "",
            ".",
            "..",
            "~",
        ],
    )
    def test_name_that_is_a_path_is_refused(
        self, two_sessions: tuple[SessionStore, UserSession, UserSession], name: str, encode: object
    ) -> None:
        store, user_session, other = two_sessions
        written = name.format(other=other.lifecycle.folder.name, folder=user_session.lifecycle.folder)
        assert callable(encode)
        with pytest.raises(DownloadError, match="no download of that name"):
            open_download(store, user_session.key, encode(written))

    @pytest.mark.parametrize("target", ["file", "other", "folder"])
    def test_link_is_not_followed(
        self, store: SessionStore, user_session: UserSession, tmp_path: Path, target: str
    ) -> None:
        user_session.download(DownloadRequest("timeline"))
        results = user_session.lifecycle.folder / "results"
        (tmp_path / "secret").write_text("hidden", encoding="utf-8")
        if target == "file":
            (results / "coco.json").symlink_to(tmp_path / "secret")
        elif target == "other":
            other = open_session_with_clip(store, tmp_path)
            other.prompts.add_mask(1, MASK)
            track(other)
            (results / "coco.json").symlink_to(other.download(DownloadRequest("coco")))
        else:
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            (elsewhere / "coco.json").write_text("hidden", encoding="utf-8")
            results.rename(user_session.lifecycle.folder / "before")
            results.symlink_to(elsewhere)
        with pytest.raises(DownloadError, match="does not exist yet"):
            open_download(store, user_session.key, "coco.json")

    def test_folder_is_not_served(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.download(DownloadRequest("timeline"))
        (user_session.lifecycle.folder / "results" / "coco.json").mkdir()
        with pytest.raises(DownloadError, match="does not exist yet"):
            open_download(store, user_session.key, "coco.json")

    def test_files_are_removed_with_their_session(self, store: SessionStore, user_session: UserSession) -> None:
        user_session.download(DownloadRequest("coco"))
        store.close(user_session.key)
        with pytest.raises(UnknownSessionError, match="unknown or has expired"):
            open_download(store, user_session.key, "coco.json")


@pytest.fixture(scope="module")
def two_sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SessionStore, UserSession, UserSession]]:
    """Two sessions with a download each."""
    folder = tmp_path_factory.mktemp("two_sessions")
    store = make_store(folder / "store")
    user_sessions = [open_session_with_clip(store, folder) for _ in range(2)]
    for user_session in user_sessions:
        user_session.prompts.add_mask(1, MASK)
        track(user_session)
        user_session.download(DownloadRequest("coco"))
    yield store, user_sessions[0], user_sessions[1]
    store.close_all()
