"""Synthetic samples with several questions: seeds and further questions."""

from __future__ import annotations

from unipixel.train.datasets.synthetic import TASKS
from unipixel.train.datasets.synthetic_vqa import SyntheticVqa


def test_seeds_of_all_tasks_and_numbers_differ() -> None:
    # The last two names have the same bytes in another order.
    tasks = (*TASKS, *(f"image:{task}" for task in TASKS), "ab", "ba")
    sources = [SyntheticVqa(seed=seed) for seed in (3, 4)]
    seeds = [source.sample_seed(task, number) for source in sources for task in tasks for number in range(200)]
    assert len(set(seeds)) == len(seeds)


def test_further_questions_about_a_clip_differ() -> None:
    source = SyntheticVqa(seed=3, num_frames=6, render_size=64, max_turns=5)
    samples = [source.draw("segment/attribute", number) for number in range(8)]
    assert any(len(sample.turns) > 2 for sample in samples)
    for sample in samples:
        questions = [turn.question for turn in sample.turns]
        assert len(set(questions)) == len(questions)
