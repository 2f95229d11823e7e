"""Scenes told in words: a language model that comes from nothing learns to answer before it learns to look.

What stands behind the `<|mem|>` of an object in a conversation about a clip is said here in its place. Which option
is right, how many objects are meant and whether there is such an object at all are then questions about a text.
"""

from __future__ import annotations

import numpy as np

from unipixel.memory.injection import memory_heading
from unipixel.tokens import Turn
from unipixel.train.datasets.world.facts import TRUE, UNKNOWN, Facts
from unipixel.train.datasets.world.language.answers import motion_summary, place_word
from unipixel.train.datasets.world.language.phrases import full_traits, noun_phrase
from unipixel.train.datasets.world.language.queries import KINDS, segmentation_turn
from unipixel.train.datasets.world.language.questions import pixelqa_turn
from unipixel.train.datasets.world.samples import imagine
from unipixel.train.datasets.world.schema import Turn as DrawnTurn
from unipixel.train.datasets.world.schema import finished
from unipixel.train.datasets.world.vocabulary import COLOURS, SHAPES, TEXTURES, held_out

_MOST_OBJECTS = 4
_NUM_FRAMES = 8
# Ids of objects are the first numbers, or, in this share of the tales, any of these.
_ANY_ID_SHARE, _NUM_IDS = 0.33, 16
_SEGMENT_SHARE = 0.35
_COUNTS = (0.25, 0.5, 0.25)
_NO_TURN_AFTER = 12
# Share of the tales that open with all of it said again in another order: few words of other answers can be found
# in the text, so that looking there is learned slowly from them.
_RETOLD_SHARE = 0.6
_RETELL = ("List the highlighted regions.", "What is highlighted?", "Describe every highlighted region.")
_BONDS = (("behind", "goes behind"), ("overtakes", "overtakes"), ("follows", "follows"), ("touches", "touches"))


def draw_tale(seed: int, *, max_turns: int) -> tuple[list[Turn], list[list[int]]]:
    """Tell a scene and ask about it.

    Args:
        seed: Decides everything.
        max_turns: Questions at most, beside that to tell it again.

    Returns:
        The turns, the first of which tells the scene, and the looks behind each `<|seg|>`.
    """
    rng = np.random.default_rng([seed, 13])
    facts = imagine(seed, split="train", num_frames=_NUM_FRAMES, most_objects=_MOST_OBJECTS)
    rows = [int(row) for row in rng.permutation(facts.num_objects)]
    numbers = rng.permutation(_NUM_IDS) if rng.random() < _ANY_ID_SHARE else np.arange(1, len(rows) + 1)
    ids = {row: int(number) for row, number in zip(rows, numbers, strict=False)}
    drafted: list[DrawnTurn] = []
    wanted = int(rng.integers(1, max_turns + 1))
    for _ in range(_NO_TURN_AFTER):
        if len(drafted) == wanted:
            break
        turn = _draft(rng, facts)
        if turn is not None and turn.question not in (other.question for other in drafted):
            drafted.append(turn)
    lines = {row: _tell(rng, facts, row, ids) for row in rows}
    told = "".join(lines[row] + "\n" for row in sorted(rows, key=ids.__getitem__))
    if not drafted or rng.random() < _RETOLD_SHARE:
        again = "\n".join(lines[int(row)] for row in rng.permutation(rows))
        drafted.insert(0, DrawnTurn(_RETELL[int(rng.integers(len(_RETELL)))], again))
    turns: list[Turn] = []
    for turn in drafted:
        asked = finished(turn, ids)
        opening = "" if turns else memory_heading(_NUM_FRAMES) + told
        turns.append(Turn(opening + asked.question, asked.answer))
    return turns, [_look_numbers(facts, row) for turn in drafted for row in turn.target_ids]


def _draft(rng: np.random.Generator, facts: Facts) -> DrawnTurn | None:
    forbidden = held_out("train")
    if rng.random() < _SEGMENT_SHARE:
        return segmentation_turn(
            rng, facts, kind=str(rng.choice(KINDS)), forbidden=forbidden, num_frames=_NUM_FRAMES, is_fixed=False,
            counts=_COUNTS,
        )  # fmt: skip
    count = 2 if facts.num_objects > 1 and rng.random() < 0.5 else 1
    is_choice = bool(rng.random() < 0.65)
    pool = tuple(range(facts.num_objects))
    found = pixelqa_turn(rng, facts, pool=pool, count=count, is_choice=is_choice, forbidden=forbidden)
    return None if found is None else found[0]


def _tell(rng: np.random.Generator, facts: Facts, row: int, ids: dict[int, int]) -> str:
    """A line with all that is clear about an object."""
    parts = [_look(rng, facts, row)]
    places = [(when, place_word(facts, row, index)) for when, index in (("start", 0), ("end", -1))]
    parts += [f"{word} at the {when}" for when, word in places if word is not None]
    clause = motion_summary(facts, row)
    if clause is not None and facts.motion["moves"][row] != UNKNOWN:
        parts.append(clause)
    for other in ids:
        parts += [f"{verb} [{ids[other]}]" for word, verb in _BONDS if facts.relations[word][row, other] == TRUE]
    return f"[{ids[row]}]: {', '.join(parts)}"


def _look(rng: np.random.Generator, facts: Facts, row: int) -> str:
    return noun_phrase(rng, full_traits(facts, row))


def _look_numbers(facts: Facts, row: int) -> list[int]:
    obj = facts.objects[row]
    looks = ((SHAPES, obj.shape), (COLOURS, obj.colour), (TEXTURES, obj.texture))
    return [words.index(word) + 1 for words, word in looks]
