"""What the readers do with annotations that the miniature sets do not have."""

from __future__ import annotations

import json
import os
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unipixel.memory.rle import encode_rle
from unipixel.train.datasets.formats.category_masks import category_name
from unipixel.train.datasets.formats.expression_files import read_expressions
from unipixel.train.datasets.formats.llava_conversations import read_conversations
from unipixel.train.datasets.formats.osprey_files import read_osprey
from unipixel.train.datasets.formats.refer_pickles import read_references
from unipixel.train.datasets.formats.vicas_clips import read_vicas
from unipixel.train.datasets.published.entry_index import EntryIndex, build_index
from unipixel.train.datasets.published.source_files import SourceFiles

FIRST, SECOND = np.eye(20, 30, dtype=bool), np.eye(20, 30, k=3, dtype=bool)


def write(root: Path, **files: Any) -> SourceFiles:
    for name, value in files.items():
        (root / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return SourceFiles(root)


def osprey(root: Path, **fields: Any) -> list[Any]:
    region = {"segmentation": [[0, 0, 5, 0, 5, 5]]}
    row = {"id": 0, "file_name": "a.jpg", "height": 9, "width": 9, "annotation": [region] * 3, **fields}
    files = write(root, a=[row])
    return [group["turns"] for group in read_osprey(files, annotations="a.json", images="images")]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("<region1> is left", "[1] is left"),
        ("<region 2>, <region3] and <region of1>", "[2], [3] and [1]"),
        ("<region2. It is", "[2] It is"),
        ("see <region1", "see [1]"),
    ],
)
def test_tags_of_osprey_conversations_are_repaired(tmp_path: Path, text: str, named: str) -> None:
    said = [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}]
    assert osprey(tmp_path, conversations=said) == [[(named, "Yes.")]]


@pytest.mark.parametrize("text", ["What is <region>?", "<region9> is there", "<region is there", "No region."])
def test_osprey_conversations_without_a_valid_region_are_dropped(tmp_path: Path, text: str) -> None:
    said = [{"from": "human", "value": text}, {"from": "gpt", "value": "Yes."}]
    assert osprey(tmp_path, conversations=said) == []


def test_descriptions_of_osprey_name_their_region_alone(tmp_path: Path) -> None:
    texts = ["<region1>: A cat.", "<Region2>: Red.", "<regin 3>: Old."]
    assert osprey(tmp_path, description=texts) == [[("[1]", "A cat."), ("[2]", "Red."), ("[3]", "Old.")]]
    assert osprey(tmp_path, description=["<region1>: Beside <region2>."]) == []
    assert osprey(tmp_path, description=["A cat."]) == []


def test_category_names_lose_their_sense() -> None:
    assert category_name("dog_(animal)") == "dog"
    assert category_name("trash_can_(bin):lid_(top)") == ("trash_can", "lid")
    with pytest.raises(ValueError, match="must have the form object or object:part"):
        category_name("a:b:c")


def test_references_without_an_object_or_with_several_are_read(tmp_path: Path) -> None:
    references = [
        {"ref_id": 1, "ann_id": [5, 6], "image_id": 2, "split": "train", "sentences": [{"sent_id": 1, "sent": "both"}]},
        {"ref_id": 2, "ann_id": [-1], "image_id": 2, "split": "train", "sentences": [{"sent_id": 2, "sent": "none"}]},
        {"ref_id": 3, "ann_id": 5, "image_id": 9, "split": "testA", "sentences": [{"sent_id": 3, "sent": "other"}]},
    ]
    (tmp_path / "refs.p").write_bytes(pickle.dumps(references, 2))
    image = {"id": 2, "file_name": "a.jpg", "height": 20, "width": 30}
    annotations = [
        {"id": key, "image_id": 2, "segmentation": encode_rle(FIRST), "bbox": [3, 4, 7, 8]} for key in (5, 6)
    ]
    files = write(tmp_path, instances={"annotations": annotations, "images": [image, {**image, "id": 9}]})
    (group,) = read_references(files, references="refs.p", instances="instances.json", images="images")
    both, none = group["entries"][0]["expressions"]
    assert (both["text"], both["box_xyxy"]) == ("both", None)
    assert len(group["objects"][both["object"]]["members"]) == 2
    assert group["objects"][none["object"]]["members"] == []
    references[0]["ann_id"] = 7
    (tmp_path / "refs.p").write_bytes(pickle.dumps(references, 2))
    with pytest.raises(ValueError, match=r"instances\.json has no annotation 7, which reference 1 names"):
        list(read_references(files, references="refs.p", instances="instances.json", images="images"))


