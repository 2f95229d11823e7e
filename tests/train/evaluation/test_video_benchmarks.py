"""Rules of the video benchmarks that no miniature case shows: frame names, short clips, overlaps, missing objects."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.golden_evaluation import golden_case
from PIL import Image

from unipixel.cli import main
from unipixel.memory.rle import encode_rle
from unipixel.train.evaluation.benchmarks.table import BENCHMARKS
from unipixel.train.evaluation.scoring import scores
from unipixel.train.evaluation.scoring.davis_measures import decay_of, recall_of

SIZE = (24, 32)


def disc(row: int, column: int, radius: int = 5) -> np.ndarray:
    rows, columns = np.ogrid[: SIZE[0], : SIZE[1]]
    return np.asarray((rows - row) ** 2 + (columns - column) ** 2 <= radius**2)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def write_predictions(folder: Path, objects: Mapping[str, Sequence[Mapping[str, np.ndarray]]]) -> Path:
    """Write masks by frame name, for each object of each sample."""
    lines = [
        {"sample": name, "masks": [{key: encode_rle(mask) for key, mask in frames.items()} for frames in masks]}
        for name, masks in objects.items()
    ]
    folder.mkdir(exist_ok=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def score(capsys: pytest.CaptureFixture[str], name: str, data: Path, predictions: Path, *more: str) -> Any:
    arguments = ["--data", str(data), "--predictions", str(predictions), "--json", *more]
    assert main(["eval", name, *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def write_groundmore(root: Path, numbers: Sequence[int], *, prefix: str = "frame_", digits: int = 6) -> list[str]:
    """Write a clip whose only object stands still; the action is all of it."""
    names = [f"{prefix}{number:0{digits}d}" for number in numbers]
    folder = root / "annotations/clip_0100_0104"
    for name in names:
        save(folder / "images" / f"{name}.jpg", np.zeros((*SIZE, 3)))
        save(folder / "masks" / f"{name}.png", disc(10, 10) * 3)
    question = {
        "question": "Who moves", "answer": "it", "q_type": "Causal", "obj_id": "3",
        "action_start": "01:00", "action_end": "0:01:04",
    }  # fmt: skip
    (root / "test_v2.json").write_text(json.dumps({"videos": {"clip_0100_0104": {"questions": {"0": question}}}}))
    return names


def test_groundmore_frames_numbered_from_another_number_count_by_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = write_groundmore(tmp_path, range(7, 31))
    right = {"clip_0100_0104/0": [dict.fromkeys(names, disc(10, 10))]}
    predictions = write_predictions(tmp_path / "right", right)
    assert score(capsys, "groundmore", tmp_path, predictions)["figures"]["JF"] == 1.0
    # The published script looks for frame_000000 to frame_000023: of the frames that it finds there are predictions
    # for some, and the first seven frames have neither truth nor prediction.
    paper = score(capsys, "groundmore", tmp_path, predictions, "--protocol", "paper")
    indices = np.linspace(0, 23, 20).astype(int).tolist()
    sampled = {7 + index for index in indices}
    found = [index < 7 or index in sampled for index in indices]
    assert paper["figures"]["J"] == pytest.approx(np.mean(found))


def test_groundmore_clip_of_fewer_frames_than_are_sampled_repeats_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = write_groundmore(tmp_path, range(5), prefix="", digits=7)
    assert main(["eval", "groundmore", "--data", str(tmp_path), "--list", "--json"]) == 0
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    assert sample["frames"] == [names[int(index)] for index in np.linspace(0, 4, 20)]
    masks = {name: disc(10, 10) if name != names[0] else np.zeros(SIZE) for name in names}
    result = score(capsys, "groundmore", tmp_path, write_predictions(tmp_path / "p", {"clip_0100_0104/0": [masks]}))
    assert result["figures"]["J"] == pytest.approx(15 / 20)


def test_groundmore_truth_outside_the_action_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = write_groundmore(tmp_path, range(24))
    file = tmp_path / "test_v2.json"
    file.write_text(file.read_text().replace('"01:00"', '"01:01"').replace('"0:01:04"', '"01:03"'))
    masks = {name: disc(10, 10) if 6 <= index < 18 else np.zeros(SIZE) for index, name in enumerate(names)}
    predictions = write_predictions(tmp_path / "p", {"clip_0100_0104/0": [masks]})
    assert score(capsys, "groundmore", tmp_path, predictions)["figures"]["JF"] == 1.0


@pytest.mark.parametrize(("field", "value"), [("obj_id", "one"), ("action_start", "soon")])
def test_groundmore_wrong_field_is_named(
    field: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_groundmore(tmp_path, range(24))
    content = json.loads((tmp_path / "test_v2.json").read_text())
    content["videos"]["clip_0100_0104"]["questions"]["0"][field] = value
    (tmp_path / "test_v2.json").write_text(json.dumps(content))
    assert main(["eval", "groundmore", "--data", str(tmp_path), "--list"]) == 2
    message = capsys.readouterr().err
    assert "question clip_0100_0104/0" in message
    assert value in message


def write_davis(root: Path, labels: Sequence[np.ndarray], *, list_file: str, line: str) -> list[str]:
    names = [f"{index:05d}" for index in range(len(labels))]
    for name, label in zip(names, labels, strict=True):
        save(root / "Annotations/480p/dog" / f"{name}.png", label)
        save(root / "JPEGImages/480p/dog" / f"{name}.jpg", np.zeros((*SIZE, 3)))
    (root / "ImageSets" / list_file).parent.mkdir(parents=True)
    (root / "ImageSets" / list_file).write_text(line + "\n")
    return names


@pytest.mark.parametrize(
    ("list_file", "line"),
    [("2016/val.txt", "dog"), ("480p/val.txt", "/JPEGImages/480p/dog/00000.jpg /Annotations/480p/dog/00000.png")],
)
def test_davis16_scores_one_object_of_all_values_without_first_and_last_frame(
    list_file: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [disc(10, 8) * 255 + disc(10, 24) * 38 for _ in range(5)]
    names = write_davis(tmp_path, labels, list_file=list_file, line=line)
    masks = [labels[0] > 0, disc(10, 8), labels[0] > 0, labels[0] > 0, np.zeros(SIZE)]
    predictions = write_predictions(tmp_path / "p", {"dog": [dict(zip(names, masks, strict=True))]})
    result = score(capsys, "davis16", tmp_path, predictions)
    assert result["samples"]["dog_1"]["J"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert result["figures"]["J_recall"] == pytest.approx(2 / 3)


def test_davis17_object_without_prediction_is_empty_and_one_too_many_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = disc(10, 8) * 1 + disc(10, 24) * 2
    # An object that appears later is never scored.
    labels = [label, label, label + disc(20, 16, 3) * 3, label]
    names = write_davis(tmp_path, labels, list_file="2017/val.txt", line="dog")
    first = dict.fromkeys(names, disc(10, 8))
    result = score(capsys, "davis17", tmp_path, write_predictions(tmp_path / "p", {"dog": [first]}))
    assert [result["samples"][name]["J"] for name in ("dog_1", "dog_2")] == [1.0, 0.0]
    assert result["failed"] == []
    result = score(capsys, "davis17", tmp_path, write_predictions(tmp_path / "q", {"dog": [first] * 3}))
    assert [row["sample"] for row in result["failed"]] == ["dog"]
    assert result["figures"]["JF"] == 0.0


def test_recall_and_decay_are_closed_forms() -> None:
    values = np.array([1.0, 0.9, 0.8, 0.6, 0.5, 0.4, 0.2, 0.0])
    assert recall_of(values) == 0.5
    # Quarters of eight frames: the first three and the last three.
    assert decay_of(values) == pytest.approx((1.0 + 0.9 + 0.8) / 3 - (0.4 + 0.2 + 0.0) / 3)
    assert decay_of(np.array([0.25])) == 0.0


def test_revos_kinds_other_than_referring_and_reasoning_enter_no_mean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = encode_rle(disc(10, 10))
    kinds = {"0": 0, "1": 1, "2": 2}
    expressions = {
        key: {"exp": f"thing {key}", "obj_id": [0], "anno_id": [0], "type_id": kind} for key, kind in kinds.items()
    }
    video = {"frames": ["00000", "00003"], "height": SIZE[0], "width": SIZE[1], "expressions": expressions}
    (tmp_path / "meta_expressions_valid_.json").write_text(json.dumps({"videos": {"A/b": video}}))
    (tmp_path / "mask_dict.json").write_text(json.dumps({"0": [mask, None]}))
    (tmp_path / "mask_dict_foreground.json").write_text(json.dumps({"A/b": {"masks_rle": [mask, None]}}))
    right = {"00000": disc(10, 10), "00003": np.zeros(SIZE)}
    wrong = {"00000": np.zeros(SIZE), "00003": np.zeros(SIZE)}
    objects = {"A/b/0": [right], "A/b/1": [right], "A/b/2": [wrong]}
    result = score(capsys, "revos", tmp_path, write_predictions(tmp_path / "p", objects))
    assert result["figures"] == pytest.approx(dict.fromkeys(result["figures"], 1.0))
    assert result["samples"]["A/b/2"]["J"] == 0.5
    del objects["A/b/1"]
    assert score(capsys, "revos", tmp_path, write_predictions(tmp_path / "q", objects))["figures"]["J"] == 0.5


def test_runs_of_lengths_as_a_list_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Column by column: 24 empty pixels, 24 of the object, the rest empty.
    counts = {"size": list(SIZE), "counts": [24, 24, SIZE[0] * SIZE[1] - 48]}
    folder = tmp_path / "valid_u"
    folder.mkdir()
    video = {"frames": ["a.b"], "expressions": {"7": {"exp": "the thing", "obj_id": [0], "anno_id": ["x"]}}}
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": {"v": video}}))
    (folder / "mask_dict.json").write_text(json.dumps({"x": [counts]}))
    (tmp_path / "predictions.jsonl").write_text(json.dumps({"sample": "v/7", "masks": [{"a.b": counts}]}))
    assert score(capsys, "mevis", tmp_path, tmp_path)["figures"] == {"J": 1.0, "F": 1.0, "JF": 1.0}


@pytest.mark.parametrize(
    ("expression", "question"),
    [
        # As the published code builds them: the text is stripped, then the full stops, then each article once.
        (" The red thing. ", "Please segment the red thing in this video."),
        ("A dog .", "Please segment the dog  in this video."),
        ("the an a  cat", "Please segment the  cat in this video."),
        ("All {moving} things", "Please segment the all {moving} things in this video."),
        ("...Every one", "Please segment the every one in this video."),
        ("Which one? ", "Please segment the which one? in this video."),
    ],
)
def test_question_is_that_of_the_published_code(
    expression: str, question: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = {"frames": ["00000", "00001"], "expressions": {"0": {"exp": expression}}}
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid/meta_expressions.json").write_text(json.dumps({"videos": {"v": video}}))
    assert main(["eval", "mevis", "--split", "valid", "--data", str(tmp_path), "--list", "--json"]) == 0
    (sample,) = json.loads(capsys.readouterr().out)["samples"]
    assert sample["question"] == question
    assert sample["query"] == expression.strip()


@pytest.mark.slow
def test_figures_are_the_same_measured_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scores, "_MIN_SAMPLES_PER_PROCESS", 2)
    case = golden_case("revos")
    one, two = (
        score(capsys, "revos", case / "data", case / "predictions-faulty", "--processes", number) for number in "12"
    )
    assert one == two


def test_number_of_processes_below_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    case = golden_case("revos")
    arguments = ["--data", str(case / "data"), "--predictions", str(case / "predictions"), "--processes", "0"]
    assert main(["eval", "revos", *arguments]) == 2
    assert "the number of processes must be at least 1, got 0" in capsys.readouterr().err


def test_every_name_in_the_table_is_its_own() -> None:
    names = [row.name for row in BENCHMARKS.values()]
    assert len(set(names)) == len(names)
    for row in BENCHMARKS.values():
        assert (row.submission is None) == (row.check is None)
        assert any(not split.has_truth for split in row.splits) <= (row.submission is not None)


def test_revos_foreground_of_overlapping_objects_is_their_union_and_in_the_paper_their_sum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = disc(10, 10), disc(10, 12)
    expression = {"exp": "it", "obj_id": [0], "anno_id": [0], "type_id": 0}
    video = {"frames": ["00000"], "height": SIZE[0], "width": SIZE[1], "expressions": {"0": expression}}
    (tmp_path / "meta_expressions_valid_.json").write_text(json.dumps({"videos": {"A/b": video}}))
    (tmp_path / "mask_dict.json").write_text(json.dumps({"0": [encode_rle(first)]}))
    foreground = {"A/b": {"masks_rle": [[encode_rle(first), encode_rle(second)]]}}
    (tmp_path / "mask_dict_foreground.json").write_text(json.dumps(foreground))
    one_pixel = first.copy()
    one_pixel[0, 0] = True
    predictions = write_predictions(tmp_path / "p", {"A/b/0": [{"00000": one_pixel}]})
    honest = score(capsys, "revos", tmp_path, predictions)["samples"]["A/b/0"]["R"]
    paper = score(capsys, "revos", tmp_path, predictions, "--protocol", "paper")["samples"]["A/b/0"]["R"]
    assert honest == pytest.approx(1 - 1 / (first | second).sum())
    assert paper == pytest.approx(max(0, 1 - 255 / (first.sum() + second.sum())))
