"""Questions about two prompted objects; most answers change when their masks are exchanged."""

from __future__ import annotations

import numpy as np

from unipixel.train.datasets.synthetic.labels import FALSE, TRUE, UNKNOWN, SceneLabels, Truth
from unipixel.train.datasets.synthetic.language.answers import DraftedQuestion, QuestionDrafter, Topic
from unipixel.train.datasets.synthetic.language.comparisons import compare_all
from unipixel.train.datasets.synthetic.language.phrases import full_traits, motion_verb, pick, with_article

_CONTACTS = {
    "touches": ("Does {} touch {}?", "Do {} and {} touch?"),
    "overtakes": ("Does {} overtake {}?", "Does {} pass {} on the way?"),
    "behind": ("Does {} hide behind {}?", "Is {} hidden by {}?", "Does {} go behind {}?"),
    "follows": ("Does {} follow {}?", "Does {} keep behind {} along the same path?"),
    "front": ("Does {} hide {}?", "Is {} in front of {}?"),
}
_SIDE_WORDS = {"left_of": "left of", "right_of": "right of", "above": "above", "below": "below"}


def _pair_table(rng: np.random.Generator, labels: SceneLabels) -> tuple[str, tuple[str, ...], Truth]:
    """Draw a relation of two objects: its name, its wordings and its truth (O, O)."""
    kind = rng.random()
    if kind < 0.52:
        word = pick(rng, ("touches", "overtakes", "behind", "follows", "front", "behind", "overtakes"))
        return word, _CONTACTS[word], labels.relations[word]
    if kind < 0.78:
        word, when = pick(rng, tuple(_SIDE_WORDS)), pick(rng, ("start", "end"))
        return word, (f"Is {{}} {_SIDE_WORDS[word]} {{}} at the {when}?",), labels.directions_at[when][word]
    if kind < 0.9:
        word = pick(rng, ("larger", "faster", "smaller", "slower"))
        verb = "Does {} move" if word in ("faster", "slower") else "Is {}"
        table = np.stack([compare_all(labels, other, word) for other in range(labels.num_objects)], axis=1)
        return word, (f"{verb} {word} than {{}}?",), table
    word = pick(rng, ("shape", "colour"))
    values = np.array([getattr(obj, word) for obj in labels.objects])
    return f"same_{word}", (f"Do {{}} and {{}} have the same {word}?",), (values[:, None] == values).astype(np.int8)


def relation(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask whether a relation is true of two objects."""
    word, wordings, table = _pair_table(rng, labels)
    pool = np.array(topic.pool)
    among = table[np.ix_(pool, pool)].copy()
    np.fill_diagonal(among, UNKNOWN)
    if not (among == TRUE).any() or not (among == FALSE).any():
        return None
    pairs = np.argwhere(among == (TRUE if topic.wanted else FALSE))
    a, b = (int(row) for row in pool[pairs[int(rng.integers(len(pairs)))]])
    right, wrong = ("yes", "no") if topic.wanted else ("no", "yes")
    reversed_truth = int(table[b, a])
    exchanged = wrong if reversed_truth not in (UNKNOWN, int(table[a, b])) else None
    text = pick(rng, wordings).format(topic.names[a], topic.names[b])
    return DraftedQuestion(word, text, right, (wrong,), "", (a, b), exchanged)


def which(rng: np.random.Generator, labels: SceneLabels, topic: Topic) -> DraftedQuestion | None:
    """Ask which of two objects is larger, faster, red, or moves left."""
    a, b = (int(row) for row in rng.permutation(topic.pool)[:2])
    kind = rng.random()
    if kind < 0.35:
        word = pick(rng, ("larger", "smaller", "faster", "slower"))
        truth = int(compare_all(labels, b, word)[a]), int(compare_all(labels, a, word)[b])
        clause = f"moves {word}" if word in ("faster", "slower") else f"is {word}"
    elif kind < 0.7:
        word = pick(rng, list(labels.motion))
        truth = int(labels.motion[word][a]), int(labels.motion[word][b])
        clause = motion_verb(rng, word).third
    else:
        word = pick(rng, ("shape", "colour", "texture"))
        values = [getattr(full_traits(labels, row), word) for row in (a, b)]
        if None in values or values[0] == values[1]:
            return None
        wanted = pick(rng, values)
        truth = int(values[0] == wanted), int(values[1] == wanted)
        clause = f"is {with_article(wanted) if word == 'shape' else wanted}"
    if sorted(truth) != [FALSE, TRUE]:
        return None
    right, other = (a, b) if truth[0] == TRUE else (b, a)
    answer, wrong = topic.names[right], topic.names[other]
    text = pick(rng, (f"Which of {{}} and {{}} {clause}?", f"Which one {clause}, {{}} or {{}}?"))
    text = text.format(topic.names[a], topic.names[b])
    return DraftedQuestion(f"which_{word}", text, answer, (wrong,), "", (a, b), wrong)


TWO_OBJECTS: tuple[tuple[QuestionDrafter, float], ...] = ((relation, 0.6), (which, 0.4))
