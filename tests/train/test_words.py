"""Phrases without a clip: what is asked of the model is what the phrase says."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from byte_model import byte_config

from unipixel.processor import Processor
from unipixel.special import SEG
from unipixel.tokens import load_tokenizer
from unipixel.train.datasets.world.vocabulary import COLOURS, SHAPES, TEXTURES
from unipixel.train.recipe_files import load_recipe
from unipixel.train.schedule import GroupSchedule
from unipixel.train.sight_heads import attention_loss
from unipixel.train.stages import prepare
from unipixel.train.tales import draw_tale
from unipixel.train.words import PhraseCollator, WordDataset, draw_phrases


def test_phrases_say_what_is_asked_of_them() -> None:
    counts = set()
    for turns, named in (draw_phrases(seed, max_turns=3) for seed in range(200)):
        counts.add(len(turns))
        for turn, said in zip(turns, named, strict=True):
            words = set(re.findall(r"[a-z]+", turn.question))
            for row, number in zip((SHAPES, COLOURS, TEXTURES), said, strict=True):
                mentioned = [place + 1 for place, word in enumerate(row) if word in words]
                assert mentioned == ([number] if number > 0 else [])
    assert counts == {1, 2, 3}


def test_tales_tell_of_every_object_that_is_asked_about() -> None:
    num_segments = num_colours = 0
    for index in range(60):
        turns, named = draw_tale(index, max_turns=4)
        told = dict(re.findall(r"^\[(\d+)\]: (.*)$", turns[0].question, re.MULTILINE))
        assert told
        segments = sum((turn.answer or "").count(SEG) for turn in turns)
        assert segments == len(named)
        num_segments += segments
        looks = []
        for text in told.values():
            words = set(re.findall(r"[a-z]+", text.split(",")[0]))
            assert len(words & set(SHAPES)) == len(words & set(COLOURS)) == 1
            looks.append(words)
        for shape, colour, _ in named:
            assert any({SHAPES[shape - 1], COLOURS[colour - 1]} <= words for words in looks)
        for turn in turns:
            text = turn.question + (turn.answer or "")
            assert set(re.findall(r"\[(\d+)\]", text)) <= set(told)
            match = re.search(r"What colour is \[(\d+)\]\?", turn.question)
            if match:
                num_colours += 1
                answer = set(re.findall(r"[a-z]+", (turn.answer or "").lower())) & set(COLOURS)
                assert answer <= set(re.findall(r"[a-z]+", told[match.group(1)]))
    assert num_segments > 5
    assert num_colours > 0
    (once, _), (again, _) = (draw_tale(7, max_turns=4) for _ in range(2))
    assert [(turn.question, turn.answer) for turn in once] == [(turn.question, turn.answer) for turn in again]


def test_words_of_a_kind_that_there_is_not_are_refused() -> None:
    schedule = GroupSchedule({"poems": 1.0}, num_rounds=1, batch_size=2, seed=0)
    with pytest.raises(ValueError, match=r"\['phrases', 'tales'\], the recipe asks for 'poems'"):
        WordDataset(schedule, seed=0, max_turns=2, batch_size=2)[0]


def test_collator_has_a_row_per_mask_and_no_clip() -> None:
    processor = Processor(byte_config(), load_tokenizer())
    batch = PhraseCollator(processor)([draw_phrases(seed, max_turns=3) for seed in range(4)])["batch"]
    ids = batch.encoded.inputs.input_ids
    assert int((ids == processor.config.seg_token_id).sum()) == len(batch.named)
    assert not batch.encoded.inputs.videos


def test_words_stage_moves_the_language_model_alone(tmp_path: Path) -> None:
    job = prepare(load_recipe("nano/words", [f"output={tmp_path}", "model={sizes='sizes.toml'}", "loop.batch_size=2"]))
    figures = job.objective(**job.collate([job.dataset[0], job.dataset[1]]))
    figures["loss"].backward()
    moved = {name for name, value in job.objective.named_parameters() if value.grad is not None and value.grad.any()}
    assert any("language_model.layers.0.self_attn" in name for name in moved)
    assert not any(part in name for name in moved for part in ("visual", "sam2", "seg_head", "msk_proj"))


def test_attention_that_is_even_costs_the_logarithm_of_what_is_seen() -> None:
    queries, keys = torch.zeros(1, 2, 6, 4), torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    masks = torch.tensor([[False, False, False, False, True, False]])
    cells = torch.tensor([[False, True, True, True, False, False]])
    covers = [torch.tensor([[0.0, 0.5, 0.5]])]
    even = attention_loss(queries, keys, asking=masks, cells=cells, covers=covers)
    # The state and the four tokens before it; the one after it is out of reach.
    assert math.isclose(even.item(), math.log(5), rel_tol=1e-5)
    queries[0, :, 4, 0], keys[0, :, :, 0] = 100.0, torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 9.0])
    sure = attention_loss(queries, keys, asking=masks, cells=cells, covers=covers)
    assert math.isclose(sure.item(), math.log(2), rel_tol=1e-4)
