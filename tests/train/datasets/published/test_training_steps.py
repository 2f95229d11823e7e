"""Samples of every miniature set train a model; recipes have the shares of the paper."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden_evaluation import golden_case
from helpers.moving_square import write_clip
from helpers.tiny_training import tiny_recipe
from PIL import Image

from unipixel.processing.processor import Processor
from unipixel.train import trainer
from unipixel.train.build import prepare
from unipixel.train.datasets.collate import InvalidExample
from unipixel.train.datasets.mixture import ExampleDataset
from unipixel.train.datasets.preprocessing import ExampleBuilder
from unipixel.train.datasets.published.definitions import published_sets
from unipixel.train.datasets.published.published_sets import PublishedSets
from unipixel.train.recipe_files import load_recipe
from unipixel.train.run_log import LOG_FILE

ROOT = Path(__file__).resolve().parents[4]
SETS = [name for name, row in published_sets().items() if row.mixture == "UniPixel"]
TEXT_TASK = "llava_instruct_665k_videogpt_plus_576k:text"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature sets, with the image and video that the conversations of LLaVA are about."""
    folder = tmp_path_factory.mktemp("published") / "data"
    shutil.copytree(golden_case("training") / "data", folder)
    image = folder / "llava_instruct/coco/train2017/000000000009.jpg"
    image.parent.mkdir(parents=True)
    Image.fromarray(np.full((40, 56, 3), 90, np.uint8)).save(image)
    (folder / "videogpt_plus/vids").mkdir(parents=True)
    write_clip(folder / "videogpt_plus/vids/x.mp4")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def test_samples_of_every_set_have_finite_losses_and_gradients(
    root: Path, cache: Path, training_checkpoint: Path, tmp_path: Path
) -> None:
    weights = "data.sets={" + ", ".join(f'"{name}" = 1.0' for name in SETS) + "}"
    overrides = (f"data.root={root}", f"data.cache={cache}", weights, "data.num_mask_frames=2", "data.max_turns=3")
    job = prepare(tiny_recipe("stage3", training_checkpoint, tmp_path, *overrides))
    assert isinstance(job.dataset, ExampleDataset)
    load = job.dataset._load
    sets = PublishedSets.open(SETS, root, cache=cache)
    tasks = sets.tasks(dict.fromkeys(SETS, 1.0))
    prompted = {task.partition(":")[0] for task in tasks if task.endswith((":point", ":box"))}
    assert prompted == {
        "videorefer_short_caption_ref", "inst_it_image_short_caption_raw_ref", "videorefer_qa_mem",
        "inst_it_video_qa_raw_mem",
    }  # fmt: skip
    assert {task.partition(":")[0] for task in tasks} == set(SETS)
    assert sum(tasks.values()) == pytest.approx(len(SETS))
    assert tasks[TEXT_TASK] == pytest.approx(1 / 3)
    for task in tasks:
        examples = [load(task, number) for number in range(2)]
        assert not any(isinstance(example, InvalidExample) for example in examples), (task, examples)
        batch = job.collate(examples)
        loss = job.objective(**batch)["loss"]
        loss.backward()
        assert torch.isfinite(loss), task
        entry = sets.indices[task.partition(":")[0]][0]
        assert bool(len(batch["batch"].seg_indices)) == (entry.task in ("segment", "classes", "prefill")), task
    gradients = [parameter.grad for parameter in job.objective.parameters() if parameter.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_recipe_of_published_sets_and_a_jsonl_file_trains(
    root: Path, cache: Path, training_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.jsonl").write_text(
        json.dumps(
            {"clip": str(root / "videogpt_plus/vids/x.mp4"), "turns": [{"question": "What?", "answer": "Yes."}]}
        ),
        encoding="utf-8",
    )
    recipe = tiny_recipe(
        "stage3", training_checkpoint, tmp_path / "run", f"data.root={root}", f"data.cache={cache}",
        'data.sets={revos = 1.0, "refcoco+" = 1.0}', f"data.path={tmp_path / 'own.jsonl'}", "data.tasks={all = 1.0}",
        "training.max_steps=3", "training.batch_size=1",
    )  # fmt: skip
    job = prepare(recipe)
    trainer.run(recipe, job.objective, job.dataset, job.collate)
    lines = (Path(recipe.output) / LOG_FILE).read_text(encoding="utf-8").splitlines()
    assert [line["step"] for line in map(json.loads, lines) if "loss" in line] == [1, 2, 3]


def test_samples_of_an_epoch_are_all_entries_and_repeat_for_a_seed(root: Path, cache: Path) -> None:
    sets = PublishedSets.open(["revos"], root, cache=cache, seed=3)
    questions = [sets.draw("revos", number).turns[0].question for number in range(6)]
    assert questions == [sets.draw("revos", number).turns[0].question for number in range(6)]
    areas = [sets.draw("revos", number).clip.masks.sum(axis=(0, 2, 3)).max() for number in range(6)]
    assert sorted(areas) == [49, 81, 113, 186, 195, 244]


@pytest.mark.parametrize("size", ["3b", "7b"])
@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_shares_of_a_recipe_are_samples_times_repeats(size: str, stage: str) -> None:
    weights = load_recipe(f"{size}/{stage}").data.sets
    expected = {
        name: definition.num_samples * definition.repeats[stage] / 1000
        for name, definition in published_sets().items()
        if definition.num_samples is not None and stage in definition.repeats
    }
    assert dict(weights) == expected


def test_shares_of_the_recipes_are_those_of_the_paper() -> None:
    # Table 12 of UniPixel, in per cent; LLaVA and VideoGPT+ are one set.
    paper = {"stage1": {"inst_it_image_short_caption_raw_ref": 41.2, "videorefer_short_caption_ref": 58.8}}
    paper["stage2"] = {"refcoco": 20.8, "refcoco+": 20.8, "refcocog": 26.8, "refclef": 22.0, "ref_youtube_vos": 9.5}
    paper["stage3"] = {
        "osprey_conversation": 0.1, "osprey_detail_description": 2.5, "osprey_pos_neg": 1.7,
        "videorefer_detailed_caption": 10.1, "videorefer_qa": 5.8, "inst_it_video_qa_raw": 13.4,
        "videorefer_qa_mem": 3.5, "inst_it_video_qa_raw_mem": 8.0, "refcoco": 2.9, "refcoco+": 2.9, "refcocog": 3.7,
        "refclef": 3.0, "reason_seg": 0.3, "ade20k": 1.0, "cocostuff": 6.0, "mapillary": 0.9, "paco_lvis": 2.3,
        "pascal_part": 0.2, "ref_youtube_vos": 1.1, "ref_davis17": 0.1, "ref_sav": 2.8, "mevis": 1.9, "lvvis": 0.6,
        "vicas": 2.1, "revos": 2.5, "groundmore": 0.3, "llava_instruct_665k_videogpt_plus_576k": 10.9 + 9.7,
    }  # fmt: skip
    for stage, shares in paper.items():
        weights = load_recipe(f"3b/{stage}").data.sets
        total = sum(weights.values())
        assert {name: 100 * weight / total for name, weight in weights.items()} == pytest.approx(shares, abs=0.11)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.sets={}", r"\[data\] root is given, but sets is empty"),
        ("data.sets={revos = -1.0}", r"\[data\] the weights of sets must not be negative, got \{'revos': -1"),
        ("data.sets={revos = 0.0}", r"\[data\] the weights of sets must have a positive sum"),
    ],
)
def test_recipe_with_wrong_sets_is_refused(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("nano/stage3", ["data.root=data", override])


def test_unknown_set_is_refused_with_the_nearest_name(root: Path, cache: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no data set 'revoss' \(nearest: revos\)"):
        PublishedSets.open(["revoss"], root, cache=cache)


def test_table_of_the_documentation_lists_the_sets() -> None:
    text = (ROOT / "docs" / "training-data.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    listed = {row[0].strip("`"): row[1:] for row in rows if len(row) == 5}
    assert list(listed) == SETS
    added = {row[0].strip("`"): row[1:] for row in rows if len(row) == 3}
    assert added == {
        name: [row.title, row.format] for name, row in published_sets().items() if row.mixture == "Pixel-SAIL"
    }
    for name, (title, style, samples, repeats) in listed.items():
        definition = published_sets()[name]
        times = ", ".join(f"{stage.removeprefix('stage')}: {count}" for stage, count in definition.repeats.items())
        count = "-" if definition.num_samples is None else f"{definition.num_samples:,}"
        assert (title, style, samples, repeats) == (definition.title, definition.format, count, times or "-")


def test_texts_of_each_task_are_those_of_the_published_training(root: Path, cache: Path, processor: Processor) -> None:
    sets = PublishedSets.open(SETS, root, cache=cache, max_turns=3)
    build = ExampleBuilder(processor, has_masks=False).build

    def text(name: str, number: int = 0) -> str:
        return build(sets.draw(name, number)).encoded.texts[0]

    refer = text("videorefer_short_caption_ref")
    assert "Give a short description of <|ref|>.<|im_end|>\n<|im_start|>assistant\nA shape.<|im_end|>" in refer
    region = next(found for found in (text("videorefer_qa", number) for number in range(9)) if "left of" in found)
    assert "The highlighted regions are as follows:\n[0]: <1>-<2> <|mem|>" in region
    assert "Is [0] left of [3]?<|im_end|>\n<|im_start|>assistant\nYes, [0] is left of [3].<|im_end|>" in region
    assert "There are 2 objects" not in region
    prefill = next(found for found in (text("videorefer_qa_mem", number) for number in range(9)) if "left of" in found)
    assert "There are 2 objects: [0] <|ref|> and [3] <|ref|>.\nIs [0] left of [3]?\nOptions:\n(" in prefill
    assert ") Yes, [0] is left of [3]. " in prefill
    assert "<|im_start|>assistant\n[0] <|seg|> [3] <|seg|><|im_end|>" in prefill
    described = text("osprey_detail_description")
    assert "Here is an image with the following highlighted regions:\n[1]: <|mem|>\n[2]: <|mem|>\n" in described
    answered = text("groundmore")
    assert "Who moves?" in answered
    assert "<|im_start|>assistant\nthe shapes <|seg|>.<|im_end|>" in answered
    explained = [found for found in (text("reason_seg", number) for number in range(3)) if "Why warm?" in found]
    assert "It is <|seg|>. It glows.<|im_end|>" in explained[0]
    alone = text(TEXT_TASK)
    assert "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nGood day.<|im_end|>" in alone
    assert "<|im_start|>user\n<|vision_start|>" in text("llava_instruct_665k_videogpt_plus_576k")
    parts = {text("paco_lvis", number) for number in range(12)}
    assert any("leg of the dog" in found for found in parts)
    assert any("dog leg" in found for found in parts)


@pytest.mark.parametrize("kind", ["point", "box"])
def test_all_prompts_of_a_task_are_of_its_kind(root: Path, cache: Path, kind: str) -> None:
    sets = PublishedSets.open(["inst_it_video_qa_raw_mem"], root, cache=cache)
    for number in range(6):
        sample = sets.draw(f"inst_it_video_qa_raw_mem:{kind}", number)
        assert {prompt.kind for prompt in sample.prompts.values()} == {kind}
        for key, prompt in sample.prompts.items():
            assert sample.clip.masks_of(key)[prompt.frame].any()


def test_unknown_task_is_refused(root: Path, cache: Path) -> None:
    sets = PublishedSets.open(["revos"], root, cache=cache)
    for task in ("mevis", "revos:circle"):
        with pytest.raises(ValueError, match=rf"there is no task '{task}': the opened sets are \['revos'\]"):
            sets.draw(task, 0)
    with pytest.raises(ValueError, match="revos has no entries for the task 'revos:text'"):
        sets.draw("revos:text", 0)
