"""Where a text has to be looked up in itself: what a small model's attention is asked to find.

That an answer depends on words far above is learned slowly from answers alone: every step of the way has to be found
before any of them pays. Each step is known here, and is asked for by itself.

Shape letters: L tokens.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn

from unipixel.memory.injection import MEM
from unipixel.model import UniPixel
from unipixel.tokens import Tokenizer
from unipixel.train.datasets.world.vocabulary import COLOURS, SHAPES, TEXTURES
from unipixel.train.reading import Reading
from unipixel.train.sight_heads import tapped_layer

LinkKind = Literal["owned", "told", "read", "chosen", "carried", "brought"]
_BLOCK = re.compile(r":\n((?:\[\d+\]: [^\n]*\n)+)")
_LINE = re.compile(r"^\[(\d+)\]: ([^\n]*)", re.MULTILINE)
_MENTION = re.compile(r"\[(\d+)\]")
_OPTION = re.compile(r"^\(([A-Z])\) [^\n]*\n", re.MULTILINE)
_CHOICE = re.compile(r"^Answer: ([^\n]*), so the best option is \(([A-Z])\)")
_TURN = re.compile(r"<\|im_start\|>user\n(.*?)<\|im_end\|>\n<\|im_start\|>assistant\n(.*?)<\|im_end\|>", re.DOTALL)
_WORD = re.compile(r"[a-z]{3,}")
_LOOKS = frozenset((*SHAPES, *COLOURS, *TEXTURES))
_EMPTY_WORDS = frozenset(["the", "and", "then", "moves", "option", "best", "object", "shape", "start", "end"])


@dataclass(frozen=True)
class Link:
    """A token that has to look at one of some others above it.

    Attributes:
        kind: `owned`: a token of a line looks at its id, one of an option at its letter. `told`: an id looks at the
            line that says what it names, a word of a choice at its option. `read`: an option, or what a word of an
            answer comes from, looks at the lines of the objects that the question names, and the letter at what was
            said before it. `chosen`: the letter that comes next is that of an option. `carried`: a word of a choice
            knows the letter of its option, by whichever way it came. `brought`: so does what comes before the letter.
        asking: Place of the token that looks.
        targets: Places that it may look at, not empty.
    """

    kind: LinkKind
    asking: int
    targets: tuple[int, ...]


@dataclass(frozen=True)
class _Line:
    """A line of a memory: the id, and the characters of the id and of what is said of it."""

    name: str
    id_start: int
    start: int
    end: int
    told: str


def _line(match: re.Match[str], offset: int) -> _Line:
    """Describe a line that was found in a part of a text, which begins at character `offset`."""
    return _Line(match[1], offset + match.start(1), offset + match.start(2), offset + match.end(2), match[2])


class LinkFinder:
    """Finds the links of conversations from their tokens alone."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Prepare for a model's tokens."""
        self._pieces = [tokenizer.decode([number]) for number in range(len(tokenizer))]

    def find(self, ids: Sequence[int]) -> tuple[Link, ...]:
        """Return the links of one conversation (L,)."""
        text = _Text([self._pieces[number] for number in ids])
        lines = [
            _line(match, block.start(1)) for block in _BLOCK.finditer(text.text) for match in _LINE.finditer(block[1])
        ]
        found: list[Link] = []
        for line in lines:
            own = text.tokens(line.id_start, line.id_start + len(line.name))
            found += [Link("owned", asking, own) for asking in text.tokens(line.start, line.end)]
        for match in _MENTION.finditer(text.text):
            above = [line for line in lines if line.name == match[1] and line.end < match.start()]
            if above:
                found.append(Link("told", text.token(match.end() - 1), text.told(above[-1])))
        for turn in _TURN.finditer(text.text):
            found += _links_of_turn(text, turn, {line.name: line for line in lines if line.end < turn.start(2)})
        return tuple(dict.fromkeys(found))


