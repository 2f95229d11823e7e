from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unipixel.processing.frame_sampling import (
    draw_frame_count,
    keep_frames,
    parse_frame_count,
    random_indices,
    select_frames,
    uniform_indices,
)

counts = st.integers(1, 40)


def test_uniform_indices_are_the_published_ones() -> None:
    assert uniform_indices(60, 16) == (0, 4, 8, 12, 16, 20, 24, 28, 31, 35, 39, 43, 47, 51, 55, 59)


def test_select_frames_with_a_kept_frame_is_the_published_choice() -> None:
    # Recorded from the published code: case_preprocess_long of the golden figures.
    expected = (0, 4, 8, 12, 16, 20, 23, 28, 31, 35, 39, 43, 47, 51, 55, 59)
    assert select_frames(60, 16, kept=[23]) == expected


def test_select_frames_of_a_short_clip_is_all_of_it() -> None:
    assert select_frames(5, 16, kept=[2]) == (0, 1, 2, 3, 4)


def test_uniform_indices_of_one_frame_is_the_first() -> None:
    assert uniform_indices(60, 1) == (0,)


@given(st.integers(1, 500), counts)
def test_uniform_indices_rise_from_the_first_to_the_last_frame(num_frames: int, count: int) -> None:
    indices = uniform_indices(num_frames, count)
    assert len(indices) == min(num_frames, count)
    assert list(indices) == sorted(set(indices))
    assert indices[0] == 0
    assert count == 1 or indices[-1] == num_frames - 1


@given(st.integers(1, 500), counts, st.integers(0, 9))
def test_random_indices_fall_in_their_segments(num_frames: int, count: int, seed: int) -> None:
    indices = random_indices(num_frames, count, generator=random.Random(seed))
    assert indices == random_indices(num_frames, count, generator=random.Random(seed))
    assert len(indices) == min(num_frames, count)
    if num_frames > count:
        edges = [round(step * (num_frames - 1) / count) for step in range(count + 1)]
        assert all(low <= index < high for low, index, high in zip(edges, indices, edges[1:], strict=False))
        assert num_frames - 1 not in indices


@given(st.data())
def test_keep_frames_includes_every_requested_frame(data: st.DataObject) -> None:
    num_frames = data.draw(st.integers(1, 200))
    indices = uniform_indices(num_frames, data.draw(counts))
    kept = data.draw(st.sets(st.integers(0, num_frames - 1), max_size=len(indices)))
    chosen = keep_frames(indices, kept, num_frames=num_frames)
    assert kept <= set(chosen)
    assert len(chosen) == len(indices)
    assert list(chosen) == sorted(set(chosen))


def test_keep_frames_at_equal_distance_replaces_the_earlier() -> None:
    assert keep_frames((0, 4, 8), [6], num_frames=9) == (0, 6, 8)


def test_keep_frames_outside_the_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="frame 60 is outside the clip of 60 frames: allowed are 0 to 59"):
        select_frames(60, 16, kept=[60])


def test_keep_frames_of_more_than_were_sampled_is_refused() -> None:
    with pytest.raises(ValueError, match="3 frames must be kept, 2 are sampled"):
        select_frames(60, 2, kept=[1, 2, 3])


@pytest.mark.parametrize("arguments", [(0, 4), (-1, 4), (5, 0), (5, -2)])
def test_counts_below_one_are_refused(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 frame"):
        uniform_indices(*arguments)
    with pytest.raises(ValueError, match="at least 1 frame"):
        random_indices(*arguments, generator=random.Random(0))


@pytest.mark.parametrize(("text", "expected"), [("8", (8, 8)), (16, (16, 16)), ("4,8", (4, 8)), (" 4 , 8 ", (4, 8))])
def test_parse_frame_count_reads_numbers_and_ranges(text: str | int, expected: tuple[int, int]) -> None:
    assert parse_frame_count(text) == expected


@pytest.mark.parametrize("text", ["", "a", "8,4", "0", "0,4", "1,2,3", "-3", "2.5"])
def test_parse_frame_count_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="number of frames"):
        parse_frame_count(text)


def test_draw_frame_count_reaches_both_ends() -> None:
    generator = random.Random(0)
    assert {draw_frame_count("2,4", generator=generator) for _ in range(60)} == {2, 3, 4}
