"""Readers of image and question benchmarks: masks of annotations, awkward files, and messages on bad input."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.golden_evaluation import golden_case

from unipixel.memory.rle import encode_rle
from unipixel.train.datasets.label_polygons import draw_label_polygons
from unipixel.train.evaluation.benchmarks.annotation_files import read_split
from unipixel.train.evaluation.benchmarks.sample import BenchmarkSample, SampleTruth
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.readers.mvbench_questions import sample_folder, sample_video
from unipixel.train.evaluation.readers.segmentations import decode_segmentation, mask_area, plain_run_lengths
from unipixel.train.evaluation.running.clip_frames import open_media

SQUARE = [2, 2, 8, 2, 8, 6, 2, 6]


def read(name: str, data: Path, split: str, variant: str = "") -> list[BenchmarkSample]:
    return list(read_split(BENCHMARKS[name], data, split=split, variant=variant))


def truth_of(sample: BenchmarkSample) -> SampleTruth:
    assert sample.truth is not None
    return sample.truth()


def copied(case: str, folder: Path) -> Path:
    return Path(shutil.copytree(golden_case(case) / "data", folder / "data"))


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def square_mask() -> np.ndarray:
    mask = np.zeros((10, 12), bool)
    mask[2:6, 2:8] = True
    return mask


@pytest.mark.parametrize(
    "segmentation",
    [
        [SQUARE],
        encode_rle(square_mask()),
        [encode_rle(square_mask())],
        {**encode_rle(square_mask()), "counts": encode_rle(square_mask())["counts"].encode()},
        # A polygon of two corners has no area; pycocotools would take all polygons after it for boxes.
        [[1, 1, 9, 9], SQUARE],
    ],
)
def test_every_form_of_a_segmentation_is_the_same_mask(segmentation: Any) -> None:
    decoded = decode_segmentation(segmentation, size=(10, 12), location="file")
    assert (decoded == square_mask()).all()


def test_overlapping_polygons_are_joined() -> None:
    decoded = decode_segmentation([SQUARE, SQUARE], size=(10, 12), location="file")
    assert (decoded == square_mask()).all()
    assert not decode_segmentation([], size=(10, 12), location="file").any()
    assert not decode_segmentation(None, size=(10, 12), location="file").any()


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[0, 0, 1, 1, 2, 2, 3]], "x, y, x, y"),
        ([[0, 0, 1, 1, 2, float("nan")]], "x, y, x, y"),
        (["text"], "x, y, x, y"),
        ("text", "polygons or run lengths"),
        ({"size": [3, 3], "counts": [9]}, "the image"),
        ({"size": [10, 12], "counts": [9]}, "do not fill"),
        ([{"size": [10, 12]}], "counts"),
    ],
)
def test_a_broken_segmentation_is_named(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"file, annotation 3: .*{message}"):
        decode_segmentation(segmentation, size=(10, 12), location="file, annotation 3")


def test_area_of_run_lengths_is_that_of_the_mask() -> None:
    mask = square_mask()
    plain = {"size": [2, 3], "counts": [1, 2, 1, 2]}
    assert mask_area(plain_run_lengths(encode_rle(mask), location="file")) == 24
    assert mask_area(plain_run_lengths(plain, location="file")) == 4


def test_splits_of_refer_match_by_letter(tmp_path: Path) -> None:
    data = copied("refcoco", tmp_path)
    path = data / "refcoco" / "refs(unc).p"
    references = pickle.loads(path.read_bytes())
    for reference in references:
        reference["split"] = "testAB"
    path.write_bytes(pickle.dumps(references))
    everything = len([sentence for reference in references for sentence in reference["sentences"]])
    assert len(read("refcoco", data, "testA")) == len(read("refcoco", data, "testB")) == everything


def test_annotations_marked_as_crowds_are_not_targets_of_grefcoco(tmp_path: Path) -> None:
    data = copied("grefcoco", tmp_path)
    before = truth_of(read("grefcoco", data, "val")[0]).masks
    edit(data / "grefcoco" / "instances.json", lambda content: content["annotations"][0].update(iscrowd=1))
    after = truth_of(read("grefcoco", data, "val")[0]).masks
    assert before is not None
    assert after is not None
    assert before.any()
    assert not after.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("images"), "`images` is missing; there are annotations"),
        (lambda content: content["images"].clear(), "image 581000 is not in"),
        (lambda content: content["annotations"].clear(), "annotation 100 is not in"),
        (lambda content: content["images"][0].update(file_name="../a.jpg"), "plain file name"),
        (lambda content: content["images"][0].update(height="48"), "`height` must be int"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2]), "`bbox` is"),
    ],
)
def test_bad_annotations_of_refer_are_named(change: Any, message: str, tmp_path: Path) -> None:
    data = copied("refcoco", tmp_path)
    edit(data / "refcoco" / "instances.json", change)
    with pytest.raises(ValueError, match=message):
        read("refcoco", data, "val")


def test_a_broken_mask_of_refer_is_named_when_it_is_decoded(tmp_path: Path) -> None:
    data = copied("refcoco", tmp_path)
    edit(data / "refcoco" / "instances.json", lambda content: content["annotations"][0].update(segmentation="x"))
    with pytest.raises(ValueError, match=r"instances.json, annotation 100: a segmentation is"):
        truth_of(read("refcoco", data, "val")[0])


def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    data = copied("refcoco", tmp_path)
    (data / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([Path("/")]))
    with pytest.raises(ValueError, match="pathlib"):
        read("refcoco", data, "val")


@pytest.mark.parametrize(
    ("name", "split", "tree"),
    [
        ("refcocog", "val", r"refcocog/refs\(umd\).p"),
        ("grefcoco", "val", r"grefs\(unc\)"),
        ("reasonseg", "test", "test/NAME.json"),
        ("videorefer-bench-q", "test", "VideoRefer-Bench-Q.json"),
        ("mvbench", "test", "json/TASK.json"),
        ("refcocog-captions", "val", "finetune_refcocog_val_captions.json"),
    ],
)
def test_a_wrong_folder_shows_the_expected_tree_and_what_is_there(
    name: str, split: str, tree: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match=rf"expects under .*{tree}.*found there: other/"):
        read(name, tmp_path, split, BENCHMARKS[name].variant(None))


def test_a_folder_without_annotations_has_no_sample(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="reasonseg val has no sample"):
        read("reasonseg", tmp_path, "val")


def test_a_repeated_sentence_is_named(tmp_path: Path) -> None:
    data = copied("refcoco", tmp_path)
    path = data / "refcoco" / "refs(unc).p"
    references = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps([*references, references[0]]))
    with pytest.raises(ValueError, match="COCO_train2014_000000581000/0' of refcoco val occurs twice"):
        read("refcoco", data, "val")


def test_reason_seg_reads_windows_files_and_labels_in_any_case(tmp_path: Path) -> None:
    data = copied("reasonseg", tmp_path)
    path = data / "val" / "914_af00.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["text"] = "Où est-ce?"
    for shape in content["shapes"]:
        shape["label"] = {"ignore": "Ignore_area", "target": "Target"}[shape["label"]]
    path.write_bytes(json.dumps(content, ensure_ascii=False).encode("cp1252"))
    before = {sample.name: sample for sample in read("reasonseg", golden_case("reasonseg") / "data", "val")}
    after = {sample.name: sample for sample in read("reasonseg", data, "val")}
    sample = after["914_af00/0"]
    assert sample.question == "Où est-ce? Please provide the segmentation mask."
    assert "914_af00/1" not in after
    for name in ("masks", "ignored"):
        one, other = (getattr(truth_of(each), name) for each in (sample, before["914_af00/0"]))
        assert (one == other).all()


def test_smaller_shapes_cover_larger_ones_and_flags_are_dropped() -> None:
    shapes = [
        {"label": "target", "points": [[2.9, 2.9], [5, 3], [5, 5], [2, 5]]},
        {"label": "ignore", "points": [[0, 0], [9, 0], [9, 9], [0, 9]]},
        {"label": "flag", "points": [[0, 0], [9, 9]]},
    ]
    labels = draw_label_polygons(shapes, size=(10, 10), location="file")
    assert (labels[3:6, 2:6] == 1).sum() >= 9
    assert labels[0, 0] == labels[9, 9] == -1
    assert labels.min() == -1


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"label": "target", "points": []}, "list of `points`"),
        ({"points": [[1, 2]]}, "has a `label`"),
        ({"label": "target", "points": [[1, float("inf")]]}, "a point is"),
        ({"label": "target", "points": [[1, 1e9]]}, "a point is"),
        (7, "has a `label`"),
    ],
)
def test_a_broken_shape_is_named(shape: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"file, shape 0: .*{message}"):
        draw_label_polygons([shape], size=(4, 4), location="file")


def test_missing_and_damaged_images_are_named_when_they_are_opened(tmp_path: Path) -> None:
    data = copied("reasonseg", tmp_path)
    (data / "val" / "913_af00.jpg").unlink()
    (data / "val" / "914_af00.jpg").write_bytes(b"not an image")
    samples = {sample.name: sample for sample in read("reasonseg", data, "val")}
    for name in ("913_af00", "914_af00"):
        with pytest.raises(OSError, match=name):
            open_media(samples[f"{name}/0"].media, decoder="av")


@pytest.mark.parametrize(
    ("num_frames", "fps", "bounds", "expected"),
    [
        (1, 25.0, None, (0,)),
        (50, 25.0, None, (0, 16, 33, 49)),
        (1000, 25.0, None, tuple(round(step * 999 / 15) for step in range(16))),
        (100, 10.0, (2.0, 4.0), (20, 27, 33, 40)),
        (100, 10.0, (50.0, 60.0), (99,)),
        (70, 25.0, None, (0, 23, 46, 69)),
        (8, 25.0, None, (0, 2, 5, 7)),
        (3, 0.0, None, (0, 2)),
    ],
)
def test_videos_are_sampled_at_two_frames_a_second_in_even_numbers(
    num_frames: int, fps: float, bounds: tuple[float, float] | None, expected: tuple[int, ...]
) -> None:
    assert sample_video(num_frames, fps, bounds=bounds) == expected


def test_folders_of_frames_are_sampled_with_the_published_step() -> None:
    assert sample_folder(0) == ()
    assert sample_folder(10) == tuple(range(10))
    assert sample_folder(34) == tuple(range(32))
    assert sample_folder(93) == tuple(range(0, 93, 3))
    assert sample_folder(200)[-1] == 31 * 6
    assert sample_folder(90, bounds=(1.0, 3.5)) == tuple(range(3, 11))


def test_bounded_questions_show_the_annotated_part() -> None:
    data = golden_case("mvbench") / "data"
    whole, bounded = (
        {sample.name: sample for sample in read("mvbench", data, "test", variant)} for variant in ("whole", "bounded")
    )
    assert len(whole["episodic_reasoning/0"].media.paths) == 32
    names = [path.name for path in bounded["episodic_reasoning/0"].media.paths]
    assert names == [f"{number:05d}.jpg" for number in range(4, 12)]
    # The video is shorter than the annotated part, of which the last frame is left.
    frames = [open_media(samples["action_sequence/0"].media, decoder="av") for samples in (whole, bounded)]
    assert [video.info.num_frames for video in frames] == [4, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda entry: entry.update(answer="none of them"), "`answer` must be one of"),
        (lambda entry: entry.update(video="/etc/passwd"), "below"),
        (lambda entry: entry.pop("question"), "`question` is missing"),
        (lambda entry: entry.update(start=5.0, end=5.0), "`start` must be before `end`"),
    ],
)
def test_bad_questions_of_mvbench_are_named(change: Any, message: str, tmp_path: Path) -> None:
    data = copied("mvbench", tmp_path)
    edit(data / "json" / "action_sequence.json", lambda content: change(content[1]))
    with pytest.raises(ValueError, match=rf"action_sequence.json, entry 1: .*{message}"):
        read("mvbench", data, "test", "bounded")
