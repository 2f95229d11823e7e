"""The synthetic language, checked against the attributes of the scene and its masks, without the package's labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage

from unipixel.processing.prompt_templates import ALL_REGIONS, SEGMENTATION_QUESTIONS
from unipixel.train.datasets.synthetic import QuestionAnswer, Sample, generate
from unipixel.train.datasets.synthetic.attributes import COLOURS, SHAPES, SIZES, TEXTURES, Split, held_out_pairs
from unipixel.train.datasets.synthetic.language.answers import POSITIONS
from unipixel.train.datasets.synthetic.rasterization import RasterizedScene
from unipixel.train.datasets.synthetic_vqa import add_turns

NUMBERS = dict(zip(["none", "one", "two", "three", "four", "five", "six", "seven", "eight"], range(9), strict=True))


@pytest.fixture(scope="module")
def unrendered() -> Iterator[None]:
    """Skip the rendering: the language depends on the masks alone, and rendering uses the random numbers last."""
    patch = pytest.MonkeyPatch()
    patch.setattr(
        RasterizedScene,
        "render",
        lambda scene, rng, *, split: np.zeros((len(scene.indices), *scene.view.masks.shape[2:], 3), np.uint8),
    )
    yield
    patch.undo()


def samples(task: str, count: int, *, split: Split = "train", start: int = 0) -> list[Sample]:
    return [
        generate(start + seed, split=split, task=task, render_size=(128, 128), num_frames=8) for seed in range(count)
    ]


@pytest.fixture(scope="module")
def pixelqa(unrendered: None) -> list[Sample]:
    return samples("pixelqa/point", 750)


def answer_of(turn: QuestionAnswer) -> str:
    """The answer in lower case, without its letter."""
    text = turn.answer if turn.correct_option is None else turn.options[turn.correct_option]
    return text.strip(".").lower()


def centroid(sample: Sample, object_id: int, frame: int) -> np.ndarray:
    rows, columns = np.nonzero(sample.clip.masks_of(object_id)[frame])
    return np.array([columns.mean(), rows.mean()]) / 128


def has_named_attributes(phrase: str, obj: object) -> bool:
    """Whether an object has every attribute that a phrase names; sizes by their documented limits."""
    phrase = phrase.replace("medium-sized", "medium").replace("little", "small").replace("big", "large")
    phrase = phrase.replace("with stripes", "striped").replace("with spots", "spotted")
    phrase = phrase.replace("without a pattern", "plain")
    words = set(re.findall(r"[a-z]+", phrase))
    singular = {shape: shape in words or f"{shape}s" in words or f"{shape}es" in words for shape in SHAPES}
    extents = obj.trajectory.extents  # type: ignore[attr-defined]
    size = [SIZES[int(np.digitize(extent, [0.12, 0.22]))] for extent in (extents.min(), extents.max())]
    checks = [obj.shape == shape for shape, named in singular.items() if named]  # type: ignore[attr-defined]
    checks += [obj.colour == colour for colour in COLOURS if colour in words]  # type: ignore[attr-defined]
    checks += [obj.texture == texture for texture in TEXTURES if texture in words]  # type: ignore[attr-defined]
    checks += [size == [word, word] for word in SIZES if word in words]
    return all(checks)


def named_ids(sample: Sample, phrase: str) -> set[int]:
    assert sample.scene is not None
    objects = zip(sample.clip.object_ids, sample.scene.objects, strict=True)
    return {object_id for object_id, obj in objects if has_named_attributes(phrase, obj)}


def test_attribute_queries_identify_exactly_their_targets(unrendered: None) -> None:
    for sample in samples("segment/attribute", 250):
        turn = sample.turns[0]
        assert named_ids(sample, turn.question.lower()) == set(turn.target_ids), turn.question


def test_sides_in_segmentation_agree_with_the_masks(unrendered: None) -> None:
    checked = 0
    pattern = r"(left|right) of the ([a-z -]+?) (?:at the (start|end)|in the (first|last) frame)"
    for sample in samples("segment/relation", 220):
        turn = sample.turns[0]
        found = re.search(pattern, turn.question)
        if not found:
            continue
        others = named_ids(sample, found.group(2))
        assert len(others) == 1, turn.question
        frame = 0 if (found.group(3) or found.group(4)) in ("start", "first") else -1
        for target in turn.target_ids:
            step = centroid(sample, target, frame)[0] - centroid(sample, next(iter(others)), frame)[0]
            assert (step < 0) == (found.group(1) == "left"), turn.question
            checked += 1
    assert checked > 20


@pytest.mark.parametrize(("word", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_direction_questions_agree_with_the_masks(pixelqa: list[Sample], word: str, axis: int, sign: int) -> None:
    checked = 0
    for sample in pixelqa:
        turn = sample.turns[0]
        if turn.kind != "direction" or not re.search(rf"\b{word}\b", answer_of(turn)):
            continue
        masks = sample.clip.masks_of(turn.mentioned_ids[0])
        areas = masks.sum(axis=(1, 2))
        known = np.flatnonzero(areas > 0.5 * areas.max())
        first, last = (centroid(sample, turn.mentioned_ids[0], int(index)) for index in (known[0], known[-1]))
        assert sign * (last - first)[axis] > 0
        checked += 1
    assert checked >= 2


def test_side_answers_agree_with_the_masks(pixelqa: list[Sample]) -> None:
    checked = 0
    for sample in pixelqa:
        turn = sample.turns[0]
        if turn.kind not in ("left_of", "right_of", "above", "below"):
            continue
        frame = 0 if "start" in turn.question else -1
        one, two = (centroid(sample, object_id, frame) for object_id in turn.mentioned_ids)
        axis = 0 if turn.kind in ("left_of", "right_of") else 1
        step = (two - one)[axis] * (1 if turn.kind in ("left_of", "above") else -1)
        assert (step > 0.05) == (answer_of(turn) == "yes")
        assert (step < -0.05) == (answer_of(turn) == "no")
        checked += 1
    assert checked > 50


def test_touch_answers_agree_with_the_masks(pixelqa: list[Sample]) -> None:
    answers: Counter[str] = Counter()
    for sample in pixelqa:
        turn = sample.turns[0]
        if turn.kind != "touches":
            continue
        one, two = (sample.clip.masks_of(object_id) for object_id in turn.mentioned_ids)
        near = [(ndimage.binary_dilation(a, iterations=3) & b).any() for a, b in zip(one, two, strict=True)]
        assert any(near) == (answer_of(turn) == "yes")
        answers[answer_of(turn)] += 1
    assert min(answers["yes"], answers["no"]) >= 5


def test_larger_answers_agree_with_the_masks(pixelqa: list[Sample]) -> None:
    checked = 0
    for sample in pixelqa:
        turn = sample.turns[0]
        if turn.kind not in ("larger", "smaller"):
            continue
        one, two = (sample.clip.masks_of(object_id).sum(axis=(1, 2)).max() for object_id in turn.mentioned_ids)
        is_yes = answer_of(turn) == "yes"
        assert (one > two) == (is_yes == (turn.kind == "larger"))
        checked += 1
    assert checked > 10


def test_position_answers_agree_with_the_masks(pixelqa: list[Sample]) -> None:
    checked = 0
    for sample in pixelqa:
        turn = sample.turns[0]
        if turn.kind != "position":
            continue
        x, y = centroid(sample, turn.mentioned_ids[0], 0 if "the start" in turn.question else -1)
        expected = POSITIONS[3 * int(y * 3) + int(x * 3)]
        assert re.search(rf"\b{expected}\b", answer_of(turn)), (turn, x, y)
        checked += 1
    assert checked > 15


def test_attribute_answers_are_those_of_the_prompted_object(pixelqa: list[Sample]) -> None:
    checked = 0
    for sample in pixelqa:
        turn = sample.turns[0]
        if turn.kind in ("shape", "colour", "texture", "size", "description"):
            assert turn.mentioned_ids[0] in named_ids(sample, answer_of(turn).split(" that ")[0])
            for number, option in enumerate(turn.options):
                if number != turn.correct_option and " that " not in option:
                    assert turn.mentioned_ids[0] not in named_ids(sample, option.lower())
            checked += 1
    assert checked > 150


def test_counts_of_larger_objects_agree_with_the_extents(pixelqa: list[Sample]) -> None:
    for sample in pixelqa:
        turn = sample.turns[0]
        if turn.kind == "count":
            assert sample.scene is not None
            extents = [obj.trajectory.extents.mean() for obj in sample.scene.objects]
            own = extents[sample.clip.object_ids.index(turn.mentioned_ids[0])]
            sign = 1 if "larger" in turn.question else -1
            assert sum(sign * (other - own) > 1e-9 for other in extents) == NUMBERS[answer_of(turn)]


def test_exchanged_answers_are_those_of_the_other_object(pixelqa: list[Sample]) -> None:
    kinds: Counter[str] = Counter()
    for sample in pixelqa:
        turn = sample.turns[0]
        if turn.exchanged_answer is None:
            continue
        assert len(turn.mentioned_ids) == 2
        assert turn.exchanged_answer.lower() != answer_of(turn)
        assert not turn.options or turn.exchanged_answer in turn.options
        kinds[turn.kind.split("_")[0]] += 1
    assert kinds["which"] > 50
    assert kinds["left"] + kinds["right"] + kinds["above"] + kinds["below"] > 50


def test_letters_are_uniform_and_yes_is_as_likely_as_no(pixelqa: list[Sample]) -> None:
    positions: dict[int, Counter[int | None]] = {2: Counter(), 4: Counter()}
    answers = Counter(answer_of(sample.turns[0]) for sample in pixelqa)
    for sample in pixelqa:
        turn = sample.turns[0]
        if len(turn.options) in positions:
            positions[len(turn.options)][turn.correct_option] += 1
    for count, counter in positions.items():
        total = sum(counter.values())
        # Four standard deviations of a fair draw.
        slack = 4 * (total / count * (1 - 1 / count)) ** 0.5
        assert all(abs(counter[position] - total / count) < slack for position in range(count))
    total = answers["yes"] + answers["no"]
    assert abs(answers["yes"] - total / 2) < 2 * total**0.5


def test_options_follow_the_published_format(pixelqa: list[Sample]) -> None:
    for sample in pixelqa:
        turn = sample.turns[0]
        if not turn.options:
            continue
        lines = turn.question.split("\n")
        assert lines[1] == "Options:"
        assert lines[-1] == "Please only give the best option."
        assert lines[2:-1] == [f"({'ABCD'[n]}) {option}" for n, option in enumerate(turn.options)]
        assert len(set(turn.options)) == len(turn.options)
        assert turn.correct_option is not None
        option = turn.options[turn.correct_option]
        assert turn.answer == f"Answer: {option}, so the best option is ({'ABCD'[turn.correct_option]})."


@pytest.mark.parametrize("kind", ["attribute", "relation", "motion", "reasoning"])
def test_segmentation_has_none_one_and_several_targets(unrendered: None, kind: str) -> None:
    counts = Counter(min(len(sample.turns[0].target_ids), 2) for sample in samples(f"segment/{kind}", 120, start=5000))
    assert min(counts[0], counts[1], counts[2]) >= 8


def test_evaluation_asks_with_the_fixed_questions(unrendered: None) -> None:
    fixed = [
        re.sub(r"(the )?\\\{(query|scene)\\\}", "(.+)", re.escape(pool[0]).replace("\\ ", " "))
        for pool in SEGMENTATION_QUESTIONS.values()
    ]
    for kind in ("attribute", "relation", "motion", "reasoning"):
        for sample in samples(f"segment/{kind}", 25, split="test"):
            assert any(re.fullmatch(pattern, sample.turns[0].question) for pattern in fixed), sample.turns[0].question


def test_one_frame_is_called_an_image_and_has_no_motion(unrendered: None) -> None:
    for seed in range(40):
        sample = generate(seed, split="train", task="segment/attribute", render_size=(128, 128), num_frames=1)
        assert "video" not in sample.turns[0].question + sample.turns[0].answer
    with pytest.raises(ValueError, match="at least four frames"):
        generate(0, split="train", task="segment/motion", render_size=(64, 64), num_frames=1)


def test_conversation_mentions_only_objects_it_has_found(unrendered: None) -> None:
    another = 0
    for sample in samples("conversation", 120):
        known: set[int] = set()
        assert len(sample.turns) >= 2
        for turn in sample.turns:
            known |= set(turn.target_ids)
            assert set(turn.mentioned_ids) <= known
            if turn.kind == "another":
                another += 1
                assert turn.target_ids
        first = sample.turns[0].target_ids
        assert first == tuple(range(1, len(first) + 1))
    assert another > 30


def test_pronoun_follows_a_turn_about_one_object(unrendered: None) -> None:
    checked = 0
    for sample in samples("conversation", 150):
        for before, turn in zip(sample.turns, sample.turns[1:], strict=False):
            if re.search(r"\bit\b", turn.question) and not turn.mentioned_ids and not turn.target_ids:
                named = set(before.target_ids) | set(before.mentioned_ids)
                assert len(named) <= 1
                checked += 1
    assert checked > 20


def test_published_words_all_occur(unrendered: None) -> None:
    text = ""
    for task in (
        "segment/attribute",
        "segment/relation",
        "segment/motion",
        "segment/reasoning",
        "pixelqa/box",
        "plain",
    ):
        for sample in samples(task, 500 if "reasoning" in task else 100, start=9000):
            text += " ".join(f"{turn.question} {turn.answer}\n" for turn in sample.turns)
    text = text.lower()
    phrases = [
        *SHAPES, *COLOURS, *TEXTURES, *SIZES, "stays still", "moves left", "moves right", "moves up", "moves down",
        "moves diagonally", "turns back", "speeds up", "slows down", "stops", "starts late", "spins",
        "grows", "shrinks",
        "moves in a circle", "bounces off an edge", "appears late", "leaves", "left of", "right of", "above", "below",
        "nearest to", "farthest from", "behind", "in front of", "touch", "follow", "overtake", "largest", "fastest",
        "second", "only", "than the", "the same colour as", "does not move", "first to", "last to", "corners",
        "the colour of grass", "ripe lemon", "snow", "love", "coin", "at the start", "at the end", "how many",
    ]  # fmt: skip
    assert [phrase for phrase in phrases if phrase not in text] == []


def test_captions_describe_the_prompted_object(unrendered: None) -> None:
    for sample in samples("caption", 60):
        turn = sample.turns[0]
        found = re.match(r"\[(\d+)\] is (an? [a-z -]+?)(?: that| and|\.)", turn.answer)
        assert found, turn.answer
        assert int(found.group(1)) in named_ids(sample, found.group(2))


def test_regions_are_described_line_by_line(unrendered: None) -> None:
    kinds: Counter[str] = Counter()
    listed = 0
    for sample in samples("regions", 150):
        turn = sample.turns[0]
        kinds[turn.kind] += 1
        lines = [re.fullmatch(r"\[(\d+)\]: (.+)", line) for line in turn.answer.split("\n")]
        ids = [int(line[1]) for line in lines if line]
        assert len(ids) == len(lines) >= 2
        if ALL_REGIONS in turn.question:
            assert ids == sorted(sample.prompts)
        else:
            assert ids == [int(found) for found in re.findall(r"\[(\d+)\]", turn.question)]
            listed += ids != sorted(ids)
        for line in lines:
            if line and turn.kind in ("description", "shape", "colour", "texture", "size"):
                assert int(line[1]) in named_ids(sample, line[2].split(" that ")[0])
    assert listed > 15
    assert set(kinds) == {"description", "shape", "colour", "texture", "size", "motion", "start", "end"}


def test_region_positions_agree_with_the_masks(unrendered: None) -> None:
    checked = 0
    for sample in samples("regions", 150):
        turn = sample.turns[0]
        if turn.kind not in ("start", "end"):
            continue
        for object_id, word in re.findall(r"\[(\d+)\]: (.+)", turn.answer):
            x, y = centroid(sample, int(object_id), 0 if turn.kind == "start" else -1)
            assert word == POSITIONS[3 * int(y * 3) + int(x * 3)]
            checked += 1
    assert checked > 10


def test_further_turns_about_regions_ask_for_other_attributes(unrendered: None) -> None:
    counts = set()
    for sample in samples("regions", 20):
        turns = add_turns(sample, np.random.default_rng(sample.seed), 4).turns
        counts.add(len(turns))
        assert len({turn.kind for turn in turns}) == len(turns)
        for turn in turns:
            assert set(turn.mentioned_ids) <= set(sample.prompts)
    assert max(counts) == 4


def test_pairs_ask_about_two_highlighted_objects(unrendered: None) -> None:
    for sample in samples("pairs", 40):
        assert len(sample.prompts) == 2
        assert {prompt.kind for prompt in sample.prompts.values()} == {"mask"}
        assert set(sample.turns[0].mentioned_ids) == set(sample.prompts)


def test_training_never_names_a_held_out_combination(unrendered: None) -> None:
    pattern = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})")
    pairs = held_out_pairs("train")
    for task in ("segment/attribute", "segment/motion", "pixelqa/point", "regions", "conversation"):
        for sample in samples(task, 80, start=20_000):
            for turn in sample.turns:
                for colour, shape in pattern.findall(f"{turn.question} {turn.answer}"):
                    assert (shape, colour) not in pairs, turn
