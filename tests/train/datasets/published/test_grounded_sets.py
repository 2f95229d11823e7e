"""Sets of the Pixel-SAIL mixture, drawn in their layouts with masks that are known."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.sail_model import CHECKPOINT as SAIL_CHECKPOINT
from helpers.tiny_training import tiny_recipe
from numpy.typing import NDArray
from PIL import Image

from unipixel.memory.rle import encode_rle
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.build import prepare
from unipixel.train.datasets.collate import InvalidExample
from unipixel.train.datasets.mixture import ExampleDataset
from unipixel.train.datasets.published.definitions import find_set, published_sets
from unipixel.train.datasets.published.entry_listing import list_entry
from unipixel.train.datasets.published.entry_samples import EntrySampler
from unipixel.train.datasets.published.published_sets import PublishedSets, open_set
from unipixel.train.recipe_files import load_any_recipe
from unipixel.train.sail.published_images import to_sail_sample
from unipixel.train.sail.sail_recipe import SailRecipe
from unipixel.train.sail.sail_run import prepare_sail
from unipixel.train.sail.sail_samples import SailSample

SAIL_SETS = [name for name, row in published_sets().items() if row.mixture == "Pixel-SAIL"]
SIZE = (36, 48)
# Ids whose colours have all three channels.
LEFT, RIGHT, SKY = 1 + 256 * 2 + 65536 * 3, 70000, 300


def box(left: int, top: int, right: int, bottom: int) -> NDArray[np.bool_]:
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


MASKS = {LEFT: box(2, 10, 12, 20), RIGHT: box(20, 10, 40, 30), SKY: box(0, 0, 48, 8)}
AREAS = {key: int(mask.sum()) for key, mask in MASKS.items()}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grounded") / "data"
    for name in (
        "coco/train2017", "glamm_data/images/coco2014/train2014", "glamm_data/images/coco2017", "sam_captions/images",
        "glamm_data/images/flickr30k/Flickr30K", "glamm_data/images/grandf/train", "osprey/coco/imgs",
    ):  # fmt: skip
        (folder / name).mkdir(parents=True)
        Image.fromarray(np.full((*SIZE, 3), 120, np.uint8)).save(folder / name / "a.jpg")
    draw_panoptic(folder)
    draw_captions(folder)
    left, right = (encode_rle(MASKS[key]) for key in (LEFT, RIGHT))
    answers = [{"segmentation": left, "category_name": "cat"}, {"segmentation": right, "category_name": "dog"}]
    write_json(
        folder / "muse/MUSE_train.json",
        [{
            "coco_url": "http://images.cocodataset.org/train2017/a.jpg", "height": 36, "width": 48,
            "questions": ["Who sits?", "Who is it?"], "answers": [answers, answers[:1]],
            "text_answers": ["The cat {seg} and the dog {seg}.", "No slot."],
        }],
    )  # fmt: skip
    objects = [{"segmentation": left, "caption": f"Thing {row}."} for row in range(7)]
    write_json(folder / "sam_captions/sam_captions.json", [{"image_name": "a.jpg", "object_annotations": objects}])
    generated = folder / "generated_regions"
    (generated / "images").mkdir(parents=True)
    Image.fromarray(np.full((*SIZE, 3), 120, np.uint8)).save(generated / "images/a.jpg")
    captions = [{"image_name": "a.jpg", "object_annotations": [{"segmentation": left, "caption": "A grey area."}]}]
    write_json(generated / "STBench_Detailed_Caption.json", captions)
    asked = [{"object": left, "question": "What is it? A. grey B. red C. blue D. green", "answer": "A. grey"}] * 6
    write_json(generated / "STBench_MCQ.json", [{"image_name": "a.jpg", "mcqs": asked}])
    said = [{"from": "human", "value": "Is <region1> old?"}, {"from": "gpt", "value": "Yes"}]
    row = {"id": 0, "file_name": "a.jpg", "height": 36, "width": 48, "annotation": [{"segmentation": left}]}
    for name in ("short_form", "part_level"):
        write_json(folder / f"osprey/Osprey-724K/osprey_{name}.json", [{**row, "conversations": said}])
    (folder / "llava_instruct").mkdir()
    Image.fromarray(np.full((*SIZE, 3), 120, np.uint8)).save(folder / "llava_instruct/a.jpg")
    talk = [{"from": "human", "value": "<image>\nWhat is shown?"}, {"from": "gpt", "value": "Grey."}]
    write_json(folder / "general/llava_v1_5_mix665k.json", [{"id": "1", "image": "a.jpg", "conversations": talk}])
    return folder


def draw_panoptic(folder: Path) -> None:
    labels = sum((mask * key for key, mask in MASKS.items()), np.zeros(SIZE, np.int64))
    colours = np.stack([labels % 256, labels // 256 % 256, labels // 65536], axis=2).astype(np.uint8)
    path = folder / "coco/annotations/panoptic_train2017/a.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(colours).save(path)
    segments: list[dict[str, Any]] = [
        {
            "id": RIGHT,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [20, 10, 20, 20],
            "description": "A person on the right.",
        },
        {"id": LEFT, "category_id": 1, "iscrowd": 0, "bbox": [2, 10, 10, 10], "description": "short"},
        {"id": SKY, "category_id": 187, "iscrowd": 0, "bbox": [0, 0, 48, 8], "description": "The sky above."},
        {"id": 9, "category_id": 1, "iscrowd": 1, "bbox": [0, 0, 1, 1], "description": "A crowd of people."},
    ]
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 187, "name": "sky-other-merged", "isthing": 0}]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": categories,
    }
    write_json(folder / "coco/annotations/panoptic_train2017.json", content)
    write_json(folder / "pixel2cap/pix2cap_coco_train.json", content)


def draw_captions(folder: Path) -> None:
    left, right = (encode_rle(MASKS[key]) for key in (LEFT, RIGHT))
    caption, annotations = "A cat beside a dog.", folder / "glamm_data/annotations"
    groundings = {
        "cat": {"token_positives": [2, 5], "rle_masks": [left]},
        "a dog": {"token_positives": [13, 18], "rle_masks": [right, left]},
    }
    for name in ("OpenPsgGCG_train", "GranDf_HA_GCG_train"):
        row = {"file_name": "a.jpg", "caption": caption, "groundings": groundings}
        write_json(annotations / f"{name}.json", [row, {**row, "groundings": {}}])
    phrases = [
        {"id": 1, "image_id": 4, "tokens_positive": [[2, 5]], "sam_mask": left},
        {"id": 2, "image_id": 4, "tokens_positive": [[4, 12]], "sam_mask": right},
        {"id": 3, "image_id": 4, "tokens_positive": [[13, 18]], "sam_mask": right, "ignore": True},
    ]
    images = [{"id": 4, "file_name": "a.jpg", "caption": caption}]
    write_json(annotations / "flickr_mergedGT_GCG_train.json", {"images": images, "annotations": phrases})
    refs = [{"sentence": "A dog", "segmentation": right}, {"sentence": "a horse", "segmentation": left}]
    rows = [{"img_file_name": "a.jpg", "caption": caption, "refs": refs}]
    write_json(annotations / "RefCOCOg_GCG_train.json", rows)
    image = {"id": 2, "file_name": "a.jpg", "height": 36, "width": 48}
    annotation = {"id": 5, "image_id": 2, "segmentation": left, "bbox": [2, 10, 10, 10]}
    references = [
        {"ref_id": 1, "ann_id": [5], "image_id": 2, "split": "train", "sentences": [{"sent_id": 1, "sent": "a cat"}]},
        {"ref_id": 2, "ann_id": [-1], "image_id": 2, "split": "train", "sentences": [{"sent_id": 2, "sent": "a pig"}]},
    ]
    write_json(folder / "ref_seg/grefs/grefs(unc).json", references)
    write_json(folder / "ref_seg/grefs/instances.json", {"images": [image], "annotations": [annotation]})


def listed(name: str, root: Path, cache: Path) -> list[dict[str, Any]]:
    index = open_set(find_set(name), root, cache=cache)
    return [list_entry(index[number], find_set(name), root) for number in range(len(index))]


def test_panoptic_classes_are_united_or_ordered_by_instance(root: Path, tmp_path: Path) -> None:
    (semantic,) = listed("coco_panoptic_semantic", root, tmp_path)
    people = AREAS[LEFT] + AREAS[RIGHT]
    assert [(one["query"], one["areas"]) for one in semantic["samples"]] == [
        ("all the person", [[people]]),
        ("all the sky", [[AREAS[SKY]]]),
    ]
    (instance,) = listed("coco_panoptic_instance", root, tmp_path)
    assert instance["response"] == ["person-1 <|seg|> person-2 <|seg|>.", "sky <|seg|>."]
    assert instance["targets"] == [["person-1", "person-2"], ["sky"]]
    assert dict(zip(instance["oids"], instance["areas"], strict=True)) == {
        "person-1": [AREAS[LEFT]], "person-2": [AREAS[RIGHT]], "sky": [AREAS[SKY]],
    }  # fmt: skip


def test_descriptions_of_pix2cap_are_expressions_or_answers(root: Path, tmp_path: Path) -> None:
    (segments,) = listed("pix2cap_segmentation", root, tmp_path)
    assert [(one["query"], one["areas"]) for one in segments["samples"]] == [
        ("A person on the right.", [[AREAS[RIGHT]]]),
        ("The sky above.", [[AREAS[SKY]]]),
    ]
    (described,) = listed("pix2cap_description", root, tmp_path)
    assert described["question"] == ["[0]", "[1]"]
    assert described["response"] == ["A person on the right.", "The sky above."]
    assert described["areas"] == [[AREAS[RIGHT]], [AREAS[SKY]]]


@pytest.mark.parametrize(
    ("name", "text", "areas"),
    [
        ("grandf_open_psg", "A <p> cat </p> <|seg|> beside <p> a dog </p> <|seg|>.", [100, 500]),
        ("grandf_human", "A <p> cat </p> <|seg|> beside <p> a dog </p> <|seg|>.", [100, 500]),
        ("grandf_flickr", "A <p> cat </p> <|seg|><p> beside </p> <|seg|> a dog.", [100, 400]),
        ("grandf_refcocog", "a cat beside <p> a dog </p> <|seg|>.", [400]),
    ],
)
def test_phrases_of_grounded_captions_have_masks(
    root: Path, tmp_path: Path, name: str, text: str, areas: list[int]
) -> None:
    (caption,) = listed(name, root, tmp_path)
    assert caption["response"] == [text]
    assert [frames[0] for frames in caption["areas"]] == areas


def test_answers_of_muse_fill_their_slots_or_are_composed(root: Path, tmp_path: Path) -> None:
    (asked,) = listed("muse", root, tmp_path)
    assert asked["question"][0] == "Who sits? Please respond with segmentation mask."
    assert asked["response"] == ["The cat <|seg|> and the dog <|seg|>.", "cat is <|seg|>."]
    assert asked["targets"] == [["0", "1"], ["2"]]
    assert asked["areas"] == [[AREAS[LEFT]], [AREAS[RIGHT]], [AREAS[LEFT]]]


def test_captions_of_sam_come_five_at_a_time(root: Path, tmp_path: Path) -> None:
    first, second = listed("sam_captions", root, tmp_path)
    assert first["response"] == [f"Thing {row}." for row in range(5)]
    assert (second["question"], second["response"]) == (["[5]", "[6]"], ["Thing 5.", "Thing 6."])


def test_questions_of_regions_come_five_at_a_time(root: Path, tmp_path: Path) -> None:
    first, second = listed("generated_questions", root, tmp_path)
    assert first["question"][4] == (
        "Please answer the question according to the [4]. What is it? A. grey B. red C. blue D. green Select a correct "
        "choice."
    )
    assert first["response"] == ["A. grey"] * 5
    assert (second["oids"], second["areas"]) == (["5"], [[AREAS[LEFT]]])


def test_questions_about_the_category_list_candidates(root: Path, tmp_path: Path) -> None:
    """The right class is among ten others, or left out in one of 20 questions, which are then answered `others.`."""
    (entry,) = listed("coco_category", root, tmp_path)
    assert entry["response"] == ["person", "person", "sky"]
    assert entry["areas"] == [[AREAS[RIGHT]], [AREAS[LEFT]], [AREAS[SKY]]]
    sets = PublishedSets.open(["coco_category"], root, cache=tmp_path, max_turns=5)
    names = set(find_set("coco_category").class_names().values())
    assert {"person", "sky", "door", "wall tile"} < names
    assert len(names) == 133
    num_left_out, candidates_drawn = 0, set()
    for number in range(200):
        for turn, right in zip(sets.draw("coco_category", number).turns, entry["response"], strict=True):
            question, _, listed_classes = turn.question.partition(" The candidate categories: ")
            assert question.endswith("? Please select from the candidate categories.")
            *candidates, other = listed_classes.split(", ")
            assert other == "others."
            assert len(set(candidates)) == len(candidates)
            assert set(candidates) <= names
            candidates_drawn |= set(candidates)
            num_left_out += turn.answer == "others."
            assert (len(candidates), turn.answer) == ((11, right) if right in candidates else (10, "others."))
    assert 10 <= num_left_out <= 60
    assert candidates_drawn == names


def test_only_some_regions_of_an_image_are_asked_about(root: Path, tmp_path: Path) -> None:
    definition = replace(find_set("coco_category"), max_regions=2)
    entry = open_set(definition, root, cache=tmp_path)[0]
    sampler = EntrySampler(definition, root, num_frames=1, max_turns=5)
    drawn = set()
    for number in range(20):
        sample = sampler.draw(entry, number=number, generator=random.Random(number))
        assert len(sample.turns) == 2
        assert set(sample.prompts) == set(sample.clip.object_ids)
        assert all(f"[{key}]" in turn.question for key, turn in zip(sample.prompts, sample.turns, strict=True))
        areas = {0: AREAS[RIGHT], 1: AREAS[LEFT], 2: AREAS[SKY]}
        assert [int(mask.sum()) for mask in sample.clip.masks] == [areas[key] for key in sample.clip.object_ids]
        drawn.add(sample.clip.object_ids)
    assert drawn == {(0, 1), (0, 2), (1, 2)}


def test_expression_of_grefcoco_without_an_object_has_no_mask(root: Path, tmp_path: Path) -> None:
    sets = PublishedSets.open(["grefcoco"], root, cache=tmp_path, max_turns=5)
    sample = sets.draw("grefcoco", 0)
    targets = {turn.question.partition("cat")[1]: turn for turn in sample.turns}
    assert targets["cat"].target_ids
    assert (targets[""].target_ids, targets[""].answer) == ((), "There is no such object in the image.")
    assert sample.clip.masks.sum() == AREAS[LEFT]


def test_grounded_sample_has_the_masks_of_its_targets_in_order(root: Path, tmp_path: Path) -> None:
    sample = PublishedSets.open(["muse"], root, cache=tmp_path, max_turns=2).draw("muse", 0)
    assert [turn.target_ids for turn in sample.turns] == [(1, 2), (3,)]
    masks = [sample.clip.masks_of(object_id)[0] for object_id in (1, 2, 3)]
    assert np.array_equal(masks, [MASKS[LEFT], MASKS[RIGHT], MASKS[LEFT]])


def test_samples_of_every_set_become_examples(root: Path, tmp_path: Path, training_checkpoint: Path) -> None:
    weights = "data.sets={" + ", ".join(f'"{name}" = 1.0' for name in SAIL_SETS) + "}"
    overrides = (f"data.root={root}", f"data.cache={tmp_path / 'cache'}", weights, "data.num_mask_frames=1")
    job = prepare(tiny_recipe("stage3", training_checkpoint, tmp_path / "run", *overrides))
    assert isinstance(job.dataset, ExampleDataset)
    for name in SAIL_SETS:
        example = job.dataset._load(name, random.Random(name).randrange(9))
        assert not isinstance(example, InvalidExample), (name, example)
        loss = job.objective(**job.collate([example]))["loss"]
        assert loss.isfinite(), name


def test_samples_of_every_set_train_a_pixel_sail(root: Path, tmp_path: Path) -> None:
    weights = "data.sets={" + ", ".join(f'"{name}" = 1.0' for name in SAIL_SETS) + "}"
    recipe = load_any_recipe(
        "sail/0.5b-finetune",
        [
            f"data.root={root}", f"data.cache={tmp_path / 'cache'}", weights, f"model.checkpoint={SAIL_CHECKPOINT}",
            "data.num_points=64", "data.missing_prompt_rate=1.0",
        ],
    )  # fmt: skip
    assert isinstance(recipe, SailRecipe)
    recipe = replace(recipe, training=replace(recipe.training, max_steps=60, gradient_accumulation=1))
    job = prepare_sail(recipe)
    job.objective.train()
    seen = set()
    for number in range(len(job.dataset)):  # type: ignore[arg-type]
        example = job.dataset[number]
        name = job.dataset._sampler.locate(number)[0]  # type: ignore[attr-defined]
        assert not isinstance(example, InvalidExample), (name, example)
        if name not in seen:
            loss = job.objective(**job.collate([example]))["loss"]
            loss.backward()
            assert loss.isfinite(), name
        seen.add(name)
    assert seen == set(SAIL_SETS)
    broken = job.collate([InvalidExample("a", "b")])
    assert float(job.objective(**broken)["loss"].detach()) == 0


def test_samples_of_pixel_sail_have_its_text_forms(root: Path, tmp_path: Path) -> None:
    def convert(name: str, rate: float = 0.0, number: int = 0) -> SailSample:
        processor = SailProcessor.from_pretrained(SAIL_CHECKPOINT)
        sets = PublishedSets.open([name], root, cache=tmp_path, max_turns=5)
        generator = random.Random(3)
        return to_sail_sample(sets.draw(name, number), processor, generator=generator, missing_prompt_rate=rate)

    referred = convert("grefcoco")
    areas = {
        turn.answer == "No target [SEG].": mask.sum() for turn, mask in zip(referred.turns, referred.masks, strict=True)
    }
    assert areas == {True: 0, False: AREAS[LEFT]}
    described = convert("pix2cap_description")
    names = [f"<Prompt{one.prompt_id}>" for one in described.prompts]
    assert all((turn.answer or "").startswith(f"{name}: ") and name in turn.question
               for name, turn in zip(sorted(names), sorted(described.turns, key=lambda one: one.answer or ""),
                                     strict=True))  # fmt: skip
    with_missing = convert("pix2cap_description", rate=1.0)
    (missing,) = [turn for turn in with_missing.turns if (turn.answer or "").endswith(" is not in the image.")]
    tag = (missing.answer or "").split(" ")[0]
    assert tag in missing.question
    assert tag not in {f"<Prompt{one.prompt_id}>" for one in with_missing.prompts}
    grounded = convert("grandf_human")
    assert [int(mask.sum()) for mask in grounded.masks][:1] == [AREAS[LEFT]]
    united = convert("coco_panoptic_semantic")
    assert AREAS[LEFT] + AREAS[RIGHT] in [int(mask.sum()) for mask in united.masks]
