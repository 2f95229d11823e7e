"""Phrases alone: a language model that comes from nothing learns to listen before it learns to look.

What a phrase says of an object must reach the state that its mask comes from. Where the words stand among
hundreds of visual tokens that mean nothing yet, that is not learned; without the tokens it takes minutes.

Shape letters: B conversations, L tokens, G masks, A attributes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from unipixel.inputs import ModelInputs
from unipixel.model import UniPixel
from unipixel.processor import Processor, Sample
from unipixel.special import SEG
from unipixel.templates import segmentation_question
from unipixel.tokens import Turn
from unipixel.train.datasets.world.vocabulary import COLOURS, SHAPES, TEXTURES
from unipixel.train.links import Link, LinkFinder, OwnerReader, asked_layers, link_losses
from unipixel.train.losses import IGNORED_LABEL
from unipixel.train.reading import read
from unipixel.train.schedule import GroupSchedule, LengthWindows
from unipixel.train.sight import LOOK_SIZES
from unipixel.train.sight_heads import LookReader, tapped_layer
from unipixel.train.tales import draw_tale

_NOUNS = ("object", "shape", "thing", "figure", "one")
_ANSWERS = (f"It is {SEG}.", f"Sure, it is {SEG}.", f"The mask is {SEG}.")
_MENTIONED = 0.6
# Most of a tale is the scene, which cannot be foreseen; what counts is what is made of it.
_SCENE_WEIGHT = 0.1
_LINK_WEIGHT = 0.5


@dataclass(frozen=True)
class WordBatch:
    """Conversations without a clip.

    Attributes:
        encoded: Their tokens; every one of them is learned, those of answers twice.
        named: (G, A) numbers of the words that each phrase says, -1 where it does not say the attribute.
        links: What each conversation has to look up in itself.
        broken: None of them are.
    """

    encoded: Sample
    named: Tensor
    links: tuple[tuple[Link, ...], ...]
    broken: tuple[()] = ()


def draw_phrases(seed: int, *, max_turns: int) -> tuple[list[Turn], list[list[int]]]:
    """Ask for up to `max_turns` objects by phrases; return the turns and what each phrase says."""
    generator = random.Random(seed)
    turns, named = [], []
    for _ in range(generator.randint(1, max_turns)):
        said = [generator.randrange(len(words)) + 1 if generator.random() < _MENTIONED else -1
                for words in (SHAPES, COLOURS, TEXTURES)]  # fmt: skip
        shape, colour, texture = said
        adjectives = [words[number - 1] for words, number in ((COLOURS, colour), (TEXTURES, texture)) if number > 0]
        generator.shuffle(adjectives)
        noun = SHAPES[shape - 1] if shape > 0 else generator.choice(_NOUNS)
        phrase = " ".join(("the", *adjectives, noun))
        num_frames = generator.choice((1, 8))
        question = segmentation_question(phrase, num_frames=num_frames, generator=generator)
        turns.append(Turn(question, generator.choice(_ANSWERS)))
        named.append(said)
    return turns, named


_KINDS = {"phrases": draw_phrases, "tales": draw_tale}


class WordDataset(Dataset):
    """Conversations of a run in batches of one kind: `phrases`, or `tales` of scenes."""

    def __init__(self, schedule: GroupSchedule, *, seed: int, max_turns: int, batch_size: int, window: int = 1) -> None:
        """Describe a run.

        Args:
            schedule: Order of the two kinds.
            seed: Decides them all.
            max_turns: Questions of a conversation at most.
            batch_size: Conversations of a round over all processes.
            window: Rounds of a kind that are dealt out by length, see `LengthWindows`.
        """
        self._schedule, self._seed, self._max_turns = schedule, seed, max_turns
        self._windows = LengthWindows(self._draw, _length, batch_size=batch_size, num_batches=window)

    def __len__(self) -> int:
        """Conversations of the run."""
        return len(self._schedule)

    def __getitem__(self, index: int) -> tuple[list[Turn], list[list[int]]]:
        """Return the turns and the looks behind each `<|seg|>`.

        Raises:
            ValueError: The recipe names a kind that there is not.
        """
        return self._windows.item(*self._schedule.place(index))

    def _draw(self, kind: str, number: int) -> tuple[list[Turn], list[list[int]]]:
        if kind not in _KINDS:
            raise ValueError(f"words are {sorted(_KINDS)}, the recipe asks for {kind!r}")
        return _KINDS[kind](self._seed * 1_000_003 + number, max_turns=self._max_turns)


def _length(item: tuple[list[Turn], list[list[int]]]) -> int:
    """Characters of a conversation: what its tokens will be told apart by well enough."""
    return sum(len(turn.question) + len(turn.answer or "") for turn in item[0])


class PhraseCollator:
    """Writes conversations down for one model."""

    def __init__(self, processor: Processor) -> None:
        """Prepare for a processor's tokens."""
        self._processor = processor
        self._finder = LinkFinder(processor.tokenizer)

    def __call__(self, items: Sequence[tuple[list[Turn], list[list[int]]]]) -> dict[str, WordBatch]:
        """Return the batch under the objective's keyword."""
        samples = [self._processor.encode(turns) for turns, _ in items]
        links = tuple(self._finder.find(sample.inputs.input_ids[0].tolist()) for sample in samples)
        named = torch.tensor([said for _, own in items for said in own], dtype=torch.long)
        named = named.reshape(-1, len(LOOK_SIZES))
        return {"batch": WordBatch(self._processor.stack(samples), named, links)}


