"""The tokenizer and the chat template: turns as text, token ids, and which of them are supervised.

Questions are in `unipixel.processing.prompt_templates`, parsing of answers in `unipixel.processing.answer_parser`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from transformers import AddedToken, AutoTokenizer

from unipixel.memory.injection import MemoryInjection
from unipixel.processing.special_tokens import (
    ADDED_TOKENS,
    CONTROL_TOKENS,
    IM_END,
    IM_START,
    IMAGE_PAD,
    VIDEO_PAD,
    VISION_END,
    VISION_START,
)

if TYPE_CHECKING:
    from unipixel.model.config import UniPixelConfig

BUNDLED_TOKENIZER = Path(__file__).parents[1] / "assets" / "tokenizer"
SYSTEM_PROMPT = "You are a helpful assistant."
Tokenizer: TypeAlias = Any
"""A fast tokenizer of transformers, which has no type annotations."""

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


@dataclass(frozen=True, eq=False)
class Turn:
    """One question of a conversation, with its answer or the beginning of one.

    Attributes:
        question: Text of the user.
        answer: The whole answer; None if the model is to generate it.
        memory: Objects that are new or changed since the last turn; their text precedes the question.
        answer_prefix: Beginning of the answer, which the model continues.
    """

    question: str
    answer: str | None = None
    memory: MemoryInjection | None = None
    answer_prefix: str = ""

    def __post_init__(self) -> None:
        if not self.question.strip():
            raise ValueError("the question is empty: say what is to be answered or segmented")
        if self.answer is not None and not self.answer.strip():
            raise ValueError("the answer is empty: give its text, or None if the model is to generate it")
        if self.answer is not None and self.answer_prefix:
            raise ValueError(f"a turn has an answer or an answer_prefix, got both ({self.answer_prefix!r})")
        for text in (self.question, self.answer or "", self.answer_prefix):
            if found := [token for token in CONTROL_TOKENS if token in text]:
                raise ValueError(f"questions and answers must not contain the control tokens {found}")

    @property
    def user_text(self) -> str:
        """The text of the user's message: the memory, then the question."""
        return (self.memory.text if self.memory else "") + self.question.strip()


@dataclass(frozen=True)
class RenderedText:
    """A conversation as text.

    Attributes:
        text: The conversation with all special tokens.
        supervised: Start and end of each supervised span of the text: each answer with its `<|im_end|>`.
    """

    text: str
    supervised: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class EncodedText:
    """A conversation as token ids.

    Attributes:
        ids: Token ids.
        is_supervised: Whether each token is supervised.
    """

    ids: tuple[int, ...]
    is_supervised: tuple[bool, ...]


def render_conversation(
    turns: Sequence[Turn], *, num_visual_tokens: int = 0, system: str = SYSTEM_PROMPT
) -> RenderedText:
    """Render a conversation from its start in ChatML; a last turn without an answer ends with the generation prompt.

    Args:
        turns: Questions and answers in order.
        num_visual_tokens: Merged tokens of the clip, which precedes the first question; 0 without a clip.
        system: The system prompt.

    Raises:
        ValueError: There is no turn, or a turn before the last has no answer.
    """
    if not turns:
        raise ValueError("a conversation needs at least one turn")
    for index, turn in enumerate(turns[:-1]):
        if turn.answer is None:
            raise ValueError(f"turn {index} of {len(turns)} has no answer: only the last turn may lack one")
    visual = f"{VISION_START}{VIDEO_PAD * num_visual_tokens}{VISION_END}" if num_visual_tokens else ""
    text = f"{IM_START}system\n{system}{IM_END}\n"
    spans: list[tuple[int, int]] = []
    for index, turn in enumerate(turns):
        text += _user_block(turn, visual if index == 0 else "")
        if turn.answer is None:
            text += turn.answer_prefix
        else:
            start = len(text)
            text += turn.answer.strip() + IM_END
            spans.append((start, len(text)))
            text += "\n"
    return RenderedText(text, tuple(spans))


