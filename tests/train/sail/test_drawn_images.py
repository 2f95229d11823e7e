"""Drawn images of Pixel-SAIL: what is asked about them, and their masks."""

from pathlib import Path

import numpy as np
import pytest

from unipixel.sail.patch_grid import RegionPrompt
from unipixel.sail.sail_config import SEG_TOKEN
from unipixel.sail.sail_processor import SailProcessor
from unipixel.train.sail.drawn_images import DrawnImageSettings, draw_sail_sample, with_own_cells
from unipixel.train.sail.drawn_turns import NO_TARGET_ANSWER, REFERRING_ANSWERS, SAIL_TASKS
from unipixel.train.sail.sail_samples import SailSample

SIZES = ((64, 96),)


def drawn(task: str, number: int) -> SailSample:
    return draw_sail_sample([5, number], DrawnImageSettings(SIZES, 1, {task: 1.0}))


def texts_of(sample: SailSample) -> list[tuple[str, str | None]]:
    return [(turn.question, turn.answer) for turn in sample.turns]


def test_a_drawn_image_is_the_same_every_time() -> None:
    settings = DrawnImageSettings(SIZES, 4, dict.fromkeys(SAIL_TASKS, 1.0))
    first, second = draw_sail_sample([1, 2], settings), draw_sail_sample([1, 2], settings)
    assert first.image is not None
    assert second.image is not None
    assert np.array_equal(first.image, second.image)
    assert texts_of(first) == texts_of(second)


@pytest.mark.parametrize("task", SAIL_TASKS)
def test_answers_have_one_seg_token_per_mask(task: str) -> None:
    for number in range(3):
        sample = drawn(task, number)
        assert sum((turn.answer or "").count(SEG_TOKEN) for turn in sample.turns) == len(sample.masks)
        assert all(mask.shape == SIZES[0] for mask in sample.masks)


def test_questions_without_a_target_have_an_empty_mask() -> None:
    sample = drawn("no_target", 0)
    assert sample.turns[0].answer == NO_TARGET_ANSWER
    assert not sample.masks[0].any()


def test_referring_questions_have_one_mask_of_all_targets() -> None:
    sample = drawn("attribute", 0)
    assert sample.turns[0].answer in REFERRING_ANSWERS
    assert sample.masks[0].any()


def test_instances_are_disjoint_and_ordered_from_left_to_right() -> None:
    sample = next(s for s in (drawn("instances", number) for number in range(40)) if len(s.masks) > 1)
    assert not (sample.masks[0] & sample.masks[1]).any()
    lefts = [int(mask.any(axis=0).argmax()) for mask in sample.masks]
    assert lefts == sorted(lefts)


def test_a_prompt_that_is_not_in_the_image_has_no_region() -> None:
    sample = drawn("missing_prompt", 0)
    answer = sample.turns[0].answer or ""
    missing = int(answer.removeprefix("<Prompt").partition(">")[0])
    assert missing not in {prompt.prompt_id for prompt in sample.prompts}


def test_a_sample_whose_masks_do_not_match_its_answers_is_refused() -> None:
    sample = drawn("attribute", 0)
    with pytest.raises(ValueError, match=r"1 \[SEG\], the sample has 0 masks"):
        SailSample(sample.image, sample.turns)


def test_equally_large_regions_keep_a_cell_each_as_the_processor_draws_them() -> None:
    sail_processor = SailProcessor.from_pretrained(Path(__file__).parents[2] / "parity/sail/checkpoint")
    patch = sail_processor.config.patch_size
    masks = [np.zeros((4 * patch, 4 * patch), np.bool_) for _ in range(2)]
    # Equal areas: the first within one cell, the second over this cell and the next one.
    masks[0][0, :4] = masks[1][0, patch - 2 : patch + 2] = True
    for order in (0, 1), (1, 0):
        regions = {row: RegionPrompt(row, masks[row]) for row in order}
        kept = with_own_cells(regions, masks[0].shape, sail_processor)
        image = sail_processor.image(np.zeros((*masks[0].shape, 3), np.uint8), list(kept.values()))
        assert set(image.prompt_ids.tolist()) == {-1, *kept}


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown tasks \['colour'\]: allowed are"):
        DrawnImageSettings(SIZES, 1, {"colour": 1.0})