class WordsObjective(nn.Module):
    """A model's language model, which reads phrases and tales and answers what they say."""

    def __init__(self, model: UniPixel) -> None:
        super().__init__()
        self.model = model
        self.looks = LookReader(model.config.width)
        self.owners = OwnerReader(model.config.width)

    def forward(self, batch: WordBatch) -> dict[str, Tensor]:
        """Return `loss` and its parts."""
        inputs = batch.encoded.inputs.to(self.model.device)
        embedded = self.model.embed(inputs, ())
        asked = tapped_layer(self.model) - 1
        reading = read(self.model, embedded, after={asked, *asked_layers(self.model)})
        text, answers = self._text_losses(reading.hidden, inputs, batch.encoded.labels.to(self.model.device))
        is_named = inputs.input_ids[:, 1:] == self.model.config.seg_token_id
        naming, right = self.looks(reading.after(asked)[:, :-1][is_named], batch.named.to(self.model.device))
        links = link_losses(self.model, reading, batch.links)
        links["carried"] = self.owners(self.model, reading, inputs.input_ids, batch.links)
        figures = {"text": text, "answers": answers, "naming": naming, **links}
        parts = {name: value.detach() for name, value in figures.items()}
        loss = _SCENE_WEIGHT * text + answers + naming + _LINK_WEIGHT * torch.stack(list(links.values())).sum()
        return {"loss": loss, "right": right, **parts}

    def _text_losses(self, hidden: Tensor, inputs: ModelInputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy over all tokens, and over the answers, each of which counts the same."""
        real = torch.ones_like(labels, dtype=torch.bool) if inputs.attention_mask is None else inputs.attention_mask
        is_real = real[:, 1:]
        scores = self.model.logits(hidden[:, :-1][is_real])
        losses = nn.functional.cross_entropy(scores.float(), inputs.input_ids[:, 1:][is_real], reduction="none")
        is_answer = labels != IGNORED_LABEL
        # A conversation begins with no answer, so each run of supervised tokens is one.
        begins = is_answer[:, 1:] & ~is_answer[:, :-1]
        numbers = begins.flatten().cumsum(0).view_as(begins)[is_real][is_answer[:, 1:][is_real]] - 1
        sums = losses.new_zeros(int(begins.sum())).index_add(0, numbers, losses[is_answer[:, 1:][is_real]])
        return losses.mean(), (sums / numbers.bincount(minlength=len(sums))).mean()