def render_later_turn(turn: Turn, *, has_ended: bool = True) -> RenderedText:
    """Render a turn that continues a conversation after its last answer.

    Args:
        turn: The next question, without an answer.
        has_ended: Whether the last answer ended with `<|im_end|>`; otherwise it is added.

    Raises:
        ValueError: The turn has an answer.
    """
    if turn.answer is not None:
        raise ValueError("a turn that continues a conversation must not have an answer")
    return RenderedText(("" if has_ended else IM_END) + "\n" + _user_block(turn, "") + turn.answer_prefix)


def encode_text(tokenizer: Tokenizer, rendered: RenderedText) -> EncodedText:
    """Tokenize a rendered conversation."""
    encoded = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    flags = [False] * len(encoded["input_ids"])
    spans = iter(rendered.supervised)
    span = next(spans, None)
    for index, (start, end) in enumerate(encoded["offset_mapping"]):
        while span is not None and start >= span[1]:
            span = next(spans, None)
        flags[index] = span is not None and span[0] <= start and end <= span[1]
    return EncodedText(tuple(encoded["input_ids"]), tuple(flags))


def load_tokenizer(folder: str | Path | None = None, *, config: UniPixelConfig | None = None) -> Tokenizer:
    """Load the tokenizer of a checkpoint, or the bundled one, whose tokens are bytes.

    `<|ref|>`, `<|seg|>` and `<|mem|>` are added, in this order, if they are missing. No code of a
    checkpoint is run, and nothing is downloaded.

    Args:
        folder: Folder with the files of a tokenizer; None is the bundled tokenizer.
        config: Configuration whose token ids the tokenizer must have.

    Raises:
        OSError: The folder contains no tokenizer.
        ValueError: A token's id differs from that in the configuration.
    """
    source = BUNDLED_TOKENIZER if folder is None else Path(folder)
    if not any((source / name).is_file() for name in _TOKENIZER_FILES):
        raise OSError(f"{source} contains no tokenizer; expected is one of {', '.join(_TOKENIZER_FILES)}")
    _refuse_remote_code(source / "tokenizer_config.json")
    tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True, trust_remote_code=False)
    known = tokenizer.get_vocab()
    if missing := [token for token in ADDED_TOKENS if token not in known]:
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    if config is not None:
        check_token_ids(tokenizer, config)
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """Return the ids of `<|ref|>`, `<|seg|>` and `<|mem|>`."""
    ref, seg, mem = (int(tokenizer.convert_tokens_to_ids(token)) for token in ADDED_TOKENS)
    return ref, seg, mem


def check_token_ids(tokenizer: Tokenizer, config: UniPixelConfig) -> None:
    """Check that a tokenizer and a model's configuration agree on the ids of special tokens.

    Raises:
        ValueError: They do not, or the tokenizer has more tokens than the model.
    """
    expected = dict(zip(ADDED_TOKENS, (config.ref_token_id, config.seg_token_id, config.mem_token_id), strict=True))
    expected |= {VIDEO_PAD: config.qwen.video_token_id, IMAGE_PAD: config.qwen.image_token_id}
    known = tokenizer.get_vocab()
    for token, model_id in expected.items():
        if known.get(token) != model_id:
            raise ValueError(
                f"{token} is {known.get(token)} in the tokenizer and {model_id} in the model's configuration: "
                "load the tokenizer that the checkpoint was trained with"
            )
    vocabulary = config.qwen.text_config.vocab_size
    if max(known.values()) >= vocabulary:
        raise ValueError(f"the tokenizer has ids up to {max(known.values())}, the model's embedding {vocabulary} rows")


def _user_block(turn: Turn, visual: str) -> str:
    return f"{IM_START}user\n{visual}{turn.user_text}{IM_END}\n{IM_START}assistant\n"


def _refuse_remote_code(file: Path) -> None:
    if not file.is_file():
        return
    fields = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(fields, dict) and fields.get("auto_map"):
        raise ValueError(f"{file.name} requires remote code (auto_map = {fields['auto_map']}): it is refused")