class _Text:
    """A text and its tokens."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.text = "".join(pieces)
        self._pieces = pieces
        self._starts = [0, *accumulate(map(len, pieces))]

    def token(self, place: int) -> int:
        """Return the token that a character is part of."""
        return bisect_right(self._starts, place) - 1

    def tokens(self, start: int, end: int) -> tuple[int, ...]:
        """Return the tokens of characters from `start` up to `end`."""
        return tuple(range(self.token(start), self.token(end - 1) + 1))

    def told(self, line: _Line) -> tuple[int, ...]:
        """Return the tokens that say what a line is about: where it holds memory tokens, only they know."""
        own = self.tokens(line.start, line.end)
        return tuple(place for place in own if self._pieces[place] == MEM) or own

    def is_start(self, place: int) -> bool:
        """Whether a token begins at a character, or at the space before it."""
        return self.text[self._starts[self.token(place)] : place] in ("", " ")


def _links_of_turn(text: _Text, turn: re.Match[str], lines: dict[str, _Line]) -> list[Link]:
    found = []
    options = list(_OPTION.finditer(text.text, turn.start(1), turn.end(1)))
    for option in options:
        letter = text.token(option.start(1))
        own = text.tokens(option.end(1) + 2, option.end())
        found += [Link("owned", asking, (letter,)) for asking in own]
    asked = turn[1].rpartition("]: ")[2].partition("\n")[2] if "]: " in turn[1] else turn[1]
    named = [lines[name] for name in dict.fromkeys(_MENTION.findall(asked.partition("Options:")[0])) if name in lines]
    everything = tuple(place for line in named for place in text.told(line))
    if everything:
        found += [Link("read", text.token(option.end() - 1), everything) for option in options]
        found.append(Link("read", text.token(turn.start(2)) - 1, everything))
    match = _CHOICE.match(turn[2])
    chosen = [option for option in options if match is not None and option[1] == match[2]]
    if match is not None and chosen:
        first = turn.start(2)
        words, letter = text.tokens(first + match.start(1), first + match.end(1)), first + match.start(2)
        found += [Link("read", place - 1, everything) for place in words if everything]
        # What was said finds the option that says it too, and the letter finds what was said.
        its_option = text.tokens(*chosen[0].span())
        found += [Link("told", place, its_option) for place in words]
        found += [Link("carried", place, (text.token(chosen[0].start(1)),)) for place in words]
        found.append(Link("read", text.token(letter) - 1, words))
        found.append(Link("chosen", text.token(letter) - 1, its_option))
        found.append(Link("brought", text.token(letter) - 1, (text.token(chosen[0].start(1)),)))
    for said, targets in _takes(text, turn, lines, named):
        if text.is_start(said):
            found.append(Link("read", text.token(said) - 1, targets or everything))
    return found


def _takes(
    text: _Text, turn: re.Match[str], lines: dict[str, _Line], named: Sequence[_Line]
) -> list[tuple[int, tuple[int, ...]]]:
    """Characters that begin words which an answer takes from a line, and the tokens where they stand."""
    takes: list[tuple[int, tuple[int, ...]]] = []
    for match in _LINE.finditer(turn[2]):
        line = lines.get(match[1])
        if line is not None and line.told == match[2]:
            takes += [
                (turn.start(2) + match.start(2) + place, (text.token(line.start + place),))
                for place in range(len(line.told))
                if text.is_start(turn.start(2) + match.start(2) + place)
            ]
    if not takes and len(named) == 1:
        for match in _WORD.finditer(turn[2].lower()):
            place = named[0].told.lower().find(match[0])
            if match[0] not in _EMPTY_WORDS and (place >= 0 or match[0] in _LOOKS):
                targets = (text.token(named[0].start + place),) if place >= 0 else ()
                takes.append((turn.start(2) + match.start(), targets))
    return list(dict.fromkeys(takes))


def link_layers(model: UniPixel) -> dict[LinkKind, int]:
    """Return the layer of the language model that looks for each kind: owners first, letters of options last.

    What is `carried` and `brought` is not looked for: `OwnerReader` asks for it after the layers of `told` and `read`.
    """
    count = len(model.model.language_model.layers)
    return {"owned": 0, "told": min(1, count - 1), "read": max(tapped_layer(model) - 1, 0), "chosen": count - 1}


def link_losses(model: UniPixel, reading: Reading, links: Sequence[Sequence[Link]]) -> dict[str, Tensor]:
    """Ask some heads to look where the links say.

    Args:
        model: Whose reading it is.
        reading: Of a batch; holds the states before each of `link_layers`.
        links: Of each conversation.

    Returns:
        By kind the mean negative logarithm of the share of attention that falls where it should; 0 without any.
    """
    return {kind: _link_loss(*reading.heads(layer), links, kind) for kind, layer in link_layers(model).items()}


class OwnerReader(nn.Module):
    """Reads from a state the id or the letter that its token belongs to, as the words that the model writes.

    Where attention has to look says nothing of what it brings back: over several steps that is found late, because
    every one of them has to bring it before any is of use. One reader for all steps asks them to hand it on alike.
    """

    def __init__(self, width: int) -> None:
        """Build the reader for states of a width D."""
        super().__init__()
        self.layers = nn.Sequential(nn.RMSNorm(width, eps=1e-6), nn.Linear(width, width, bias=False))

    def forward(self, model: UniPixel, reading: Reading, ids: Tensor, links: Sequence[Sequence[Link]]) -> Tensor:
        """Return the mean cross-entropy over each of `owned`, `carried` and `brought` links, added up; 0 without any.

        Args:
            model: Whose reading it is.
            reading: Of a batch; holds the states after the layers of `link_layers` that bring these.
            ids: (B, L) tokens.
            links: Of each conversation.
        """
        layers = link_layers(model)
        losses = [reading.hidden.new_zeros(())]
        for kind, layer in (("owned", layers["owned"]), ("carried", layers["told"]), ("brought", layers["read"])):
            found = [(row, link.asking, link.targets[0]) for row, own in enumerate(links) for link in own
                     if link.kind == kind]  # fmt: skip
            rows, asking, targets = torch.tensor(found, dtype=torch.long, device=ids.device).view(-1, 3).unbind(dim=1)
            scores = self.layers(reading.after(layer)[rows, asking]) @ model.lm_head.weight.T
            if len(rows):
                losses.append(nn.functional.cross_entropy(scores.float(), ids[rows, targets]))
        return torch.stack(losses).sum()


def _link_loss(queries: Tensor, keys: Tensor, links: Sequence[Sequence[Link]], kind: LinkKind) -> Tensor:
    places = torch.arange(keys.shape[2], device=keys.device)
    losses = [queries.new_zeros(0)]
    for row, own in enumerate(links):
        chosen = [link for link in own if link.kind == kind]
        if not chosen:
            continue
        asking = torch.tensor([link.asking for link in chosen], device=keys.device)
        scores = queries[row][:, asking] @ keys[row].transpose(-1, -2) * queries.shape[-1] ** -0.5  # (H, links, L)
        logs = scores.masked_fill(places > asking[:, None], float("-inf")).log_softmax(dim=-1)
        is_there = torch.zeros(logs.shape[1:], dtype=torch.bool)
        for number, link in enumerate(chosen):
            is_there[number, list(link.targets)] = True
        there = logs.masked_fill(~is_there.to(keys.device), float("-inf"))
        losses.append(-there.logsumexp(dim=-1).flatten())
    together = torch.cat(losses)
    return together.mean() if len(together) else together.sum()


def asked_layers(model: UniPixel) -> set[int]:
    """Return the layers whose states `link_losses` and `OwnerReader` look at; -1 is the text itself."""
    layers = link_layers(model)
    return {layer - 1 for layer in layers.values()} | {layers["owned"], layers["told"], layers["read"]}
