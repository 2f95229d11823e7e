"""A small byte-pair vocabulary, built from the texts of synthetic samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from unipixel.memory.injection import memory_heading
from unipixel.processing.chat_template import SYSTEM_PROMPT, Tokenizer, load_tokenizer
from unipixel.train.datasets.synthetic import Sample, generate
from unipixel.train.datasets.synthetic import sample_generation as world_samples

_NUM_SAMPLES = 6000


def build_tokenizer(texts: Iterable[str], *, size: int, special_tokens: Sequence[str] | None = None) -> Tokenizer:
    """Learn byte pairs from texts; every other text can still be written, byte by byte.

    Args:
        texts: What the model will read and write, without special tokens.
        size: Tokens of the vocabulary, the 256 bytes and the special tokens included.
        special_tokens: Special tokens, the last ones of the vocabulary; None takes those of the bundled tokenizer.

    Returns:
        The tokenizer.

    Raises:
        ValueError: The size leaves no room for a pair.
    """
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Core
    from transformers import PreTrainedTokenizerFast

    bundled = load_tokenizer()
    special = [token for token, _ in sorted(bundled.get_added_vocab().items(), key=lambda item: item[1])]
    special = special if special_tokens is None else list(special_tokens)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if size <= len(alphabet) + len(special):
        raise ValueError(f"a vocabulary needs more than {len(alphabet) + len(special)} tokens, got {size}")
    core = Core(models.BPE())
    # Digits stand alone, so that ids and frame numbers are read alike wherever they occur.
    pattern = Regex(r"\d| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s+")
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(special), initial_alphabet=sorted(alphabet), min_frequency=4, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    options: dict[str, Any] = {"additional_special_tokens": special, "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=bundled.eos_token, pad_token=bundled.pad_token, **options
    )


def synthetic_texts(*, seed: int, num_samples: int = _NUM_SAMPLES) -> Iterator[str]:
    """Yield what is said about drawn clips, and the texts that the templates lay around it."""
    tasks = [task for task in world_samples.TASKS if task != "track"]
    for number, task in zip(range(num_samples), itertools.cycle(tasks), strict=False):
        sample = generate(seed + number, split="train", task=task, render_size=64, num_frames=8)
        yield from _texts_of(sample)


def _texts_of(sample: Sample) -> Iterator[str]:
    yield f"system\n{SYSTEM_PROMPT}"
    yield memory_heading(len(sample.clip.frames)) + "[1]: <1>-<2>  <3>-<4>  <5>-<6>  <7>-<8> \n"
    for turn in sample.turns:
        yield f"user\n{turn.question}"
        yield f"assistant\n{turn.answer}"
