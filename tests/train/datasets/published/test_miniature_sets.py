"""Readers of the published training sets against what the published code makes of miniature sets."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.golden_evaluation import expected_of, golden_case

from unipixel.train.datasets.published.definitions import published_sets
from unipixel.train.datasets.published.entry_listing import list_entry
from unipixel.train.datasets.published.published_sets import open_set

MINIATURE_SETS = sorted(name for name, row in published_sets().items() if row.num_samples is not None)


@functools.cache
def expected_sets() -> dict[str, Any]:
    return expected_of("training")["sets"]


def data_root() -> Path:
    return golden_case("training") / "data"


def read_set(name: str, cache: Path) -> list[dict[str, Any]]:
    definition = published_sets()[name]
    index = open_set(definition, data_root(), cache=cache)
    return [list_entry(index[number], definition, data_root()) for number in range(len(index))]


def below_root(listed: dict[str, Any]) -> dict[str, Any]:
    """Write paths as the published code does: relative to the folder that contains `data`."""
    return json.loads(json.dumps(listed).replace(str(data_root()), "data"))


def with_letter_a(text: str) -> str:
    """Write the option letter of pre-filling, which is drawn, as A."""
    return re.sub(r"\nOptions:\n\([A-D]\)", "\nOptions:\n(A)", text)


def test_miniature_sets_are_those_of_the_published_mixture() -> None:
    assert set(MINIATURE_SETS) == set(expected_sets())
    assert len(MINIATURE_SETS) == 29


@pytest.mark.parametrize("name", MINIATURE_SETS)
def test_miniature_set_is_read_as_by_the_published_code(tmp_path: Path, name: str) -> None:
    expected = expected_sets()[name]
    listed = read_set(name, tmp_path)
    assert len(listed) == expected["count"]
    for ours, theirs in zip(map(below_root, listed), expected["annotations"], strict=True):
        if theirs["data_type"] in ("multimodal", "text"):
            check_conversation(ours, theirs)
            continue
        for field in ("vid", "frames", "video_path", "all_frame_inds", "single_frame_mode", "classes"):
            assert ours.get(field) == theirs.get(field, ours.get(field)), field
        if theirs["data_type"].startswith("seg"):
            assert ours["data_type"] == theirs["data_type"]
            if "samples" in theirs:
                check_expressions(ours["samples"], theirs["samples"])
        elif theirs["data_type"].startswith("region"):
            check_regions(ours, theirs)
        else:
            check_references(ours, theirs)


def check_expressions(ours: Any, theirs: Any) -> None:
    # The ids of a label image are those of the annotation itself, which `areas` show.
    theirs = [{field: value for field, value in sample.items() if field != "oids"} for sample in theirs]
    assert [{field: sample.get(field) for field in theirs[0]} for sample in ours] == theirs


def check_regions(ours: Any, theirs: Any) -> None:
    def texts(value: Any) -> list[str]:
        listed = value if isinstance(value, list) else [value]
        return [f"[{one['oid']}]" if isinstance(one, dict) else one for one in listed]

    assert ours["question"] == texts(theirs["question"])
    assert ours["response"] == texts(theirs["response"])
    # The order of objects follows a set in the published code: ids decide.
    if "oids" in theirs:
        areas = dict(zip(theirs["oids"], theirs["areas"], strict=True))
        assert dict(zip(ours["oids"], ours["areas"], strict=True)) == areas
    else:
        assert ours["areas"] == theirs["areas"]


def check_references(ours: Any, theirs: Any) -> None:
    (sample,) = theirs["samples"]
    assert ours["qid"] == sample["qid"]
    if sample.get("type") in ("qa", "image_short_caption"):
        assert ours["question"] == [sample.get("question", "")]
        assert ours["response"] == [sample["response"]]
        assert ours["areas"] == sample["areas"]
        return
    (question,), (response,) = ours["question"], ours["response"]
    expected = with_letter_a(sample["question"])
    if len(sample["areas"]) == 1:
        # The id of a lone object is drawn.
        given = sample["response"].split()[0]
        mine = response.split()[0]
        expected = expected.replace(given, mine)
        assert response == sample["response"].replace(given, mine)
        assert ours["areas"] == sample["areas"]
    else:
        ids = sample["response"].replace(" <|seg|>", "").split()
        assert sorted(response.split()) == sorted(sample["response"].split())
        areas = dict(zip(ids, sample["areas"], strict=True))
        assert {f"[{key}]": areas for key, areas in zip(ours["oids"], ours["areas"], strict=True)} == areas
    assert question == expected


def check_conversation(ours: Any, theirs: Any) -> None:
    assert ours["data_type"].replace("_image", "").replace("_video", "") == theirs["data_type"]
    sides = [text for turn in zip(ours["question"], ours["response"], strict=True) for text in turn]
    assert sides == [turn["value"] for turn in theirs["conversations"]]
    if "image" in theirs:
        assert ours["frames"] == [f"data/llava_instruct/{theirs['image']}"]
    if "video" in theirs:
        assert ours["video_path"] == f"data/videogpt_plus/{theirs['video']}"


def test_classes_of_coco_stuff_by_name_contain_person_and_wood(tmp_path: Path) -> None:
    (listed,) = read_set("cocostuff_by_name", tmp_path)
    assert [(one["id"], one["query"]) for one in listed["classes"]] == [(0, "person"), (1, "bicycle"), (181, "wood")]
    names = published_sets()["cocostuff_by_name"].class_names().values()
    assert [name for name in names if name.endswith("-other")] == []
