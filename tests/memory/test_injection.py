from __future__ import annotations

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unipixel.memory.injection import MemoryInjection, inject, memory_heading, visible_ids
from unipixel.memory.mask_pooling import TokenMasks


def masks_of(*visible: tuple[int, ...], num_frames: int) -> np.ndarray:
    """Masks (n, O, 28, 56): object k fills the left half of the frames listed for it."""
    masks = np.zeros((num_frames, len(visible), 28, 56), dtype=bool)
    for row, frames in enumerate(visible):
        masks[list(frames), row, :, :20] = True
    return masks


def test_text_of_a_video_is_the_published_one() -> None:
    # Recorded from the published code: case_preprocess_short of the golden figures.
    expected = (
        "Here is a video with 5 frames denoted as <1> to <5>. The highlighted regions are as follows:\n"
        "[0]: <1>-<2> <|mem|> <3>-<4> <|mem|> <5>-<6> <|mem|>\n"
        "[1]: <1>-<2> <|mem|> <3>-<4> <|mem|>\n"
    )
    injection = inject([0, 1], masks_of((0, 1, 2, 3, 4), (0, 2, 3), num_frames=5), grid_hw=(2, 4))
    assert injection.text == expected
    assert [injection.frame_tags(row) for row in (0, 1)] == [(1, 3, 5), (1, 3)]


def test_text_of_an_image_has_no_frame_tags() -> None:
    injection = inject([7], masks_of((0,), num_frames=1), grid_hw=(2, 4))
    assert injection.text == "Here is an image with the following highlighted regions:\n[7]: <|mem|>\n"


def test_text_of_an_update_names_only_the_objects_given() -> None:
    injection = inject([12], masks_of((2,), num_frames=4), grid_hw=(2, 4), is_update=True)
    assert injection.text == "The highlighted regions are updated as follows:\n[12]: <3>-<4> <|mem|>\n"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.randoms(use_true_random=False))
def test_text_has_one_token_per_pooled_row(num_frames: int, num_objects: int, random: Random) -> None:
    masks = np.zeros((num_frames, num_objects, 30, 40), dtype=bool)
    for row in range(num_objects):
        for frame in random.sample(range(num_frames), random.randint(1, num_frames)):
            masks[frame, row, random.randrange(30), random.randrange(40)] = True
    injection = inject(range(num_objects), masks, grid_hw=(4, 6))
    pooled_rows = sum(
        bool(injection.refer_mask[pair, row].any())
        for row in range(num_objects)
        for pair in range(len(injection.refer_mask))
    )
    assert injection.text.count("<|mem|>") == injection.num_tokens == pooled_rows
    assert list(injection.object_ids) == visible_ids(range(num_objects), masks)


def test_an_empty_mask_is_refused_by_the_id_of_its_object() -> None:
    with pytest.raises(ValueError, match=r"mask of \[4\], \[6\] is empty in all 3 frames"):
        inject([4, 5, 6], masks_of((), (1,), (), num_frames=3), grid_hw=(2, 4))


def test_visible_ids_leaves_out_objects_on_no_frame() -> None:
    masks = masks_of((), (1,), (), num_frames=3)
    assert visible_ids([4, 5, 6], masks) == visible_ids([4, 5, 6], torch.from_numpy(masks)) == [5]


@pytest.mark.parametrize(
    ("ids", "message"),
    [([1], "1 object ids .* 2 objects"), ([3, 3], "must differ"), ([-1, 2], r"\[0, 9999\]"), ([True, 2], "integer")],
)
def test_ids_that_do_not_fit_the_masks_are_refused(ids: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inject(ids, masks_of((0,), (0,), num_frames=2), grid_hw=(2, 4))


def test_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one object"):
        inject([], np.zeros((2, 0, 28, 56), dtype=bool), grid_hw=(2, 4))


def test_frames_that_do_not_fit_the_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="5 frames make 3 frame pairs, the masks have 2"):
        MemoryInjection((1,), TokenMasks.from_cells(torch.ones(2, 1, 1, 2)), num_frames=5)


def test_heading_of_one_frame_is_about_an_image() -> None:
    assert "image" in memory_heading(1)
    assert "video with 2 frames" in memory_heading(2)
