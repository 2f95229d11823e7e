"""`unipixel data`: the list of published sets, and the check of one on disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.golden_evaluation import golden_case
from PIL import Image

from unipixel.cli import main
from unipixel.train.recipe_files import find_recipe


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("revos", "groundmore", "vicas", "ref_youtube_vos"):
        shutil.copytree(golden_case("training") / "data" / name, folder / name)
    return folder


def check(name: str, root: Path, *options: str) -> int:
    return main(["data", "check", name, "--data", str(root), "--cache", str(root.parent / "cache"), *options])


def test_list_shows_source_licence_and_layout_of_every_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    sets = json.loads(capsys.readouterr().out)["sets"]
    assert len([one for one in sets if one["num_samples"] is not None]) == 29
    assert all(one["licence"] and one["source"].startswith("http") and one["layout"] for one in sets)
    assert main(["data", "list", "revos"]) == 0
    text = capsys.readouterr().out
    assert "revos: ReVOS\n  samples: 29,000; stage3 5 times\n" in text
    assert "CC BY-NC-SA 4.0" in text
    assert "    revos/\n        meta_expressions_train_.json\n" in text


def test_check_of_a_complete_set_succeeds(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("revos", root) == 0
    assert capsys.readouterr().out == "revos: 6 samples, complete\n"


def test_check_of_samples_prints_what_was_read(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("groundmore", root, "--json", "--samples") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["num_samples"] == 2
    assert [one["found"] for one in report["expected"]] == [True] * 3
    assert report["samples"][1]["samples"][0]["areas"] == [[378, 399, 321]]


def test_check_without_annotations_shows_the_tree_and_what_is_there(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "revos/mask_dict.json").rename(root / "revos/masks.json")
    assert check("revos", root) == 2
    text = capsys.readouterr().out
    assert f"{root}/revos/mask_dict.json is missing: {root}/revos contains MeViS/, TAO/, masks.json" in text
    assert "  missing revos/mask_dict.json\n  found   revos/FOLDER/VIDEO/FRAME.jpg\n" in text
    assert check("revos", root / "elsewhere") == 2
    assert f"is missing: {root} contains cache/, groundmore/, ref_youtube_vos/, " in capsys.readouterr().out


def test_check_names_a_missing_frame_and_a_damaged_one(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "revos/TAO/long/00005.jpg").unlink()
    (root / "revos/MeViS/abc/00010.jpg").write_bytes(b"no image")
    assert check("revos", root, "--json", "--decode", "all") == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert problems[0]["location"] == f"{root}/revos/TAO/long/00005.jpg"
    assert {one["location"] for one in problems[1:]} == {f"entry {number} (MeViS/abc)" for number in (3, 4, 5)}
    assert all("00010.jpg" in one["reason"] for one in problems[1:])


def test_check_names_masks_that_do_not_fit(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = root / "vicas/masks/000007/1.json"
    masks.write_text(json.dumps(json.loads(masks.read_text())[:2]), encoding="utf-8")
    assert check("vicas", root) == 2
    assert "entry 1 (000007): vicas/masks/000007/1.json has 2 masks for 3 frames" in capsys.readouterr().out


def test_check_of_frames_of_another_size_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.zeros((10, 12, 3), np.uint8)).save(root / "revos/TAO/long/00010.jpg")
    assert check("revos", root, "--decode", "all") == 2
    assert "TAO/long/00010.jpg has 12 x 10 pixels, revos/TAO/long/00000.jpg has 48 x 36" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("revos/mask_dict.json", lambda text: text[:-5], "is not valid JSON"),
        ("revos/mask_dict.json", lambda text: text.replace('"0":', '"9":'), "has no track '0', which expression 0 of"),
        ("revos/meta_expressions_train_.json", lambda text: text.replace("videos", "clips"), "has no key 'videos'"),
        ("revos/meta_expressions_train_.json", lambda text: text.replace('"exp"', '"text"'), "KeyError: 'exp'"),
        ("groundmore/trainval_v2.json", lambda text: text.replace("questions", "asked"), "KeyError: 'questions'"),
        (
            "groundmore/trainval_v2.json",
            lambda text: text.replace('"1"', '"one"'),
            "ValueError: invalid literal for int",
        ),
        ("vicas/splits/v1.0/train.json", lambda text: "[8]", "has no video '000008', which vicas/splits"),
    ],
)
def test_check_names_the_file_of_damaged_annotations(
    root: Path, capsys: pytest.CaptureFixture[str], file: str, change: Callable[[str], str], message: str
) -> None:
    path = root / file
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    assert check(file.split("/")[0], root) == 2
    text = capsys.readouterr().out
    assert message in text
    assert "expected in" in text


def test_check_refuses_a_pickle_that_runs_code(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "ref_youtube_vos/mask_dict.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert check("ref_youtube_vos", root) == 2
    assert "mask_dict.pkl is refused: it contains os.system" in capsys.readouterr().out


def test_check_refuses_files_outside_the_data_folder(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = root / "vicas/annotations/annotations_wo_masks_v1.0.json"
    path.write_text(path.read_text(encoding="utf-8").replace("00010.jpg", "../../../../secret.jpg"), encoding="utf-8")
    assert check("vicas", root) == 2
    assert "which is not below" in capsys.readouterr().out


def test_unknown_set_and_missing_folder_are_reported_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "revoss", "--data", "x"]) == 2
    assert "there is no data set 'revoss' (nearest: revos)" in capsys.readouterr().err
    assert main(["data", "check", "revos"]) == 2
    assert "requires a name and a folder" in capsys.readouterr().err
    assert main(["data", "check", "revos", "--data", "x", "--decode", "few"]) == 2
    assert "--decode must be a number of entries or all, got 'few'" in capsys.readouterr().err


def test_check_of_a_recipe_checks_its_sets(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check("3b/stage2", root, "--json") == 2
    sets = json.loads(capsys.readouterr().out)["sets"]
    assert {one["name"]: one["num_samples"] for one in sets} == {
        "refcoco": None, "refcoco+": None, "refcocog": None, "refclef": None, "ref_youtube_vos": 4,
    }  # fmt: skip
    text = find_recipe("nano/stage3").read_text(encoding="utf-8")
    recipe = tmp_path / "own.toml"
    recipe.write_text(text + "\n[data.sets]\nrevos = 1.0\nvicas = 0.0\n", encoding="utf-8")
    assert check(str(recipe), root) == 0
    assert capsys.readouterr().out == "revos: 6 samples, complete\n"
    assert check("nano/stage3", root) == 2
    assert "the recipe nano/stage3 has no published sets" in capsys.readouterr().err
