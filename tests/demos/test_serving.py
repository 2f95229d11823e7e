"""Downloads: what is in them, and that nothing else is ever handed out."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest
from demo_visitors import make_store, track, visitor_with_clip
from PIL import Image
from pycocotools.coco import COCO
from tiny_checkpoint import HEIGHT, NUM_FRAMES, WIDTH, decode

from unipixel.demos.security.download_access import MEDIA_TYPES, open_download
from unipixel.demos.sessions.downloads import FILE_NAMES, KINDS
from unipixel.demos.sessions.errors import DownloadError, UnknownVisitorError
from unipixel.demos.sessions.session_store import VisitorStore
from unipixel.demos.sessions.user_session import Visitor

MASK = np.zeros((HEIGHT, WIDTH), dtype=bool)
MASK[8:24, 8:24] = True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[VisitorStore]:
    opened = make_store(tmp_path / "store")
    yield opened
    opened.close_all()


@pytest.fixture
def visitor(store: VisitorStore, tmp_path: Path) -> Visitor:
    visitor = visitor_with_clip(store, tmp_path)
    visitor.mask(1, MASK)
    list(visitor.ask("What is [1]?"))
    visitor.rename(1, "cup")
    return visitor


class TestContent:
    def test_masks_are_those_that_are_shown(self, visitor: Visitor) -> None:
        with zipfile.ZipFile(visitor.download("masks")) as archive:
            assert archive.namelist() == [f"1/{index:05d}.png" for index in range(NUM_FRAMES)]
            for index in range(NUM_FRAMES):
                pixels = np.asarray(Image.open(io.BytesIO(archive.read(f"1/{index:05d}.png"))))
                shown = visitor.masks_at(index).get(1, np.zeros((HEIGHT, WIDTH), dtype=bool))
                assert np.array_equal(pixels == 255, shown)

    def test_coco_is_read_by_its_own_reader(self, visitor: Visitor) -> None:
        document = COCO(str(visitor.download("coco")))
        shown = visitor.objects()[0].visible_frames
        assert [item["frame_index"] for item in document.loadImgs(document.getImgIds())] == list(range(NUM_FRAMES))
        assert sorted(item["image_id"] - 1 for item in document.loadAnns(document.getAnnIds())) == list(shown)
        assert [item["name"] for item in document.loadCats(document.getCatIds())] == ["cup"]

    def test_overlay_has_every_frame(self, visitor: Visitor) -> None:
        assert decode(visitor.download("overlay")) == (NUM_FRAMES, (WIDTH, HEIGHT))

    def test_overlay_of_an_image_is_an_image(self, store: VisitorStore, tmp_path: Path) -> None:
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "still.png")
        visitor = store.open()
        visitor.load(tmp_path / "still.png", is_trusted=True)
        visitor.mask(1, MASK)
        track(visitor)
        path = visitor.download("overlay")
        assert path.name == "overlay.png"
        assert Image.open(path).size == (WIDTH, HEIGHT)

    def test_timeline_tells_where_each_object_is_seen(self, visitor: Visitor) -> None:
        document = json.loads(visitor.download("timeline").read_text(encoding="utf-8"))
        assert document["num_frames"] == NUM_FRAMES
        (entry,) = document["objects"]
        assert (entry["id"], entry["name"]) == (1, "cup")
        assert entry["visible_frames"] == visitor.timeline()[1]

    def test_whole_session_holds_the_upload_and_the_conversation(self, visitor: Visitor, tmp_path: Path) -> None:
        with zipfile.ZipFile(visitor.download("session")) as archive:
            names = set(archive.namelist())
            conversation = json.loads(archive.read("conversation.json"))
            upload = archive.read("upload/clip-6.mp4")
        assert {"result.json", "coco.json", "timeline.json", "overlay.mp4", "memory/bank.json"} <= names
        assert conversation["turns"][0]["question"] == "What is [1]?"
        assert upload == (tmp_path / "clip-6.mp4").read_bytes()

    def test_whole_session_may_be_taken_before_anything_was_followed(self, store: VisitorStore, tmp_path: Path) -> None:
        visitor = visitor_with_clip(store, tmp_path)
        with zipfile.ZipFile(visitor.download("session")) as archive:
            assert "upload/clip-6.mp4" in archive.namelist()
        with pytest.raises(DownloadError, match="nothing was followed yet"):
            visitor.download("masks")

    def test_clip_named_like_a_file_of_ours_replaces_none(self, store: VisitorStore, tmp_path: Path) -> None:
        visitor = visitor_with_clip(store, tmp_path)
        visitor.load(tmp_path / "clip-6.mp4", name="../../bank.json", is_trusted=True)
        with zipfile.ZipFile(visitor.download("session")) as archive:
            assert not any(name.startswith(("/", "..")) or ".." in name.split("/") for name in archive.namelist())
            assert json.loads(archive.read("memory/bank.json"))["format"]

    def test_files_name_neither_the_server_nor_the_key(self, visitor: Visitor, tmp_path: Path) -> None:
        secrets = [str(tmp_path).encode(), visitor.key.encode(), visitor.folder.name.encode()]
        for kind in KINDS:
            path = visitor.download(kind)
            contents = [path.read_bytes()]
            if path.suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    contents += [archive.read(name) for name in archive.namelist()]
            assert not any(secret in content for secret in secrets for content in contents), kind

    def test_unknown_kind_is_refused(self, visitor: Visitor) -> None:
        with pytest.raises(DownloadError, match="choose masks, coco, overlay, timeline, session"):
            visitor.download("../session.json")

    def test_stopped_download_leaves_nothing_behind(self, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(av.VideoFrame, "from_ndarray", lambda *_, **__: visitor.cancel())
        with pytest.raises((DownloadError, AttributeError)):
            visitor.download("overlay")
        assert list((visitor.folder / "results").iterdir()) == []
        assert not visitor.is_busy


class TestServing:
    def test_every_kind_is_served_to_its_visitor(self, store: VisitorStore, visitor: Visitor) -> None:
        for kind in KINDS:
            path = visitor.download(kind)
            assert path.name in FILE_NAMES
            assert path.suffix in MEDIA_TYPES
            with open_download(store, visitor.key, path.name) as file:
                assert file.read() == path.read_bytes()

    def test_nobody_elses_files_are_served(self, store: VisitorStore, visitor: Visitor, tmp_path: Path) -> None:
        visitor.download("coco")
        other = visitor_with_clip(store, tmp_path)
        with pytest.raises(DownloadError, match="was not made yet"):
            open_download(store, other.key, "coco.json")
        with pytest.raises(UnknownVisitorError):
            open_download(store, visitor.folder.name, "coco.json")
        with pytest.raises(UnknownVisitorError):
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
    def test_name_that_leads_elsewhere_is_no_download(
        self, shelf: tuple[VisitorStore, Visitor, Visitor], name: str, encode: object
    ) -> None:
        store, visitor, other = shelf
        written = name.format(other=other.folder.name, folder=visitor.folder)
        assert callable(encode)
        with pytest.raises(DownloadError, match="no download of that name"):
            open_download(store, visitor.key, encode(written))

    @pytest.mark.parametrize("target", ["file", "other", "folder"])
    def test_link_is_not_followed(self, store: VisitorStore, visitor: Visitor, tmp_path: Path, target: str) -> None:
        visitor.download("timeline")
        results = visitor.folder / "results"
        (tmp_path / "secret").write_text("hidden", encoding="utf-8")
        if target == "file":
            (results / "coco.json").symlink_to(tmp_path / "secret")
        elif target == "other":
            other = visitor_with_clip(store, tmp_path)
            other.mask(1, MASK)
            track(other)
            (results / "coco.json").symlink_to(other.download("coco"))
        else:
            elsewhere = tmp_path / "elsewhere"
            elsewhere.mkdir()
            (elsewhere / "coco.json").write_text("hidden", encoding="utf-8")
            results.rename(visitor.folder / "before")
            results.symlink_to(elsewhere)
        with pytest.raises(DownloadError, match="was not made yet"):
            open_download(store, visitor.key, "coco.json")

    def test_what_is_no_plain_file_is_not_served(self, store: VisitorStore, visitor: Visitor) -> None:
        visitor.download("timeline")
        (visitor.folder / "results" / "coco.json").mkdir()
        with pytest.raises(DownloadError, match="was not made yet"):
            open_download(store, visitor.key, "coco.json")

    def test_files_go_with_their_visitor(self, store: VisitorStore, visitor: Visitor) -> None:
        visitor.download("coco")
        store.close(visitor.key)
        with pytest.raises(UnknownVisitorError):
            open_download(store, visitor.key, "coco.json")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VisitorStore, Visitor, Visitor]]:
    """Two visitors with a download each."""
    folder = tmp_path_factory.mktemp("shelf")
    store = make_store(folder / "store")
    visitors = [visitor_with_clip(store, folder) for _ in range(2)]
    for visitor in visitors:
        visitor.mask(1, MASK)
        track(visitor)
        visitor.download("coco")
    yield store, visitors[0], visitors[1]
    store.close_all()