def test_number_of_positional_tracks_must_be_that_of_the_expressions(tmp_path: Path) -> None:
    (tmp_path / "masks.pkl").write_bytes(pickle.dumps({"0": [None], "1": [None]}))
    expressions = {"videos": {"v": {"frames": ["0"], "expressions": {"0": {"exp": "a cat"}}}}}
    files = write(tmp_path, expressions=expressions)
    with pytest.raises(ValueError, match="has 2 tracks for 1 expressions"):
        list(read_expressions(files, expressions="expressions.json", masks="masks.pkl", frames="f", is_positional=True))


def test_vicas_in_one_file_per_video_has_its_masks_inside(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    frame = {"filename": "00000.jpg", "track_ids": [1, 2], "mask_rles": [encode_rle(FIRST), encode_rle(SECOND)]}
    video = {
        "filename": "000003.mp4",
        "segmentations": [frame],
        "object_referrals": [{"prompt": "x", "track_ids": [2]}],
    }
    (tmp_path / "videos/000003.json").write_text(json.dumps(video))
    files = write(tmp_path, split=[3])
    (group,) = read_vicas(files, annotations="videos", split="split.json", frames="frames", masks="masks")
    assert group["objects"]["0"] == {"track": [[encode_rle(SECOND)]]}


def test_conversations_whose_sides_do_not_alternate_are_left_out_with_a_warning(tmp_path: Path) -> None:
    turn = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    files = write(tmp_path, a=[{"id": 1, "conversations": turn}, {"id": 2, "conversations": turn[:1]}])
    with pytest.warns(RuntimeWarning, match="1 conversations are left out"):
        groups = list(read_conversations(files, annotations="a.json", images="i", videos="v", fps=2.0))
    assert [group["name"] for group in groups] == ["1"]


def test_index_is_built_again_when_a_source_changes(tmp_path: Path) -> None:
    turn = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    options = {"annotations": "a.json", "images": "i", "videos": "v", "fps": 2.0}

    def build() -> EntryIndex:
        return build_index(read_conversations, options, root=tmp_path, cache=tmp_path / "cache", name="a")

    write(tmp_path, a=[{"id": 1, "conversations": turn}])
    first = build()
    assert len(first) == 1
    table = first.folder / "entries.npy"
    stamp = table.stat().st_mtime_ns
    assert len(build()) == 1
    assert table.stat().st_mtime_ns == stamp
    write(tmp_path, a=[{"id": 1, "conversations": turn}, {"id": 2, "conversations": turn}])
    os.utime(tmp_path / "a.json", ns=(1, 1))
    assert [build()[number].id for number in range(2)] == ["1", "2"]
    write(tmp_path, a=[])
    with pytest.raises(ValueError, match="a: the annotations contain no entry for training"):
        build()


def test_processes_that_open_a_set_at_once_build_its_index_once(tmp_path: Path) -> None:
    turn = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    write(tmp_path, a=[{"id": 1, "conversations": turn}])
    started: list[int] = []

    def read_slowly(files: SourceFiles, **options: Any) -> Iterator[Any]:
        started.append(1)
        time.sleep(0.1)
        yield from read_conversations(files, **options)

    options = {"annotations": "a.json", "images": "i", "videos": "v", "fps": 2.0}
    with ThreadPoolExecutor(4) as pool:
        built = [
            pool.submit(build_index, read_slowly, options, root=tmp_path, cache=tmp_path / "cache", name="a")
            for _ in range(4)
        ]
        assert [len(one.result()) for one in built] == [1, 1, 1, 1]
    assert started == [1]


def test_interrupted_index_is_built_again(tmp_path: Path) -> None:
    turn = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    write(tmp_path, a=[{"id": 1, "conversations": turn}])
    options = {"annotations": "a.json", "images": "i", "videos": "v", "fps": 2.0}

    def read_half(files: SourceFiles, **options: Any) -> Iterator[Any]:
        if not (tmp_path / "again").exists():
            yield from read_conversations(files, **options)
            raise KeyboardInterrupt
        yield from read_conversations(files, **options)

    given: dict[str, Any] = {"root": tmp_path, "cache": tmp_path / "cache", "name": "a"}
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        build_index(read_half, options, **given)
    (tmp_path / "again").touch()
    index = build_index(read_half, options, **given)
    assert [index[0].id, len(index)] == ["1", 1]
    assert not list(index.folder.glob("partial-*"))
